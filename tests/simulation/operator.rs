//! The operator and the world's other writers: roots, settings, keys, and records that come late or for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use serde_json::{Value, json};
use tuflog::ledger::record::{Cut, Format, Record, Renew, RootRecord, Settings, SettingsRecord};
use tuflog::log::memory::MemoryLog;
use tuflog::log::{Log, Partition};
use tuflog::tuf::{KeyRing, RoleKeys, Root, Signer};

use crate::dice::Dice;
use crate::replay::Replay;

/// The world's first second, far enough from 0 that a clock may go back.
pub const START: u64 = 1_700_000_000;

pub struct Operator {
    dice: Dice,
    log: MemoryLog,
    root_key: Arc<Signer>,
    online: Vec<Arc<Signer>>,
    /// Which online key each role of each root uses: targets, snapshot, timestamp.
    roles: BTreeMap<u64, [usize; 3]>,
    /// Online keys below it are destroyed.
    pub destroyed: usize,
    pub destroys: bool,
}

impl Operator {
    pub fn new(dice: Dice, log: MemoryLog, destroys: bool) -> Operator {
        let root_key = Arc::new(Signer::from_seed(&[1; 32]));
        let online = (0..8).map(|k| Arc::new(Signer::from_seed(&[10 + k; 32]))).collect();
        Operator { dice, log, root_key, online, roles: BTreeMap::new(), destroyed: 0, destroys }
    }

    /// The first records of the ledger.
    pub fn init(&mut self, replay: &mut Replay, bins: u32, partitions: u32, settings: Settings) {
        self.append(Record::Format(Format { epoch: 1, bins, partitions }).encode());
        self.append(Record::Settings(SettingsRecord { revision: 1, settings }).encode());
        let document = self.root(replay, 1, [0; 3]);
        self.append(Record::Root(RootRecord { document }).encode());
    }

    pub fn append(&self, payload: Bytes) {
        let answer = self.log.append(Partition::Ledger, payload).now_or_never();
        self.dice.trace(|| format!("operator's append: {answer:?}"));
    }

    /// Makes and remembers a root.
    fn root(&mut self, replay: &mut Replay, version: u64, roles: [usize; 3]) -> String {
        let role = |key: &Arc<Signer>| RoleKeys::new(vec![*key.public().key_id()], 1);
        let keys = roles.iter().map(|k| &self.online[*k]).chain([&self.root_key]);
        let root = Root {
            version,
            expires: START + 10 * 365 * 86_400,
            keys: keys.map(|k| (*k.public().key_id(), k.public().clone())).collect(),
            root: role(&self.root_key),
            targets: role(&self.online[roles[0]]),
            snapshot: role(&self.online[roles[1]]),
            timestamp: role(&self.online[roles[2]]),
        };
        let document =
            String::from_utf8(root.render(std::slice::from_ref(&self.root_key)).expect("a root")).expect("text");
        replay.signed_roots.insert(document.clone());
        self.roles.entry(version).or_insert(roles);
        document
    }

    /// The keys that exist now.
    pub fn keys(&self) -> Arc<KeyRing> {
        let mut ring = KeyRing::default();
        self.online[self.destroyed..].iter().for_each(|key| ring.insert(key.clone()));
        Arc::new(ring)
    }

    /// Destroys the keys that no cut from the completed root on needs. True when there were some.
    pub fn destroy_old_keys(&mut self, completed_root: u64) -> bool {
        let needed = self.roles.range(completed_root..).flat_map(|(_, roles)| roles).min().copied().unwrap_or(0);
        let some = self.destroys && needed > self.destroyed;
        if some {
            self.dice.trace(|| format!("online keys below {needed} are destroyed"));
            self.dice.hit("keys destroyed");
            self.destroyed = needed;
        }
        some
    }

