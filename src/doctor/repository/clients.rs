//! The clients that a repository is held against: their names, limits, and which keys and delegations they can use.
//!
//! Everything here was measured with, or read in the source of, python-tuf 7.0.1 (ngclient), tuf-js 5.0.1, go-tuf 2.4.2
//! and the commits after it, tough 0.24.0, rust-tuf 0.3.0-beta11, php-tuf (March 2026), the TUF client of sigstore-java
//! (August 2026) and libaktualizr (October 2025). The tests run the first two and tough on every fault they plant.

use std::fmt;
use std::ops::{BitAnd, BitOr, Sub};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keys::Scheme;

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ValueEnum)]
pub enum Client {
    /// python-tuf's ngclient.
    #[serde(rename = "python-tuf")]
    #[value(name = "python-tuf")]
    PythonTuf,
    /// tuf-js, which npm and sigstore-js use.
    #[serde(rename = "tuf-js")]
    #[value(name = "tuf-js")]
    TufJs,
    /// go-tuf after 2.4.2.
    #[serde(rename = "go-tuf")]
    #[value(name = "go-tuf")]
    GoTuf,
    /// go-tuf v2 up to and including 2.4.2.
    #[serde(rename = "go-tuf-2.4.2")]
    #[value(name = "go-tuf-2.4.2")]
    GoTuf242,
    /// tough, the client of Bottlerocket and sigstore-rs.
    #[serde(rename = "tough")]
    #[value(name = "tough")]
    Tough,
    /// rust-tuf, the crate `tuf`.
    #[serde(rename = "rust-tuf")]
    #[value(name = "rust-tuf")]
    RustTuf,
    /// php-tuf.
    #[serde(rename = "php-tuf")]
    #[value(name = "php-tuf")]
    PhpTuf,
    /// The TUF client of sigstore-java.
    #[serde(rename = "sigstore-java")]
    #[value(name = "sigstore-java")]
    SigstoreJava,
    /// libaktualizr's image repository.
    #[serde(rename = "aktualizr")]
    #[value(name = "aktualizr")]
    Aktualizr,
}

impl Client {
    /// All of them, in the order of reports.
    pub const ALL: [Client; 9] = [
        Client::PythonTuf,
        Client::TufJs,
        Client::GoTuf,
        Client::GoTuf242,
        Client::Tough,
        Client::RustTuf,
        Client::PhpTuf,
        Client::SigstoreJava,
        Client::Aktualizr,
    ];

    /// Its name, in reports and as the value of `--client`.
    pub fn name(self) -> &'static str {
        match self {
            Client::PythonTuf => "python-tuf",
            Client::TufJs => "tuf-js",
            Client::GoTuf => "go-tuf",
            Client::GoTuf242 => "go-tuf-2.4.2",
            Client::Tough => "tough",
            Client::RustTuf => "rust-tuf",
            Client::PhpTuf => "php-tuf",
            Client::SigstoreJava => "sigstore-java",
            Client::Aktualizr => "aktualizr",
        }
    }

    /// The most bytes that it reads of a file of `role` whose length nothing lists.
    pub fn limit(self, role: RoleKind) -> u64 {
        use Client::*;
        use RoleKind::*;
        match (self, role) {
            (PythonTuf | TufJs | GoTuf | GoTuf242 | RustTuf, Root) => 512_000,
            (PythonTuf | TufJs | GoTuf | GoTuf242 | RustTuf, Timestamp) => 16_384,
            (PythonTuf | TufJs | GoTuf | GoTuf242 | RustTuf, Snapshot) => 2_000_000,
            (PythonTuf | TufJs | GoTuf | GoTuf242 | RustTuf, Targets) => 5_000_000,
            (Tough, Root | Timestamp | Snapshot) => 1 << 20,
            (Tough, Targets) => 10 << 20,
            (PhpTuf, _) => 100_000,
            (SigstoreJava, Root | Timestamp) => 99 << 10,
            (SigstoreJava, Snapshot | Targets) => 2_000_000,
            (Aktualizr, Root | Timestamp | Snapshot) => 64 << 10,
            (Aktualizr, Targets) => 8 << 20,
        }
    }

    /// How many roots newer than its own it reads in one refresh, and whether more are an error.
    pub fn rotations(self) -> Option<(u64, bool)> {
        match self {
            Client::PythonTuf | Client::TufJs | Client::GoTuf | Client::GoTuf242 => Some((256, false)),
            Client::Tough | Client::PhpTuf | Client::SigstoreJava => Some((1_024, true)),
            Client::RustTuf | Client::Aktualizr => None,
        }
    }

    /// How many roles it visits in search of a target before one more, targets.json among them, and how deep it goes.
    pub fn search(self) -> (Option<usize>, Option<usize>) {
        match self {
            Client::PythonTuf | Client::TufJs | Client::GoTuf | Client::GoTuf242 => (Some(32), None),
            Client::PhpTuf => (Some(100), None),
            Client::RustTuf => (None, Some(8)),
            Client::Aktualizr => (None, Some(5)),
            Client::Tough | Client::SigstoreJava => (None, None),
        }
    }

    /// Whether it takes this HTTP status for the end of the chain of roots.
    pub fn ends_roots(self, status: u16) -> bool {
        match self {
            Client::PythonTuf | Client::TufJs => matches!(status, 403 | 404),
            Client::Tough => matches!(status, 403 | 404 | 410),
            Client::GoTuf | Client::GoTuf242 | Client::RustTuf | Client::PhpTuf | Client::SigstoreJava => status == 404,
            Client::Aktualizr => true,
        }
    }

    /// What it makes of a key of this kind.
    pub fn takes(self, scheme: Scheme) -> Takes {
        use Client::*;
        use Takes::*;
        match (scheme, self) {
            (Scheme::Ed25519, _) => Yes,
            (Scheme::EcdsaP256, PythonTuf | TufJs | GoTuf | GoTuf242 | Tough | SigstoreJava) => Yes,
            (Scheme::EcdsaP256, RustTuf | PhpTuf | Aktualizr) => Refuses,
            (Scheme::EcdsaP384, PythonTuf | GoTuf | GoTuf242) => Yes,
            (Scheme::EcdsaP384, TufJs | RustTuf | SigstoreJava) => Ignores,
            (Scheme::EcdsaP384, Tough | PhpTuf | Aktualizr) => Refuses,
            (Scheme::RsaPss256, RustTuf) => Ignores,
            (Scheme::RsaPss256, PhpTuf) => Refuses,
            (Scheme::RsaPss256, _) => Yes,
            (Scheme::OfPythonTuf, PythonTuf) => Yes,
            (Scheme::OfPythonTuf | Scheme::Unknown, Tough | PhpTuf | Aktualizr) => Refuses,
            (Scheme::Unknown, PythonTuf) => Refuses,
            (Scheme::OfPythonTuf | Scheme::Unknown, _) => Ignores,
        }
    }
}

