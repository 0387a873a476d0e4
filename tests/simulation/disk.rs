//! A store in memory that misbehaves as its contract allows: refused, unanswered and late writes, failed reads,
//! objects that a power loss takes away until they are synced, and now and then a first writer with another
//! signature over the same content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;
use tuflog::error::{Error, Result};
use tuflog::store::{Created, POINTER, Store};

use crate::dice::Dice;
use crate::gate::Gate;

/// What is stored. A clone is another handle.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<Inner>>, Dice);

struct Inner {
    objects: BTreeMap<String, Bytes>,
    unsynced: BTreeSet<String>,
    /// Everything that ever stood under a name, even if a power loss took it.
    ever: BTreeMap<String, Bytes>,
    pointer: Option<Bytes>,
    /// Where the pointer went since somebody asked.
    moved: Vec<Bytes>,
    late: Vec<(u64, Late)>,
    foreign_signatures: bool,
}

enum Late {
    Create(String, Bytes),
    Swap(Option<Bytes>, Bytes),
}

impl Disk {
    pub fn new(dice: Dice, foreign_signatures: bool) -> Disk {
        let inner = Inner {
            objects: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            ever: BTreeMap::new(),
            pointer: None,
            moved: vec![],
            late: vec![],
            foreign_signatures,
        };
        Disk(Arc::new(Mutex::new(inner)), dice)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("one thread")
    }

    /// An object, and whether a power loss would leave it there.
    pub fn look(&self, name: &str) -> Option<(Bytes, bool)> {
        let inner = self.inner();
        inner.objects.get(name).map(|bytes| (bytes.clone(), !inner.unsynced.contains(name)))
    }

    /// All objects and the pointer.
    pub fn all(&self) -> Vec<(String, Bytes)> {
        let inner = self.inner();
        let pointer = inner.pointer.iter().map(|p| (POINTER.to_owned(), p.clone()));
        inner.objects.iter().map(|(name, bytes)| (name.clone(), bytes.clone())).chain(pointer).collect()
    }

    /// The pointer's moves since the last call.
    pub fn take_moves(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.inner().moved)
    }

    /// Lands the delayed writes that are due, or all.
    pub fn deliver_late(&self, all: bool) {
        let step = self.1.step();
        let late = std::mem::take(&mut self.inner().late);
        let (due, rest) = late.into_iter().partition::<Vec<_>, _>(|l| all || l.0 <= step);
        self.inner().late = rest;
        for (_, write) in due {
            self.1.hit("store: late writes landed");
            match write {
                Late::Create(name, bytes) => drop(self.land(&name, bytes)),
                Late::Swap(old, new) => drop(self.swap(old.as_ref(), new)),
            }
        }
    }

    /// Takes what was not synced, or some of it.
    pub fn power_loss(&self) {
        let mut inner = self.inner();
        let share = self.1.of(&[100, 50]);
        let lost: Vec<String> = inner.unsynced.iter().filter(|_| self.1.pct(share)).cloned().collect();
        for name in lost {
            inner.unsynced.remove(&name);
            inner.objects.remove(&name);
            self.1.hit("objects lost with the power");
        }
    }

    fn land(&self, name: &str, bytes: Bytes) -> Created {
        let mut inner = self.inner();
        if let Some(before) = inner.ever.get(name)
            && signed(before) != signed(&bytes)
        {
            self.1.fail(format!("two contents under the name {name}"));
        }
        if let Some(there) = inner.objects.get(name) {
            self.1.hit("store: object there already");
            return if *there == bytes { Created::Same } else { Created::Other(there.clone()) };
        }
        let mut stored = bytes.clone();
        if inner.foreign_signatures && name.starts_with("metadata/") && !name.contains("root") && self.1.pct(10) {
            self.1.hit("store: another's signature first");
            stored = with_another_signature(&stored);
        }
        inner.ever.insert(name.to_owned(), stored.clone());
        inner.objects.insert(name.to_owned(), stored.clone());
        inner.unsynced.insert(name.to_owned());
        if stored == bytes { Created::New } else { Created::Other(stored) }
    }

    fn swap(&self, old: Option<&Bytes>, new: Bytes) -> bool {
        let mut inner = self.inner();
        if inner.pointer.as_ref() != old {
            self.1.hit("pointer: lost the race");
            return false;
        }
        inner.pointer = Some(new.clone());
        inner.moved.push(new);
        true
    }
}

