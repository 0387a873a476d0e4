//! Which roles delegate to which, and how a client finds a target among them.
//!
//! A role may be reached from several files: its targets are in their place if one of those delegations leads to them,
//! and every file that delegates to it must name keys that sign it. Both can be told only when every file is read, so
//! what is not in its place so far, and what more than one role could hold, is kept until then. All that is kept has
//! a budget for the whole run; what goes beyond it is left out, and [`Graph::left_out`] says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::checks::delegations::Delegated;
use super::checks::edge::Fuel;
use super::clients::{Client, Clients};
use super::found::{Effect, Fault, Found};
use super::keys::{Keys, Signers};

/// The most delegations that are kept in one run.
pub const MOST_EDGES: usize = 4 * super::walk::MOST_ROLES;
/// The most bytes of names, patterns and keys that are kept in one run, and those of target paths.
const MOST_BYTES: usize = 64 << 20;
const MOST_PATHS: usize = 64 << 20;
/// What a thing that is kept costs beside its text.
pub const OVERHEAD: usize = 64;
/// The most different lists of keys of one role that are looked at.
const MOST_PARENTS: usize = 64;
/// How many roles, and how deep, clients without a limit are followed.
const FAR: (usize, usize) = (2_048, 256);

/// What may still be kept.
#[derive(Debug)]
pub struct Budget {
    /// Delegations.
    pub edges: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Budget {
    /// Takes bytes from it; false if there are too few.
    pub fn take(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

/// Who must sign a role, as one file says that delegates to it.
#[derive(Clone)]
pub struct Parent {
    /// That file.
    pub by: Rc<str>,
    /// Its keys.
    pub keys: Rc<Keys>,
    /// Which of them, and how many.
    pub signers: Rc<Signers>,
}

impl Parent {
    /// Whether this and another want the same signatures.
    fn is_like(&self, other: &Parent) -> bool {
        let same_keys = || self.signers.keyids.iter().all(|id| self.keys.get(id) == other.keys.get(id));
        self.signers == other.signers && (Rc::ptr_eq(&self.keys, &other.keys) || same_keys())
    }
}

/// A role that has been met.
struct Role {
    name: String,
    /// Its file, once that has been read.
    file: Rc<str>,
    /// How many delegations lead to it from targets.json, and the role that led to it first.
    depth: usize,
    from: usize,
    delegated: Option<Delegated>,
    /// For each of its delegations the role that it leads to.
    to: Vec<usize>,
    /// The delegations that lead to it: role and number.
    into: Vec<(usize, u32)>,
    parents: Vec<Parent>,
}

/// What it means that a role is delegated to.
pub enum Met {
    /// It is met for the first time.
    New(usize),
    /// It is known, but this file wants other signatures.
    Again(usize, Parent),
    /// There is nothing new about it.
    Known,
}

/// All roles so far. Role 0 is targets.json.
pub struct Graph {
    roles: Vec<Role>,
    names: HashMap<String, usize>,
    /// Targets of roles: those that seem misplaced, and those that clients may not get to.
    misplaced: Vec<(usize, String)>,
    listed: BTreeMap<String, Vec<usize>>,
    /// Whether the delegations of some file overlap.
    overlap: bool,
    /// What may still be kept: of delegations, and of targets.
    pub budget: Budget,
    paths: Budget,
    /// See [`Fuel`].
    pub fuel: Fuel,
    /// Whether something was left out for want of it.
    pub left_out: bool,
}

static MISPLACED: Fault = Fault {
    name: "target-misplaced",
    what: "a role lists targets that are not delegated to it",
    why: "clients go from a path to its role, and so never see them there: wildcards stop at `/` for python-tuf, tuf-js and \
          go-tuf, and at a leading dot for tuf-js",
    fix: "list each target in the role that its path, or the sha256 of its path, leads to",
    choice: false,
};

static NOT_REACHED: Fault = Fault {
    name: "target-not-reached",
    what: "a client's search for a target ends before the role that lists it",
    why: "clients visit the roles whose delegations fit the path, in order: python-tuf, tuf-js and go-tuf 32 of them, php-tuf \
          100, aktualizr five deep and rust-tuf eight; a terminating delegation that fits ends the search; tough keeps a role \
          under the first of its delegations alone",
    fix: "delegate a path to few roles, the one that lists it first, and to no role from two files if tough is to read it",
    choice: false,
};

impl Default for Graph {
    fn default() -> Graph {
        let targets = Role {
            name: "targets".into(),
            file: "targets.json".into(),
            depth: 0,
            from: 0,
            delegated: None,
            to: Vec::new(),
            into: Vec::new(),
            parents: Vec::new(),
        };
        Graph {
            names: HashMap::from([(targets.name.clone(), 0)]),
            roles: vec![targets],
            misplaced: Vec::new(),
            listed: BTreeMap::new(),
            overlap: false,
            budget: Budget { edges: MOST_EDGES, bytes: MOST_BYTES },
            paths: Budget { edges: 0, bytes: MOST_PATHS },
            fuel: Fuel::default(),
            left_out: false,
        }
    }
}

impl Graph {
    /// The name of a role.
    pub fn name(&self, role: usize) -> &str {
        &self.roles[role].name
    }

    /// Who must sign it, as far as is known.
    pub fn parents(&self, role: usize) -> Vec<Parent> {
        self.roles[role].parents.clone()
    }

    /// Takes in what the file of a role delegates.
    pub fn read(&mut self, role: usize, file: &str, delegated: Delegated) {
        self.left_out |= delegated.left_out;
        self.overlap |= !delegated.index.is_exclusive();
        self.roles[role].file = file.into();
        self.roles[role].delegated = Some(delegated);
    }

    /// Follows the delegations of a role that was read.
    pub fn follow(&mut self, from: usize) -> Vec<Met> {
        let Some(delegated) = &self.roles[from].delegated else { return Vec::new() };
        let (keys, edges) = (delegated.keys.clone(), delegated.edges.clone());
        let by = self.roles[from].file.clone();
        let mut met = Vec::with_capacity(edges.len());
        for (i, edge) in edges.iter().enumerate() {
            let parent = Parent { by: by.clone(), keys: keys.clone(), signers: edge.signers.clone() };
            let (to, is_new) = match self.names.get(&edge.role) {
                Some(to) => (*to, false),
                None => (self.insert(&edge.role, from), true),
            };
            self.roles[from].to.push(to);
            self.roles[to].into.push((from, i as u32));
            met.push(match is_new {
                true => {
                    self.roles[to].parents.push(parent);
                    Met::New(to)
                }
                false => self.again(to, from, parent),
            });
        }
        met
    }

    fn insert(&mut self, name: &str, from: usize) -> usize {
        let (depth, name) = (self.roles[from].depth + 1, name.to_owned());
        let role = Role {
            name: name.clone(),
            file: name.as_str().into(),
            depth,
            from,
            delegated: None,
            to: Vec::new(),
            into: Vec::new(),
            parents: Vec::new(),
        };
        self.roles.push(role);
        self.names.insert(name, self.roles.len() - 1);
        self.roles.len() - 1
    }

    fn again(&mut self, to: usize, from: usize, parent: Parent) -> Met {
        // Clients pass over a delegation to a role on the way to it.
        let mut on_the_way = from;
        while self.fuel.burn(1) && on_the_way != to && on_the_way != 0 {
            on_the_way = self.roles[on_the_way].from;
        }
        let parents = &mut self.roles[to].parents;
        if on_the_way == to || parents.iter().any(|other| other.is_like(&parent)) {
            return Met::Known;
        }
        if parents.len() == MOST_PARENTS {
            self.left_out = true;
            return Met::Known;
        }
        parents.push(parent.clone());
        Met::Again(to, parent)
    }

    /// Looks where the targets of a role that is read now are, as far as is known, and keeps those that need another look.
    pub fn targets<'p>(&mut self, role: usize, paths: impl Iterator<Item = &'p str>) {
        let leads_on = self.roles[role].delegated.as_ref().is_some_and(|delegated| !delegated.edges.is_empty());
        let many = match self.roles[role].depth {
            0 => leads_on,
            depth => self.overlap || depth > 1,
        };
        for path in paths {
            let misplaced = role != 0 && !self.lost(role, path).is_empty();
            for (wanted, as_misplaced) in [(misplaced, true), (many, false)] {
                if wanted && !self.paths.take(path.len() + OVERHEAD) {
                    self.left_out = true;
                } else if wanted && as_misplaced {
                    self.misplaced.push((role, path.to_owned()));
                } else if wanted {
                    self.listed.entry(path.to_owned()).or_default().push(role);
                }
            }
            if self.fuel.is_empty() {
                return;
            }
        }
    }

    /// The clients that no delegation to a role leads to it for this path.
    fn lost(&mut self, role: usize, path: &str) -> Clients {
        let mut lost = Clients::ALL;
        for (from, edge) in &self.roles[role].into {
            let Some(delegated) = &self.roles[*from].delegated else { continue };
            let led = delegated.index.leading(path, &mut self.fuel);
            lost = lost - led.get(edge).copied().unwrap_or_default();
            if lost.is_empty() {
                break;
            }
        }
        if self.fuel.is_empty() { Clients::NONE } else { lost }
    }

    /// Puts down what can be told when every file has been read.
    pub fn finish(&mut self, found: &mut Found) {
        let mut misplaced: BTreeSet<(usize, String)> = BTreeSet::new();
        for (role, path) in std::mem::take(&mut self.misplaced) {
            let lost = self.lost(role, &path);
            if !lost.is_empty() {
                found.add(&MISPLACED, Effect::miss(lost), &self.roles[role].file, "signed.targets", &path);
                misplaced.insert((role, path));
            }
        }
        let owners = self.owners();
        for (path, roles) in std::mem::take(&mut self.listed) {
            if roles.contains(&0) || roles.iter().any(|role| misplaced.contains(&(*role, path.clone()))) {
                continue; // found at once, or told already
            }
            let mut search =
                Search { graph: &self.roles, owners: &owners, path: &path, roles: &roles, led: HashMap::new() };
            let miss = search.all(&mut self.fuel);
            if self.fuel.is_empty() {
                break;
            }
            if !miss.is_empty() {
                let file = &self.roles[roles[0]].file;
                found.add(&NOT_REACHED, Effect::miss(miss), file, "signed.targets", &path);
            }
        }
        self.left_out |= self.fuel.is_empty();
    }

    /// For each role the delegation under which tough keeps it: the first in its order of loading, role and number.
    fn owners(&self) -> Vec<Option<(usize, u32)>> {
        let mut owners = vec![None; self.roles.len()];
        let mut stack = vec![(0, 0)];
        while let Some((role, next)) = stack.pop() {
            let Some(to) = self.roles[role].to.get(next).copied() else { continue };
            stack.push((role, next + 1));
            if to != 0 && owners[to].is_none() {
                owners[to] = Some((role, next as u32));
                stack.push((to, 0));
            }
        }
        owners
    }
}

/// The search for one path.
struct Search<'s> {
    graph: &'s [Role],
    owners: &'s [Option<(usize, u32)>],
    path: &'s str,
    /// The roles that list it.
    roles: &'s [usize],
    /// The delegations of roles that lead to it.
    led: HashMap<usize, Rc<BTreeMap<u32, Clients>>>,
}

/// How far a client has come.
struct Way {
    client: Client,
    visited: Vec<usize>,
    /// The most roles that are visited before another, and how deep.
    most: usize,
    depth: usize,
}

enum Step {
    Found,
    Ended,
    On,
}

impl Search<'_> {
    /// The clients that do not find it.
    fn all(&mut self, fuel: &mut Fuel) -> Clients {
        let mut miss = Clients::NONE;
        for client in Client::ALL {
            // What sigstore-java and rust-tuf make of delegations is told by the form.
            if client != Client::SigstoreJava {
                let (most, depth) = client.search();
                let (most, depth) = (most.unwrap_or(FAR.0), depth.unwrap_or(FAR.1));
                let mut way = Way { client, visited: Vec::new(), most, depth };
                if !matches!(self.visit(0, 0, &mut way, fuel), Step::Found) {
                    miss = miss | Clients::of(&[client]);
                }
            }
        }
        miss
    }

