//! ed25519 keys: the one signature scheme that every TUF client accepts.
//!
//! Owns key ids and signatures; with `key_file` the only code that names `ed25519_dalek`. A key id is always the
//! sha256 of the canonical key object (tough refuses a root where it is not), so an id stands for exactly one key
//! and a threshold of distinct ids is a threshold of distinct keys.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tuf::canonical;
use crate::{Error, Result};

/// sha256 of a key's canonical JSON; 64 lower hex digits in every text. Ids sort the same as bytes and as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeyId([u8; 32]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<KeyId> {
        lower_hex(text).map(KeyId).ok_or_else(|| Error::invalid("keyid", "expected 64 lower-case hex digits"))
    }
}

impl TryFrom<String> for KeyId {
    type Error = Error;

    fn try_from(text: String) -> Result<KeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> String {
        id.to_string()
    }
}

/// `N` bytes from exactly `2 N` lower hex digits. Upper case would be another text, hence another key id or signature.
pub(super) fn lower_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    (!text.bytes().any(|b| b.is_ascii_uppercase())).then_some(bytes)
}

/// A public key and its id.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    id: KeyId,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.id).finish()
    }
}

impl PublicKey {
    fn new(key: VerifyingKey) -> PublicKey {
        let mut object = Vec::new();
        write_object(&key, &mut object);
        PublicKey { id: KeyId(Sha256::digest(&object).into()), key }
    }

    /// The key whose 32 bytes are these 64 lower hex digits.
    ///
    /// # Errors
    /// `Invalid` for other text, for bytes that are no point of the curve, and for the few weak points under which
    /// a signature would fit more than one message.
    pub fn from_hex(text: &str) -> Result<PublicKey> {
        lower_hex(text)
            .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
            .filter(|key| !key.is_weak())
            .map(PublicKey::new)
            .ok_or_else(|| {
                Error::invalid("keyval.public", "expected an ed25519 public key as 64 lower-case hex digits")
            })
    }

    /// Reads a key object of TUF metadata.
    ///
    /// # Errors
    /// `Invalid` unless it is exactly the object that [`PublicKey::to_value`] makes: with a further field the key would
    /// have another id in some clients and not in others.
    pub fn from_value(value: &Value) -> Result<PublicKey> {
        let text = value["keyval"]["public"].as_str().unwrap_or_default();
        let key = PublicKey::from_hex(text)?;
        if key.to_value() != *value {
            return Err(Error::invalid(
                "keytype",
                r#"expected {"keytype":"ed25519","keyval":{"public":HEX},"scheme":"ed25519"} and no other field"#,
            ));
        }
        Ok(key)
    }

    /// The key object: `{"keytype":"ed25519","keyval":{"public":HEX},"scheme":"ed25519"}`.
    pub fn to_value(&self) -> Value {
        json!({"keytype": "ed25519", "keyval": {"public": hex::encode(self.key.as_bytes())}, "scheme": "ed25519"})
    }

    /// Appends the canonical text of the key object.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_object(&self.key, out);
    }

    /// The sha256 of the canonical key object.
    pub fn key_id(&self) -> &KeyId {
        &self.id
    }

    /// True if `signature` is this key's over `message`. Strict: what this accepts, every client accepts.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

fn write_object(key: &VerifyingKey, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"keytype":"ed25519","keyval":{"public":"#);
    canonical::write_string(&hex::encode(key.as_bytes()), out);
    out.extend_from_slice(br#"},"scheme":"ed25519"}"#);
}

/// A private key. It cannot be cloned, is wiped when dropped, and prints its id only.
pub struct Signer {
    key: SigningKey,
    public: PublicKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.public.id).finish()
    }
}

