//! The naive replay: what the ledger says the repository must be, worked out a second time from the raw records as
//! JSON values, with every id ever seen, one map of the whole repository, and content as its *producer* wrote it.
//! Nothing of `tuflog::ledger` is used here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A producer's changes: path and, for an add, the target's canonical JSON.
pub type Changes = Vec<(String, Option<String>)>;

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// One bin as it must be published at some cut.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Bin {
    /// The cut that renders it; 0 before the first.
    pub version: u64,
    pub expires: u64,
    pub content: BTreeMap<String, String>,
    /// The root whose targets keys sign it.
    pub root: u64,
}

/// What the repository must be at one cut.
#[derive(Clone, Debug)]
pub struct Cut {
    pub n: u64,
    pub seq: u64,
    pub time: u64,
    pub root: u64,
    pub bins: Vec<Bin>,
    pub targets_version: u64,
    pub targets_expires: u64,
    pub targets_root: u64,
    pub snapshot_expires: u64,
    pub timestamp_expiry: u64,
    pub ends: Vec<u64>,
    pub stores_state: bool,
    /// The partitions that report, with the removals that found nothing: (seq, index, paths).
    pub reports: BTreeMap<u64, Vec<(u64, u64, Vec<String>)>>,
}

/// What timestamp.json must say.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    pub version: u64,
    pub n: u64,
    pub snapshot: (u64, String),
    pub expires: u64,
    pub root: u64,
}

/// What became of a batch at its Commit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    Valid,
    Duplicate,
    Conflict,
    Repeated,
    Void,
}

/// What a record did.
#[derive(PartialEq, Debug)]
pub enum Did {
    Commit(Vec<Verdict>),
    Cut,
    Checkpoint,
    Renew,
    Rotate,
    Settings,
    Nothing,
}

#[derive(Default)]
pub struct Replay {
    /// What producers wrote, by id and digest.
    pub written: BTreeMap<(String, String), Changes>,
    /// The roots that the operator signed properly, by document.
    pub signed_roots: BTreeSet<String>,
    pub bins: u64,
    pub partitions: u64,
    pub revision: u64,
    pub settings: Value,
    floor: u64,
    /// Seq and digest of every id that was ever valid.
    pub ids: BTreeMap<String, (u64, String)>,
    pub applied: u64,
    pub map: BTreeMap<String, String>,
    /// Root documents by version.
    pub roots: BTreeMap<u64, String>,
    render_all: bool,
    pub time: u64,
    targets_time: u64,
    pub cuts: Vec<Cut>,
    pub done: u64,
    pub stamps: Vec<Stamp>,
    touched: BTreeSet<u64>,
    ends: Vec<u64>,
    absent: BTreeMap<u64, Vec<(u64, u64, Vec<String>)>>,
    /// One past the last record.
    pub next: u64,
    pub unchanged_dirty: u64,
    pub renewed_bins: u64,
    dirtied: BTreeSet<u64>,
    /// What the first verdict on each inbox record was.
    pub sequenced: BTreeMap<(u16, u64), Verdict>,
}

fn num(v: &Value, field: &str) -> u64 {
    v[field].as_u64().unwrap_or_else(|| panic!("{field} in {v}"))
}

impl Replay {
    pub fn bin_of(&self, path: &str) -> u64 {
        let digest = Sha256::digest(path.as_bytes());
        u64::from(u16::from_be_bytes([digest[0], digest[1]])) * self.bins / 65_536
    }

    pub fn partition_of(&self, bin: u64) -> u64 {
        bin * self.partitions / self.bins
    }

    pub fn bin_name(&self, bin: u64) -> String {
        let width = format!("{:x}", self.bins - 1).len();
        format!("bins-{bin:0width$x}")
    }

    pub fn horizon(&self) -> u64 {
        num(&self.settings, "horizon")
    }

    fn setting(&self, field: &str) -> u64 {
        num(&self.settings, field)
    }

    pub fn root(&self) -> u64 {
        self.roots.last_key_value().map_or(0, |(version, _)| *version)
    }

    /// The keys of a role in a root: public keys (hex) by id, and the threshold.
    pub fn role(&self, root: u64, role: &str) -> (BTreeMap<String, String>, u64) {
        let document: Value = serde_json::from_str(&self.roots[&root]).expect("a root");
        let (signed, role) = (&document["signed"], &document["signed"]["roles"][role]);
        let ids = role["keyids"].as_array().expect("keyids").iter().map(|id| id.as_str().expect("text").to_owned());
        let key = |id: &str| signed["keys"][id]["keyval"]["public"].as_str().expect("a key").to_owned();
        (ids.map(|id| (id.clone(), key(&id))).collect(), num(role, "threshold"))
    }

    /// True when something waits for a cut.
    pub fn pending(&self) -> bool {
        !self.touched.is_empty() || self.render_all || self.cuts.last().is_none_or(|c| c.root != self.root())
    }

