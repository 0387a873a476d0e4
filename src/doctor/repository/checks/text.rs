//! What parts the dialects of canonical JSON.
//!
//! Clients sign again what they have parsed before they compare; where their dialects differ, a signature that is valid
//! for one is not for the other. The text that counts is that of securesystemslib, in which metadata is signed.

use std::collections::BTreeSet;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::super::clients::{Client, Clients};
use super::super::file::{Look, broken};
use super::super::found::{Effect, Fault};
use super::super::json::{At, Json, is_integer};
use crate::tuf::canonical;

static FRACTION: Fault = Fault {
    name: "number-not-integer",
    what: "a number has a fraction or an exponent",
    why: "canonical JSON has no text for it, so no client can check the signature (tuf-js reads 1.0 as 1)",
    fix: "write an integer, or the number as a string",
    choice: false,
};

static LARGE: Fault = Fault {
    name: "integer-large",
    what: "an integer is larger than some clients can hold",
    why: "tuf-js and sigstore-java hold 53 bits exactly, go-tuf 63 with a sign, tough and rust-tuf 64: the signature fails",
    fix: "keep integers within ±(2^53 - 1), or write the number as a string",
    choice: false,
};

/// Numbers: integers that every client holds exactly.
pub fn number(look: &mut Look<'_>) {
    look.each(|look, at, json| {
        let Json::Number(digits) = json else { return };
        if !is_integer(digits) {
            return look.breaks(&FRACTION, Clients::ALL, &at.to_string(), digits);
        }
        let magnitude = digits.trim_start_matches('-').parse::<u128>().unwrap_or(u128::MAX);
        let clients = Clients::that(|client| match client {
            // What JavaScript prints for the number that it has read.
            Client::TufJs | Client::SigstoreJava => {
                magnitude >= 10_u128.pow(21)
                    || magnitude >= 1 << 53 && format!("{}", magnitude as f64) != magnitude.to_string()
            }
            Client::GoTuf | Client::GoTuf242 => magnitude >= 1 << 63,
            Client::Tough | Client::RustTuf => magnitude >= 1 << 64,
            _ => false,
        });
        if !clients.is_empty() {
            look.breaks(&LARGE, clients, &at.to_string(), digits);
        }
    });
}

static REPEATED_MEMBER: Fault = Fault {
    name: "repeated-member",
    what: "a member stands twice in one object",
    why: "most clients keep the last and pass over the others; tough refuses a field that it knows, and keys, when they stand twice",
    fix: "write each member once",
    choice: false,
};

/// Members that stand twice.
pub fn repeated_member(look: &mut Look<'_>) {
    look.each(|look, at, json| {
        let mut seen = BTreeSet::new();
        for (key, _) in json.object().unwrap_or_default() {
            if !seen.insert(key.as_ref()) {
                // The fields of the signed part and of `delegations` are known ones; opaque members are kept.
                let known = matches!(at, At::Key(At::Top, _)) || matches!(at, At::Key(_, "keys"));
                let tough = if known { Clients::of(&[Client::Tough]) } else { Clients::NONE };
                let effect = Effect { struggle: Clients::ALL - tough, ..broken(tough, look.file.delegated) };
                look.add(&REPEATED_MEMBER, effect, &at.to_string(), key);
            }
        }
    });
}

/// Shows every string to `see`: values and the keys of objects, but not the PEM text of keys.
fn each_text<'l>(look: &mut Look<'l>, mut see: impl FnMut(&mut Look<'l>, &At<'_>, &str)) {
    look.each(|look, at, json| match json {
        Json::Text(_) if matches!(at, At::Key(At::Key(_, "keyval"), _)) => {}
        Json::Text(text) => see(look, at, text),
        Json::Object(members) => members.iter().for_each(|(key, _)| see(look, at, key)),
        _ => {}
    });
}

static NOT_NFC: Fault = Fault {
    name: "text-not-normalised",
    what: "a string is not in Unicode's normal form C",
    why: "tough normalises strings before it checks a signature, and so finds it wrong",
    fix: "normalise paths and custom values to NFC before they are signed",
    choice: false,
};

