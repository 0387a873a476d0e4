//! Stored objects: which there are, which are accounted for, and whether one is what it should be.

use bytes::Bytes;
use memchr::memmem;
use sha2::{Digest, Sha256};

use super::damage::Damage;
use super::finding::{Finding, Value};
use crate::bins::{Bin, Layout, Sha256Digest, sha256};
use crate::store;
use crate::tuf::Envelope;
use crate::tuf::role::Meta;
use crate::tuf::root::{RoleKeys, Root};

/// What an object is, besides its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `metadata/N.root.json`; its version is not the number of a cut.
    Root,
    /// `metadata/N.bins-xxxx.json`
    Bin(Bin),
    /// `metadata/N.targets.json`
    Targets,
    /// `metadata/N.snapshot.json`
    Snapshot,
    /// `ledger/N.state.json`
    State,
    /// `ledger/N.ids.jsonl`
    Ids,
}

impl Role {
    /// The object's name.
    pub fn name(self, version: u64, layout: Layout) -> String {
        match self {
            Role::Root => store::metadata_name(version, "root"),
            Role::Bin(bin) => store::metadata_name(version, &layout.name(bin)),
            Role::Targets => store::metadata_name(version, "targets"),
            Role::Snapshot => store::metadata_name(version, "snapshot"),
            Role::State => store::ledger_state_name(version),
            Role::Ids => store::ledger_ids_name(version),
        }
    }

    /// The inverse of [`Role::name`].
    fn parse(name: &str, layout: Layout) -> Option<(u64, Role)> {
        let (version, rest) = name.split_once('/')?.1.split_once('.')?;
        let role = match rest {
            "root.json" => Role::Root,
            "targets.json" => Role::Targets,
            "snapshot.json" => Role::Snapshot,
            "state.json" => Role::State,
            "ids.jsonl" => Role::Ids,
            _ => Role::Bin(layout.parse_name(rest.strip_suffix(".json")?)?),
        };
        let version = version.parse().ok()?;
        (role.name(version, layout) == name).then_some((version, role))
    }
}

/// The objects that were in the store when the audit began. 24 bytes each.
pub struct Listed {
    layout: Layout,
    /// By version, then role, with whether it is accounted for.
    objects: Vec<(u64, Role, bool)>,
    /// Names of no form that tuflog writes.
    pub strangers: Vec<String>,
    /// Of so many objects the names, digested.
    digested: (usize, Sha256),
}

