//! The private keys: there, readable by this node alone, and those that sign now.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::Seen;
use super::store::Opened;
use super::{Area, Finding, Node};
use crate::error::{Kind, Result};
use crate::node;
use crate::store::{Store, metadata_name};
use crate::tuf::key::{KeyId, KeyRing};
use crate::tuf::key_file;
use crate::tuf::root::Root;

const AREA: Area = Area::Keys;

fn directory(node: &Node) -> PathBuf {
    node.settings.keys.clone().unwrap_or_else(|| node.data.join("keys"))
}

/// The online keys; `None` if this node signs nothing or not all of them can be had.
pub fn check(node: &Node, found: &mut Vec<Finding>) -> Option<KeyRing> {
    if !node.settings.roles().sign() {
        found.push(Finding::ok(AREA, "files", "none are needed: only fold and compact sign"));
        return None;
    }
    let dir = directory(node);
    let shown = dir.display();
    let files = match key_file::list(&dir, "online") {
        Ok(files) => files,
        Err(e) => {
            let fix = "put the repository's online.pem there (mode 600), or name its directory: --keys DIR";
            found.push(Finding::of(AREA, "files", &e).why("nothing can be signed").fix(fix));
            return None;
        }
    };
    mode(&dir, found);
    let mut ring = KeyRing::default();
    let mut good = Vec::new();
    for file in &files {
        match key_file::load(file) {
            Ok(signer) => {
                good.push(file.file_name().unwrap_or_default().to_string_lossy().into_owned());
                ring.insert(Arc::new(signer));
            }
            Err(e) => found.push(Finding::of(AREA, "files", &e).why("serve refuses to start with such a file")),
        }
    }
    match good.is_empty() {
        false => found.push(Finding::ok(AREA, "files", format!("{shown} holds {}", good.join(", ")))),
        true if files.is_empty() => {
            let finding = Finding::error(AREA, "files", format!("{shown} holds no online key (online*.pem)"));
            found.push(finding.why("nothing can be signed").fix("put the repository's online.pem there, mode 600"));
        }
        true => {}
    }
    roots(&dir, found);
    if good.len() < files.len() {
        let what = "whether they are those in force: not every file can be read";
        found.push(Finding::skipped(AREA, "in-force", what));
        return None;
    }
    Some(ring)
}

fn mode(dir: &Path, found: &mut Vec<Finding>) {
    let Ok(meta) = fs::metadata(dir) else { return };
    let (mode, shown) = (meta.permissions().mode() & 0o777, dir.display());
    let what = format!("{shown} has mode {mode:03o}");
    let fix = format!("chmod 700 {shown}");
    if mode & 0o022 != 0 {
        let why = "others may put their own keys in place of these";
        found.push(Finding::error(AREA, "directory", what).why(why).fix(fix));
    } else if mode & 0o077 != 0 {
        let why = "others see which keys there are; the files themselves are checked one by one";
        found.push(Finding::warning(AREA, "directory", what).why(why).fix(fix));
    }
}

/// Keys that a node never needs.
fn roots(dir: &Path, found: &mut Vec<Finding>) {
    let roots = key_file::list(dir, "root").unwrap_or_default();
    let names: Vec<_> = roots.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    if names.is_empty() {
        return;
    }
    let what = format!("{} also holds {}", dir.display(), names.join(", "));
    let why = "a node never needs root keys, and whoever takes the machine over takes the repository with them";
    found.push(Finding::warning(AREA, "root-keys", what).why(why).fix("move them to a safe place that is not online"));
}

/// Whether they are those that sign now.
pub async fn check_against(node: &Node, keys: Option<&KeyRing>, log: &Seen, store: &Opened, found: &mut Vec<Finding>) {
    const CHECK: &str = "in-force";
    let Some(keys) = keys else { return };
    let why = "without every key that is in force nothing is published any more";
    if let Some(state) = &log.end {
        let missing = node::missing_keys(keys, state, &directory(node));
        if missing.is_empty() {
            found.push(Finding::ok(AREA, CHECK, "they are those that the root in force names"));
        }
        found.extend(missing.iter().map(|e| Finding::of(AREA, CHECK, e).why(why)));
        return;
    }
    let Some(store) = &store.store else {
        let what = "whether they are those in force: neither log nor store can be read";
        return found.push(Finding::skipped(AREA, CHECK, what));
    };
    match newest_root(&**store).await {
        Ok(Some(root)) => {
            let missing: Vec<KeyId> = {
                let roles = [&root.targets, &root.snapshot, &root.timestamp];
                let ids: BTreeSet<KeyId> = roles.iter().flat_map(|role| role.key_ids.iter().copied()).collect();
                ids.into_iter().filter(|id| keys.get(id).is_none()).collect()
            };
            let version = root.version;
            if missing.is_empty() {
                let what = format!("they are those that root {version} names, the newest in the store");
                found.push(Finding::ok(AREA, CHECK, what));
            }
            found.extend(missing.iter().map(|id| {
                let what = format!("key {id}, which root {version} names, is not in {}", directory(node).display());
                Finding::error(AREA, CHECK, what).why(why).fix("put its PEM file there, mode 600")
            }));
        }
        Ok(None) => found.push(Finding::skipped(AREA, CHECK, "whether they are those in force: no root is published")),
        Err(e) => found.push(Finding::skipped(AREA, CHECK, format!("whether they are those in force: {e}"))),
    }
}

/// The newest root that is published.
async fn newest_root(store: &dyn Store) -> Result<Option<Root>> {
    let mut newest: Option<Root> = None;
    loop {
        let next = newest.as_ref().map_or(1, |root| root.version + 1);
        let Some(bytes) = store.get(&metadata_name(next, "root")).await? else { return Ok(newest) };
        let verified = match &newest {
            None => Root::verify_first(&bytes),
            Some(last) => Root::verify_next(last, &bytes),
        };
        let corrupt = |e: crate::Error| crate::Error { kind: Kind::Corrupt, ..e.context(format!("root {next}")) };
        newest = Some(verified.map_err(corrupt)?);
    }
}