    /// Takes the next record of the ledger.
    pub fn record(&mut self, seq: u64, v: &Value) -> Result<Did, String> {
        self.next = seq + 1;
        if self.revision > 0 {
            self.floor = self.floor.max(seq.saturating_sub(self.horizon()));
        }
        match v["kind"].as_str() {
            Some("format") => {
                (self.bins, self.partitions) = (num(v, "bins"), num(v, "partitions"));
                self.ends = vec![0; self.partitions as usize];
                Ok(Did::Nothing)
            }
            Some("settings") => {
                let lowers = self.revision > 0 && num(&v["settings"], "horizon") < self.horizon();
                if num(v, "revision") != self.revision + 1 || lowers {
                    return Ok(Did::Nothing);
                }
                (self.revision, self.settings, self.render_all) = (self.revision + 1, v["settings"].clone(), true);
                Ok(Did::Settings)
            }
            Some("root") => Ok(self.new_root(v["document"].as_str().unwrap_or_default())),
            Some("commit") => {
                let batches = v["batches"].as_array().ok_or("a Commit without batches")?;
                let mut held = BTreeSet::new();
                let mut verdicts = Vec::new();
                for (i, b) in batches.iter().enumerate() {
                    verdicts.push(self.sequence(seq, i as u64, b, &v["segments"], &mut held)?);
                }
                Ok(Did::Commit(verdicts))
            }
            Some("cut") => Ok(self.cut(seq, v)),
            Some("checkpoint") => self.checkpoint(v),
            Some("renew") => Ok(self.renew(v)),
            _ => Err(format!("an unknown record: {v}")),
        }
    }

    fn new_root(&mut self, document: &str) -> Did {
        let root: Value = serde_json::from_str(document).unwrap_or_default();
        let version = root["signed"]["version"].as_u64().unwrap_or(0);
        if version != self.root() + 1 || !self.signed_roots.contains(document) {
            return Did::Nothing;
        }
        let before = self.root();
        self.roots.insert(version, document.to_owned());
        self.render_all |= before == 0 || self.role(before, "targets") != self.role(version, "targets");
        Did::Rotate
    }

    /// A batch with its place in the inbox, if it has one. Records of a partition get their verdicts in order.
    fn sequence(
        &mut self,
        seq: u64,
        index: u64,
        b: &Value,
        segments: &Value,
        held: &mut BTreeSet<u16>,
    ) -> Result<Verdict, String> {
        let Some(place) = b["inbox"].as_array() else { return self.batch(seq, index, b, segments) };
        let (partition, offset) = (place[0].as_u64().expect("a number") as u16, place[1].as_u64().expect("a number"));
        let verdict = if self.sequenced.range((partition, offset)..=(partition, u64::MAX)).next().is_some() {
            Verdict::Repeated
        } else if held.contains(&partition) {
            Verdict::Void
        } else {
            self.batch(seq, index, b, segments)?
        };
        match verdict {
            Verdict::Repeated => {}
            Verdict::Void => drop(held.insert(partition)),
            _ => drop(self.sequenced.insert((partition, offset), verdict)),
        }
        Ok(verdict)
    }

    fn batch(&mut self, seq: u64, index: u64, b: &Value, segments: &Value) -> Result<Verdict, String> {
        let (id, digest) = (b["id"].as_str().unwrap_or_default(), b["digest"].as_str().unwrap_or_default());
        let key = (id.to_owned(), digest.to_owned());
        let changes = self.written.get(&key).cloned().ok_or(format!("batch {id} at {seq} is nobody's"))?;
        let basis = num(b, "basis");
        if basis < self.floor || basis > seq {
            return Ok(Verdict::Void);
        }
        if let Some((first, known)) = self.ids.get(id) {
            if *first < self.floor {
                return Err(format!("batch {id} is applied twice: it was valid at {first}, and is again at {seq}"));
            }
            return Ok(if *known == digest { Verdict::Duplicate } else { Verdict::Conflict });
        }
        self.ids.insert(id.to_owned(), (seq, digest.to_owned()));
        self.applied += 1;
        let mut counts = BTreeMap::<u64, u64>::new();
        for (path, target) in changes {
            let bin = self.bin_of(&path);
            let partition = self.partition_of(bin);
            *counts.entry(partition).or_default() += 1;
            self.dirtied.insert(bin);
            match target {
                Some(target) => drop(self.map.insert(path.clone(), target)),
                None if self.map.remove(&path).is_some() => {}
                None => {
                    let absent = self.absent.entry(partition).or_default();
                    match absent.last_mut() {
                        Some(a) if (a.0, a.1) == (seq, index) => a.2.push(path),
                        _ => absent.push((seq, index, vec![path])),
                    }
                }
            }
        }
        let said: BTreeMap<u64, u64> = serde_json::from_value::<Vec<(u64, u64)>>(b["parts"].clone())
            .map_err(|e| format!("parts of batch {id} at {seq}: {e}"))?
            .into_iter()
            .collect();
        if said != counts {
            return Err(format!("Commit {seq} says that batch {id} has {said:?} changes by partition, not {counts:?}"));
        }
        self.touched.extend(counts.keys());
        for s in segments.as_array().into_iter().flatten() {
            let partition = num(s, "partition");
            if counts.contains_key(&partition) {
                let end = &mut self.ends[partition as usize];
                *end = (*end).max(num(s, "offset") + 1);
            }
        }
        Ok(Verdict::Valid)
    }

