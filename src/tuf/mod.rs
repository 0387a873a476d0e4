//! The TUF format: roles, canonical JSON, keys and signers. No I/O but the key files.
//!
//! Everything that is published is rendered here, and every function that renders is a pure function of its
//! arguments: no clock, no randomness, no map order, and ed25519 signatures are deterministic. This is the
//! half of "any restart, any number of workers ⇒ the same bytes" (invariant 5) that belongs to this room;
//! `tests/fixtures/tuf` pins the bytes.
//!
//! What is written is the narrow dialect that stock clients agree on: ed25519 keys whose id is the sha256 of the
//! key object, sha256 digests, integers, dates as `YYYY-MM-DDTHH:MM:SSZ`, `spec_version` 1.0.0, consistent
//! snapshots, succinct delegation (TAP 15) to roles `bins-…`, and whole files in canonical JSON.
//!
//! | module | owns |
//! |---|---|
//! | [`canonical`] | canonical JSON, there and back |
//! | [`key`] | ed25519 keys, key ids, the ring of private keys |
//! | [`key_file`] | private keys as PEM files |
//! | [`envelope`] | `{"signatures":…,"signed":…}`: signing and thresholds |
//! | [`root`] | root metadata and the chain of roots |
//! | [`role`] | timestamp, snapshot, targets and bins as bytes |
//! | [`parse`] | the same roles read back |

pub mod canonical;
pub mod envelope;
pub mod key;
pub mod key_file;
pub(crate) mod members;
pub mod parse;
pub mod role;
pub mod root;
#[cfg(test)]
mod tests;

pub use envelope::Envelope;
pub use key::{KeyId, KeyRing, PublicKey, Signer};
pub use parse::{Bin, Snapshot, Targets, Timestamp};
pub use role::Meta;
pub use root::{RoleKeys, Root};

/// The one `spec_version` that every client accepts; rust-tuf refuses any later patch number.
pub const SPEC_VERSION: &str = "1.0.0";

/// Bins are named `bins-` and the bin number in lower hex. Never change it: clients refuse a snapshot that lost a name.
pub const BIN_PREFIX: &str = "bins";