    /// Appends the next root: new keys for some or all roles, or none but the version.
    pub fn rotate(&mut self, replay: &mut Replay) {
        let last = replay.root();
        // One root a version: a second attempt after an unanswered append sends the same document.
        let Some(mut roles) = self.roles.get(&last).copied().filter(|_| !self.roles.contains_key(&(last + 1))) else {
            return;
        };
        let newest = roles.iter().max().copied().unwrap_or(0);
        if newest + 1 >= self.online.len() {
            return;
        }
        let which = self.dice.of(&[7, 7, 7, 1, 2, 4, 6, 0]);
        (0..3).filter(|i| which >> i & 1 == 1).for_each(|i| roles[i] = newest + 1);
        self.dice.hit(match which {
            7 => "rotations of all roles",
            0 => "roots without a rotation",
            _ => "rotations of some roles",
        });
        let document = self.root(replay, last + 1, roles);
        let payload = Record::Root(RootRecord { document }).encode();
        self.append(payload.clone());
        if self.dice.pct(50) {
            self.append(payload);
        }
    }

    /// Appends settings: valid ones, repeated ones, and ones that would lower the horizon.
    pub fn change_settings(&self, replay: &Replay) {
        let mut settings: Settings = serde_json::from_value(replay.settings.clone()).expect("settings");
        match self.dice.below(4) {
            0 => settings.horizon += self.dice.below(20),
            1 => settings.horizon = settings.horizon.saturating_sub(5).max(1), // void
            2 => settings.bins_expiry_s = 300 + self.dice.below(300),
            _ => settings.timestamp_expiry_s = 150 + self.dice.below(200),
        }
        let record = Record::Settings(SettingsRecord { revision: replay.revision + 1, settings }).encode();
        self.append(record.clone());
        if self.dice.pct(30) {
            self.append(record);
        }
    }

    /// Appends settings under which timestamps live much longer.
    pub fn raise_timestamp_expiry(&self, replay: &Replay) {
        let mut settings: Settings = serde_json::from_value(replay.settings.clone()).expect("settings");
        settings.timestamp_expiry_s *= 3;
        self.append(Record::Settings(SettingsRecord { revision: replay.revision + 1, settings }).encode());
    }

    /// A record that some process sent long ago, or that two send at once.
    pub fn late_record(&self, replay: &Replay, time: u64) {
        let records = self.log.records(Partition::Ledger);
        let old = |kind: &str| {
            let of_kind = |v: &Value| v["kind"] == kind;
            let all = records.iter().filter(|r| serde_json::from_slice(&r.payload).is_ok_and(|v| of_kind(&v)));
            let all: Vec<Bytes> = all.map(|r| r.payload.clone()).collect();
            (!all.is_empty()).then(|| self.dice.of(&all))
        };
        match self.dice.below(6) {
            0 | 1 => drop(old("checkpoint").map(|payload| self.append(payload))),
            2 => drop(old("commit").map(|payload| self.append(payload))),
            3 => {
                // A rival's Cut: of the number that is open, or that comes next.
                let n = replay.cuts.len() as u64 + self.dice.below(2);
                let end = self.log.records(Partition::Folds).last().map_or(0, |r| r.offset + 1);
                self.append(Record::Cut(Cut { n: n.max(1), time, folds_from: self.dice.of(&[0, end]) }).encode());
            }
            4 => drop(old("cut").map(|payload| self.append(payload))),
            _ => {
                let after = (replay.stamps.len() as u64).saturating_sub(self.dice.below(2));
                self.append(Record::Renew(Renew { after, time }).encode());
            }
        }
    }
}

/// How a world's settings begin: everything expires soon.
pub fn settings(dice: &Dice) -> Settings {
    let settings = json!({
        "horizon": dice.of(&[10, 10, 30, 80, 300]),
        "state_every": dice.of(&[1, 2, 5]),
        "targets_expiry_s": 900,
        "bins_expiry_s": 400,
        "snapshot_expiry_s": 500,
        "timestamp_expiry_s": 200,
    });
    serde_json::from_value(settings).expect("settings")
}
