//! The checkers: every record that lands, every report and every move of the pointer is compared with the replay,
//! and everything that a client could reach from there is fetched, verified with public keys, and compared.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use tuflog::clock::parse_utc;
use tuflog::log::Partition;
use tuflog::log::memory::MemoryLog;
use tuflog::tuf::PublicKey;

use crate::dice::Dice;
use crate::disk::Disk;
use crate::inbox::Mail;
use crate::replay::{Cut, Did, Replay, Stamp, Verdict, sha256};

type Checked<T> = Result<T, String>;

/// A TUF file that was read and verified.
#[derive(Clone)]
struct File {
    bytes: Bytes,
    signed: Value,
    version: u64,
    expires: u64,
    /// The roles of roots that it verified under.
    under: BTreeSet<(u64, String)>,
}

pub struct Checker {
    pub replay: Replay,
    pub mail: Mail,
    log: MemoryLog,
    disk: Disk,
    dice: Dice,
    folds_next: u64,
    /// The raw bytes of the first report of (cut, partition, part), and how often it was said.
    said: BTreeMap<(u64, u64, u64), (Bytes, u64)>,
    checkpoints: BTreeMap<u64, Bytes>,
    /// Length and digest of each bin as its report has it: by (bin, version).
    reported: BTreeMap<(u64, u64), (u64, String)>,
    files: BTreeMap<String, File>,
    pub pointer: u64,
    /// The verified parts of what the pointer leads to now: name and expiry.
    pub published: Vec<(String, u64)>,
    /// The first Checkpoint of a cut under a new root has landed: older keys may be destroyed.
    pub completed_root: u64,
}

impl Checker {
    pub fn new(log: MemoryLog, disk: Disk, dice: Dice) -> Checker {
        Checker {
            replay: Replay::default(),
            mail: Mail::new(&dice, &log),
            log,
            disk,
            dice,
            folds_next: 0,
            said: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            reported: BTreeMap::new(),
            files: BTreeMap::new(),
            pointer: 0,
            published: vec![],
            completed_root: 0,
        }
    }

    /// How often a cut's partition was reported.
    pub fn times_reported(&self, n: u64, partition: u64) -> u64 {
        self.said.get(&(n, partition, 0)).map_or(0, |(_, times)| *times)
    }

    /// Looks at everything that is new.
    pub fn observe(&mut self) -> Checked<()> {
        self.mail.observe(&mut self.replay);
        for r in self.log.records_from(Partition::Folds, self.folds_next) {
            self.folds_next = r.offset + 1;
            // A report follows its Cut, so that one has to be looked at first.
            self.ledger()?;
            self.report(&r.payload).map_err(|e| format!("report at {}: {e}", r.offset))?;
        }
        self.ledger()?;
        for bytes in self.disk.take_moves() {
            self.moved(&bytes)?;
        }
        Ok(())
    }

    fn ledger(&mut self) -> Checked<()> {
        for r in self.log.records_from(Partition::Ledger, self.replay.next) {
            let v: Value = serde_json::from_slice(&r.payload).map_err(|e| format!("ledger {}: {e}", r.offset))?;
            let did = self.replay.record(r.offset, &v)?;
            self.dice.trace(|| {
                format!(
                    "ledger {}: {did:?} <- {}",
                    r.offset,
                    String::from_utf8_lossy(&r.payload).chars().take(600).collect::<String>()
                )
            });
            if v["kind"] == "checkpoint" {
                let n = v["n"].as_u64().unwrap_or(0);
                let first = self.checkpoints.entry(n).or_insert(r.payload.clone());
                if *first != r.payload {
                    return Err(format!("two Checkpoints {n} differ: {first:?} and {:?}", r.payload));
                }
            }
            self.count(&did, v["kind"].as_str().unwrap_or_default());
            let place = |s: &Value| (s["partition"].as_u64(), s["offset"].as_u64());
            let segments: Vec<_> = v["segments"].as_array().into_iter().flatten().map(place).collect();
            let disorder = segments.windows(2).any(|w| w[0].0 == w[1].0 && w[0].1 > w[1].1);
            self.dice.add("commits whose segments are out of order", u64::from(disorder));
            if did == Did::Checkpoint {
                self.checkpoint(&v)?;
            }
        }
        Ok(())
    }

