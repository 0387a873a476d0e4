//! Checks of timestamp and snapshot: the files that they name.

use super::super::clients::{Client, Clients};
use super::super::file::Look;
use super::super::found::{Effect, Fault};
use super::super::json::Json;
use super::common::{VERSION_LARGE, too_large};

/// The most entries with which tuf-js takes a few seconds.
pub const ENTRIES_OF_TUF_JS: usize = 1_024;
/// So many that tuf-js was not done after twenty minutes.
pub const ENTRIES_TOO_MANY: usize = 16_384;

/// What a file says about another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Its version.
    pub version: u64,
    /// Its length in bytes, if that is listed.
    pub length: Option<u64>,
    /// Name and hex of its digests, in file order.
    pub hashes: Vec<(String, String)>,
}

impl Meta {
    /// Reads an entry; `None` if it has no version from 1 on, or something of another type.
    pub fn of(entry: &Json<'_>) -> Option<Meta> {
        let length = match entry.get("length") {
            Some(length) => Some(length.count()?),
            None => None,
        };
        let hashes = match entry.get("hashes") {
            Some(hashes) => read_hashes(hashes)?,
            None => Vec::new(),
        };
        Some(Meta { version: entry.get("version")?.count().filter(|v| *v > 0)?, length, hashes })
    }
}

/// Name and hex of digests, in file order.
pub fn read_hashes(hashes: &Json<'_>) -> Option<Vec<(String, String)>> {
    let members = hashes.object()?.iter();
    members.map(|(name, hex)| Some((name.clone().into_owned(), hex.text()?.to_owned()))).collect()
}

