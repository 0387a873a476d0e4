//! Reads the online roles back, for recovery, queries and audit.
//!
//! The counterpart of [`role`](crate::tuf::role), over [`Envelope::signed`](crate::tuf::Envelope::signed) after its
//! signatures were checked. What is read was rendered here, so it is read strictly: another shape, an unknown field,
//! keys out of order are all `Corrupt`. Nothing here panics, whatever the bytes. Strings and target fragments are
//! borrowed from the text; no JSON tree is built.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::clock::parse_utc;
use crate::tuf::key::{KeyId, PublicKey, lower_hex};
use crate::tuf::members::Members;
use crate::tuf::role::Meta;
use crate::tuf::root::{RoleFields, RoleKeys};
use crate::tuf::{BIN_PREFIX, SPEC_VERSION};
use crate::{Error, Result};

/// A bin as it was published.
#[derive(Debug, PartialEq, Eq)]
pub struct Bin<'a> {
    /// The cut that rendered it.
    pub version: u64,
    /// Unix seconds.
    pub expires: u64,
    /// Path and canonical JSON fragment `{…}` of each target, in file order, which is path order.
    pub targets: Vec<(Cow<'a, str>, &'a str)>,
}

/// A snapshot as it was published.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The cut that rendered it.
    pub version: u64,
    /// Unix seconds.
    pub expires: u64,
    /// What it says about `targets.json`.
    pub targets: Meta,
    /// Version by name of bin: `bins-0a`, without `.json`.
    pub bins: BTreeMap<String, u64>,
}

/// A timestamp as it was published.
#[derive(Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// The number of Checkpoint and Renew records up to it.
    pub version: u64,
    /// Unix seconds.
    pub expires: u64,
    /// What it says about `snapshot.json`.
    pub snapshot: Meta,
}

/// A `targets.json` as it was published.
#[derive(Debug, PartialEq, Eq)]
pub struct Targets {
    /// The cut that rendered it.
    pub version: u64,
    /// Unix seconds.
    pub expires: u64,
    /// There are 2^`bit_length` bins; 1 to 32.
    pub bit_length: u8,
    /// The keys that sign bins.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// Which and how many of them.
    pub bins: RoleKeys,
}

/// Reads the signed part of a bin.
///
/// # Errors
/// `Corrupt` if it is no bin that [`role::bin`](crate::tuf::role::bin) could have rendered.
pub fn parse_bin(signed: &[u8]) -> Result<Bin<'_>> {
    let fields: BinFields<'_> = fields("bin", signed)?;
    let expires = check("bin", "targets", &fields.kind, &fields.spec_version, fields.version, &fields.expires)?;
    let mut targets = Vec::with_capacity(fields.targets.0.len());
    for (path, fragment) in fields.targets.0 {
        if !fragment.get().starts_with('{') {
            return Err(Error::corrupt(format!("bin: the target {path:?} is no object")));
        }
        targets.push((path, fragment.get()));
    }
    Ok(Bin { version: fields.version, expires, targets })
}

/// Reads the signed part of a snapshot.
///
/// # Errors
/// `Corrupt` if it is none that [`role::snapshot`](crate::tuf::role::snapshot) could have rendered.
pub fn parse_snapshot(signed: &[u8]) -> Result<Snapshot> {
    let fields: SnapshotFields<'_> = fields("snapshot", signed)?;
    let expires = check("snapshot", "snapshot", &fields.kind, &fields.spec_version, fields.version, &fields.expires)?;
    let mut targets = None;
    let mut bins = BTreeMap::new();
    for (file, meta) in fields.meta.0 {
        let bin = file.strip_suffix(".json").filter(|name| is_bin_name(name));
        match (bin, meta) {
            (Some(bin), MetaFields { version: version @ 1.., length: None, hashes: None }) => {
                bins.insert(bin.to_owned(), version);
            }
            (None, meta) if file == "targets.json" => targets = Some(meta.full("snapshot")?),
            _ => return Err(Error::corrupt(format!("snapshot: unexpected entry {file:?}"))),
        }
    }
    let targets = targets.ok_or_else(|| Error::corrupt("snapshot: no entry for targets.json"))?;
    Ok(Snapshot { version: fields.version, expires, targets, bins })
}

/// Reads the signed part of a timestamp.
///
/// # Errors
/// `Corrupt` if it is none that [`role::timestamp`](crate::tuf::role::timestamp) could have rendered.
pub fn parse_timestamp(signed: &[u8]) -> Result<Timestamp> {
    let fields: TimestampFields<'_> = fields("timestamp", signed)?;
    let expires = check("timestamp", "timestamp", &fields.kind, &fields.spec_version, fields.version, &fields.expires)?;
    Ok(Timestamp { version: fields.version, expires, snapshot: fields.meta.snapshot.full("timestamp")? })
}

