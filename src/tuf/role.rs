//! Renders the online roles: timestamp, snapshot, targets and bins.
//!
//! Each function is a pure function of its arguments and owns the byte layout of one role: whatever process runs it,
//! the file is the same (invariant 5), and under one name there is one signed content (invariant 3). `version` is the
//! number of the cut, for the timestamp the number of Checkpoint and Renew records; `expires` is in Unix seconds. Large
//! parts, the targets of a bin and the bins of a snapshot, come in ready to publish and are copied once.
//!
//! Each role has two functions: one that gives the sealed file, and `signed_…`, which gives only what the signatures
//! are over, for those who verify and hold no private key.

use std::sync::Arc;

use crate::clock::format_utc;
use crate::tuf::envelope::seal;
use crate::tuf::key::Signer;
use crate::tuf::root::Root;
use crate::tuf::{BIN_PREFIX, SPEC_VERSION};

/// Room for everything of a signed part that has a fixed size.
const FRAME: usize = 512;

/// What one file says about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its version.
    pub version: u64,
    /// Its length in bytes, all of it, signatures too.
    pub length: u64,
    /// The sha256 of those bytes.
    pub sha256: [u8; 32],
}

impl Meta {
    /// The description of a file of this version with these bytes.
    pub fn of(version: u64, bytes: &[u8]) -> Meta {
        use sha2::{Digest, Sha256};
        Meta { version, length: bytes.len() as u64, sha256: Sha256::digest(bytes).into() }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Meta { version, length, sha256 } = self;
        let sha256 = hex::encode(sha256);
        let text = format!(r#"{{"hashes":{{"sha256":"{sha256}"}},"length":{length},"version":{version}}}"#);
        out.extend_from_slice(text.as_bytes());
    }
}

/// A bin: `N.bins-xxxx.json`.
///
/// `content` is its members `"path":{fragment}`, canonical, sorted and joined by commas; empty for an empty bin.
pub fn bin(signers: &[Arc<Signer>], version: u64, expires: u64, content: &[u8]) -> Vec<u8> {
    seal(signers, |out| signed_bin(version, expires, content, out))
}

/// Appends the signed part of a [`bin`].
pub fn signed_bin(version: u64, expires: u64, content: &[u8], out: &mut Vec<u8>) {
    out.reserve_exact(content.len() + FRAME);
    head("targets", expires, out);
    spec_version(out);
    out.extend_from_slice(br#","targets":{"#);
    out.extend_from_slice(content);
    out.push(b'}');
    tail(version, out);
}

/// `N.targets.json`: no targets of its own, all of them delegated to 2^`bit_length` bins with the targets role's keys.
///
/// `root` must be valid, as every parsed [`Root`] is. `bit_length` is 1 to 32 (TAP 15).
pub fn targets(signers: &[Arc<Signer>], version: u64, expires: u64, root: &Root, bit_length: u8) -> Vec<u8> {
    seal(signers, |out| signed_targets(version, expires, root, bit_length, out))
}

/// Appends the signed part of [`targets`].
pub fn signed_targets(version: u64, expires: u64, root: &Root, bit_length: u8, out: &mut Vec<u8>) {
    let role = &root.targets;
    out.extend_from_slice(br#"{"_type":"targets","delegations":{"keys":{"#);
    for (i, key) in role.key_ids.iter().filter_map(|id| root.keys.get(id)).enumerate() {
        let comma = if i == 0 { "" } else { "," };
        out.extend_from_slice(format!(r#"{comma}"{}":"#, key.key_id()).as_bytes());
        key.write(out);
    }
    let key_ids = role.key_ids.iter().map(|id| format!(r#""{id}""#)).collect::<Vec<_>>().join(",");
    let succinct = format!(
        r#"}},"succinct_roles":{{"bit_length":{bit_length},"keyids":[{key_ids}],"name_prefix":"{BIN_PREFIX}","threshold":{}}}}},"#,
        role.threshold
    );
    out.extend_from_slice(succinct.as_bytes());
    out.extend_from_slice(format!(r#""expires":"{}""#, format_utc(expires)).as_bytes());
    spec_version(out);
    out.extend_from_slice(br#","targets":{}"#);
    tail(version, out);
}

/// `N.snapshot.json`.
///
/// `bins` is the members `"bins-xxxx.json":{"version":V}`, sorted and joined by commas. They list versions only:
/// digests would be two thirds of the file, and a version names one content already (invariant 3).
pub fn snapshot(signers: &[Arc<Signer>], version: u64, expires: u64, targets: &Meta, bins: &[u8]) -> Vec<u8> {
    seal(signers, |out| signed_snapshot(version, expires, targets, bins, out))
}

/// Appends the signed part of a [`snapshot`].
pub fn signed_snapshot(version: u64, expires: u64, targets: &Meta, bins: &[u8], out: &mut Vec<u8>) {
    out.reserve_exact(bins.len() + FRAME);
    head("snapshot", expires, out);
    out.extend_from_slice(br#","meta":{"#);
    out.extend_from_slice(bins);
    if !bins.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(br#""targets.json":"#);
    targets.write(out);
    out.push(b'}');
    spec_version(out);
    tail(version, out);
}

/// `timestamp.json`. It lists the snapshot's length, which lifts the clients' default size limits.
pub fn timestamp(signers: &[Arc<Signer>], version: u64, expires: u64, snapshot: &Meta) -> Vec<u8> {
    seal(signers, |out| signed_timestamp(version, expires, snapshot, out))
}

/// Appends the signed part of a [`timestamp`].
pub fn signed_timestamp(version: u64, expires: u64, snapshot: &Meta, out: &mut Vec<u8>) {
    head("timestamp", expires, out);
    out.extend_from_slice(br#","meta":{"snapshot.json":"#);
    snapshot.write(out);
    out.push(b'}');
    spec_version(out);
    tail(version, out);
}

fn head(role: &str, expires: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(r#"{{"_type":"{role}","expires":"{}""#, format_utc(expires)).as_bytes());
}

fn spec_version(out: &mut Vec<u8>) {
    out.extend_from_slice(format!(r#","spec_version":"{SPEC_VERSION}""#).as_bytes());
}

fn tail(version: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(r#","version":{version}}}"#).as_bytes());
}
