//! Checks of roots, and of keys and key lists wherever they stand: in a root, or under `delegations`.

use super::super::clients::{Client, Clients, Takes};
use super::super::file::{Look, broken};
use super::super::found::{Effect, Fault};
use super::super::json::Json;
use super::super::keys::{self, Key, Keys, Scheme, Signers};

/// The roles that a root names.
pub const ROLES: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

static NOT_SAID: Fault = Fault {
    name: "consistent-snapshot-missing",
    what: "a root does not say whether snapshots are consistent",
    why: "tuf-js and tough cannot read it, go-tuf adds `false` before it checks the signature; python-tuf takes it for false",
    fix: "write `consistent_snapshot` as true, and publish N.snapshot.json, N.targets.json and so on",
    choice: false,
};

static INCONSISTENT: Fault = Fault {
    name: "consistent-snapshot-false",
    what: "snapshots are not consistent: file names carry no version",
    why: "sigstore-java asks for names with a version only, and a client that reads while you publish sees files that do not \
          belong together",
    fix: "write `consistent_snapshot` as true, and publish N.snapshot.json, N.targets.json and so on",
    choice: true,
};

static CONSISTENT: Fault = Fault {
    name: "consistent-snapshot-true",
    what: "snapshots are consistent: file names carry a version",
    why: "aktualizr asks for names without one",
    fix: "publish snapshot.json and targets.json beside, if aktualizr is to read the repository",
    choice: true,
};

/// Whether file names carry versions.
pub fn consistent_snapshot(look: &mut Look<'_>) {
    const FIELD: &str = "signed.consistent_snapshot";
    match look.get("consistent_snapshot") {
        Some(Json::Bool(true)) => look.breaks(&CONSISTENT, Clients::of(&[Client::Aktualizr]), FIELD, "true"),
        Some(Json::Bool(false)) => {
            look.breaks(&INCONSISTENT, Clients::of(&[Client::SigstoreJava]), FIELD, "false");
        }
        Some(_) => look.misshapen(FIELD, "neither true nor false"),
        None => {
            let clients = Clients::GO | Clients::of(&[Client::TufJs, Client::Tough]);
            look.breaks(&NOT_SAID, clients, FIELD, "missing");
        }
    }
}

/// The object of keys of a root, or of the delegations of targets, and where it stands.
fn keys_of<'l>(look: &Look<'l>) -> Option<(&'static str, &'l Json<'l>)> {
    match look.get("delegations") {
        Some(delegations) => Some(("signed.delegations.keys", delegations.get("keys")?)),
        None => Some(("signed.keys", look.get("keys")?)),
    }
}

/// The keys of an object of keys; those that are none are left out.
pub fn read_keys(object: Option<&Json<'_>>) -> Keys {
    let members = object.and_then(Json::object).unwrap_or_default();
    members.iter().filter_map(|(id, key)| Some((id.clone().into_owned(), Key::of(key)?))).collect()
}

/// Key ids and threshold of a role; `None` if either is missing or of another type.
pub fn read_signers(role: &Json<'_>) -> Option<Signers> {
    let ids = role.get("keyids")?.array()?.iter().map(|id| id.text().map(str::to_owned));
    Some(Signers { keyids: ids.collect::<Option<_>>()?, threshold: role.get("threshold")?.count()? })
}

/// Shows every key to `see`: field, id, object.
pub fn each_key<'l>(look: &mut Look<'l>, mut see: impl FnMut(&mut Look<'l>, &str, &str, &'l Json<'l>)) {
    let Some((field, keys)) = keys_of(look) else { return };
    for (id, key) in keys.object().unwrap_or_default() {
        see(look, &format!("{field}.{id}"), id, key);
    }
}

static KEY_TYPE: Fault = Fault {
    name: "key-type",
    what: "a key is of a kind that not every client can use",
    why: "every client takes ed25519; others refuse the whole file for a key that they do not know, or do not count its signature",
    fix: "use ed25519 keys",
    choice: false,
};

static KEY_IGNORED: Fault = Fault {
    name: "key-type-ignored",
    what: "the signatures of a key do not count for every client",
    why: "a client passes over a key whose kind it does not know, which is well as long as enough others sign",
    fix: "use ed25519 keys",
    choice: true,
};

/// The kinds of keys.
pub fn key_type(look: &mut Look<'_>) {
    if let Some((field, _)) = keys_of(look).filter(|(_, keys)| keys.object().is_none()) {
        return look.misshapen(field, "not an object");
    }
    each_key(look, |look, field, _, object| {
        let Some(key) = Key::of(object) else {
            return look.misshapen(field, "a key without `keytype`, `scheme` or `keyval.public`");
        };
        if key.scheme == Scheme::Ed25519 {
            return;
        }
        let refuse = Clients::that(|client| client.takes(key.scheme) == Takes::Refuses);
        let ignore = Clients::that(|client| client.takes(key.scheme) == Takes::Ignores);
        look.breaks(&KEY_TYPE, refuse, field, &key.kind);
        if !ignore.is_empty() {
            look.add(&KEY_IGNORED, Effect::default(), field, &format!("{}, not for {ignore}", key.kind));
        }
    });
}

