//! Keys of any kind that repositories have, and whether enough of them signed a file, client by client.
//!
//! Signatures are checked here with every scheme that more than one client knows; what only python-tuf knows, and RSA keys
//! of an older form, are taken on trust, and the report says so. A client counts the signatures of the keys that it can use, so one file can be
//! signed well for one client and not for another.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::clients::{Client, Clients, Takes};
use super::json::Json;
use crate::tuf::PublicKey;

/// The kind of a key: what it is and how it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// ed25519, 32 bytes in hex.
    Ed25519,
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// RSA-PSS with SHA-256.
    RsaPss256,
    /// A scheme of which python-tuf alone knows.
    OfPythonTuf,
    /// None that any client knows.
    Unknown,
}

impl Scheme {
    fn of(keytype: &str, scheme: &str) -> Scheme {
        match (keytype, scheme) {
            ("ed25519", "ed25519") => Scheme::Ed25519,
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => Scheme::EcdsaP256,
            ("ecdsa" | "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => Scheme::EcdsaP384,
            ("rsa", "rsassa-pss-sha256") => Scheme::RsaPss256,
            ("rsa", s) if s.starts_with("rsassa-pss-sha") || s.starts_with("rsa-pkcs1v15-sha") => Scheme::OfPythonTuf,
            ("ecdsa" | "ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521") => Scheme::OfPythonTuf,
            ("ml-dsa", s) if s.starts_with("ml-dsa-") => Scheme::OfPythonTuf,
            _ => Scheme::Unknown,
        }
    }
}

/// The most signatures of a file that are checked.
const MOST_SIGNATURES: usize = 1_024;

/// Why a signature was not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchecked {
    /// Only python-tuf knows the kind of its key.
    OfPythonTuf,
    /// Its key is RSA in the form of PKCS #1, which tuf-js does not read.
    Pkcs1,
}

/// A key of metadata.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// What it is and how it signs.
    pub scheme: Scheme,
    /// `keytype/scheme` as they stand there.
    pub kind: String,
    /// The public part as it stands there.
    public: String,
}

impl Key {
    /// Reads a key object; `None` if `keytype`, `scheme` or `keyval.public` is missing.
    pub fn of(object: &Json<'_>) -> Option<Key> {
        let text = |name| object.get(name).and_then(Json::text);
        let (keytype, scheme) = (text("keytype")?, text("scheme")?);
        let public = object.get("keyval")?.get("public")?.text()?.to_owned();
        Some(Key { scheme: Scheme::of(keytype, scheme), kind: format!("{keytype}/{scheme}"), public })
    }

    /// How long its texts are.
    pub fn size(&self) -> usize {
        self.kind.len() + self.public.len()
    }

    fn is_pkcs1(&self) -> bool {
        self.scheme == Scheme::RsaPss256 && self.public.trim_start().starts_with("-----BEGIN RSA PUBLIC KEY-----")
    }

    /// Whether `client` counts signatures of it.
    fn counts_for(&self, client: Client) -> bool {
        client.takes(self.scheme) == Takes::Yes && !(client == Client::TufJs && self.is_pkcs1())
    }

    /// Whether `signature` is this key's over `message`, if that can be told here. What is no key verifies nothing.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, Unchecked> {
        let algorithm: &'static dyn VerificationAlgorithm = match self.scheme {
            Scheme::Ed25519 => {
                let key = PublicKey::from_hex(&self.public);
                return Ok(key.is_ok_and(|key| signature.try_into().is_ok_and(|s| key.verify(message, s))));
            }
            Scheme::EcdsaP256 => &ECDSA_P256_SHA256_ASN1,
            Scheme::EcdsaP384 => &ECDSA_P384_SHA384_ASN1,
            Scheme::RsaPss256 if self.is_pkcs1() => return Err(Unchecked::Pkcs1),
            Scheme::RsaPss256 => &RSA_PSS_2048_8192_SHA256,
            Scheme::OfPythonTuf => return Err(Unchecked::OfPythonTuf),
            Scheme::Unknown => return Ok(false),
        };
        let der = match SubjectPublicKeyInfoDer::from_pem_slice(self.public.as_bytes()) {
            Ok(der) => der.to_vec(),
            // A bare point, as old ECDSA keys are written.
            Err(_) if self.scheme != Scheme::RsaPss256 => hex::decode(&self.public).unwrap_or_default(),
            Err(_) => return Ok(false),
        };
        Ok(UnparsedPublicKey::new(algorithm, der).verify(message, signature).is_ok())
    }
}

