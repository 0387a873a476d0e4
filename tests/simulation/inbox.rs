//! The inbox: what anybody writes there, how the intakes share it, and the check that each record is sequenced once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;
use tuflog::bins::PartitionId;
use tuflog::error::Result;
use tuflog::log::memory::MemoryLog;
use tuflog::log::{self, Log, Offset, Partition};

use crate::dice::Dice;
use crate::gate::Gate;
use crate::producer::digest_of;
use crate::replay::{Changes, Replay, Verdict};

pub type Owned = BTreeSet<PartitionId>;

/// The group. Here two may own a partition for a while; of the one that is on its way out nothing lower is taken any
/// more, as Kafka takes nothing from a member of an earlier generation.
#[derive(Clone)]
pub struct Told(Arc<Mutex<BTreeMap<PartitionId, Offset>>>);

/// One intake's view of the inbox.
pub struct Desk {
    pub log: MemoryLog,
    pub gate: Arc<Gate>,
    pub told: Told,
    pub owned: watch::Receiver<Result<Owned>>,
}

impl log::Inbox for Desk {
    fn owned(&self) -> watch::Receiver<Result<Owned>> {
        self.owned.clone()
    }

    fn span(&self, partition: PartitionId) -> BoxFuture<'_, Result<Range<Offset>>> {
        Box::pin(async move { Ok(0..self.log.end(Partition::Inbox(partition)).await?) })
    }

    fn told(&self, partition: PartitionId) -> BoxFuture<'_, Result<Option<Offset>>> {
        Box::pin(async move {
            let told = self.told.0.lock().expect("one thread").get(&partition).copied();
            self.gate.pass("after told").await;
            Ok(told)
        })
    }

    fn tell(&self, partition: PartitionId, next: Offset) {
        let owns = self.owned.borrow().as_ref().is_ok_and(|owned| owned.contains(&partition));
        if owns {
            let mut told = self.told.0.lock().expect("one thread");
            let most = told.entry(partition).or_default();
            *most = next.max(*most);
        }
    }
}

/// What a record must become.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Must {
    /// Valid, exactly once.
    Apply,
    /// Refused, and never sequenced.
    Refuse,
    /// It has an id and a basis: valid, or a duplicate, or refused because it came too late.
    Either,
}

/// All that is known of the inbox from outside.
pub struct Mail {
    dice: Dice,
    log: MemoryLog,
    pub partitions: PartitionId,
    pub told: Told,
    musts: BTreeMap<(PartitionId, Offset), Must>,
    next: BTreeMap<PartitionId, Offset>,
    letters: u64,
}

impl Mail {
    pub fn new(dice: &Dice, log: &MemoryLog) -> Mail {
        let told = Told(Arc::default());
        let (dice, log, partitions) = (dice.clone(), log.clone(), dice.of(&[1, 2, 3]));
        Mail { dice, log, partitions, told, musts: BTreeMap::new(), next: BTreeMap::new(), letters: 0 }
    }

    /// Somebody writes a record.
    pub fn write(&mut self, content: &Changes, replay: &Replay) {
        let change = |(path, target): &(String, Option<String>)| match target {
            None => json!({"op": "remove", "path": path}),
            Some(target) => {
                let mut change: Value = serde_json::from_str(target).expect("JSON");
                (change["op"], change["path"]) = ("add".into(), path.as_str().into());
                change
            }
        };
        let mut batch = json!({"changes": content.iter().map(change).collect::<Vec<_>>()});
        self.letters += 1;
        let payload = match self.dice.below(12) {
            0 => "{\"changes\":".into(),
            1 => "[]".into(),
            2 => {
                batch["changes"][0]["path"] = "../x".into();
                batch.to_string()
            }
            3 => {
                batch["basis"] = (replay.next + 1_000_000).into();
                batch.to_string()
            }
            4..=5 => {
                batch["id"] = format!("letter-{}", self.letters).into();
                batch["basis"] = (replay.next - 1).into();
                batch.to_string()
            }
            _ => batch.to_string(),
        };
        let to = Partition::Inbox(self.dice.below(self.partitions.into()) as PartitionId);
        for _ in 0..if self.dice.pct(10) { 2 } else { 1 } {
            let _ = self.log.append(to, Bytes::from(payload.clone())).now_or_never();
        }
    }