static KEY_ID: Fault = Fault {
    name: "key-id",
    what: "a key does not stand under the sha256 of its canonical JSON",
    why: "tough refuses the file and rust-tuf drops the key; the others do not look",
    fix: "make the id the sha256 of the key object in canonical JSON, with all of its fields",
    choice: false,
};

/// Key ids as the specification has them.
pub fn key_id(look: &mut Look<'_>) {
    each_key(look, |look, field, id, object| {
        if keys::key_id(object, false).is_some_and(|right| right != id) {
            look.breaks(&KEY_ID, Clients::of(&[Client::Tough, Client::RustTuf]), field, id);
        }
    });
}

static KEY_ID_OF_PHP: Fault = Fault {
    name: "key-id-php",
    what: "key ids are those of the specification, and php-tuf has its own",
    why: "php-tuf asks for the sha256 of the key object with a field `keyid_hash_algorithms` that it does not have",
    fix: "nothing, unless php-tuf is to read the repository, which tough then cannot",
    choice: true,
};

/// Key ids as php-tuf has them.
pub fn key_id_of_php(look: &mut Look<'_>) {
    each_key(look, |look, field, id, object| {
        if keys::key_id(object, true).is_some_and(|right| right != id) {
            look.breaks(&KEY_ID_OF_PHP, Clients::of(&[Client::PhpTuf]), field, id);
        }
    });
}

static KEY_REPEATED: Fault = Fault {
    name: "role-key-repeated",
    what: "a role lists a key twice",
    why: "python-tuf and tuf-js refuse the file",
    fix: "list each key once",
    choice: false,
};

static KEY_MISSING: Fault = Fault {
    name: "role-key-missing",
    what: "a role lists a key that is not there",
    why: "go-tuf gives up on the role with an error; the others pass over it",
    fix: "put the key among the keys, or take its id off the list",
    choice: false,
};

static THRESHOLD: Fault = Fault {
    name: "threshold",
    what: "the threshold of a role cannot be met",
    why: "most clients refuse a file with a threshold of 0; with more than the role has keys nothing can be signed for it,           which in a root is the end of it, and elsewhere makes clients miss what the role lists (tough and rust-tuf give up)",
    fix: "set a threshold from 1 to the number of keys",
    choice: false,
};

/// The lists of keys of roles.
pub fn role_keys(look: &mut Look<'_>) {
    let Some((_, keys)) = keys_of(look) else { return };
    let keys = read_keys(Some(keys));
    // Every client needs all roles of a root, but the roles of delegations only on the way to some targets.
    let is_root = look.get("delegations").is_none();
    for (field, role) in roles_of(look) {
        let Some(signers) = read_signers(role) else {
            look.misshapen(&field, "`keyids` or `threshold` is missing, or of another type");
            continue;
        };
        let listed = role.get("keyids").and_then(Json::array).unwrap_or_default();
        if signers.keyids.len() < listed.len() {
            let clients = Clients::of(&[Client::PythonTuf, Client::TufJs]);
            let ids: Vec<&str> = listed.iter().take(3).filter_map(Json::text).collect();
            look.breaks(&KEY_REPEATED, clients, &format!("{field}.keyids"), &ids.join(", "));
        }
        if let Some(id) = signers.keyids.iter().find(|id| !keys.contains_key(*id)) {
            let effect = if is_root { Effect::refuse(Clients::GO) } else { Effect::miss(Clients::GO) };
            look.add(&KEY_MISSING, effect, &format!("{field}.keyids"), id);
        }
        let few = signers.keyids.len() as u64;
        if signers.threshold == 0 || signers.threshold > few {
            let at_once = match (is_root, signers.threshold) {
                (true, _) => Clients::ALL,
                // go-tuf looks when it comes to the role, and sigstore-java never comes to it.
                (false, 0) => Clients::ALL - Clients::GO - Clients::of(&[Client::SigstoreJava]),
                (false, _) => Clients::of(&[Client::Tough, Client::RustTuf]),
            };
            let effect = broken(at_once, look.file.delegated);
            let later = Clients::ALL - at_once - Clients::of(&[Client::SigstoreJava]);
            let is = format!("{} of {few} keys", signers.threshold);
            look.add(&THRESHOLD, Effect { miss: effect.miss | later, ..effect }, &format!("{field}.threshold"), &is);
        }
    }
}

/// Every role that the file names signers of, and where.
fn roles_of<'l>(look: &Look<'l>) -> Vec<(String, &'l Json<'l>)> {
    let Some(delegations) = look.get("delegations") else {
        let roles = look.get("roles");
        let role = |name: &str| roles.and_then(|r| r.get(name)).unwrap_or(&Json::Null);
        return ROLES.iter().map(|name| (format!("signed.roles.{name}"), role(name))).collect();
    };
    let listed = delegations.get("roles").and_then(Json::array).unwrap_or_default();
    let listed = listed.iter().enumerate().map(|(i, role)| (format!("signed.delegations.roles[{i}]"), role));
    let succinct = delegations.get("succinct_roles");
    listed.chain(succinct.map(|role| ("signed.delegations.succinct_roles".to_owned(), role))).collect()
}
