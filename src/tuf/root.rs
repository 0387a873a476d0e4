//! Root metadata: which keys may sign which role, and the chain from one root to the next.
//!
//! Owns the rule that every [`Root`] that was parsed or rendered is complete: each role's threshold can be met, by
//! distinct ed25519 keys that the root holds. Roots come from ceremonies, hence from outside: unknown fields are
//! passed over and everything that is wrong is `Invalid`. Source: TUF specification 1.0.34, §4.3 and §5.3.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::{format_utc, parse_utc};
use crate::error::Kind;
use crate::tuf::SPEC_VERSION;
use crate::tuf::canonical;
use crate::tuf::envelope::{Envelope, seal};
use crate::tuf::key::{KeyId, PublicKey, Signer};
use crate::{Error, Result};

/// The keys of a role and how many of them must sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleKeys {
    /// Sorted, no id twice.
    pub key_ids: Vec<KeyId>,
    /// 1 up to the number of keys.
    pub threshold: u32,
}

/// The signed part of a `root.json`. Bins are delegated to the targets role's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// 1, 2, 3, …; each root is signed by the keys of the one before it as well.
    pub version: u64,
    /// Unix seconds.
    pub expires: u64,
    /// All keys, each under its own id.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// Who signs the next root.
    pub root: RoleKeys,
    /// Who signs `targets.json` and the bins.
    pub targets: RoleKeys,
    /// Who signs snapshots.
    pub snapshot: RoleKeys,
    /// Who signs timestamps.
    pub timestamp: RoleKeys,
}

/// A role as it stands in metadata.
#[derive(Serialize, Deserialize)]
pub(super) struct RoleFields {
    pub keyids: Vec<KeyId>,
    pub threshold: u32,
}

impl RoleKeys {
    /// Makes a role of any order of key ids.
    pub fn new(mut key_ids: Vec<KeyId>, threshold: u32) -> RoleKeys {
        key_ids.sort_unstable();
        RoleKeys { key_ids, threshold }
    }

    /// Reads a role of metadata and checks it against `keys`.
    ///
    /// # Errors
    /// `Invalid`, see [`RoleKeys::check`].
    pub(super) fn from_fields(fields: RoleFields, keys: &BTreeMap<KeyId, PublicKey>) -> Result<RoleKeys> {
        let role = RoleKeys::new(fields.keyids, fields.threshold);
        role.check(keys)?;
        Ok(role)
    }

    fn to_value(&self) -> Value {
        json!({"keyids": self.key_ids, "threshold": self.threshold})
    }