    fn visit(&mut self, role: usize, depth: usize, way: &mut Way, fuel: &mut Fuel) -> Step {
        // Beyond what is followed here nothing is said.
        if self.roles.contains(&role) || !fuel.burn(way.visited.len() + 1) || depth == FAR.1 {
            return Step::Found;
        }
        way.visited.push(role);
        let graph = self.graph;
        let Some(delegated) = &graph[role].delegated else { return Step::On };
        let led = match self.led.get(&role) {
            Some(led) => led.clone(),
            None => {
                let led = Rc::new(delegated.index.leading(self.path, fuel));
                self.led.insert(role, led.clone());
                led
            }
        };
        let client = way.client;
        for (edge, _) in led.iter().filter(|(_, clients)| clients.has(client)) {
            let (to, terminating) = (graph[role].to[*edge as usize], delegated.edges[*edge as usize].terminating);
            let elsewhere = client == Client::Tough && self.owners[to] != Some((role, *edge));
            if !way.visited.contains(&to) && !elsewhere && depth < way.depth {
                if way.visited.len() > way.most {
                    let goes_on = client == Client::PhpTuf;
                    return if way.most == FAR.0 {
                        Step::Found
                    } else if goes_on {
                        Step::On
                    } else {
                        Step::Ended
                    };
                }
                let before = way.visited.len();
                match self.visit(to, depth + 1, way, fuel) {
                    Step::On => {}
                    end => return end,
                }
                if client == Client::PhpTuf {
                    way.visited.truncate(before + 1); // it forgets what was visited below
                }
            }
            if terminating {
                return Step::Ended;
            }
        }
        Step::On
    }
}