/// Reads the signed part of a `targets.json`.
///
/// # Errors
/// `Corrupt` if it is none that [`role::targets`](crate::tuf::role::targets) could have rendered.
pub fn parse_targets(signed: &[u8]) -> Result<Targets> {
    let fields: TargetsFields<'_> = fields("targets", signed)?;
    let expires = check("targets", "targets", &fields.kind, &fields.spec_version, fields.version, &fields.expires)?;
    let Succinct { bit_length, keyids, name_prefix, threshold } = fields.delegations.succinct_roles;
    if !(1..=32).contains(&bit_length) || name_prefix != BIN_PREFIX || !fields.targets.0.is_empty() {
        return Err(Error::corrupt(format!(
            "targets: expected no targets and delegation to {BIN_PREFIX}-… by 1 to 32 bits, found {} targets, {name_prefix:?}, {bit_length} bits",
            fields.targets.0.len()
        )));
    }
    let corrupt = |e: Error| Error::corrupt(format!("targets: {e}"));
    let mut keys = BTreeMap::new();
    for (id, key) in fields.delegations.keys.0 {
        let key = PublicKey::from_value(&key).map_err(corrupt)?;
        if key.key_id().to_string() != id {
            return Err(Error::corrupt(format!("targets: key {} stands under the id {id:?}", key.key_id())));
        }
        keys.insert(*key.key_id(), key);
    }
    let bins = RoleKeys::from_fields(RoleFields { keyids, threshold }, &keys).map_err(corrupt)?;
    Ok(Targets { version: fields.version, expires, bit_length, keys, bins })
}

/// `bins-` and lower hex digits.
fn is_bin_name(name: &str) -> bool {
    let number = name.strip_prefix(BIN_PREFIX).and_then(|rest| rest.strip_prefix('-')).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn fields<'a, T: Deserialize<'a>>(role: &str, signed: &'a [u8]) -> Result<T> {
    serde_json::from_slice(signed).map_err(|e| Error::corrupt(format!("{role}: {e}")))
}

/// Checks what all roles have in common and gives the expiry in Unix seconds.
fn check(role: &str, kind: &str, found: &str, spec_version: &str, version: u64, expires: &str) -> Result<u64> {
    if found != kind {
        return Err(Error::corrupt(format!("{role}: expected _type {kind:?}, found {found:?}")));
    }
    if spec_version != SPEC_VERSION {
        return Err(Error::corrupt(format!("{role}: expected spec_version {SPEC_VERSION:?}, found {spec_version:?}")));
    }
    if version == 0 {
        return Err(Error::corrupt(format!("{role}: version 0")));
    }
    parse_utc(expires)
        .ok_or_else(|| Error::corrupt(format!("{role}: expected expires as YYYY-MM-DDTHH:MM:SSZ, found {expires:?}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BinFields<'a> {
    #[serde(rename = "_type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    expires: Cow<'a, str>,
    #[serde(borrow)]
    spec_version: Cow<'a, str>,
    version: u64,
    #[serde(borrow)]
    targets: Members<'a, &'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotFields<'a> {
    #[serde(rename = "_type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    expires: Cow<'a, str>,
    #[serde(borrow)]
    spec_version: Cow<'a, str>,
    version: u64,
    #[serde(borrow)]
    meta: Members<'a, MetaFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimestampFields<'a> {
    #[serde(rename = "_type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    expires: Cow<'a, str>,
    #[serde(borrow)]
    spec_version: Cow<'a, str>,
    version: u64,
    meta: TimestampMeta,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimestampMeta {
    #[serde(rename = "snapshot.json")]
    snapshot: MetaFields,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetsFields<'a> {
    #[serde(rename = "_type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    expires: Cow<'a, str>,
    #[serde(borrow)]
    spec_version: Cow<'a, str>,
    version: u64,
    #[serde(borrow)]
    delegations: Delegations<'a>,
    #[serde(borrow)]
    targets: Members<'a, &'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delegations<'a> {
    #[serde(borrow)]
    keys: Members<'a, Value>,
    succinct_roles: Succinct,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Succinct {
    bit_length: u8,
    keyids: Vec<KeyId>,
    name_prefix: String,
    threshold: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetaFields {
    version: u64,
    length: Option<u64>,
    hashes: Option<Hashes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hashes {
    sha256: String,
}

impl MetaFields {
    /// The entry with its length and digest, which only bins do without.
    fn full(self, role: &str) -> Result<Meta> {
        match self {
            MetaFields { version: version @ 1.., length: Some(length), hashes: Some(Hashes { sha256 }) } => {
                let sha256 = lower_hex(&sha256).ok_or_else(|| {
                    Error::corrupt(format!("{role}: expected a sha256 as 64 lower hex digits, found {sha256:?}"))
                })?;
                Ok(Meta { version, length, sha256 })
            }
            _ => Err(Error::corrupt(format!("{role}: an entry in meta lacks its version, length or sha256"))),
        }
    }
}