/// What a client makes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It checks signatures with it.
    Yes,
    /// Its signatures do not count.
    Ignores,
    /// It refuses the file that holds it.
    Refuses,
}

/// The roles that clients have a size limit of their own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// A root.
    Root,
    /// The timestamp.
    Timestamp,
    /// The snapshot.
    Snapshot,
    /// Top-level or delegated targets.
    Targets,
}

/// Some clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clients(u16);

impl Clients {
    /// None.
    pub const NONE: Clients = Clients::of(&[]);
    /// All.
    pub const ALL: Clients = Clients::of(&Client::ALL);
    /// go-tuf of either age.
    pub const GO: Clients = Clients::of(&[Client::GoTuf, Client::GoTuf242]);
    /// Those whose verdict decides how bad a finding is, when none are named: the general clients, as far as they can
    /// use the repository's form of delegation.
    pub const GENERAL: Clients =
        Clients::of(&[Client::PythonTuf, Client::TufJs, Client::GoTuf, Client::GoTuf242, Client::Tough]);

    /// These.
    pub const fn of(list: &[Client]) -> Clients {
        let (mut bits, mut i) = (0, 0);
        while i < list.len() {
            bits |= 1 << list[i] as u16;
            i += 1;
        }
        Clients(bits)
    }

    /// These and those.
    pub const fn and(self, more: Clients) -> Clients {
        Clients(self.0 | more.0)
    }

    /// These without those.
    pub const fn without(self, less: Clients) -> Clients {
        Clients(self.0 & !less.0)
    }

    /// Those that it is true of.
    pub fn that(is: impl Fn(Client) -> bool) -> Clients {
        Client::ALL.into_iter().filter(|c| is(*c)).fold(Clients::NONE, |all, c| all | Clients::of(&[c]))
    }

    /// Whether it is one of them.
    pub fn has(self, client: Client) -> bool {
        self.0 & 1 << client as u16 != 0
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each.
    pub fn iter(self) -> impl Iterator<Item = Client> {
        Client::ALL.into_iter().filter(move |c| self.has(*c))
    }
}

impl BitOr for Clients {
    type Output = Clients;

    fn bitor(self, other: Clients) -> Clients {
        self.and(other)
    }
}

impl BitAnd for Clients {
    type Output = Clients;

    fn bitand(self, other: Clients) -> Clients {
        Clients(self.0 & other.0)
    }
}

impl Sub for Clients {
    type Output = Clients;

    fn sub(self, other: Clients) -> Clients {
        self.without(other)
    }
}

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Clients::ALL {
            return f.write_str("every client");
        }
        let names: Vec<&str> = self.iter().map(Client::name).collect();
        f.write_str(&names.join(", "))
    }
}
