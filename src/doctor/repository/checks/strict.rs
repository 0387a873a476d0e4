//! Fields of one's own where php-tuf, which validates what it reads field by field, takes none.
//!
//! At the top of `signed` and in the entries of `meta` it does; fields of delegations are looked at in
//! `delegations.rs`, because tough does not keep them either.

use super::super::clients::{Client, Clients};
use super::super::file::Look;
use super::super::found::Fault;
use super::super::json::Json;
use super::root::{ROLES, each_key};

static UNKNOWN: Fault = Fault {
    name: "unknown-field-php",
    what: "an object has a field that is not of the specification",
    why: "php-tuf refuses files with fields of their own in roles, keys, targets or signatures, or beside `signed`; the others \
          keep them",
    fix: "put fields of your own at the top of `signed`, or of targets into `custom`, if php-tuf is to read the repository",
    choice: true,
};

/// Fields of signatures, roots' roles, keys and targets that php-tuf does not know.
pub fn unknown_field(look: &mut Look<'_>) {
    let file = look.file;
    of(look, "", &file.json, &["signatures", "signed"]);
    for signature in file.json.get("signatures").and_then(Json::array).unwrap_or_default() {
        of(look, "signatures", signature, &["keyid", "sig"]);
    }
    if let Some(roles) = look.get("roles") {
        of(look, "signed.roles", roles, &[&ROLES[..], &["mirror"]].concat());
        for (_, role) in roles.object().unwrap_or_default() {
            of(look, "signed.roles", role, &["keyids", "threshold"]);
        }
    }
    each_key(look, |look, field, _, key| {
        of(look, field, key, &["keyid_hash_algorithms", "keytype", "keyval", "scheme"]);
        if let Some(public) = key.get("keyval") {
            of(look, &format!("{field}.keyval"), public, &["public"]);
        }
        let names = key.get("keyid_hash_algorithms").map(|names| names.array().unwrap_or_default());
        if names.is_some_and(|names| !names.iter().map(Json::text).eq([Some("sha256"), Some("sha512")])) {
            refused(look, field, "keyid_hash_algorithms that are not [\"sha256\", \"sha512\"]");
        }
    });
    for (_, target) in look.get("targets").and_then(Json::object).unwrap_or_default() {
        of(look, "signed.targets", target, &["custom", "hashes", "length"]);
    }
}

fn of(look: &mut Look<'_>, field: &str, object: &Json<'_>, known: &[&str]) {
    for (key, _) in object.object().unwrap_or_default().iter().filter(|(key, _)| !known.contains(&key.as_ref())) {
        refused(look, field, key);
    }
}

fn refused(look: &mut Look<'_>, field: &str, is: &str) {
    look.breaks(&UNKNOWN, Clients::of(&[Client::PhpTuf]), field, is);
}
