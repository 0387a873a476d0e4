//! `custom`: the part of canonical JSON that every client's dialect agrees on.
//!
//! A non-empty object; keys of `[A-Za-z0-9._:-]`; strings in NFC without control characters; integers within
//! ±(2^53 − 1); no floats; no key twice; depth and size bounded.

use serde_json::Value;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::{MAX_CUSTOM_BYTES, MAX_CUSTOM_DEPTH, MAX_INTEGER};
use crate::error::{Error, Result};
use crate::tuf::canonical;

/// Checks `custom` and appends its canonical form.
pub fn write(custom: &Value, out: &mut Vec<u8>) -> Result<()> {
    match custom {
        Value::Object(map) if map.is_empty() => {
            return Err(Error::invalid("custom", "must not be empty: leave it out instead"));
        }
        Value::Object(_) => check(custom, 1).map_err(|e| e.within("custom"))?,
        _ => return Err(Error::invalid("custom", "must be a JSON object")),
    }
    let start = out.len();
    canonical::write(custom, out).map_err(|e| e.within("custom"))?;
    let bytes = out.len() - start;
    if bytes > MAX_CUSTOM_BYTES {
        return Err(Error::invalid("custom", format!("too large: {bytes} bytes, the limit is {MAX_CUSTOM_BYTES}")));
    }
    Ok(())
}

fn rule(message: impl Into<String>) -> Error {
    Error { field: None, ..Error::invalid("", message) }
}

fn check(value: &Value, depth: usize) -> Result<()> {
    if depth > MAX_CUSTOM_DEPTH && matches!(value, Value::Object(_) | Value::Array(_)) {
        return Err(rule(format!("nests deeper than {MAX_CUSTOM_DEPTH}")));
    }
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) if i.unsigned_abs() <= MAX_INTEGER => Ok(()),
            (None, None) => Err(rule(format!("numbers must be integers, found {n}"))),
            _ => Err(rule(format!("integers must lie within ±(2^53 - 1), found {n}"))),
        },
        Value::String(s) => check_string(s),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(i, item)| check(item, depth + 1).map_err(|e| e.within(&format!("[{i}]")))),
        Value::Object(map) => map.iter().try_for_each(|(key, item)| {
            if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)) {
                return Err(rule(format!("keys may hold only A-Z a-z 0-9 . _ : -, found {key:?}")));
            }
            check(item, depth + 1).map_err(|e| e.within(key))
        }),
    }
}

fn check_string(s: &str) -> Result<()> {
    if let Some(c) = s.chars().find(|c| u32::from(*c) < 0x20 || *c == '\u{7f}') {
        return Err(rule(format!("strings must not hold control characters, found U+{:04X}", u32::from(c))));
    }
    let nfc = match is_nfc_quick(s.chars()) {
        IsNormalized::Yes => true,
        IsNormalized::No => false,
        IsNormalized::Maybe => s.nfc().eq(s.chars()),
    };
    if nfc { Ok(()) } else { Err(rule(format!("strings must be in Unicode normal form C, found {s:?}"))) }
}