impl Listed {
    /// Sorts out a listing of the whole store.
    pub fn new(names: Vec<String>, layout: Layout) -> Listed {
        let (mut objects, mut strangers) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            match Role::parse(&name, layout) {
                Some((version, role)) => objects.push((version, role, false)),
                None => strangers.push(name),
            }
        }
        objects.sort_unstable();
        Listed { layout, objects, strangers, digested: Default::default() }
    }

    /// Takes note that an object belongs where it is.
    pub fn account(&mut self, version: u64, role: Role) {
        if let Ok(at) = self.objects.binary_search_by_key(&(version, role), |(v, r, _)| (*v, *r)) {
            self.objects[at].2 = true;
        }
    }

    /// Takes note that whatever there is of the cuts after `from` up to `to` may be there.
    pub fn account_cuts(&mut self, from: u64, to: u64) {
        for (_, role, accounted) in self.objects.iter_mut().filter(|(v, ..)| *v > from && *v <= to) {
            *accounted |= *role != Role::Root;
        }
    }

    /// Takes note that every root up to a version belongs where it is.
    pub fn account_roots(&mut self, upto: u64) {
        for (_, _, accounted) in self.objects.iter_mut().filter(|(v, role, _)| *role == Role::Root && *v <= upto) {
            *accounted = true;
        }
    }

    /// How many objects there are of the cuts after `from` up to `to`.
    pub fn count_cuts(&self, from: u64, to: u64) -> u64 {
        let of_cut = |(v, role, _): &&(u64, Role, bool)| *role != Role::Root && *v > from && *v <= to;
        self.objects.iter().filter(of_cut).count() as u64
    }

    /// Tells which objects there are of the cuts up to `n` from others; `n` rises from call to call.
    pub fn digest(&mut self, n: u64) -> Sha256Digest {
        let upto = self.objects.partition_point(|(v, ..)| *v <= n);
        let more = self.objects.get(self.digested.0..upto).unwrap_or_default();
        for (version, role, _) in more.iter().filter(|(_, role, _)| *role != Role::Root) {
            self.digested.1.update(role.name(*version, self.layout));
            self.digested.1.update(b"\n");
        }
        self.digested.0 = upto;
        self.digested.1.clone().finalize().into()
    }

    /// The objects of a cut that are not accounted for.
    pub fn unexpected_of(&self, n: u64) -> impl Iterator<Item = (Role, String)> + '_ {
        let start = self.objects.partition_point(|(v, ..)| *v < n);
        let of_cut = self.objects[start..].iter().take_while(move |(v, ..)| *v == n);
        let left = of_cut.filter(|(_, role, accounted)| !accounted && *role != Role::Root);
        left.map(|(v, role, _)| (*role, role.name(*v, self.layout)))
    }

    /// All objects that are not accounted for, by version.
    pub fn unexpected(&self) -> impl Iterator<Item = String> + '_ {
        let left = self.objects.iter().filter(|(.., accounted)| !accounted);
        left.map(|(v, role, _)| role.name(*v, self.layout))
    }
}

/// An object that is what it should be.
#[derive(Clone, Copy, Debug)]
pub struct Verified {
    /// Of the stored bytes.
    pub meta: Meta,
    /// How many signatures were verified.
    pub signatures: u64,
}

/// What became of one object.
pub enum Checked {
    /// It is right.
    Right(Verified),
    /// It is not there; what it should be.
    Missing(Value),
    /// It is wrong.
    Wrong(Box<Finding>),
}

/// Who must have signed an object, and why it should be there.
#[derive(Clone)]
pub struct Expect {
    /// The object's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// What makes it, such as `what cut 3 renders`.
    pub by: String,
}

/// Compares a stored file with the signed part that it should have, and verifies every one of its signatures.
pub fn check_signed(expect: &Expect, stored: Option<&Bytes>, signed: &[u8], root: &Root, role: &RoleKeys) -> Checked {
    let Some(stored) = stored else { return Checked::Missing(Value::of_signed(signed)) };
    let Expect { name, version, by } = expect;
    let wrong = |finding: Box<Finding>| {
        let values = |f: Box<Finding>| f.values(Some(Value::of_signed(signed)), Some(Value::of(stored)));
        Checked::Wrong(if finding.found.is_none() { values(finding) } else { finding })
    };
    let envelope = match Envelope::open(stored) {
        Ok(envelope) => envelope,
        Err(e) => {
            let is_there = memmem::find(stored, signed).is_some();
            let damage = if is_there { Damage::BadSignature } else { Damage::ObjectAltered };
            return wrong(Finding::new(damage, name, e.message));
        }
    };
    if envelope.signed != signed {
        let what = format!("its signed part is not {by}");
        let mut finding = Finding::differs(differing(signed, envelope.signed), name, what, signed, envelope.signed);
        let sides = [&mut finding.expected, &mut finding.found];
        sides.into_iter().flatten().for_each(|side| side.signed_part = true);
        return wrong(finding);
    }
    let unsigned = |what: String| wrong(Finding::new(Damage::BadSignature, name, what));
    let mut signatures = 0;
    for (id, signature) in &envelope.signatures {
        let key = root.keys.get(id).filter(|_| role.key_ids.contains(id));
        match key {
            Some(key) if key.verify(envelope.signed, signature) => signatures += 1,
            Some(_) => {
                let what = format!("the signature of key {id} does not fit its signed part, which is {by}");
                return unsigned(what);
            }
            None => {
                let what = format!("key {id} has signed it, which root {} does not name for it", root.version);
                return unsigned(what);
            }
        }
    }
    if signatures < u64::from(role.threshold) {
        let what = format!("{signatures} keys have signed it, {} must", role.threshold);
        return unsigned(what);
    }
    if !envelope.is_sealed_form(stored) {
        let what = "signed part and signatures are right, but the file around them is not laid out as tuflog does";
        return wrong(Finding::new(Damage::ObjectAltered, name, what));
    }
    Checked::Right(Verified { meta: Meta::of(*version, stored), signatures })
}