/// The signed part of a TUF file, the whole of any other.
fn signed(bytes: &Bytes) -> Value {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(mut file)) if file.contains_key("signed") => file.remove("signed").unwrap_or_default(),
        Ok(value) => value,
        Err(_) => Value::String(hex::encode(bytes)),
    }
}

/// The file as a signer that is not deterministic might have written it: the same `signed`, other signatures.
fn with_another_signature(file: &Bytes) -> Bytes {
    const HEAD: &[u8] = br#"{"signatures":["#;
    let Some(rest) = file.strip_prefix(HEAD) else { return file.clone() };
    let stranger = format!(r#"{{"keyid":"{}","sig":"{}"}},"#, "0".repeat(64), "0".repeat(128));
    if rest.starts_with(stranger.as_bytes()) {
        return file.clone();
    }
    [HEAD, stranger.as_bytes(), rest].concat().into()
}

/// A process's view of the store.
pub struct GatedStore {
    pub disk: Disk,
    pub gate: Arc<Gate>,
    pub dice: Dice,
}

/// How a write goes wrong.
enum Fault {
    None,
    Refused,
    Lost,
    Unanswered,
    Late(u64),
}

impl GatedStore {
    fn fault(&self) -> Fault {
        if !self.dice.pct(self.dice.faults()) {
            return Fault::None;
        }
        match self.dice.below(5) {
            0 => Fault::Refused,
            1 => Fault::Lost,
            2 | 3 => Fault::Unanswered,
            _ => {
                let wait = if self.dice.pct(50) { self.dice.below(20) } else { 40 + self.dice.below(300) };
                Fault::Late(self.dice.step() + wait)
            }
        }
    }

    fn outage(&self) -> Result<()> {
        if self.dice.pct(self.dice.faults() / 3) {
            self.dice.hit("store: failed reads and syncs");
            return Err(Error::unavailable("the store cannot be reached"));
        }
        Ok(())
    }

    /// Does a write, or not.
    fn write<T>(&self, late: Late, now: impl Fn() -> T) -> Result<T> {
        let unknown = || Error::indeterminate("the store did not answer the write");
        match self.fault() {
            Fault::None => return Ok(now()),
            Fault::Refused => {
                self.dice.hit("store: refused");
                return Err(Error::unavailable("the store refused the write"));
            }
            Fault::Lost => self.dice.hit("store: lost"),
            Fault::Unanswered => {
                self.dice.hit("store: written, unanswered");
                drop(now());
            }
            Fault::Late(at) => {
                self.dice.hit("store: delayed");
                self.disk.inner().late.push((at, late));
            }
        }
        Err(unknown())
    }
}

impl Store for GatedStore {
    fn create<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Created>> {
        Box::pin(async move {
            self.gate.pass("before create").await;
            let late = Late::Create(name.to_owned(), bytes.clone());
            let answer = self.write(late, || self.disk.land(name, bytes.clone()));
            self.dice.trace(|| format!("create {name}: {}", answer.as_ref().map_or("failed", |_| "done")));
            self.gate.pass("after create").await;
            answer
        })
    }

    fn sync<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.gate.pass("before sync").await;
            self.outage()?;
            let missing = {
                let mut inner = self.disk.inner();
                let missing = names.iter().find(|name| !inner.objects.contains_key(*name)).cloned();
                inner.unsynced.retain(|name| !names.contains(name));
                missing
            };
            self.gate.pass("after sync").await;
            missing.map_or(Ok(()), |name| Err(Error::corrupt(format!("sync: there is no object {name}"))))
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            self.outage()?;
            let found = match name {
                POINTER => self.disk.inner().pointer.clone(),
                _ => self.disk.look(name).map(|(bytes, _)| bytes),
            };
            self.gate.pass("after get").await;
            Ok(found)
        })
    }

    fn swap_pointer<'a>(&'a self, old: Option<&'a Bytes>, new: Bytes) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            self.gate.pass("before swap").await;
            let answer = self.write(Late::Swap(old.cloned(), new.clone()), || self.disk.swap(old, new.clone()));
            self.dice.trace(|| format!("swap pointer: {answer:?}"));
            self.gate.pass("after swap").await;
            answer
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async move {
            self.outage()?;
            Ok(self.disk.inner().objects.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
        })
    }
}
