//! JSON as it stands in a file: the order of members, members that stand twice, and the digits of every number.
//!
//! A client's parser forgets these, and so does `serde_json::Value`; but they decide what a client signs again before
//! it compares. Strings without escapes and numbers are borrowed from the text. Nesting and the number of values are
//! bounded, so a hostile file costs a bounded multiple of its length.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::tuf::canonical::{self, MAX_DEPTH};
use crate::tuf::members::Key;

/// How many values a file may hold: 800,000 targets in one.
const MAX_VALUES: usize = 4 << 20;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Its text: any JSON number.
    Number(&'a str),
    /// Without its escapes.
    Text(Cow<'a, str>),
    /// In file order.
    Array(Vec<Json<'a>>),
    /// In file order, as often as they stand there.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Why a text cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// It begins with a byte order mark.
    Mark,
    /// It is not JSON: what the parser says.
    NotJson(String),
    /// It is nested too deep or holds too many values to be looked at here.
    TooMuch,
}

/// Reads a whole text.
pub fn parse(bytes: &[u8]) -> Result<Json<'_>, Unread> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Unread::Mark);
    }
    let raw: &RawValue = serde_json::from_slice(bytes).map_err(|e| Unread::NotJson(e.to_string()))?;
    value(raw.get(), 0, &mut 0)
}

fn value<'a>(text: &'a str, depth: usize, count: &mut usize) -> Result<Json<'a>, Unread> {
    *count += 1;
    if depth > MAX_DEPTH || *count > MAX_VALUES {
        return Err(Unread::TooMuch);
    }
    let not_json = |e: serde_json::Error| Unread::NotJson(e.to_string());
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let Raw(members) = serde_json::from_str(text).map_err(not_json)?;
            let members = members.into_iter().map(|(key, raw)| Ok((key, value(raw.get(), depth + 1, count)?)));
            Json::Object(members.collect::<Result<_, _>>()?)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(not_json)?;
            Json::Array(items.into_iter().map(|raw| value(raw.get(), depth + 1, count)).collect::<Result<_, _>>()?)
        }
        Some(b'"') => Json::Text(Key.deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(not_json)?),
        Some(b't') => Json::Bool(true),
        Some(b'f') => Json::Bool(false),
        Some(b'n') => Json::Null,
        _ => Json::Number(text),
    })
}

/// The members of an object, in file order.
struct Raw<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key_seed(Key)? {
                    members.push((key, map.next_value()?));
                }
                Ok(Raw(members))
            }
        }
        json.deserialize_map(Members)
    }
}

impl<'a> Json<'a> {
    /// The member of this name; of several the last, which is the one that clients keep.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.object()?.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The members, if it is an object.
    pub fn object(&self) -> Option<&[(Cow<'a, str>, Json<'a>)]> {
        match self {
            Json::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The items, if it is an array.
    pub fn array(&self) -> Option<&[Json<'a>]> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if it is a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a non-negative integer of 64 bits.
    pub fn count(&self) -> Option<u64> {
        match self {
            Json::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// Appends the canonical text (see [`canonical`]); false if there is none, because a number is not an integer.
    pub fn canonical(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Json::Null => out.extend_from_slice(b"null"),
            Json::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
            Json::Number("-0") => out.push(b'0'),
            Json::Number(digits) if is_integer(digits) => out.extend_from_slice(digits.as_bytes()),
            Json::Number(_) => return false,
            Json::Text(text) => canonical::write_string(text, out),
            Json::Array(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    if !item.canonical(out) {
                        return false;
                    }
                }
                out.push(b']');
            }
            Json::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_by(|a, b| a.0.cmp(&b.0)); // stable: of equal keys the last stays the last
                out.push(b'{');
                let mut comma = false;
                for (i, (key, member)) in sorted.iter().enumerate() {
                    if sorted.get(i + 1).is_some_and(|(next, _)| next == key) {
                        continue;
                    }
                    if comma {
                        out.push(b',');
                    }
                    comma = true;
                    canonical::write_string(key, out);
                    out.push(b':');
                    if !member.canonical(out) {
                        return false;
                    }
                }
                out.push(b'}');
            }
        }
        true
    }
}

/// Whether a JSON number has neither a fraction nor an exponent.
pub fn is_integer(digits: &str) -> bool {
    !digits.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'))
}

/// Where a value stands, as a list from the inside out: text is made only for what is reported.
#[derive(Clone, Copy)]
pub enum At<'a> {
    /// The whole file.
    Top,
    /// The member of an object.
    Key(&'a At<'a>, &'a str),
    /// The item of an array.
    Item(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Top => Ok(()),
            At::Key(At::Top, key) => write!(f, "{}", key.escape_debug()),
            At::Key(outer, key) => write!(f, "{outer}.{}", key.escape_debug()),
            At::Item(outer, index) => write!(f, "{outer}[{index}]"),
        }
    }
}

/// Shows a value and everything in it to `see`, the outer before the inner.
pub fn visit<'j>(json: &'j Json<'j>, at: &At<'_>, see: &mut dyn FnMut(&At<'_>, &'j Json<'j>)) {
    see(at, json);
    match json {
        Json::Array(items) => items.iter().enumerate().for_each(|(i, item)| visit(item, &At::Item(at, i), see)),
        Json::Object(members) => members.iter().for_each(|(key, member)| visit(member, &At::Key(at, key), see)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_parser_forgets_is_kept() {
        let json = parse(br#" {"b":1.50,"a":[18446744073709551616,-0],"b":"\u0061"} "#).unwrap();
        let keys: Vec<&str> = json.object().unwrap().iter().map(|(key, _)| key.as_ref()).collect();
        assert_eq!(keys, ["b", "a", "b"]);
        assert_eq!(json.object().unwrap()[0].1, Json::Number("1.50"));
        assert_eq!(json.get("b").unwrap().text(), Some("a"));
        let mut out = Vec::new();
        assert!(!json.object().unwrap()[0].1.canonical(&mut out));
        out.clear();
        assert!(json.canonical(&mut out));
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a":[18446744073709551616,0],"b":"a"}"#);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        assert_eq!(parse(b"\xef\xbb\xbf{}"), Err(Unread::Mark));
        for bad in ["", "{", "{}{}", "[01]", "NaN", "\"\n\"", "{\"a\" 1}", "[1,]", "\"\\ud800\""] {
            assert!(matches!(parse(bad.as_bytes()), Err(Unread::NotJson(_))), "{bad}");
        }
        assert!(matches!(parse(b"\"\xff\""), Err(Unread::NotJson(_))));
        let nested = |n| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(parse(&nested(100_000)), Err(Unread::TooMuch));
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in r#"[\[\]{}:,"ab0-9.\\e -]{0,40}"#) {
            let ours = parse(text.as_bytes());
            prop_assert_eq!(ours.is_ok(), serde_json::from_str::<&RawValue>(&text).is_ok(), "{:?}", ours);
        }

        #[test]
        fn its_canonical_text_is_that_of_the_format(value in "[a-c\u{e9}\"\\\\]{0,6}", n in any::<i64>()) {
            let tree = serde_json::json!({"b": [value, n, null, true], "a": {"\u{ffff}": {}, "\u{1F600}": false}});
            let text = tree.to_string();
            let mut out = Vec::new();
            prop_assert!(parse(text.as_bytes()).unwrap().canonical(&mut out));
            prop_assert_eq!(out, canonical::to_vec(&tree).unwrap());
        }
    }
}