    fn count(&self, did: &Did, kind: &str) {
        match did {
            Did::Commit(verdicts) => {
                self.dice.add("commits of several batches", u64::from(verdicts.len() > 1));
                verdicts.iter().for_each(|v| {
                    self.dice.hit(match v {
                        Verdict::Valid => "batches valid",
                        Verdict::Duplicate => "batches duplicate",
                        Verdict::Conflict => "batches conflict",
                        Verdict::Repeated => "batches repeated",
                        Verdict::Void => "batches void",
                    });
                });
            }
            Did::Nothing => self.dice.hit(&format!("void: {kind}")),
            _ => self.dice.hit(&format!("records: {kind}")),
        }
    }

    fn checkpoint(&mut self, v: &Value) -> Checked<()> {
        let stamp = self.replay.stamps.last().cloned().ok_or("no stamp")?;
        let n = stamp.n;
        for (name, field) in [(format!("ledger/{n}.state.json"), "sha256"), (format!("ledger/{n}.ids.jsonl"), "ids")] {
            if let Some(digest) = v["state"][field].as_str() {
                let (bytes, durable) =
                    self.disk.look(&name).ok_or(format!("Checkpoint {n}: dangling: {name} is not stored"))?;
                if !durable || sha256(&bytes) != digest {
                    return Err(format!("Checkpoint {n}: {name} is not durable, or not as named"));
                }
            }
        }
        self.reachable(&stamp).map_err(|e| format!("Checkpoint {n}: {e}"))?;
        self.completed_root = self.completed_root.max(stamp.root);
        Ok(())
    }

    fn moved(&mut self, bytes: &Bytes) -> Checked<()> {
        self.dice.hit("pointer moved");
        let (signed, version, expires) = parse(bytes, "timestamp")?;
        if version <= self.pointer {
            return Err(format!("the timestamp went from version {} to {version}", self.pointer));
        }
        let stamp = self.replay.stamps.get(version as usize - 1).cloned();
        let stamp = stamp.ok_or(format!("timestamp {version} is beyond what the ledger says"))?;
        let meta = &signed["meta"]["snapshot.json"];
        let says = Stamp {
            version,
            n: meta["version"].as_u64().unwrap_or(0),
            snapshot: (
                meta["length"].as_u64().unwrap_or(0),
                meta["hashes"]["sha256"].as_str().unwrap_or_default().to_owned(),
            ),
            expires,
            root: stamp.root,
        };
        if says != stamp {
            return Err(format!("the timestamp says {says:?}, the ledger {stamp:?}"));
        }
        self.verify(bytes, stamp.root, "timestamp").map_err(|e| format!("timestamp {version}: {e}"))?;
        let published = self.reachable(&stamp).map_err(|e| format!("published {version}: {e}"))?;
        self.pointer = version;
        self.published = published;
        self.published.push(("timestamp".into(), expires));
        Ok(())
    }