/// What it is to have `found` for a signed part that should be `expected`.
fn differing(expected: &[u8], found: &[u8]) -> Damage {
    match (around_expiry(expected), around_expiry(found)) {
        (Some((head, _, tail)), Some((found_head, _, found_tail))) if (head, tail) == (found_head, found_tail) => {
            Damage::WrongExpiry
        }
        _ => Damage::ObjectAltered,
    }
}

/// What stands before, in and behind the time at which a signed part expires.
pub fn around_expiry(signed: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    const KEY: &[u8] = b"\"expires\":\"";
    let start = memmem::find(signed, KEY)? + KEY.len();
    let end = start + memchr::memchr(b'"', &signed[start..])?;
    Some((&signed[..start], &signed[start..end], &signed[end..]))
}

/// Compares a stored object with all the bytes that it should have.
pub fn check_bytes(expect: &Expect, stored: Option<&Bytes>, bytes: &[u8]) -> Checked {
    match stored {
        None => Checked::Missing(Value::of(bytes)),
        Some(stored) if stored[..] != *bytes => {
            let damage = match (Envelope::open(bytes), Envelope::open(stored)) {
                (Ok(expected), Ok(found)) if expected.signed == found.signed => {
                    let same = expected.signatures == found.signatures;
                    if same { Damage::ObjectAltered } else { Damage::BadSignature }
                }
                (Ok(expected), Ok(found)) => differing(expected.signed, found.signed),
                (Ok(expected), Err(_)) if memmem::find(stored, expected.signed).is_some() => Damage::BadSignature,
                _ => Damage::ObjectAltered,
            };
            Checked::Wrong(Finding::differs(damage, &expect.name, format!("it is not {}", expect.by), bytes, stored))
        }
        Some(stored) => Checked::Right(Verified {
            meta: Meta { version: expect.version, length: stored.len() as u64, sha256: sha256(stored) },
            signatures: 0,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_sorted_out_or_a_stranger() {
        let layout = Layout::new(16, 1).unwrap();
        let good = [
            "metadata/1.root.json",
            "metadata/10.bins-a.json",
            "metadata/2.snapshot.json",
            "metadata/2.targets.json",
            "ledger/64.state.json",
            "ledger/64.ids.jsonl",
        ];
        let bad = [
            "metadata/01.root.json",
            "metadata/1.bins-0a.json",
            "metadata/1.bins-g.json",
            "metadata/1.bins-a",
            "ledger/1.root.json",
            "metadata/1.state.json",
            "metadata/+1.root.json",
            "x",
            "metadata/x/1.root.json",
        ];
        let mut listed = Listed::new(good.iter().chain(&bad).map(|n| n.to_string()).collect(), layout);
        assert_eq!(listed.strangers, bad);
        assert_eq!(listed.unexpected().collect::<Vec<_>>().len(), good.len());
        assert_eq!(listed.unexpected_of(1).count(), 0, "a root is of no cut");
        listed.account(10, Role::Bin(10));
        listed.account(2, Role::Snapshot);
        assert_eq!(listed.unexpected_of(10).count(), 0);
        assert_eq!(listed.unexpected_of(2).map(|(_, name)| name).collect::<Vec<_>>(), ["metadata/2.targets.json"]);
    }
}
