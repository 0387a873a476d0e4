//! The file around every role: `{"signatures":[{"keyid":…,"sig":…}…],"signed":{…}}`.
//!
//! Owns signing and thresholds. Files are canonical JSON as a whole, so the raw bytes of `signed` are what the
//! signatures are over and verifying needs no second rendering; a file whose `signed` is laid out otherwise does not
//! verify. [`seal`] builds a file of many megabytes in one buffer: placeholders, signed part, then signatures
//! patched in, which works because a signature's text has a fixed length.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::tuf::key::{KeyId, PublicKey, Signer, lower_hex};
use crate::tuf::root::RoleKeys;
use crate::{Error, Result};

/// Hex digits of an ed25519 signature.
const SIG_DIGITS: usize = 128;

/// Renders a file: `write_signed` appends the canonical text of the signed part and touches nothing before it.
///
/// Signatures stand in the order of their key ids; a signer given twice signs once.
pub fn seal(signers: &[Arc<Signer>], write_signed: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let signers: BTreeMap<&KeyId, &Arc<Signer>> = signers.iter().map(|s| (s.public().key_id(), s)).collect();
    let mut out = Vec::with_capacity(64 + signers.len() * (SIG_DIGITS + 96));
    let mut slots = Vec::with_capacity(signers.len());
    out.extend_from_slice(br#"{"signatures":["#);
    for (i, id) in signers.keys().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        out.extend_from_slice(format!(r#"{comma}{{"keyid":"{id}","sig":""#).as_bytes());
        slots.push(out.len());
        out.resize(out.len() + SIG_DIGITS, b'0');
        out.extend_from_slice(br#""}"#);
    }
    out.extend_from_slice(br#"],"signed":"#);
    let start = out.len();
    write_signed(&mut out);
    for (slot, signer) in slots.into_iter().zip(signers.values()) {
        let signature = hex::encode(signer.sign(&out[start..]));
        out[slot..slot + SIG_DIGITS].copy_from_slice(signature.as_bytes());
    }
    out.push(b'}');
    out
}

/// A file taken apart, nothing verified yet.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The bytes that are signed.
    pub signed: &'a [u8],
    /// Key id and signature, in file order; no id twice.
    pub signatures: Vec<(KeyId, [u8; 64])>,
}

#[derive(Deserialize)]
struct File<'a> {
    signatures: Vec<FileSignature>,
    #[serde(borrow)]
    signed: &'a RawValue,
}

#[derive(Deserialize)]
struct FileSignature {
    keyid: KeyId,
    sig: String,
}

impl<'a> Envelope<'a> {
    /// Takes a file apart. Unknown fields beside `signatures` and `signed` are passed over, as clients do.
    ///
    /// # Errors
    /// `Corrupt` if it has another shape, or two signatures of one key (every client refuses those).
    pub fn open(bytes: &'a [u8]) -> Result<Envelope<'a>> {
        let file: File<'a> =
            serde_json::from_slice(bytes).map_err(|e| Error::corrupt(format!("not a TUF metadata file: {e}")))?;
        let mut seen = BTreeSet::new();
        let mut signatures = Vec::with_capacity(file.signatures.len());
        for FileSignature { keyid, sig } in file.signatures {
            if !seen.insert(keyid) {
                return Err(Error::corrupt(format!("two signatures of key {keyid}")));
            }
            let signature = lower_hex(&sig).ok_or_else(|| {
                Error::corrupt(format!("the signature of key {keyid} is not {SIG_DIGITS} lower hex digits"))
            })?;
            signatures.push((keyid, signature));
        }
        Ok(Envelope { signed: file.signed.get().as_bytes(), signatures })
    }

    /// True if `bytes`, the file that was opened, is laid out exactly as [`seal`] lays it out, given its signatures.
    pub fn is_sealed_form(&self, bytes: &[u8]) -> bool {
        let mut head = br#"{"signatures":["#.to_vec();
        for (i, (id, signature)) in self.signatures.iter().enumerate() {
            let (comma, signature) = (if i == 0 { "" } else { "," }, hex::encode(signature));
            head.extend_from_slice(format!(r#"{comma}{{"keyid":"{id}","sig":"{signature}"}}"#).as_bytes());
        }
        head.extend_from_slice(br#"],"signed":"#);
        let rest = bytes.strip_prefix(&head[..]).and_then(|rest| rest.strip_suffix(b"}"));
        rest == Some(self.signed) && self.signatures.is_sorted_by(|a, b| a.0 < b.0)
    }

    /// Checks that enough distinct keys of `role` have signed. Signatures of other keys do not count and do no harm.
    ///
    /// # Errors
    /// `Corrupt`, saying how many signatures were valid of how many needed.
    pub fn verify(&self, keys: &BTreeMap<KeyId, PublicKey>, role: &RoleKeys) -> Result<()> {
        let need = role.threshold.max(1) as usize; // an unchecked role with threshold 0 must not let everything in
        let mut valid = BTreeSet::new();
        for (id, signature) in &self.signatures {
            let Some(key) = keys.get(id).filter(|_| role.key_ids.contains(id)) else { continue };
            if key.verify(self.signed, signature) {
                valid.insert(key.key_id());
            }
            if valid.len() >= need {
                return Ok(()); // hashing megabytes once more would prove nothing
            }
        }
        Err(Error::corrupt(format!(
            "{} of {} signatures valid, {need} of {} keys must sign",
            valid.len(),
            self.signatures.len(),
            role.key_ids.len()
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;
    use crate::tuf::canonical;

    fn signers(seeds: &[u8]) -> Vec<Arc<Signer>> {
        seeds.iter().map(|seed| Arc::new(Signer::from_seed(&[*seed; 32]))).collect()
    }

    fn role(signers: &[Arc<Signer>], threshold: u32) -> (BTreeMap<KeyId, PublicKey>, RoleKeys) {
        let keys: BTreeMap<_, _> = signers.iter().map(|s| (*s.public().key_id(), s.public().clone())).collect();
        let role = RoleKeys { key_ids: keys.keys().copied().collect(), threshold };
        (keys, role)
    }

    fn sealed(signers: &[Arc<Signer>]) -> Vec<u8> {
        seal(signers, |out| out.extend_from_slice(br#"{"a":[1]}"#))
    }

    #[test]
    fn a_sealed_file_is_canonical_and_its_signers_in_order() {
        let file = sealed(&signers(&[3, 1, 2, 3]));
        assert!(canonical::is_canonical(&file));
        let envelope = Envelope::open(&file).unwrap();
        assert_eq!(envelope.signed, br#"{"a":[1]}"#);
        assert_eq!(envelope.signatures.len(), 3);
        assert!(envelope.signatures.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(file, sealed(&signers(&[1, 2, 3])));
        assert!(envelope.is_sealed_form(&file));
        let spaced = [&file[..], b" "].concat();
        assert!(!Envelope::open(&spaced).unwrap().is_sealed_form(&spaced));
        assert_eq!(seal(&[], |out| out.extend_from_slice(b"{}")), br#"{"signatures":[],"signed":{}}"#);
    }

    #[test]
    fn a_threshold_counts_distinct_keys_of_the_role() {
        let all = signers(&[1, 2, 3]);
        let (keys, two_of_three) = role(&all, 2);
        assert!(Envelope::open(&sealed(&all)).unwrap().verify(&keys, &two_of_three).is_ok());
        assert!(Envelope::open(&sealed(&all[1..])).unwrap().verify(&keys, &two_of_three).is_ok());

        let file = sealed(&signers(&[1, 8, 9])); // 8 and 9 are strangers
        let error = Envelope::open(&file).unwrap().verify(&keys, &two_of_three).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt);
        assert_eq!(error.message, "1 of 3 signatures valid, 2 of 3 keys must sign");

        let (_, only_first) = role(&all[..1], 1); // the others are known, but not of this role
        assert!(Envelope::open(&sealed(&all[1..])).unwrap().verify(&keys, &only_first).is_err());

        let nobody = RoleKeys { key_ids: vec![], threshold: 0 };
        assert!(Envelope::open(&sealed(&[])).unwrap().verify(&keys, &nobody).is_err());
    }

    #[test]
    fn one_key_filed_under_two_ids_counts_once() {
        let all = signers(&[1, 2]);
        let (mut keys, both) = role(&all, 2);
        keys.insert(*all[1].public().key_id(), all[0].public().clone());
        let mut envelope_of = Envelope { signed: b"{}", signatures: vec![] };
        envelope_of.signatures = all.iter().map(|s| (*s.public().key_id(), all[0].sign(b"{}"))).collect();
        assert!(envelope_of.verify(&keys, &both).is_err());
    }

    #[test]
    fn another_layout_of_the_signed_part_does_not_verify() {
        let all = signers(&[1]);
        let (keys, one) = role(&all, 1);
        let file = String::from_utf8(sealed(&all)).unwrap().replace("[1]", "[ 1 ]");
        assert!(Envelope::open(file.as_bytes()).unwrap().verify(&keys, &one).is_err());
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        let file = String::from_utf8(sealed(&signers(&[1]))).unwrap();
        let entry = &file[file.find('[').unwrap() + 1..file.find(']').unwrap()];
        for bad in [
            String::new(),
            "[]".to_owned(),
            r#"{"signed":{}}"#.to_owned(),
            r#"{"signatures":[]}"#.to_owned(),
            r#"{"signatures":[],"signed":{},"signed":{}}"#.to_owned(),
            format!(r#"{{"signatures":[{entry},{entry}],"signed":{{}}}}"#),
            file.replace(r#""sig":""#, r#""sig":"0"#),
            file.to_uppercase(),
            format!("{file}x"),
        ] {
            assert_eq!(Envelope::open(bad.as_bytes()).unwrap_err().kind, Kind::Corrupt, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::open(&bytes);
        }

        #[test]
        fn one_changed_byte_of_a_file_is_never_accepted_as_other_content(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let all = signers(&[1, 2]);
            let (keys, both) = role(&all, 2);
            let mut file = sealed(&all);
            let at = at.index(file.len());
            file[at] = to;
            if let Ok(envelope) = Envelope::open(&file) {
                let same = envelope.signed == br#"{"a":[1]}"#;
                prop_assert!(same || envelope.verify(&keys, &both).is_err());
            }
        }
    }
}
