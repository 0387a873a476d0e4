//! The pointer: timestamp.json against what the ledger says of it.
//!
//! It is read once, when the audit begins, and compared when the replay reaches its version. It may stand behind the
//! ledger: a node that was killed between a Checkpoint or Renew and the move leaves it there, and the next one moves it.
//! But a node moves it before it appends the next Cut or Renew, so it cannot stand behind what those follow.

use bytes::Bytes;

use super::damage::Damage;
use super::finding::{Finding, Value};
use super::objects::{Checked, Expect, check_signed};

use crate::error::Result;
use crate::ledger::state::Stamp;
use crate::store::{POINTER, Store};
use crate::tuf::role::{self, Meta};
use crate::tuf::root::Root;
use crate::tuf::{Envelope, parse};

/// See the module.
pub struct Pointer {
    bytes: Option<Bytes>,
    /// 0 if there is none, `None` if it cannot be read.
    version: Option<u64>,
    /// The least version that it may have, and why.
    least: (u64, String),
    /// Why it is ahead of the ledger has been said.
    is_explained: bool,
}

impl Pointer {
    /// Reads the pointer.
    pub async fn read(store: &dyn Store) -> Result<Pointer> {
        let bytes = store.get(POINTER).await?;
        let parsed = |b: &Bytes| parse::parse_timestamp(Envelope::open(b)?.signed).map(|t| t.version);
        let version = bytes.as_ref().map_or(Some(0), |b| parsed(b).ok());
        Ok(Pointer { bytes, version, least: (0, String::new()), is_explained: false })
    }

    /// A record that follows version `version`: whoever appended it had moved the pointer at least there.
    pub fn follow(&mut self, version: u64, what: impl FnOnce() -> String) {
        if version > self.least.0 {
            self.least = (version, what());
        }
    }

    /// Its version, if that is ahead of what the ledger says and the keys of `root` have signed it.
    pub fn ahead(&self, stamp: Option<&Stamp>, root: Option<&Root>) -> Option<u64> {
        let version = self.version.filter(|version| *version > stamp.map_or(0, |s| s.version))?;
        let envelope = Envelope::open(self.bytes.as_ref()?).ok()?;
        root.is_none_or(|r| envelope.verify(&r.keys, &r.timestamp).is_ok()).then_some(version)
    }

    /// If it is ahead of a version, why has been said.
    pub fn explain_beyond(&mut self, version: u64) {
        self.is_explained = self.version.is_some_and(|own| own > version);
    }

    /// Compares it, if the ledger has come to its version.
    pub fn reached(&self, stamp: &Stamp) -> Option<Checked> {
        (self.version == Some(stamp.version)).then(|| self.compare(stamp))
    }

    /// Compares it with the last that the ledger says. Answers a finding, or a note.
    pub fn finish(&self, stamp: Option<&Stamp>) -> (Option<Box<Finding>>, Option<String>) {
        if self.is_explained {
            return (None, None);
        }
        let last = stamp.map_or(0, |s| s.version);
        let found = self.bytes.as_ref().map(|b| Value::of(Envelope::open(b).map_or(b, |e| e.signed)));
        let expected = || stamp.map(|s| Value::of(&signed(s)));
        let finding = match (self.version, stamp) {
            (None, Some(stamp)) => match self.compare(stamp) {
                Checked::Wrong(finding) => finding,
                _ => return (None, None),
            },
            (None | Some(1..), None) => {
                Finding::new(Damage::ObjectAdded, POINTER, "the ledger has no Checkpoint yet").values(None, found)
            }
            (Some(0), _) if self.least.0 > 0 => {
                let what = format!("there is none, but {}", self.least.1);
                Finding::new(Damage::ObjectMissing, POINTER, what).values(expected(), None)
            }
            (Some(version), _) if version > last => {
                let what = format!("it is version {version}, the ledger makes {last}, and its keys have not signed it");
                Finding::new(Damage::BadSignature, POINTER, what).values(expected(), found)
            }
            (Some(version), _) if version < self.least.0 => {
                let what = format!("to version {version}: {}", self.least.1);
                Finding::new(Damage::RolledBack, POINTER, what).values(expected(), found)
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