    fn cut(&mut self, seq: u64, v: &Value) -> Did {
        let n = self.cuts.len() as u64 + 1;
        if num(v, "n") != n || self.done != n - 1 || self.root() == 0 {
            return Did::Nothing;
        }
        let previous = self.cuts.last().map_or(0, |c| c.time);
        self.time = self.time.max(num(v, "time"));
        let (time, root) = (self.time, self.root());
        let all = std::mem::take(&mut self.render_all) || n == 1;
        let period = self.setting("bins_expiry_s") / 2;
        // Every bin has its second in each period; a cut renews those whose second has come since the cut before.
        let passed: BTreeSet<u64> = (previous + 1..=time.min(previous + period)).map(|t| t % period).collect();
        let due = |bin: u64| n > 1 && passed.contains(&(bin * period / self.bins));
        let mut bins = Vec::new();
        for bin in 0..self.bins {
            let before = self.cuts.last().map(|c| c.bins[bin as usize].clone()).unwrap_or_default();
            let here = self.map.iter().filter(|(path, _)| self.bin_of(path) == bin);
            let content: BTreeMap<String, String> = here.map(|(p, t)| (p.clone(), t.clone())).collect();
            if all || due(bin) || content != before.content {
                self.renewed_bins += u64::from(!all && content == before.content);
                bins.push(Bin { version: n, expires: time + self.setting("bins_expiry_s"), content, root });
            } else {
                self.unchanged_dirty += u64::from(self.dirtied.contains(&bin));
                bins.push(before);
            }
        }
        let mut wait = std::mem::take(&mut self.touched);
        wait.extend((0..self.bins).filter(|b| all || due(*b)).map(|b| self.partition_of(b)));
        self.dirtied.clear();
        let mut absent = std::mem::take(&mut self.absent);
        let last = self.cuts.last();
        let targets = all || time >= self.targets_time + self.setting("targets_expiry_s") / 2;
        let (targets_version, targets_expires, targets_root) = match last {
            Some(last) if !targets => (last.targets_version, last.targets_expires, last.targets_root),
            _ => (n, time + self.setting("targets_expiry_s"), root),
        };
        if targets {
            self.targets_time = time;
        }
        self.cuts.push(Cut {
            n,
            seq,
            time,
            root,
            bins,
            targets_version,
            targets_expires,
            targets_root,
            snapshot_expires: time + self.setting("snapshot_expiry_s"),
            timestamp_expiry: self.setting("timestamp_expiry_s"),
            ends: self.ends.clone(),
            stores_state: n.is_multiple_of(self.setting("state_every")),
            reports: wait.into_iter().map(|p| (p, absent.remove(&p).unwrap_or_default())).collect(),
        });
        Did::Cut
    }

    fn checkpoint(&mut self, v: &Value) -> Result<Did, String> {
        let n = num(v, "n");
        let Some(cut) = self.cuts.last().filter(|c| c.n == n && self.done == n - 1) else { return Ok(Did::Nothing) };
        let ends: Vec<u64> = v["ends"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        if num(v, "seq") != cut.seq || ends != cut.ends {
            return Err(format!("Checkpoint {n} says {v}, but the ledger seq {} and ends {:?}", cut.seq, cut.ends));
        }
        if v["state"].is_object() != cut.stores_state {
            return Err(format!("Checkpoint {n} names a ledger state where none belongs, or none: {v}"));
        }
        let snapshot = (num(&v["snapshot"], "length"), v["snapshot"]["sha256"].as_str().unwrap_or_default().to_owned());
        let version = self.stamps.len() as u64 + 1;
        let (expires, root) = (self.time + cut.timestamp_expiry, cut.root);
        self.stamps.push(Stamp { version, n, snapshot, expires, root });
        self.done = n;
        Ok(Did::Checkpoint)
    }

    fn renew(&mut self, v: &Value) -> Did {
        let Some(last) = self.stamps.last().filter(|last| last.version == num(v, "after")).cloned() else {
            return Did::Nothing;
        };
        self.time = self.time.max(num(v, "time"));
        let expires = self.time + self.setting("timestamp_expiry_s");
        self.stamps.push(Stamp { version: last.version + 1, expires, ..last });
        Did::Renew
    }
}
