//! Checks of targets: what is said of each, and whether its path can be asked for.

use super::super::clients::{Client, Clients};
use super::super::file::Look;
use super::super::found::{Effect, Fault};
use super::super::json::{At, Json, visit};
use super::meta::{hash_name, many, read_hashes};

/// The targets of the file: path and entry.
fn targets<'l>(look: &Look<'l>) -> &'l [(std::borrow::Cow<'l, str>, Json<'l>)] {
    look.get("targets").and_then(Json::object).unwrap_or_default()
}

/// The paths of the targets of a file.
pub fn paths<'j>(file: &'j Json<'j>) -> impl Iterator<Item = &'j str> {
    let targets = file.get("targets").and_then(Json::object).unwrap_or_default();
    targets.iter().map(|(path, _)| path.as_ref())
}

/// How many targets a file holds.
pub fn count(file: &Json<'_>) -> usize {
    file.get("targets").and_then(Json::object).map_or(0, <[_]>::len)
}

static ENTRY: Fault = Fault {
    name: "target-entry",
    what: "a target has no length or no hashes, or they are of another type",
    why: "clients read targets into types, and give up on the file",
    fix: "write {\"hashes\": {\"sha256\": HEX}, \"length\": N}",
    choice: false,
};

/// Every target has a length and hashes.
pub fn shape(look: &mut Look<'_>) {
    if look.get("targets").and_then(Json::object).is_none() {
        return look.misshapen("signed.targets", "missing, or not an object");
    }
    for (path, entry) in targets(look) {
        let hashes = entry.get("hashes").and_then(read_hashes).is_some_and(|hashes| !hashes.is_empty());
        if !hashes || entry.get("length").and_then(Json::count).is_none() {
            look.breaks(&ENTRY, Clients::ALL, "signed.targets", path);
        }
    }
}

static MANY: Fault = Fault {
    name: "target-count",
    what: "a file lists many targets",
    why: "tuf-js takes time that grows with their square: 2,048 take 11 s, 4,096 46 s, 8,192 277 s",
    fix: "delegate to more bins, so that each lists at most 1,024 targets, if tuf-js is to read the repository",
    choice: false,
};

/// How many targets a file lists.
pub fn target_count(look: &mut Look<'_>) {
    let count = targets(look).len();
    many(look, &MANY, "signed.targets", count);
}

static HASH_FORM: Fault = Fault {
    name: "hash-form",
    what: "a digest is not written in lower hex",
    why: "python-tuf and tuf-js compare text, go-tuf writes lower hex before it checks the signature, and nothing is ever found \
          under such a digest",
    fix: "write digests as lower hex digits, 64 of them for sha256",
    choice: false,
};

static TWO_HASHES: Fault = Fault {
    name: "target-two-hashes",
    what: "targets have more than one hash",
    why: "python-tuf and tuf-js ask for the file under the first, go-tuf under any of them, tough under sha256, sigstore-java \
          under sha512",
    fix: "list sha256 alone, or publish each target under every hash",
    choice: false,
};

/// The digests of targets.
pub fn hashes(look: &mut Look<'_>) {
    for (path, entry) in targets(look) {
        let hashes = entry.get("hashes").and_then(read_hashes).unwrap_or_default();
        if hashes.is_empty() {
            continue;
        }
        hash_name(look, "signed.targets", path, &hashes);
        if hashes.len() > 1 {
            let clients = Clients::GO | Clients::of(&[Client::PythonTuf, Client::TufJs, Client::SigstoreJava]);
            look.add(&TWO_HASHES, Effect::struggle(clients), "signed.targets", path);
        }
        for (name, digest) in &hashes {
            let lower = digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let whole = name != "sha256" || digest.len() == 64;
            if !lower || !whole || digest.len() % 2 == 1 {
                let is = format!("{path}: {name} {digest}");
                let hex = digest.len().is_multiple_of(2) && digest.bytes().all(|b| b.is_ascii_hexdigit());
                look.add(
                    &HASH_FORM,
                    Effect::miss(Clients::ALL - Clients::GO - Clients::of(&[Client::Tough])),
                    "signed.targets",
                    &is,
                );
                let strict = if hex { Clients::GO } else { Clients::GO | Clients::of(&[Client::Tough]) };
                look.breaks(&HASH_FORM, strict, "signed.targets", &is);
            }
        }
    }
}

static LENGTH_ZERO: Fault = Fault {
    name: "target-empty",
    what: "targets are empty files",
    why: "php-tuf wants a length from 1 on",
    fix: "leave empty files out if php-tuf is to read the repository",
    choice: false,
};

