//! Whether a file is the one that another names: by version, length and digests.

use std::cell::LazyCell;

use sha2::{Digest, Sha256, Sha512};

use super::super::clients::{Client, Clients};
use super::super::file::Look;
use super::super::found::Fault;
use super::super::json::Json;
use super::meta::Meta;

static VERSION: Fault = Fault {
    name: "version-differs",
    what: "a file has another version than the file that names it says",
    why: "clients take it for an attack, and refuse it",
    fix: "publish in this order: delegated roles, targets.json, snapshot.json, timestamp.json; never change a file that is named",
    choice: false,
};

static LENGTH: Fault = Fault {
    name: "length-differs",
    what: "a file has another length than the file that names it says",
    why: "clients take it for an attack: all refuse a longer file, most a shorter one too",
    fix: "publish the file that was named; see whether something between changes files, such as line ends",
    choice: false,
};

static HASH: Fault = Fault {
    name: "hash-differs",
    what: "a file has another digest than the file that names it says",
    why: "clients take it for an attack, and refuse it",
    fix: "publish the file that was named; see whether something between changes files, such as line ends",
    choice: false,
};

/// Holds the file, whose bytes these are, against what names it.
pub fn as_listed(look: &mut Look<'_>, bytes: &[u8], meta: &Meta) {
    if let Some(version) = look.get("version").and_then(Json::count).filter(|v| *v != meta.version) {
        look.breaks(&VERSION, Clients::ALL, "signed.version", &format!("{version}, named as {}", meta.version));
    }
    let length = bytes.len() as u64;
    if let Some(listed) = meta.length.filter(|listed| *listed != length) {
        let exact = Clients::GO | Clients::of(&[Client::PythonTuf, Client::TufJs, Client::PhpTuf]);
        let clients = if length > listed { Clients::ALL } else { exact };
        look.breaks(&LENGTH, clients, "", &format!("{length} bytes, named as {listed}"));
    }
    // A name may stand there a million times, so each digest is made once.
    let sha256 = LazyCell::new(|| hex::encode(Sha256::digest(bytes)));
    let sha512 = LazyCell::new(|| hex::encode(Sha512::digest(bytes)));
    for (name, listed) in &meta.hashes {
        let digest = match name.as_str() {
            "sha256" => &*sha256,
            "sha512" => &*sha512,
            _ => continue,
        };
        if digest != listed {
            look.breaks(&HASH, Clients::ALL, "", &format!("{name} {digest}, named as {listed}"));
        }
    }
}