    /// # Errors
    /// `Invalid` if ids are unsorted, repeated or without a key, or if the threshold is 0 or more than the keys.
    fn check(&self, keys: &BTreeMap<KeyId, PublicKey>) -> Result<()> {
        if let Some(pair) = self.key_ids.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(Error::invalid("keyids", format!("key {} stands twice or out of order", pair[1])));
        }
        if let Some(id) = self.key_ids.iter().find(|id| !keys.contains_key(id)) {
            return Err(Error::invalid("keyids", format!("there is no key {id}")));
        }
        if self.threshold == 0 || self.threshold as usize > self.key_ids.len() {
            let (threshold, count) = (self.threshold, self.key_ids.len());
            return Err(Error::invalid(
                "threshold",
                format!("expected 1 to {count}, the number of keys, found {threshold}"),
            ));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct RootFields {
    #[serde(rename = "_type")]
    kind: String,
    consistent_snapshot: bool,
    expires: String,
    keys: BTreeMap<String, Value>,
    roles: RolesFields,
    spec_version: String,
    version: u64,
}

#[derive(Deserialize)]
struct RolesFields {
    root: RoleFields,
    targets: RoleFields,
    snapshot: RoleFields,
    timestamp: RoleFields,
}

impl Root {
    /// Renders `N.root.json`, signed by all of `signers`: for a rotation the old root's keys and the new one's.
    ///
    /// # Errors
    /// `Invalid` if the root is incomplete; see [`Root::check`].
    pub fn render(&self, signers: &[Arc<Signer>]) -> Result<Vec<u8>> {
        self.check()?;
        let keys: BTreeMap<String, Value> =
            self.keys.iter().map(|(id, key)| (id.to_string(), key.to_value())).collect();
        let signed = canonical::to_vec(&json!({
            "_type": "root",
            "consistent_snapshot": true,
            "expires": format_utc(self.expires),
            "keys": keys,
            "roles": {
                "root": self.root.to_value(),
                "snapshot": self.snapshot.to_value(),
                "targets": self.targets.to_value(),
                "timestamp": self.timestamp.to_value(),
            },
            "spec_version": SPEC_VERSION,
            "version": self.version,
        }))?;
        Ok(seal(signers, |out| out.extend_from_slice(&signed)))
    }

    /// Reads a root; its signatures are not checked yet.
    ///
    /// # Errors
    /// `Invalid` for any other shape, an incomplete root, a key that is not ed25519 or stands under another id than its
    /// own, and a signed part that is not canonical JSON: clients render it again before they check signatures.
    pub fn parse(bytes: &[u8]) -> Result<(Root, Envelope<'_>)> {
        let envelope = Envelope::open(bytes).map_err(from_outside)?;
        let signed = canonical::parse(envelope.signed)?;
        let mut again = Vec::with_capacity(envelope.signed.len());
        canonical::write(&signed, &mut again)?;
        if again != envelope.signed {
            return Err(Error::invalid("signed", "not canonical JSON: sort the keys and leave out all white space"));
        }
        let fields: RootFields =
            serde_json::from_value(signed).map_err(|e| Error::invalid("signed", format!("not a root: {e}")))?;
        let root = Root::from_fields(fields).map_err(|e| e.within("signed"))?;
        Ok((root, envelope))
    }

    /// Reads a first root, trusted because an operator brought it: it must be signed by its own threshold.
    ///
    /// # Errors
    /// `Invalid` as in [`Root::parse`], or without enough signatures.
    pub fn verify_first(bytes: &[u8]) -> Result<Root> {
        let (root, envelope) = Root::parse(bytes)?;
        root.verify_by(&root, &envelope)?;
        Ok(root)
    }

    /// Reads the root after `prev`: its version is the next one, and both thresholds signed it (specification §5.3).
    /// Expiry is not looked at: a chain may lead through roots that have expired.
    ///
    /// # Errors
    /// `Invalid` as in [`Root::parse`], for another version, or without enough signatures.
    pub fn verify_next(prev: &Root, bytes: &[u8]) -> Result<Root> {
        let (root, envelope) = Root::parse(bytes)?;
        if prev.version.checked_add(1) != Some(root.version) {
            let found =
                format!("after root {} comes {}, found {}", prev.version, prev.version.saturating_add(1), root.version);
            return Err(Error::invalid("signed.version", found));
        }
        root.verify_by(prev, &envelope)?;
        root.verify_by(&root, &envelope)?;
        Ok(root)
    }

    /// Checks that the root role of `by` signed this root.
    fn verify_by(&self, by: &Root, envelope: &Envelope<'_>) -> Result<()> {
        let doing = format!("root {} under the keys of root {}", self.version, by.version);
        envelope.verify(&by.keys, &by.root).map_err(|e| from_outside(e).context(doing))
    }

    /// Checks that the root is complete and can be written.
    ///
    /// # Errors
    /// `Invalid`, with the place as its field, for version 0, a date that clients cannot read, a key under another id
    /// than its own, and a role whose ids are unsorted, repeated or without a key or whose threshold cannot be met.
    pub fn check(&self) -> Result<()> {
        if self.version == 0 {
            return Err(Error::invalid("version", "versions begin at 1"));
        }
        if parse_utc(&format_utc(self.expires)) != Some(self.expires) {
            return Err(Error::invalid("expires", "expected a date before the year 9999"));
        }
        if let Some((id, key)) = self.keys.iter().find(|(id, key)| *id != key.key_id()) {
            return Err(Error::invalid(format!("keys.{id}"), format!("the id of this key is {}", key.key_id())));
        }
        for (name, role) in [
            ("roles.root", &self.root),
            ("roles.targets", &self.targets),
            ("roles.snapshot", &self.snapshot),
            ("roles.timestamp", &self.timestamp),
        ] {
            role.check(&self.keys).map_err(|e| e.within(name))?;
        }
        Ok(())
    }

    fn from_fields(fields: RootFields) -> Result<Root> {
        let expect = |field: &str, want: &str, found: &str| match want == found {
            true => Ok(()),
            false => Err(Error::invalid(field, format!("expected {want:?}, found {found:?}"))),
        };
        expect("_type", "root", &fields.kind)?;
        expect("spec_version", SPEC_VERSION, &fields.spec_version)?;
        expect("consistent_snapshot", "true", &fields.consistent_snapshot.to_string())?;
        let expires = parse_utc(&fields.expires).ok_or_else(|| {
            Error::invalid("expires", format!("expected YYYY-MM-DDTHH:MM:SSZ, found {:?}", fields.expires))
        })?;
        let mut keys = BTreeMap::new();
        for (id, value) in fields.keys {
            let place = format!("keys.{id}");
            let key = PublicKey::from_value(&value).map_err(|e| e.within(&place))?;
            keys.insert(id.parse().map_err(|e: Error| e.within(&place))?, key);
        }
        let role = |fields: RoleFields| RoleKeys::new(fields.keyids, fields.threshold);
        let RolesFields { root, targets, snapshot, timestamp } = fields.roles;
        let root = Root {
            version: fields.version,
            expires,
            keys,
            root: role(root),
            targets: role(targets),
            snapshot: role(snapshot),
            timestamp: role(timestamp),
        };
        root.check()?;
        Ok(root)
    }
}

/// The file was brought by somebody, who can bring another: nothing that we wrote has gone bad.
fn from_outside(error: Error) -> Error {
    Error { kind: Kind::Invalid, ..error }
}