    /// Everything that a client reaches from a timestamp, compared with the replay at its cut.
    fn reachable(&mut self, stamp: &Stamp) -> Checked<Vec<(String, u64)>> {
        let cut = self.replay.cuts.get(stamp.n as usize - 1).cloned().ok_or("there is no such cut")?;
        for (version, document) in self.replay.roots.clone().range(..=cut.root) {
            let name = format!("metadata/{version}.root.json");
            let (bytes, durable) = self.disk.look(&name).ok_or(format!("dangling: {name} is not stored"))?;
            if !durable || *bytes != *document.as_bytes() {
                return Err(format!("{name} is not durable, or not the ledger's"));
            }
        }
        let snapshot = self.file(cut.n, "snapshot", cut.root, "snapshot")?;
        if (snapshot.bytes.len() as u64, sha256(&snapshot.bytes)) != stamp.snapshot {
            return Err("the stored snapshot has not the digest that the Checkpoint names".into());
        }
        let mut found = vec![("snapshot".to_owned(), snapshot.expires)];
        same("the snapshot's expiry", snapshot.expires, cut.snapshot_expires)?;
        let mut meta = snapshot.signed["meta"].as_object().cloned().unwrap_or_default();
        let listed = meta.remove("targets.json").ok_or("the snapshot does not list targets.json")?;
        let targets = self.file(cut.targets_version, "targets", cut.targets_root, "targets")?;
        same("the targets' expiry", targets.expires, cut.targets_expires)?;
        let is = serde_json::json!({"hashes": {"sha256": sha256(&targets.bytes)}, "length": targets.bytes.len(),
            "version": cut.targets_version});
        same("the snapshot's entry of targets.json", &listed, &is)?;
        self.delegation(&targets.signed, cut.targets_root)?;
        found.push(("targets".into(), targets.expires));
        for bin in 0..self.replay.bins {
            let want = &cut.bins[bin as usize];
            let name = self.replay.bin_name(bin);
            let entry = meta.remove(&format!("{name}.json")).ok_or(format!("{name} left the snapshot"))?;
            same(&format!("the entry of {name}"), &entry, &serde_json::json!({"version": want.version}))?;
            let file = self.file(want.version, &name, want.root, "targets")?;
            same(&format!("the expiry of {name}"), file.expires, want.expires)?;
            let content = file.signed["targets"].as_object().ok_or(format!("{name} has no targets"))?;
            let is: BTreeMap<String, String> = content.iter().map(|(p, t)| (p.clone(), t.to_string())).collect();
            same(&format!("the content of {name}"), &is, &want.content)?;
            let reported = self.reported.get(&(bin, want.version)).ok_or(format!("{name} was not reported"))?;
            same(&format!("the report of {name}"), reported, &(file.bytes.len() as u64, sha256(&file.bytes)))?;
            found.push((name, file.expires));
        }
        if let Some((name, _)) = meta.into_iter().next() {
            return Err(format!("the snapshot lists {name}"));
        }
        match found.iter().find(|(_, expires)| *expires <= cut.time) {
            Some((name, expires)) => {
                Err(format!("{name} expired at {expires}, before its own snapshot's {}", cut.time))
            }
            None => Ok(found),
        }
    }

    fn delegation(&self, targets: &Value, root: u64) -> Checked<()> {
        let (keys, threshold) = self.replay.role(root, "targets");
        let roles = &targets["delegations"]["succinct_roles"];
        let ids: Vec<&String> = keys.keys().collect();
        let want = serde_json::json!({"bit_length": self.replay.bins.ilog2(), "keyids": ids, "name_prefix": "bins",
            "threshold": threshold});
        same("the delegation to bins", roles, &want)?;
        let listed = targets["delegations"]["keys"].as_object().into_iter().flatten();
        let listed = listed.map(|(id, key)| (id.clone(), key["keyval"]["public"].as_str().unwrap_or("").to_owned()));
        same("the keys of targets.json", &listed.collect::<BTreeMap<_, _>>(), &keys)
    }

    /// A stored, durable file of a role, verified under a root.
    fn file(&mut self, version: u64, name: &str, root: u64, role: &str) -> Checked<File> {
        let object = format!("metadata/{version}.{name}.json");
        let (bytes, durable) = self.disk.look(&object).ok_or(format!("dangling: {object} is not stored"))?;
        if !durable {
            return Err(format!("dangling: a power loss would take {object}"));
        }
        let under = (root, role.to_owned());
        let known = self.files.get(&object).filter(|f| f.bytes == bytes);
        if let Some(file) = known.filter(|f| f.under.contains(&under)) {
            return Ok(file.clone());
        }
        let mut file = match known {
            Some(file) => file.clone(),
            None => {
                let kind = if name.starts_with("bins-") { "targets" } else { name };
                let (signed, is, expires) = parse(&bytes, kind).map_err(|e| format!("{object}: {e}"))?;
                same(&format!("the version in {object}"), is, version)?;
                File { bytes: bytes.clone(), signed, version: is, expires, under: BTreeSet::new() }
            }
        };
        self.verify(&bytes, root, role).map_err(|e| format!("{object} (version {}): {e}", file.version))?;
        file.under.insert(under);
        self.files.insert(object, file.clone());
        Ok(file)
    }

