//! Checks of every file: version, specification, dates, size, signatures.

use crate::clock::{format_utc, parse_utc};

use super::super::clients::{Client, Clients, RoleKind};
use super::super::file::Look;
use super::super::found::{Effect, Fault};
use super::super::json::Json;
use super::super::keys::{self, Keys, Signers, Unchecked};

/// How long before its end the expiry of a file that people sign is told, in seconds: two weeks.
const SOON_BY_HAND: u64 = 14 * 86_400;
/// The same for what a machine signs: an hour for a timestamp, six for everything else.
const SOON_TIMESTAMP: u64 = 3_600;
const SOON_BY_MACHINE: u64 = 6 * 3_600;

/// A version that some clients cannot count to, wherever it stands.
pub static VERSION_LARGE: Fault = Fault {
    name: "version-large",
    what: "a version is larger than some clients can count",
    why: "sigstore-java and aktualizr count versions in 31 bits, rust-tuf in 32, go-tuf in 63, tuf-js exactly to 2^53",
    fix: "a version can never go down again: begin anew with a rotation of the snapshot and timestamp keys",
    choice: false,
};

/// `_type` is that of the role.
pub fn kind(look: &mut Look<'_>, expected: &str) {
    let kind = look.get("_type").and_then(Json::text).unwrap_or_default();
    if kind != expected {
        look.misshapen("signed._type", &format!("{kind:?}, expected {expected:?}"));
    }
}

/// The version: an integer from 1 on, and not too large.
pub fn version(look: &mut Look<'_>) {
    match look.get("version") {
        Some(Json::Number(digits)) => match digits.parse::<u64>() {
            Ok(0) => look.misshapen("signed.version", "0; versions begin at 1"),
            Ok(version) => {
                let clients = too_large(version);
                look.breaks(&VERSION_LARGE, clients, "signed.version", digits);
            }
            Err(_) => look.misshapen("signed.version", digits),
        },
        _ => look.misshapen("signed.version", "missing, or no number"),
    }
}

/// The clients for which this version is too large.
pub fn too_large(version: u64) -> Clients {
    Clients::that(|client| {
        version
            > match client {
                Client::SigstoreJava | Client::Aktualizr => i32::MAX as u64,
                Client::RustTuf => u64::from(u32::MAX),
                Client::GoTuf | Client::GoTuf242 => i64::MAX as u64,
                Client::TufJs => (1 << 53) - 1,
                Client::PythonTuf | Client::Tough | Client::PhpTuf => u64::MAX,
            }
    })
}

static SPEC_VERSION: Fault = Fault {
    name: "spec-version",
    what: "`spec_version` is not one that every client takes",
    why: "python-tuf and tuf-js take 1.X and 1.X.Y, php-tuf 1.0 and 1.X.Y, rust-tuf 1.0 and 1.0.0; the others do not look",
    fix: "write \"1.0.0\", which all of them take",
    choice: false,
};

/// The version of the specification.
pub fn spec_version(look: &mut Look<'_>) {
    let Some(text) = look.get("spec_version").and_then(Json::text) else {
        return look.misshapen("signed.spec_version", "missing, or no string");
    };
    let parts: Vec<&str> = text.split('.').collect();
    let numbers = parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let first = numbers && parts[0] == "1";
    let clients = Clients::that(|client| match client {
        Client::PythonTuf | Client::TufJs => !(first && matches!(parts.len(), 2 | 3)),
        Client::PhpTuf => !(text == "1.0" || first && parts.len() == 3),
        Client::RustTuf => !matches!(text, "1.0" | "1.0.0"),
        _ => false,
    });
    look.breaks(&SPEC_VERSION, clients, "signed.spec_version", text);
}

static EXPIRES_FORM: Fault = Fault {
    name: "expires-form",
    what: "`expires` is not written YYYY-MM-DDTHH:MM:SSZ",
    why: "a fraction of a second stops python-tuf and go-tuf, and tough unless it has 3, 6 or 9 digits and needs them; an offset \
          such as +00:00 stops all three",
    fix: "write UTC to the second, with a Z",
    choice: false,
};