/// The entries of a timestamp or snapshot.
pub fn entries<'l>(look: &Look<'l>) -> impl Iterator<Item = (&'l str, &'l Json<'l>)> + use<'l> {
    let meta = look.get("meta").and_then(Json::object).unwrap_or_default();
    meta.iter().map(|(name, entry)| (name.as_ref(), entry))
}

static TIMESTAMP_META: Fault = Fault {
    name: "timestamp-meta",
    what: "the timestamp names more than snapshot.json",
    why: "python-tuf and tuf-js drop the rest before they check the signature, tough refuses it",
    fix: "name snapshot.json alone; fields of your own go to the top of `signed`",
    choice: false,
};

/// The timestamp names the snapshot, and nothing else.
pub fn timestamp_meta(look: &mut Look<'_>) {
    if !entries(look).any(|(name, entry)| name == "snapshot.json" && Meta::of(entry).is_some()) {
        return look.misshapen("signed.meta", "no entry for snapshot.json with a version from 1 on");
    }
    let clients = Clients::of(&[Client::PythonTuf, Client::TufJs, Client::Tough]);
    for (name, _) in entries(look).filter(|(name, _)| *name != "snapshot.json") {
        look.breaks(&TIMESTAMP_META, clients, "signed.meta", name);
    }
}

static SNAPSHOT_META: Fault = Fault {
    name: "snapshot-without-targets",
    what: "the snapshot does not name targets.json",
    why: "it is the first thing that a client looks for there",
    fix: "name targets.json with its version, and every delegated role",
    choice: false,
};

static ENTRY: Fault = Fault {
    name: "meta-entry",
    what: "an entry of `meta` has no version from 1 on, or a field of another type",
    why: "clients read entries into types, and give up on the file",
    fix: "write {\"version\": N}, with `length` and `hashes` where wanted",
    choice: false,
};

/// The snapshot names `targets.json`, and every entry can be read.
pub fn snapshot_meta(look: &mut Look<'_>) {
    if look.get("meta").and_then(Json::object).is_none() {
        return look.misshapen("signed.meta", "missing, or not an object");
    }
    if !entries(look).any(|(name, _)| name == "targets.json") {
        look.breaks(&SNAPSHOT_META, Clients::ALL, "signed.meta", "no entry for targets.json");
    }
    for (name, entry) in entries(look) {
        match Meta::of(entry) {
            None => look.breaks(&ENTRY, Clients::ALL, "signed.meta", name),
            Some(meta) => look.breaks(&VERSION_LARGE, too_large(meta.version), "signed.meta", name),
        }
    }
}

static SNAPSHOT_HASH: Fault = Fault {
    name: "snapshot-hash-missing",
    what: "the timestamp does not list the snapshot's hash",
    why: "aktualizr needs it; the others trust the version",
    fix: "list `hashes` with a sha256, and `length`, of snapshot.json",
    choice: true,
};

/// The snapshot's hash is listed.
pub fn snapshot_hash(look: &mut Look<'_>) {
    if entries(look).any(|(name, entry)| name == "snapshot.json" && entry.get("hashes").is_none()) {
        look.breaks(&SNAPSHOT_HASH, Clients::of(&[Client::Aktualizr]), "signed.meta", "snapshot.json");
    }
}

static ZERO_LENGTH: Fault = Fault {
    name: "meta-length-zero",
    what: "an entry of `meta` lists the length 0",
    why: "go-tuf drops a length of 0 before it checks the signature, and so finds it wrong",
    fix: "list the real length, or none",
    choice: false,
};

/// No metadata file has length 0.
pub fn zero_length(look: &mut Look<'_>) {
    for (name, _) in entries(look).filter(|(_, e)| e.get("length").and_then(Json::count) == Some(0)) {
        look.breaks(&ZERO_LENGTH, Clients::GO, "signed.meta", name);
    }
}

static HASH_NAME: Fault = Fault {
    name: "hash-name",
    what: "digests are listed by names that not every client knows",
    why: "go-tuf knows sha256 and sha512 and fails at any other, tough needs sha256, sigstore-java one of the two, and python-tuf \
          and tuf-js check every name with their crypto library",
    fix: "list sha256 alone",
    choice: false,
};

/// The digests of the files that are named.
pub fn hash_names(look: &mut Look<'_>) {
    for (name, entry) in entries(look) {
        let hashes = entry.get("hashes").and_then(read_hashes).unwrap_or_default();
        if !hashes.is_empty() {
            hash_name(look, "signed.meta", name, &hashes);
        }
    }
}

/// Puts down the names of these digests that some client cannot use.
pub fn hash_name(look: &mut Look<'_>, field: &str, of: &str, hashes: &[(String, String)]) {
    let all = |known: fn(&str) -> bool| hashes.iter().all(|(name, _)| known(name));
    let has = |wanted: &[&str]| hashes.iter().any(|(name, _)| wanted.contains(&name.as_str()));
    let clients = Clients::that(|client| match client {
        Client::GoTuf | Client::GoTuf242 => !all(|name| matches!(name, "sha256" | "sha512")),
        Client::Tough => !has(&["sha256"]),
        Client::SigstoreJava | Client::RustTuf => !has(&["sha256", "sha512"]),
        Client::PythonTuf => !all(known_to_hashlib),
        Client::TufJs => !all(known_to_openssl),
        Client::PhpTuf | Client::Aktualizr => false,
    });
    let names: Vec<&str> = hashes.iter().map(|(name, _)| name.as_str()).collect();
    look.breaks(&HASH_NAME, clients, field, &format!("{of}: {}", names.join(", ")));
}

fn known_to_hashlib(name: &str) -> bool {
    let sha3 = ["sha3_224", "sha3_256", "sha3_384", "sha3_512"];
    known_to_both(name) || sha3.contains(&name) || matches!(name, "blake2b" | "blake2s" | "blake2b-256")
}

fn known_to_openssl(name: &str) -> bool {
    let sha3 = ["sha3-224", "sha3-256", "sha3-384", "sha3-512"];
    known_to_both(name) || sha3.contains(&name) || matches!(name, "blake2b512" | "blake2s256")
}

fn known_to_both(name: &str) -> bool {
    matches!(name, "sha1" | "sha224" | "sha256" | "sha384" | "sha512" | "md5")
}

static ENTRIES: Fault = Fault {
    name: "snapshot-entries",
    what: "the snapshot names many files",
    why: "tuf-js takes time that grows with their square: 2,048 entries 11 s, 4,096 46 s, 8,192 277 s",
    fix: "use at most 1,024 delegated roles if tuf-js is to read the repository",
    choice: false,
};

/// How many files the snapshot names.
pub fn entry_count(look: &mut Look<'_>) {
    let count = entries(look).count();
    many(look, &ENTRIES, "signed.meta", count);
}

/// Puts down a number of members with which tuf-js struggles, or gives up.
pub fn many(look: &mut Look<'_>, fault: &'static Fault, field: &str, count: usize) {
    let js = Clients::of(&[Client::TufJs]);
    if count >= ENTRIES_TOO_MANY {
        look.breaks(fault, js, field, &count.to_string());
    } else if count > ENTRIES_OF_TUF_JS + 1 {
        look.add(fault, Effect::struggle(js), field, &count.to_string()); // targets.json is one more
    }
}