impl Signer {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// `Unavailable` if the system has none to give.
    pub fn generate() -> Result<Signer> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| Error::unavailable(format!("no randomness for a new key: {e}")))?;
        Ok(Signer::from_seed(&seed))
    }

    /// The key of a seed: the 32 secret bytes of RFC 8032, which a PKCS#8 file holds.
    pub fn from_seed(seed: &[u8; 32]) -> Signer {
        let key = SigningKey::from_bytes(seed);
        Signer { public: PublicKey::new(key.verifying_key()), key }
    }

    /// The secret, for the key file.
    pub(super) fn seed(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The half to publish.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature of `message`; the same every time (RFC 8032), which is why a second worker writes the same file.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// The private keys that this process holds, by id.
#[derive(Clone, Debug, Default)]
pub struct KeyRing(BTreeMap<KeyId, Arc<Signer>>);

impl KeyRing {
    /// Adds a key; one that is there already stays.
    pub fn insert(&mut self, signer: Arc<Signer>) {
        self.0.entry(signer.public.id).or_insert(signer);
    }

    /// The key with this id, if this process holds it.
    pub fn get(&self, id: &KeyId) -> Option<Arc<Signer>> {
        self.0.get(id).cloned()
    }

    /// True if it holds no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids of all keys, sorted.
    pub fn key_ids(&self) -> impl Iterator<Item = &KeyId> {
        self.0.keys()
    }

    /// The keys with these ids, in the order given.
    ///
    /// # Errors
    /// `Unavailable` naming the first key that is not here: its file has to be put in place.
    pub fn signers(&self, ids: &[KeyId]) -> Result<Vec<Arc<Signer>>> {
        let find = |id| {
            self.get(id).ok_or_else(|| {
                Error::unavailable(format!("the private key {id} is missing: put its PEM file into keys/"))
            })
        };
        ids.iter().map(find).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    /// RFC 8032 §7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn rfc_signer() -> Signer {
        Signer::from_seed(&lower_hex(SEED).unwrap())
    }

    #[test]
    fn keys_and_signatures_are_those_of_rfc_8032() {
        let signer = rfc_signer();
        assert_eq!(signer.public(), &PublicKey::from_hex(PUBLIC).unwrap());
        let signature = signer.sign(b"");
        assert_eq!(
            hex::encode(signature),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
        assert!(signer.public().verify(b"", &signature));
        assert!(!signer.public().verify(b"x", &signature));
    }

    #[test]
    fn a_key_id_is_the_digest_of_the_canonical_key_object() {
        let key = PublicKey::from_hex(PUBLIC).unwrap();
        let object = canonical::to_vec(&key.to_value()).unwrap();
        assert_eq!(key.key_id().to_string(), hex::encode(Sha256::digest(object)));
        assert_eq!(serde_json::to_value(key.key_id()).unwrap(), json!(key.key_id().to_string()));
    }

    #[test]
    fn a_key_object_has_one_form() {
        let good = rfc_signer().public().to_value();
        assert_eq!(PublicKey::from_value(&good).unwrap(), *rfc_signer().public());
        let weak = format!("01{}", "0".repeat(62));
        for bad in [
            json!(null),
            json!([]),
            json!({"keyval": {"public": PUBLIC}}),
            json!({"keytype": "ed25519", "keyval": {"public": PUBLIC}, "scheme": "ed25519", "x": 1}),
            json!({"keytype": "ed25519", "keyval": {"public": PUBLIC, "x": 1}, "scheme": "ed25519"}),
            json!({"keytype": "ed25519", "keyval": {"public": PUBLIC.to_uppercase()}, "scheme": "ed25519"}),
            json!({"keytype": "ed25519", "keyval": {"public": weak}, "scheme": "ed25519"}),
            json!({"keytype": "ecdsa", "keyval": {"public": PUBLIC}, "scheme": "ecdsa-sha2-nistp256"}),
        ] {
            assert_eq!(PublicKey::from_value(&bad).unwrap_err().kind, Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_missing_key_is_named() {
        let (here, absent) = (Arc::new(rfc_signer()), Signer::from_seed(&[1; 32]));
        let mut ring = KeyRing::default();
        ring.insert(here.clone());
        let id = *here.public().key_id();
        assert_eq!(ring.signers(&[id]).unwrap()[0].public(), here.public());
        let error = ring.signers(&[id, *absent.public().key_id()]).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains(&absent.public().key_id().to_string()) && error.message.contains("keys/"));
    }

    #[test]
    fn a_private_key_prints_its_id_only() {
        let signer = rfc_signer();
        assert_eq!(format!("{signer:?}"), format!("Signer({})", signer.public().key_id()));
        assert_ne!(Signer::generate().unwrap().public(), Signer::generate().unwrap().public());
    }

    proptest! {
        #[test]
        fn no_text_makes_key_parsing_panic(text in "\\PC{0,70}|[0-9a-fA-F]{64}") {
            let _ = (PublicKey::from_hex(&text), text.parse::<KeyId>());
        }

        #[test]
        fn ids_sort_as_their_text(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
            prop_assert_eq!(KeyId(a).cmp(&KeyId(b)), KeyId(a).to_string().cmp(&KeyId(b).to_string()));
            prop_assert_eq!(KeyId(a).to_string().parse::<KeyId>().unwrap(), KeyId(a));
        }
    }
}