static YEAR_9999: Fault = Fault {
    name: "expires-year-9999",
    what: "`expires` lies in the year 9999",
    why: "tough cannot hold the date, and refuses the file",
    fix: "choose a date before; metadata that never expires cannot be withdrawn either",
    choice: false,
};

/// The form of the date.
pub fn expires_form(look: &mut Look<'_>) {
    const FIELD: &str = "signed.expires";
    let Some(text) = look.get("expires").and_then(Json::text) else {
        return look.misshapen(FIELD, "missing, or no string");
    };
    if parse_utc(text).is_some() {
        return;
    }
    let base = |end: usize| text.get(..end).is_some_and(|t| parse_utc(&format!("{t}Z")).is_some());
    let rest = if base(19) { &text[19..] } else { "" };
    let fraction = rest.strip_prefix('.').and_then(|r| r.strip_suffix('Z'));
    let offset = rest.strip_prefix(['+', '-']);
    let (exact, tough) = (Clients::GO | Clients::of(&[Client::PythonTuf]), Clients::of(&[Client::Tough]));
    if text.strip_prefix("9999").is_some_and(|rest| parse_utc(&format!("9998{rest}")).is_some()) {
        look.breaks(&YEAR_9999, tough, FIELD, text);
    } else if let Some(digits) = fraction.filter(|f| !f.is_empty() && f.bytes().all(|b| b.is_ascii_digit())) {
        let kept = matches!(digits.len(), 3 | 6 | 9) && !digits.ends_with("000"); // what tough writes again
        let clients = if kept { exact } else { exact | tough };
        look.breaks(&EXPIRES_FORM, clients, FIELD, text);
    } else if offset.is_some_and(|o| o.len() == 5 && o.as_bytes()[2] == b':') {
        look.breaks(&EXPIRES_FORM, exact | tough, FIELD, text);
    } else {
        look.breaks(&EXPIRES_FORM, Clients::ALL, FIELD, text);
    }
}

static EXPIRED: Fault = Fault {
    name: "expired",
    what: "a file has expired",
    why: "every client refuses it from that second on",
    fix: "sign it anew with a later date and a higher version; find out why what renews it did not",
    choice: false,
};

static EXPIRES_SOON: Fault = Fault {
    name: "expires-soon",
    what: "a file expires soon",
    why: "then every client refuses it; roots and targets are told two weeks before, timestamps an hour, the rest six hours",
    fix: "renew it; see whether what should renew it runs",
    choice: false,
};

/// Whether the file is, or will soon be, too old. Not asked of roots that others follow.
pub fn expiry(look: &mut Look<'_>) {
    let text = look.get("expires").and_then(Json::text).unwrap_or_default();
    // Whatever its form, the first 19 characters are the time that clients read, but for an offset.
    let Some(expires) = text.get(..19).and_then(|t| parse_utc(&format!("{t}Z"))) else { return };
    let kind = look.get("_type").and_then(Json::text).unwrap_or_default();
    let soon = match kind {
        "root" => SOON_BY_HAND,
        "targets" if !look.file.delegated => SOON_BY_HAND,
        "timestamp" => SOON_TIMESTAMP,
        _ => SOON_BY_MACHINE,
    };
    let is = format!("{text}; it is {} now", format_utc(look.now));
    if look.now >= expires {
        look.breaks(&EXPIRED, Clients::ALL, "signed.expires", &is);
    } else if expires - look.now < soon {
        look.add(&EXPIRES_SOON, Effect::struggle(Clients::ALL), "signed.expires", &is);
    }
}

static REPEATED_SIGNATURE: Fault = Fault {
    name: "repeated-signature",
    what: "two signatures of one key stand in a file",
    why: "most clients refuse the file, whatever the signatures are worth",
    fix: "keep one signature a key",
    choice: false,
};

/// No key id signs twice.
pub fn repeated_signature(look: &mut Look<'_>) {
    let mut ids: Vec<&str> = look.file.signatures.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        let tolerant = Clients::of(&[Client::RustTuf, Client::Aktualizr]);
        let id = pair[0].to_owned();
        look.breaks(&REPEATED_SIGNATURE, Clients::ALL - tolerant, "signatures", &id);
    }
}