/// Targets of length 0.
pub fn length_zero(look: &mut Look<'_>) {
    for (path, entry) in targets(look) {
        if entry.get("length").and_then(Json::count) == Some(0) {
            look.breaks(&LENGTH_ZERO, Clients::of(&[Client::PhpTuf]), "signed.targets", path);
        }
    }
}

static CUSTOM: Fault = Fault {
    name: "custom-form",
    what: "`custom` is empty, or not an object",
    why: "tough drops an empty object before it checks the signature, and refuses anything but an object",
    fix: "leave `custom` out, or make it an object with a member",
    choice: false,
};

/// What is custom is an object with something in it.
pub fn custom(look: &mut Look<'_>) {
    for (path, entry) in targets(look) {
        if let Some(custom) = entry.get("custom")
            && custom.object().is_none_or(<[_]>::is_empty)
        {
            look.breaks(&CUSTOM, Clients::of(&[Client::Tough]), "signed.targets", path);
        }
    }
}

static NESTED_EMPTY: Fault = Fault {
    name: "custom-empty-object",
    what: "`custom` holds an empty object",
    why: "php-tuf makes an array of it before it checks the signature, and so finds it wrong",
    fix: "leave empty objects out of custom if php-tuf is to read the repository",
    choice: false,
};

/// Empty objects inside of what is custom.
pub fn nested_empty_object(look: &mut Look<'_>) {
    for (path, entry) in targets(look) {
        let Some(custom) = entry.get("custom") else { continue };
        let mut any = false;
        visit(custom, &At::Top, &mut |_, json| any |= json.object().is_some_and(<[_]>::is_empty));
        if any {
            look.breaks(&NESTED_EMPTY, Clients::of(&[Client::PhpTuf]), "signed.targets", path);
        }
    }
}

static URL: Fault = Fault {
    name: "path-not-in-url",
    what: "a target path has `#`, `?` or `%`",
    why: "clients put the path into the URL as it is, where these mean something else: the file cannot be asked for",
    fix: "name targets with letters, digits and ._+~@=,-",
    choice: false,
};

static FOLDERS: Fault = Fault {
    name: "path-unclean",
    what: "a target path has `\\`, an empty part, `.` or `..`",
    why: "tuf-js and tough turn `\\` into `/`, tough resolves `..` and the like, rust-tuf refuses them, and servers differ",
    fix: "use clean relative paths with `/` between their parts",
    choice: false,
};

/// Whether paths can be asked for.
pub fn path(look: &mut Look<'_>) {
    for (path, _) in targets(look) {
        if path.contains(['#', '?', '%']) {
            look.add(&URL, Effect::miss(Clients::ALL), "signed.targets", path);
        }
        let unclean = path.split('/').any(|part| matches!(part, "" | "." | ".."));
        if unclean || path.contains('\\') {
            let slash = if path.contains('\\') { Clients::of(&[Client::TufJs]) } else { Clients::NONE };
            let miss = slash | Clients::of(&[Client::Tough, Client::RustTuf]);
            let effect = Effect { struggle: Clients::ALL - miss, ..Effect::miss(miss) };
            look.add(&FOLDERS, effect, "signed.targets", path);
        }
    }
}

static OF_RUST_TUF: Fault = Fault {
    name: "path-rust-tuf",
    what: "a target path has a character or a name that Windows does not allow",
    why: "rust-tuf refuses such paths on every system",
    fix: "name targets with letters, digits and ._+~@=,- if rust-tuf is to read the repository",
    choice: false,
};

/// Paths that rust-tuf refuses.
pub fn path_of_rust_tuf(look: &mut Look<'_>) {
    let device = |part: &str| {
        let stem = part.split('.').next().unwrap_or_default().to_ascii_uppercase();
        let numbered = |name: &str| stem.strip_prefix(name).is_some_and(|n| matches!(n.as_bytes(), [b'1'..=b'9']));
        matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
    };
    for (path, _) in targets(look) {
        if path.contains([':', '<', '>', '"', '|']) || path.split('/').any(device) {
            look.breaks(&OF_RUST_TUF, Clients::of(&[Client::RustTuf]), "signed.targets", path);
        }
    }
}

static FOLDER: Fault = Fault {
    name: "path-with-folder",
    what: "target paths have a `/`, and clients ask for such files under different names",
    why: "tough asks for HASH.dir/file, php-tuf for dir/file, everybody else for dir/HASH.file; which of them the server of the \
          targets answers is not looked at here",
    fix: "serve a target under each of these names, or see that your clients agree",
    choice: true,
};

/// Paths whose file name clients make in different ways.
pub fn path_with_folder(look: &mut Look<'_>) {
    for (path, _) in targets(look).iter().filter(|(path, _)| path.contains('/')) {
        look.add(&FOLDER, Effect::default(), "signed.targets", path);
    }
}
