//! Private keys as files: unencrypted PKCS#8 PEM that OpenSSL, Python and Node read too.
//!
//! Owns two rules: a key file is never overwritten, and one that others could have read is not used. This is the only
//! I/O of the room.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};

use crate::tuf::key::{KeyRing, Signer};
use crate::{Error, Result};

/// A key's PEM has 119 bytes; what is longer than this is something else.
const MAX_BYTES: u64 = 16 * 1024;

/// Writes the key to a new file that only its owner can read, and makes it durable.
///
/// # Errors
/// `Invalid` if `path` exists (a key is never overwritten), `Unavailable` for any other failure; no file is left then.
pub fn save(signer: &Signer, path: &Path) -> Result<()> {
    // Version 1, without the public key: version 2 is refused by OpenSSL 3.0, Python's cryptography and Node.
    let pem = KeypairBytes { secret_key: *signer.seed(), public_key: None }
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|e| Error::unavailable(format!("cannot encode the key: {e}")))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| at(path, &e))?;
    let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| sync_parent(path));
    written.map_err(|e| {
        let _ = fs::remove_file(path); // ours alone: create_new made it
        at(path, &e)
    })
}

/// Reads a key.
///
/// # Errors
/// `Invalid` if there is no such file, if its group or others may read or write it, or if it holds no ed25519 key;
/// `Unavailable` if it cannot be read.
pub fn load(path: &Path) -> Result<Signer> {
    let file = File::open(path).map_err(|e| at(path, &e))?;
    let mode = file.metadata().map_err(|e| at(path, &e))?.permissions().mode();
    if mode & 0o077 != 0 {
        let found =
            format!("mode {:03o} lets others at a private key; run: chmod 600 {}", mode & 0o777, path.display());
        return Err(Error::invalid(path.display().to_string(), found));
    }
    let mut pem = String::with_capacity(256); // one allocation: no stray copies of the secret
    file.take(MAX_BYTES).read_to_string(&mut pem).map_err(|e| at(path, &e))?;
    let key = SigningKey::from_pkcs8_pem(&pem).map_err(|_| {
        Error::invalid(
            path.display().to_string(),
            "expected an unencrypted ed25519 key as PKCS#8 PEM (openssl genpkey -algorithm ed25519)",
        )
    })?;
    Ok(Signer::from_seed(key.as_bytes()))
}

/// The keys of the online roles: every file `online*.pem` in `dir`.
///
/// # Errors
/// As [`load`], for the first file that fails. No such file is no error: [`KeyRing::signers`] says which key is missing.
pub fn load_online(dir: &Path) -> Result<KeyRing> {
    let mut ring = KeyRing::default();
    for path in list(dir, "online")? {
        ring.insert(Arc::new(load(&path)?));
    }
    Ok(ring)
}

/// The files `KIND*.pem` in `dir`, in the order of their names.
pub fn list(dir: &Path, kind: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| at(dir, &e))? {
        let entry = entry.map_err(|e| at(dir, &e))?;
        if entry.file_name().to_str().is_some_and(|n| n.starts_with(kind) && n.ends_with(".pem")) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Makes a new directory entry durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

fn at(path: &Path, error: &io::Error) -> Error {
    let place = path.display().to_string();
    match error.kind() {
        io::ErrorKind::AlreadyExists => Error::invalid(place, "exists already, and a key is never overwritten"),
        io::ErrorKind::NotFound => Error::invalid(place, "no such file or directory"),
        io::ErrorKind::InvalidData => Error::invalid(place, "not a PEM file"),
        _ => Error { field: Some(place), ..Error::unavailable(error.to_string()) },
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::error::Kind;

    fn signer() -> Signer {
        Signer::from_seed(&[7; 32])
    }

    #[test]
    fn a_key_comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root-1.pem");
        save(&signer(), &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(&path).unwrap().seed(), signer().seed());
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("online.pem");
        save(&signer(), &path).unwrap();
        let error = save(&Signer::from_seed(&[8; 32]), &path).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert_eq!(load(&path).unwrap().public(), signer().public());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("online.pem");
        save(&signer(), &path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load(&path).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid);
            assert!(error.message.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(load(&path).is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("online.pem");
        assert_eq!(load(&path).unwrap_err().kind, Kind::Invalid);
        for bad in [&b""[..], b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, bad).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(load(&path).unwrap_err().kind, Kind::Invalid);
        }
    }

    #[test]
    fn online_keys_are_the_files_named_so() {
        let dir = tempfile::tempdir().unwrap();
        for (seed, name) in [(1, "online.pem"), (2, "online-2.pem"), (3, "root-1.pem"), (4, "online.pem.bak")] {
            save(&Signer::from_seed(&[seed; 32]), &dir.path().join(name)).unwrap();
        }
        let ring = load_online(dir.path()).unwrap();
        let mut expected = [1, 2].map(|seed| *Signer::from_seed(&[seed; 32]).public().key_id());
        expected.sort();
        assert_eq!(ring.key_ids().copied().collect::<Vec<_>>(), expected);
        assert_eq!(load_online(&dir.path().join("absent")).unwrap_err().kind, Kind::Invalid);
    }

    #[test]
    fn openssl_reads_our_files_and_we_read_its() {
        let openssl = |args: &[&str]| match Command::new("openssl").args(args).output() {
            Ok(out) => Some(out),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None, // not on this machine
            Err(e) => panic!("{e}"),
        };
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours.pem"), dir.path().join("theirs.pem"));
        save(&signer(), &ours).unwrap();
        let Some(out) = openssl(&["pkey", "-in", ours.to_str().unwrap(), "-pubout", "-outform", "DER"]) else { return };
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let public = signer().public().to_value()["keyval"]["public"].as_str().unwrap().to_owned();
        assert!(hex::encode(&out.stdout).ends_with(&public));

        let out = openssl(&["genpkey", "-algorithm", "ed25519", "-out", theirs.to_str().unwrap()]).unwrap();
        assert!(out.status.success());
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o600)).unwrap();
        load(&theirs).unwrap();
    }
}
