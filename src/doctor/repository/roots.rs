//! The chain of roots, from the one that is trusted to the newest.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::checks::{EVERY, ROOT, common, root};
use super::clients::{Clients, RoleKind};
use super::fetch::Answer;
use super::file::{File, Look};
use super::found::{Effect, Fault, Found};
use super::json::Json;
use super::keys::{Keys, Signers};
use super::walk::Walk;
use crate::{Error, Result};

/// The most roots that are read.
const MOST_ROOTS: u64 = 2_048;

/// A root as the walk needs it.
pub struct Root {
    /// Its version.
    pub version: u64,
    /// All keys.
    pub keys: Rc<Keys>,
    /// Whether file names carry versions.
    pub consistent: bool,
    roles: BTreeMap<&'static str, Rc<Signers>>,
}

impl Root {
    fn of(signed: &Json<'_>) -> Option<Root> {
        let roles = signed.get("roles")?;
        let signers = |name: &'static str| Some((name, root::read_signers(roles.get(name)?)?.into()));
        Some(Root {
            version: signed.get("version")?.count().filter(|v| *v > 0)?,
            keys: root::read_keys(signed.get("keys")).into(),
            consistent: matches!(signed.get("consistent_snapshot"), Some(Json::Bool(true))),
            roles: root::ROLES.into_iter().map(signers).collect::<Option<_>>()?,
        })
    }

    /// Who signs one of the four roles.
    pub fn signers(&self, role: &str) -> Rc<Signers> {
        self.roles.get(role).cloned().unwrap_or_default() // `of` wants all four
    }
}

static ON_TRUST: Fault = Fault {
    name: "root-on-trust",
    what: "the first root was taken from the repository itself",
    why: "that it is the right one cannot be told from it: clients bring theirs",
    fix: "name the root that your clients are shipped with: --root FILE",
    choice: true,
};

static FIRST_MISSING: Fault = Fault {
    name: "root-first-missing",
    what: "there is no 1.root.json",
    why: "a client that was shipped with an old root needs every one after it; all must stay for ever",
    fix: "keep every root that was ever published",
    choice: false,
};

static VERSION: Fault = Fault {
    name: "root-version",
    what: "a root has another version than its name",
    why: "clients refuse it: after root N comes N+1",
    fix: "publish each root under its own version, with none left out",
    choice: false,
};

static GAP: Fault = Fault {
    name: "root-gap",
    what: "there is a newer root that clients never reach",
    why: "clients ask for one root after the other and stop at the first that is missing, so they stay with an old one",
    fix: "publish the roots between",
    choice: false,
};

static MANY: Fault = Fault {
    name: "root-count",
    what: "there are more roots than some clients follow in one go",
    why: "python-tuf, tuf-js and go-tuf stop after 256 and go on with an old root; tough, php-tuf and sigstore-java fail after 1,024",
    fix: "ship clients with a newer root",
    choice: false,
};

static STATUS: Fault = Fault {
    name: "root-end-status",
    what: "the server does not answer 404 for the root after the newest",
    why: "go-tuf, rust-tuf, php-tuf and sigstore-java take only 404 for the end of the chain, python-tuf and tuf-js also 403",
    fix: "answer 404 for what is not there (on S3, let the public list the bucket)",
    choice: false,
};