    fn verify(&self, bytes: &Bytes, root: u64, role: &str) -> Checked<()> {
        #[derive(serde::Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            signed: &'a RawValue,
            signatures: Vec<BTreeMap<String, String>>,
        }
        let file: Envelope<'_> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let (keys, threshold) = self.replay.role(root, role);
        let good = file.signatures.iter().filter(|s| {
            let (Some(key), Ok(sig)) = (keys.get(&s["keyid"]), hex::decode(&s["sig"])) else { return false };
            let (Ok(key), Ok(sig)) = (PublicKey::from_hex(key), <[u8; 64]>::try_from(sig)) else { return false };
            key.verify(file.signed.get().as_bytes(), &sig)
        });
        match good.count() as u64 >= threshold {
            true => Ok(()),
            false => Err(format!("not signed by the {role} keys of root {root}")),
        }
    }

    /// A report is a pure function of the ledger, whoever appends it and however often.
    fn report(&mut self, bytes: &Bytes) -> Checked<()> {
        let v: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let field = |name: &str| v[name].as_u64().ok_or(format!("{name} in {v}"));
        let (n, partition, part) = (field("n")?, field("partition")?, field("part")?);
        let said = self.said.entry((n, partition, part)).or_insert((bytes.clone(), 0));
        if said.0 != *bytes {
            return Err(format!("two reports of cut {n} by partition {partition} differ: {:?} and {bytes:?}", said.0));
        }
        said.1 += 1;
        if said.1 > 1 {
            self.dice.hit("reports repeated");
            return Ok(());
        }
        let cut: Cut = self.replay.cuts.get(n as usize - 1).cloned().ok_or(format!("of cut {n}, which is not"))?;
        let absent = cut.reports.get(&partition).ok_or(format!("partition {partition} has nothing to say of {n}"))?;
        self.dice.add("reports without bins", u64::from(v["bins"].as_array().is_some_and(Vec::is_empty)));
        self.dice.add("reports with absent removals", u64::from(!absent.is_empty()));
        let mut bins = Vec::new();
        for bin in (0..self.replay.bins).filter(|b| self.replay.partition_of(*b) == partition) {
            if cut.bins[bin as usize].version == n {
                let name = format!("metadata/{n}.{}.json", self.replay.bin_name(bin));
                let (bytes, durable) = self.disk.look(&name).ok_or(format!("dangling: {name} is not stored"))?;
                if !durable {
                    return Err(format!("dangling: a power loss would take {name}"));
                }
                let (length, digest) = (bytes.len() as u64, sha256(&bytes));
                bins.push(serde_json::json!({"bin": bin, "length": length, "sha256": digest}));
                self.reported.insert((bin, n), (length, digest));
            }
        }
        let absent: Vec<Value> = absent
            .iter()
            .map(|(seq, index, paths)| serde_json::json!({"index": index, "paths": paths, "seq": seq}))
            .collect();
        let want = serde_json::json!({"kind": "fold-report", "v": 1, "n": n, "partition": partition, "part": 0, "parts": 1,
            "offset": cut.ends[partition as usize], "bins": bins, "absent": absent});
        same(&format!("the report of cut {n} by partition {partition}"), &v, &want)
    }
}

/// The signed part of a TUF file, its version and its expiry.
fn parse(bytes: &Bytes, kind: &str) -> Checked<(Value, u64, u64)> {
    let mut file: Value = serde_json::from_slice(bytes).map_err(|e| format!("{kind}: {e}"))?;
    let signed = file["signed"].take();
    if signed["_type"] != kind {
        return Err(format!("expected a {kind}, found {}", signed["_type"]));
    }
    let version = signed["version"].as_u64().ok_or("no version")?;
    let expires = signed["expires"].as_str().and_then(parse_utc).ok_or("no expiry")?;
    Ok((signed, version, expires))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, want: T) -> Checked<()> {
    if is == want { Ok(()) } else { Err(format!("{what} is {is:?}, the replay says {want:?}")) }
}