    /// Looks at what is new in the inbox.
    pub fn observe(&mut self, replay: &mut Replay) {
        for p in 0..self.partitions {
            let next = self.next.entry(p).or_default();
            for r in self.log.records_from(Partition::Inbox(p), *next) {
                *next = r.offset + 1;
                let must = must(&r.payload, (p, r.offset), replay);
                self.musts.insert((p, r.offset), must);
            }
        }
    }

    fn refusals(&self) -> BTreeMap<(PartitionId, Offset), BTreeSet<String>> {
        let mut all: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for r in self.log.records(Partition::Rejects) {
            let v: Value = serde_json::from_slice(&r.payload).expect("JSON");
            let number = |name: &str| v[name].as_u64().expect("a number");
            let place = (number("partition") as PartitionId, number("offset"));
            let kind = v["error"]["kind"].as_str().expect("a kind").to_owned();
            if !all.entry(place).or_default().insert(kind) {
                self.dice.hit("inbox: refusals repeated");
            }
        }
        all
    }

    /// Whether every record has become something.
    pub fn is_empty(&self, replay: &Replay) -> bool {
        let refusals = self.refusals();
        self.musts.keys().all(|place| refusals.contains_key(place) || replay.sequenced.contains_key(place))
    }

    /// Whether every record has become what it must, once.
    pub fn check(&self, replay: &Replay) -> std::result::Result<(), String> {
        let refusals = self.refusals();
        for (place, must) in &self.musts {
            let (refused, verdict) = (refusals.get(place), replay.sequenced.get(place));
            let good = match (must, verdict, refused) {
                (Must::Apply, Some(Verdict::Valid), None) => "inbox: records applied",
                (Must::Refuse, None, Some(kinds)) if kinds.iter().eq(["Invalid"]) => "inbox: records refused",
                (Must::Either, Some(Verdict::Valid), None) => "inbox: records with a basis applied",
                (Must::Either, Some(Verdict::Duplicate), None) => "inbox: records with a basis found twice",
                (Must::Either, None, Some(kinds)) if kinds.iter().eq(["Indeterminate"]) => "inbox: records too late",
                _ => return Err(format!("inbox record {place:?} must {must:?}: {verdict:?}, refused as {refused:?}")),
            };
            self.dice.hit(good);
        }
        Ok(())
    }

    /// What the group says is decided: all that there is.
    pub fn lag(&self) -> u64 {
        let told = self.told.0.lock().expect("one thread");
        self.next.iter().map(|(p, next)| next.saturating_sub(told.get(p).copied().unwrap_or(0))).sum()
    }
}

fn must(payload: &[u8], (partition, offset): (PartitionId, Offset), replay: &mut Replay) -> Must {
    let Ok(v) = serde_json::from_slice::<Value>(payload) else { return Must::Refuse };
    let Some(changes) = v["changes"].as_array().filter(|c| c.iter().all(|c| c["path"] != "../x")) else {
        return Must::Refuse;
    };
    if v["basis"].as_u64().is_some_and(|basis| basis >= 1_000_000) {
        return Must::Refuse;
    }
    let change = |c: &Value| {
        let (path, mut target) = (c["path"].as_str().expect("a path").to_owned(), c.clone());
        let fields = target.as_object_mut().expect("an object");
        fields.retain(|name, _| name != "op" && name != "path");
        (path, (c["op"] == "add").then(|| target.to_string()))
    };
    let content: Changes = changes.iter().map(change).collect();
    let own = v["id"].as_str().map(str::to_owned);
    let must = if own.is_some() { Must::Either } else { Must::Apply };
    let id = own.unwrap_or_else(|| format!("inbox:{partition}:{offset}"));
    replay.written.insert((id, digest_of(&content)), content);
    must
}
