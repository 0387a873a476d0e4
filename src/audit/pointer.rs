//! The pointer: timestamp.json against what the ledger says of it.
//!
//! It is read once, when the audit begins, and compared when the replay reaches its version. It may stand behind the
//! ledger: a node that was killed between a Checkpoint or Renew and the move leaves it there, and the next one moves it.
//! But a node moves it before it appends the next Cut or Renew, so it cannot stand behind what those follow.

use bytes::Bytes;

use super::objects::{Checked, Expect, check_signed};
use super::report::{Finding, Value};
use crate::error::Result;
use crate::ledger::state::Stamp;
use crate::store::{POINTER, Store};
use crate::tuf::role::{self, Meta};
use crate::tuf::{Envelope, parse};

/// See the module.
pub struct Pointer {
    bytes: Option<Bytes>,
    /// 0 if there is none, `None` if it cannot be read.
    version: Option<u64>,
    /// The least version that it may have, and why.
    least: (u64, String),
}

impl Pointer {
    /// Reads the pointer.
    pub async fn read(store: &dyn Store) -> Result<Pointer> {
        let bytes = store.get(POINTER).await?;
        let parsed = |b: &Bytes| parse::parse_timestamp(Envelope::open(b)?.signed).map(|t| t.version);
        let version = bytes.as_ref().map_or(Some(0), |b| parsed(b).ok());
        Ok(Pointer { bytes, version, least: (0, String::new()) })
    }

    /// A record that follows version `version`: whoever appended it had moved the pointer at least there.
    pub fn follow(&mut self, version: u64, what: impl FnOnce() -> String) {
        if version > self.least.0 {
            self.least = (version, what());
        }
    }

    /// Compares it, if the ledger has come to its version.
    pub fn reached(&self, stamp: &Stamp) -> Option<Checked> {
        (self.version == Some(stamp.version)).then(|| self.compare(stamp))
    }

    /// Compares it with the last that the ledger says. Answers a finding, or a note.
    pub fn finish(&self, stamp: Option<&Stamp>) -> (Option<Box<Finding>>, Option<String>) {
        let last = stamp.map_or(0, |s| s.version);
        let found = self.bytes.as_ref().map(|b| Value::of(Envelope::open(b).map_or(b, |e| e.signed)));
        let expected = || stamp.map(|s| Value::of(&signed(s)));
        let finding = match (self.version, stamp) {
            (None, Some(stamp)) => match self.compare(stamp) {
                Checked::Wrong(finding) => finding,
                _ => return (None, None),
            },
            (None | Some(1..), None) => {
                Finding::unexpected(POINTER, "the ledger has no Checkpoint yet").values(None, found)
            }
            (Some(0), _) if self.least.0 > 0 => {
                let what = format!("there is none, but {}", self.least.1);
                Finding::missing(POINTER, what).values(expected(), None)
            }
            (Some(version), _) if version > last => {
                let what =
                    format!("it is version {version}, the ledger makes {last}: it has lost its end, or is another's");
                Finding::altered(POINTER, what).values(expected(), found)
            }
            (Some(version), _) if version < self.least.0 => {
                let what = format!("it was put back to version {version}: {}", self.least.1);
                Finding::altered(POINTER, what).values(expected(), found)
            }
            (Some(version), _) if version < last => {
                let note =
                    format!("{POINTER} is behind: at version {version}, the ledger says {last}; serve will move it");
                return (None, Some(note));
            }
            _ => return (None, None),
        };
        (Some(finding), None)
    }

    fn compare(&self, stamp: &Stamp) -> Checked {
        let by = format!("version {} of it by the ledger, over checkpoint {}", stamp.version, stamp.n);
        let expect = Expect { name: POINTER.into(), version: stamp.version, by };
        let root = &stamp.root.root;
        check_signed(&expect, self.bytes.as_ref(), &signed(stamp), root, &root.timestamp)
    }
}

/// The signed part of the timestamp that a ledger state stands for.
fn signed(stamp: &Stamp) -> Vec<u8> {
    let mut out = Vec::new();
    let snapshot = Meta { version: stamp.n, length: stamp.snapshot.length, sha256: stamp.snapshot.sha256 };
    role::signed_timestamp(stamp.version, stamp.expires, &snapshot, &mut out);
    out
}