/// Strings that normalisation would change.
pub fn not_normalised(look: &mut Look<'_>) {
    each_text(look, |look, at, text| {
        let normal = match is_nfc_quick(text.chars()) {
            IsNormalized::Yes => true,
            IsNormalized::No => false,
            IsNormalized::Maybe => text.nfc().eq(text.chars()),
        };
        if !normal {
            look.breaks(&NOT_NFC, Clients::of(&[Client::Tough]), &at.to_string(), text);
        }
    });
}

static CONTROL: Fault = Fault {
    name: "text-control-character",
    what: "a string has a control character",
    why: "canonical JSON has it as it is; rust-tuf and php-tuf escape it, sigstore-java all but the newline: the signature fails",
    fix: "leave control characters out of paths and custom values",
    choice: false,
};

/// Control characters.
pub fn control_character(look: &mut Look<'_>) {
    each_text(look, |look, at, text| {
        let mut clients = Clients::NONE;
        for c in text.chars().filter(|c| *c < ' ') {
            clients = clients | Clients::of(&[Client::RustTuf, Client::PhpTuf]);
            if c != '\n' {
                clients = clients | Clients::of(&[Client::SigstoreJava]);
            }
        }
        if !clients.is_empty() {
            look.breaks(&CONTROL, clients, &at.to_string(), text);
        }
    });
}

static NOT_ASCII: Fault = Fault {
    name: "text-not-ascii",
    what: "a string has characters beyond ASCII",
    why: "php-tuf escapes them before it checks a signature, and so finds it wrong",
    fix: "keep to ASCII if php-tuf is to read the repository",
    choice: false,
};

/// Characters beyond ASCII.
pub fn not_ascii(look: &mut Look<'_>) {
    each_text(look, |look, at, text| {
        if !text.is_ascii() {
            look.breaks(&NOT_ASCII, Clients::of(&[Client::PhpTuf]), &at.to_string(), text);
        }
    });
}

static UTF16_ORDER: Fault = Fault {
    name: "key-order-utf16",
    what: "keys of one object sort in another order by UTF-16 than by code point",
    why: "tuf-js and sigstore-java sort by UTF-16: a key beyond U+FFFF comes before one from U+E000 on, and the signature fails",
    fix: "keep paths and the keys of custom objects within U+0000 to U+D7FF",
    choice: false,
};

/// Keys that JavaScript sorts otherwise.
pub fn key_order_of_utf16(look: &mut Look<'_>) {
    let clients = Clients::of(&[Client::TufJs, Client::SigstoreJava]);
    // Only text with a key beyond U+FFFF can differ.
    let may = |key: &str| key.chars().any(|c| c > '\u{ffff}');
    key_order(look, &UTF16_ORDER, clients, may, |key| key.encode_utf16().flat_map(u16::to_be_bytes).collect());
}

static TOUGH_ORDER: Fault = Fault {
    name: "key-order-tough",
    what: "keys of one object sort in another order once they are quoted",
    why: "tough sorts keys with their quotes and escapes: a key that goes on with a space or `!` where another ends, or has a \
          `\"`, comes elsewhere, and the signature fails",
    fix: "leave space, `!`, `\"` and `\\` out of paths and of the keys of custom objects",
    choice: false,
};

/// Keys that tough sorts otherwise.
pub fn key_order_of_tough(look: &mut Look<'_>) {
    let may = |key: &str| key.bytes().any(|b| matches!(b, b' ' | b'!' | b'"' | b'\\'));
    key_order(look, &TOUGH_ORDER, Clients::of(&[Client::Tough]), may, |key| {
        let mut quoted = Vec::new();
        canonical::write_string(key, &mut quoted);
        quoted
    });
}

/// Objects whose keys come in another order when sorted by `by`, which only a key that `may` can bring about.
fn key_order(
    look: &mut Look<'_>,
    fault: &'static Fault,
    clients: Clients,
    may: impl Fn(&str) -> bool,
    by: impl Fn(&str) -> Vec<u8>,
) {
    look.each(|look, at, json| {
        let Some(members) = json.object().filter(|m| m.iter().any(|(key, _)| may(key))) else { return };
        let keys: BTreeSet<&str> = members.iter().map(|(key, _)| key.as_ref()).collect();
        let sorted: Vec<(&str, Vec<u8>)> = keys.into_iter().map(|key| (key, by(key))).collect();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].1 > pair[1].1) {
            look.breaks(fault, clients, &at.to_string(), &format!("{:?} and {:?}", pair[0].0, pair[1].0));
        }
    });
}