static SIZE: Fault = Fault {
    name: "size",
    what: "a file is larger than some clients read",
    why: "a client reads as much as the file before lists as `length`, and up to a limit of its own where nothing is listed",
    fix: "list the file's `length` in the file that names it (17 bytes lift the limit); a root or timestamp must be smaller",
    choice: false,
};

static SIZE_NEAR: Fault = Fault {
    name: "size-near-limit",
    what: "a file has nearly the size that some clients refuse",
    why: "it takes little growth, and these clients stop",
    fix: "list the file's `length` in the file that names it; a root or timestamp must be smaller",
    choice: false,
};

/// The size of a file of `role` whose length may be `listed`.
pub fn size(look: &mut Look<'_>, role: RoleKind, listed: Option<u64>) {
    let length = look.file.length;
    if listed.is_some_and(|l| l > 0) {
        return;
    }
    let over = Clients::that(|client| length > client.limit(role));
    let near = Clients::that(|client| length > client.limit(role) / 10 * 9) - over;
    let told = |clients: Clients| {
        let limits = clients.iter().map(|c| format!("{} {}", c.name(), c.limit(role)));
        format!("{length} bytes; {}", limits.collect::<Vec<_>>().join(", "))
    };
    look.breaks(&SIZE, over, "", &told(over));
    if !near.is_empty() {
        look.add(&SIZE_NEAR, Effect::struggle(near), "", &told(near));
    }
}

static SIGNATURE: Fault = Fault {
    name: "signature",
    what: "too few keys have signed a file",
    why: "a client counts the valid signatures of those keys of the role that it can use, and needs the role's threshold",
    fix: "sign the canonical JSON of `signed` (OLPC, as securesystemslib writes it) with enough of the role's keys",
    choice: false,
};

static UNCHECKED: Fault = Fault {
    name: "signature-not-checked",
    what: "signatures of kinds that only python-tuf knows were taken on trust",
    why: "they were counted as valid for python-tuf",
    fix: "see with python-tuf itself whether they are",
    choice: true,
};

static UNCHECKED_RSA: Fault = Fault {
    name: "signature-not-checked-rsa",
    what: "signatures of RSA keys in the form of PKCS #1 were taken on trust",
    why: "they were counted as valid for the clients that know RSA; tuf-js does not read `BEGIN RSA PUBLIC KEY`",
    fix: "write the key as `BEGIN PUBLIC KEY`, which gives it another id; or see with your clients",
    choice: true,
};

static MANY_SIGNATURES: Fault = Fault {
    name: "signature-count",
    what: "there are more signatures in a file than are checked here",
    why: "whether enough of them are valid was not told",
    fix: "keep the signatures of the keys that count",
    choice: true,
};

/// Whether the keys that `by` names have signed the file. That more must sign than there are was told of that file.
pub fn signatures(look: &mut Look<'_>, keys: &Keys, signers: &Signers, by: &str) {
    signatures_for(look, keys, signers, by, Clients::ALL);
}

/// The same where only these clients come by that way.
pub fn signatures_for(look: &mut Look<'_>, keys: &Keys, signers: &Signers, by: &str, clients: Clients) {
    let Some(message) = &look.file.message else { return }; // a number that is no integer has been put down
    if signers.threshold > signers.keyids.len() as u64 {
        return;
    }
    let signed = keys::count(message, &look.file.signatures, keys, signers);
    let is = format!("{} by the keys of {by}, {} needed", signed.valid, signers.threshold.max(1));
    look.breaks(&SIGNATURE, signed.short & clients, "signatures", &is);
    for (key, why) in signed.unchecked {
        let fault = if why == Unchecked::Pkcs1 { &UNCHECKED_RSA } else { &UNCHECKED };
        look.add(fault, Effect::default(), "signatures", &key);
    }
    if signed.left_out {
        look.add(&MANY_SIGNATURES, Effect::default(), "signatures", &look.file.signatures.len().to_string());
    }
}