/// Keys by id.
pub type Keys = BTreeMap<String, Key>;

/// The id that the specification gives a key object, in hex; `legacy` is what php-tuf asks for instead.
pub fn key_id(object: &Json<'_>, legacy: bool) -> Option<String> {
    let mut members = object.object()?.to_vec();
    if legacy {
        let hashes = Json::Array(vec![Json::Text("sha256".into()), Json::Text("sha512".into())]);
        members.retain(|(key, _)| key != "keyid_hash_algorithms");
        members.push(("keyid_hash_algorithms".into(), hashes));
    }
    let mut text = Vec::new();
    Json::Object(members).canonical(&mut text).then(|| hex::encode(Sha256::digest(&text)))
}

/// Who signs a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// Ids as they stand there.
    pub keyids: BTreeSet<String>,
    /// How many of them must sign.
    pub threshold: u64,
}

/// What the signatures of a file are worth.
#[derive(Debug)]
pub struct Signed {
    /// The clients for which too few count.
    pub short: Clients,
    /// How many are valid.
    pub valid: usize,
    /// Keys whose signatures could not be checked here, and why.
    pub unchecked: Vec<(String, Unchecked)>,
    /// Whether there are more than are looked at, so that nothing can be said of the file.
    pub left_out: bool,
}

/// Counts the signatures over `message`, which are key id and signature in hex; of one key only the first.
pub fn count(message: &[u8], signatures: &[(String, String)], keys: &Keys, signers: &Signers) -> Signed {
    let mut good: BTreeMap<&str, &Key> = BTreeMap::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut unchecked = Vec::new();
    for (id, signature) in signatures {
        let Some(key) = keys.get(id).filter(|_| signers.keyids.contains(id)) else { continue };
        let Ok(signature) = hex::decode(signature) else { continue };
        if !seen.insert(id) {
            continue;
        }
        if seen.len() > MOST_SIGNATURES {
            return Signed { short: Clients::NONE, valid: good.len(), unchecked, left_out: true };
        }
        match key.verify(message, &signature) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(why) => unchecked.push((format!("{} of {id}", key.kind), why)),
        }
        good.insert(id, key);
    }
    let short = Clients::that(|client| {
        let taken = good.iter().filter(|(_, key)| key.counts_for(client));
        // go-tuf counts keys, the others ids.
        let worth = match client {
            Client::GoTuf | Client::GoTuf242 => {
                taken.map(|(_, key)| key.public.as_str()).collect::<BTreeSet<_>>().len()
            }
            _ => taken.count(),
        };
        (worth as u64) < signers.threshold.max(1)
    });
    Signed { short, valid: good.len(), unchecked, left_out: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::repository::json;

    /// Public keys and their signatures of `message`, made by OpenSSL.
    const P256: (&str, &str) = (
        "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEVjt+R6HYOue20a2vFMhc2cSu9o+L\nEI2SiMbVAW4Q2CRm2aI5LA58byYeKbxBEWH2pdjrnD7ZSndhPbYGtxR0Gg==\n-----END PUBLIC KEY-----\n",
        "304502202f1580f1f2dca3050717461508a20285ea10f54a1de6e7c5e4abffa39d4832f4022100a84535faebf5779b38b89be205687e22ab3696625242ad21e295929bcb460e36",
    );
    const P256_POINT: &str = "04563b7e47a1d83ae7b6d1adaf14c85cd9c4aef68f8b108d9288c6d5016e10d82466d9a2392c0e7c6f261e29bc411161f6a5d8eb9c3ed94a77613db606b714741a";
    const P384: (&str, &str) = (
        "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEjTqOABkHz8Mur1RfC+9ZyViWqkB/Ew4i\n5DE+DABwg5wGkfOnQJERn/fVB0fYcLYoftr4zx13ur+gwD9fJKl29DCNzCaPxgUj\nMdAfX8WTLK8U12qzFaU/vvMx+DpSOJW5\n-----END PUBLIC KEY-----\n",
        "3065023100aeed4bf1a4cffe93d2cec410de891e31b7fd7b764fcea23b600696075a526c8e4bb2ba1bd5bc3973d3ae5f1a02b39b8e023059df0972fc97d6ccd6e30906cac3d164c80072b278d2585a0dd0f58f76a76225a66078688fba00e4c9623e5c54c1cb42",
    );
    const RSA: (&str, &str) = (
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAyR2y5IkcpOA38hxEWUWU\nwLc1HPia8g+BwNoyLrALmpja4L4sLFe9+7VO78r1s3VaD7u1fz44zFlRBJhdMEQ8\nm+luWiYZ7MNEwZpShuiE12/GRq5dToHPK4+Dqv7JB8uZEDKfigp3G630nnR36x7P\nNjtDDm4oxVs6o4cw0JVg+sxoV0erfhHYVdNooVZv+kWcrWLn/GxOxBlZOwsRTRti\nZVRIAjL/fhKbDYCiWl5sbRtU2grz1xcjuktCMiOCeoz7ChCzxqQ1Xx7drZADbgI9\ndNUNZolMb9ZP2CBwZuwH3ypgYasoRuXeLzAR9sJnSVWOyLuXNZK4DNcrMXbfIH0E\nTQIDAQAB\n-----END PUBLIC KEY-----\n",
        "78e11f82b5c6066b1b0d2da9dfbcfc7ee20ea97f9d57e9117217dab4b9cd42f6b07c9e0446a49c56d808c06cf2b7e022e14c6458ad72209c432db616aedc4b0c957468496355846d20798f155c644026f992190842ad51114d15ff7af39c31f49bc4860d323f658405de0ebbc1c3d86e2c51f44a30083fa30cf5a8b8d3b80e84833cad60daf2784862a77cc3d274a12bc3ebf78863a56ca6652a46bf486b690c28a14871fe65815c28ac495a0b0d507299b4a3f88179505fd1c140439d38ba34d5c11d611e189d34e91d6e43113b43016db77a305f80821d46a097262a0f064a1a36896bb8d5f614cd4ec1c998d8a9998a6fd1f5a34ba0cdb516b4886942c99e",
    );

    fn key(keytype: &str, scheme: &str, public: &str) -> Key {
        let text = serde_json::json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}).to_string();
        Key::of(&json::parse(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn signatures_of_other_kinds_are_checked() {
        for (keytype, scheme, (public, signature)) in [
            ("ecdsa", "ecdsa-sha2-nistp256", P256),
            ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", (P256_POINT, P256.1)),
            ("ecdsa", "ecdsa-sha2-nistp384", P384),
            ("rsa", "rsassa-pss-sha256", RSA),
        ] {
            let (key, signature) = (key(keytype, scheme, public), hex::decode(signature).unwrap());
            assert_eq!(key.verify(b"message", &signature), Ok(true), "{scheme}");
            assert_eq!(key.verify(b"another", &signature), Ok(false), "{scheme}");
            assert_eq!(key.verify(b"message", b""), Ok(false), "{scheme}");
        }
        for (keytype, scheme) in [("rsa", "rsassa-pss-sha512"), ("ml-dsa", "ml-dsa-44/1")] {
            assert_eq!(key(keytype, scheme, "").verify(b"message", b""), Err(Unchecked::OfPythonTuf));
        }
    }

    #[test]
    fn what_is_no_key_verifies_nothing() {
        let kinds = [
            ("ed25519", "ed25519"),
            ("ecdsa", "ecdsa-sha2-nistp256"),
            ("ecdsa", "ecdsa-sha2-nistp384"),
            ("rsa", "rsassa-pss-sha256"),
            ("x", "y"),
        ];
        let certificate = P256.0.replace("PUBLIC KEY", "CERTIFICATE");
        for public in ["", "-----BEGIN PUBLIC KEY-----", "zz", "00", &certificate] {
            for (keytype, scheme) in kinds {
                assert_eq!(key(keytype, scheme, public).verify(b"message", &[0; 64]), Ok(false), "{scheme} {public}");
            }
        }
        let old =
            key("rsa", "rsassa-pss-sha256", "-----BEGIN RSA PUBLIC KEY-----\nAA==\n-----END RSA PUBLIC KEY-----\n");
        assert_eq!(old.verify(b"message", &[0; 64]), Err(Unchecked::Pkcs1));
        assert!(old.counts_for(Client::PythonTuf) && !old.counts_for(Client::TufJs));
    }

    #[test]
    fn a_key_is_asked_once_and_not_without_end() {
        let keys = Keys::from_iter((0..3_000).map(|n| (format!("{n}"), key("ecdsa", "ecdsa-sha2-nistp256", P256.0))));
        let signers = Signers { keyids: keys.keys().cloned().collect(), threshold: 1 };
        let of = |n: usize| (format!("{n}"), P256.1.to_owned());
        let twice = count(b"message", &vec![of(1); 100_000], &keys, &signers);
        assert_eq!((twice.valid, twice.left_out), (1, false));
        let many: Vec<_> = (0..3_000).map(of).collect();
        let many = count(b"message", &many, &keys, &signers);
        assert!(many.left_out && many.short.is_empty());
    }

    #[test]
    fn each_client_counts_the_keys_that_it_can_use() {
        let id = |n: u8| format!("{n:02x}");
        let (p256, p384) = (key("ecdsa", "ecdsa-sha2-nistp256", P256.0), key("ecdsa", "ecdsa-sha2-nistp384", P384.0));
        let again = key("ecdsa", "ecdsa-sha2-nistp256", P256.0);
        let keys = Keys::from([(id(1), p256), (id(2), p384), (id(3), again)]);
        let signatures = |ids: &[(u8, &str)]| ids.iter().map(|(n, s)| (id(*n), (*s).to_owned())).collect::<Vec<_>>();
        let both = signatures(&[(1, P256.1), (2, P384.1)]);
        let short = |threshold, signatures: &[(String, String)]| {
            let signers = Signers { keyids: [id(1), id(2), id(3)].into(), threshold };
            count(b"message", signatures, &keys, &signers).short
        };
        assert!(!short(1, &both).has(Client::TufJs) && short(2, &both).has(Client::TufJs));
        assert!(!short(2, &both).has(Client::PythonTuf) && short(3, &both).has(Client::PythonTuf));
        assert_eq!(short(0, &[]), Clients::ALL);
        // One key under two ids: go-tuf counts it once.
        let twice = signatures(&[(1, P256.1), (3, P256.1)]);
        assert!(short(2, &twice).has(Client::GoTuf) && !short(2, &twice).has(Client::PythonTuf));
    }

    #[test]
    fn key_ids_are_those_of_the_two_schools() {
        let text = br#"{"scheme":"ed25519","keytype":"ed25519","keyval":{"public":"aa"}}"#;
        let key = json::parse(text).unwrap();
        let digest = |text: &str| Some(hex::encode(Sha256::digest(text)));
        let plain = r#"{"keytype":"ed25519","keyval":{"public":"aa"},"scheme":"ed25519"}"#;
        assert_eq!(key_id(&key, false), digest(plain));
        let legacy = r#"{"keyid_hash_algorithms":["sha256","sha512"],"keytype":"ed25519","keyval":{"public":"aa"},"scheme":"ed25519"}"#;
        assert_eq!(key_id(&key, true), digest(legacy));
    }
}
