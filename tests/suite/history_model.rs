//! What the history is: worked out a second time from the raw records, as JSON values, with one map of the whole
//! repository. Nothing of `tuflog::ledger` and `tuflog::query` is used here.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tuflog::log::{Log, Partition};

/// A change as its line in a segment says.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub path: String,
    /// What is added; `None` for a removal.
    pub entry: Option<Value>,
    /// The whole line.
    pub line: Value,
}

/// A batch at its Commit.
#[derive(Clone, Debug)]
pub struct Batch {
    pub seq: u64,
    pub index: u64,
    pub id: String,
    pub verdict: &'static str,
    pub first: Option<u64>,
    /// By partition, in it in the order of the segments.
    pub changes: Vec<Change>,
}

/// What is published at a cut.
#[derive(Clone, Debug)]
pub struct Cut {
    pub n: u64,
    pub seq: u64,
    pub time: u64,
    pub map: BTreeMap<String, Value>,
    /// By bin the cut that rendered it.
    pub versions: Vec<u64>,
}

#[derive(Default)]
pub struct Model {
    pub bins: u64,
    pub partitions: u64,
    horizon: u64,
    floor: u64,
    ids: BTreeMap<String, (u64, String)>,
    map: BTreeMap<String, Value>,
    pub batches: Vec<Batch>,
    pub cuts: Vec<Cut>,
    /// How many cuts have their Checkpoint, and at which seqs those stand.
    pub checkpoints: Vec<u64>,
}

fn num(v: &Value, field: &str) -> u64 {
    v[field].as_u64().unwrap_or_else(|| panic!("{field} in {v}"))
}

async fn all(log: &dyn Log, of: Partition) -> BTreeMap<u64, Vec<u8>> {
    let (mut reader, mut found) = (log.reader(of, 0), BTreeMap::new());
    let end = log.end(of).await.unwrap();
    while found.last_key_value().is_none_or(|(at, _)| at + 1 < end) && end > 0 {
        found.extend(reader.read(1 << 20).await.unwrap().into_iter().map(|r| (r.offset, r.payload.to_vec())));
    }
    found
}

impl Model {
    /// Reads everything there is.
    pub async fn read(log: &dyn Log) -> Model {
        let mut model = Model { horizon: 65_536, ..Model::default() }; // until there are Settings
        let ledger = all(log, Partition::Ledger).await;
        let mut segments = BTreeMap::new();
        for (seq, payload) in ledger {
            let record: Value = serde_json::from_slice(&payload).unwrap();
            if record["kind"] == "format" {
                (model.bins, model.partitions) = (num(&record, "bins"), num(&record, "partitions"));
                for p in 0..model.partitions {
                    segments.insert(p, all(log, Partition::Changes(p as u16)).await);
                }
            }
            model.record(seq, &record, &segments);
        }
        model
    }

    pub fn bin_of(&self, path: &str) -> u64 {
        let digest = Sha256::digest(path.as_bytes());
        u64::from(u16::from_be_bytes([digest[0], digest[1]])) * self.bins / 65_536
    }

    fn record(&mut self, seq: u64, v: &Value, segments: &BTreeMap<u64, BTreeMap<u64, Vec<u8>>>) {
        self.floor = self.floor.max(seq.saturating_sub(self.horizon));
        match v["kind"].as_str().unwrap() {
            "settings" => self.horizon = num(&v["settings"], "horizon"),
            "commit" => self.commit(seq, v, segments),
            "cut" if num(v, "n") == self.cuts.len() as u64 + 1 && self.checkpoints.len() == self.cuts.len() => {
                self.cut(seq, v);
            }
            "checkpoint" if num(v, "n") == self.cuts.len() as u64 && self.checkpoints.len() < self.cuts.len() => {
                self.checkpoints.push(seq);
            }
            _ => {}
        }
    }

    fn commit(&mut self, seq: u64, v: &Value, segments: &BTreeMap<u64, BTreeMap<u64, Vec<u8>>>) {
        for (index, batch) in (0..).zip(v["batches"].as_array().unwrap()) {
            let (id, digest) = (batch["id"].as_str().unwrap().to_owned(), batch["digest"].as_str().unwrap().to_owned());
            let basis = num(batch, "basis");
            let known = self.ids.get(&id).filter(|(first, _)| *first >= self.floor).cloned();
            let (verdict, first) = match known {
                _ if basis < self.floor || basis > seq => ("void", None),
                Some((first, other)) if other == digest => ("duplicate", Some(first)),
                Some((first, _)) => ("conflict", Some(first)),
                None => ("valid", None),
            };
            let mut changes = Vec::new();
            if verdict == "valid" {
                self.ids.insert(id.clone(), (seq, digest));
                for p in 0..self.partitions {
                    for segment in v["segments"].as_array().unwrap().iter().filter(|s| num(s, "partition") == p) {
                        changes.extend(of_batch(&segments[&p][&num(segment, "offset")], index));
                    }
                }
                for Change { path, entry, .. } in &changes {
                    match entry {
                        Some(entry) => drop(self.map.insert(path.clone(), entry.clone())),
                        None => drop(self.map.remove(path)),
                    }
                }
            }
            self.batches.push(Batch { seq, index, id, verdict, first, changes });
        }
    }

    fn cut(&mut self, seq: u64, v: &Value) {
        let n = num(v, "n");
        let before = self.cuts.last();
        let of_bin = |map: &BTreeMap<String, Value>, bin: u64| -> BTreeMap<String, Value> {
            map.iter().filter(|(path, _)| self.bin_of(path) == bin).map(|(p, e)| (p.clone(), e.clone())).collect()
        };
        let version = |bin: u64| match before {
            Some(before) if of_bin(&before.map, bin) == of_bin(&self.map, bin) => before.versions[bin as usize],
            _ => n,
        };
        let versions = (0..self.bins).map(version).collect();
        let time = num(v, "time").max(before.map_or(0, |before| before.time));
        self.cuts.push(Cut { n, seq, time, map: self.map.clone(), versions });
    }

    /// The cut that publishes what was committed at a seq.
    pub fn covering(&self, seq: u64) -> Option<u64> {
        self.cuts.iter().take(self.checkpoints.len()).find(|cut| cut.seq > seq).map(|cut| cut.n)
    }

    /// Every change of a path that was applied, oldest first, with its batch.
    pub fn history(&self, path: &str) -> Vec<(&Batch, &Change)> {
        let changes = self.batches.iter().flat_map(|batch| batch.changes.iter().map(move |change| (batch, change)));
        changes.filter(|(_, change)| change.path == path).collect()
    }
}

/// The changes of a batch in a segment.
fn of_batch(segment: &[u8], wanted: u64) -> Vec<Change> {
    let text = std::str::from_utf8(segment).unwrap();
    let mut lines = text.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    let mut found = Vec::new();
    for part in header["batches"].as_array().unwrap() {
        for _ in 0..num(part, "count") {
            let line: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
            if num(part, "index") == wanted {
                let mut entry = line.clone();
                let fields = entry.as_object_mut().unwrap();
                let path = fields.remove("path").unwrap().as_str().unwrap().to_owned();
                let op = fields.remove("op").unwrap();
                found.push(Change { path, entry: (op == "add").then_some(entry), line });
            }
        }
    }
    found
}