impl Walk<'_> {
    /// Follows the chain from `trusted`, or else from the first root that is there, to its end.
    ///
    /// # Errors
    /// `Invalid` if there is no root to begin with, or it cannot be read.
    pub async fn roots(&mut self, trusted: Option<(String, Vec<u8>)>) -> Result<Option<Root>> {
        let (mut name, mut bytes) = match trusted {
            Some(trusted) => trusted,
            None => self.first().await?,
        };
        let mut newest: Option<Root> = None;
        let mut followed = 0;
        loop {
            let Some(root) = self.root(&name, &bytes, newest.as_ref()) else { return Ok(newest) };
            let next = root.version.checked_add(1).filter(|_| followed < MOST_ROOTS);
            newest = Some(root);
            let Some(next) = next else { break };
            let following = format!("{next}.root.json");
            match self.source.get(&following).await {
                Answer::Absent(status) => {
                    let clients = status.map_or(Clients::NONE, |s| Clients::that(|client| !client.ends_roots(s)));
                    if !clients.is_empty() {
                        let is = format!("HTTP status {}", status.unwrap_or_default());
                        self.found.add(&STATUS, Effect::refuse(clients), &following, "", &is);
                    }
                    break;
                }
                answer => match self.take(answer, &following, false) {
                    Some(file) => (name, bytes) = (following, file),
                    None => break,
                },
            }
            followed += 1;
        }
        let Some(newest) = newest else { return Ok(None) };
        self.seen.root = newest.version;
        self.expiry(&name, &bytes);
        self.count(followed, &newest);
        self.gap(&newest).await;
        Ok(Some(newest))
    }

    /// The first root that the repository has itself.
    async fn first(&mut self) -> Result<(String, Vec<u8>)> {
        for name in ["1.root.json", "root.json"] {
            match self.source.get(name).await {
                Answer::File(bytes) => {
                    self.seen.files += 1;
                    self.found.add(&ON_TRUST, Effect::default(), name, "", "no --root was given");
                    if name == "root.json" {
                        self.found.add(
                            &FIRST_MISSING,
                            Effect::struggle(Clients::ALL),
                            name,
                            "",
                            "the chain begins here",
                        );
                    }
                    return Ok((name.into(), bytes));
                }
                Answer::Absent(_) => {}
                Answer::TooLarge => return Err(Error::invalid("REPOSITORY", format!("{name} is too large"))),
                Answer::Late => return Err(Error::unavailable(format!("{name} did not come in time"))),
                Answer::Failed(e) => return Err(Error::unavailable(format!("{name} cannot be read: {e}"))),
            }
        }
        Err(Error::invalid(
            "REPOSITORY",
            "there is neither 1.root.json nor root.json: give the trusted root with --root",
        ))
    }

    /// Checks a root that follows `previous`; `None` if nothing can follow it.
    fn root(&mut self, name: &str, bytes: &[u8], previous: Option<&Root>) -> Option<Root> {
        let file = File::open(name, false, bytes, &mut self.found)?;
        let mut look = Look { file: &file, now: self.now, found: &mut self.found };
        common::kind(&mut look, "root");
        common::size(&mut look, RoleKind::Root, None);
        for check in EVERY.iter().chain(ROOT) {
            check(&mut look);
        }
        let root = Root::of(file.signed())?;
        if let Some(previous) = previous {
            if previous.version.checked_add(1) != Some(root.version) {
                let is = format!("{} after {}", root.version, previous.version);
                look.breaks(&VERSION, Clients::ALL, "signed.version", &is);
                return None;
            }
            let by = format!("root {}", previous.version);
            common::signatures(&mut look, &previous.keys, &previous.signers("root"), &by);
        }
        common::signatures(&mut look, &root.keys, &root.signers("root"), "itself");
        Some(root)
    }

    /// Only the newest root may not have expired.
    fn expiry(&mut self, name: &str, bytes: &[u8]) {
        let mut aside = Found::default(); // it has been opened before, and what it met was put down
        if let Some(file) = File::open(name, false, bytes, &mut aside) {
            common::expiry(&mut Look { file: &file, now: self.now, found: &mut self.found });
        }
    }

    fn count(&mut self, followed: u64, newest: &Root) {
        let over = |fails| {
            Clients::that(|client| client.rotations().is_some_and(|(most, error)| error == fails && followed > most))
        };
        let effect = Effect { struggle: over(false), ..Effect::refuse(over(true)) };
        if !effect.all().is_empty() {
            let name = format!("{}.root.json", newest.version);
            self.found.add(&MANY, effect, &name, "", &format!("{followed} after the first"));
        }
    }

    /// Looks for a newer root under the name without a version.
    async fn gap(&mut self, newest: &Root) {
        let Answer::File(bytes) = self.source.get("root.json").await else { return };
        let mut aside = Found::default(); // nothing but its version is of interest
        let Some(file) = File::open("root.json", false, &bytes, &mut aside) else { return };
        let version = file.signed().get("version").and_then(Json::count).unwrap_or(0);
        if version > newest.version {
            let is = format!("version {version}; the chain ends at {}", newest.version);
            self.found.add(&GAP, Effect::refuse(Clients::ALL), "root.json", "signed.version", &is);
        }
    }
}
