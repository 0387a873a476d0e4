//! Canonical JSON (OLPC) as securesystemslib writes it: the bytes that signatures and key ids are made over.
//!
//! Owns the rule that one value has one text. Keys are sorted by code point, which for UTF-8 is the byte order of
//! the *raw* key (neither the escaped nor the quoted one); in strings only `"` and `\` are escaped, everything else
//! is raw UTF-8, control characters too; numbers are integers; there is no whitespace.
//! Source: <http://wiki.laptop.org/go/Canonical_JSON>, `securesystemslib/formats.py`.
//!
//! A string with a control character has a canonical text that is not legal JSON, so [`parse`] cannot read it back
//! and [`is_canonical`] says no to it. Nothing that tuflog lets in contains one.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::Kind;
use crate::{Error, Result};

/// How many arrays and objects may stand inside one another in a text that [`parse`] accepts.
pub const MAX_DEPTH: usize = 64;

/// Appends the canonical text of `value`.
///
/// # Errors
/// `Invalid` if it holds a number that is not an integer of `i64` or `u64`; `out` then ends in the middle of the text.
pub fn write(value: &Value, out: &mut Vec<u8>) -> Result<()> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(n) if n.is_i64() || n.is_u64() => out.extend_from_slice(n.to_string().as_bytes()),
        Value::Number(n) => return Err(invalid(None, format!("{n} is not an integer, the only number allowed"))),
        Value::String(s) => write_string(s, out),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out).map_err(|e| e.within(&format!("[{i}]")))?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key); // a feature of serde_json could leave maps unsorted
            for (i, (key, member)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(key, out);
                out.push(b':');
                write(member, out).map_err(|e| e.within(key))?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// The canonical text of anything that serialises to JSON.
///
/// # Errors
/// `Invalid` as in [`write`], or if `value` cannot be serialised (a map with keys that are not strings).
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let tree = serde_json::to_value(value).map_err(|e| invalid(None, format!("not JSON: {e}")))?;
    let mut out = Vec::new();
    write(&tree, &mut out)?;
    Ok(out)
}

/// Appends `s` in quotes, with `"` and `\` escaped and nothing else.
pub fn write_string(s: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = s.as_bytes();
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\')) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'\\', rest[at]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Reads JSON from outside, canonical or not, and refuses what has more than one reading.
///
/// # Errors
/// `Invalid`, with the place as its field, for anything that is not JSON, trailing data, a key that stands twice in one
/// object, a number that is no integer or does not fit `i64` or `u64`, and nesting deeper than [`MAX_DEPTH`].
pub fn parse(bytes: &[u8]) -> Result<Value> {
    let fault = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let seed = Strict { place: &Place::Top, depth: 0, fault: &fault };
    let value = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|e| invalid(fault.take().filter(|place| !place.is_empty()), e.to_string()))
}

fn invalid(field: Option<String>, message: String) -> Error {
    Error { kind: Kind::Invalid, message, field, basis: None, too_large: false }
}

/// True if `bytes` are exactly the canonical text of the value they hold (see the module for the one exception).
pub fn is_canonical(bytes: &[u8]) -> bool {
    let mut again = Vec::with_capacity(bytes.len());
    parse(bytes).is_ok_and(|value| write(&value, &mut again).is_ok() && again == bytes)
}

/// Where the parser stands, as a list from the inside out on its stack: nothing is spent until a text is refused.
enum Place<'a> {
    Top,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Top => Ok(()),
            Place::Key(Place::Top, key) => f.write_str(key),
            Place::Key(outer, key) => write!(f, "{outer}.{key}"),
            Place::Index(outer, index) => write!(f, "{outer}[{index}]"),
        }
    }
}

/// Reads one value at `place`, `depth` levels down.
#[derive(Clone, Copy)]
struct Strict<'a> {
    place: &'a Place<'a>,
    depth: usize,
    fault: &'a RefCell<Option<String>>,
}

impl Strict<'_> {
    fn deeper<E: de::Error>(&self) -> std::result::Result<usize, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Value, D::Error> {
        json.deserialize_any(self).inspect_err(|_| {
            // The innermost value sees the error first, and its place is the one to tell.
            self.fault.borrow_mut().get_or_insert_with(|| self.place.to_string());
        })
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without fractions and without repeated keys")
    }

    fn visit_unit<E: de::Error>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> std::result::Result<Value, E> {
        // serde_json also reads -0 and integers that do not fit as floats.
        Err(E::custom(format_args!("{v} is not an integer between -2^63 and 2^64-1")))
    }

    fn visit_str<E: de::Error>(self, v: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E: de::Error>(self, v: String) -> std::result::Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut items = Vec::new();
        loop {
            let place = Place::Index(self.place, items.len());
            match seq.next_element_seed(Strict { place: &place, depth, ..self })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if members.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key {key:?} stands twice")));
            }
            let value = map.next_value_seed(Strict { place: &Place::Key(self.place, &key), depth, ..self })?;
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        String::from_utf8(to_vec(value).unwrap()).unwrap()
    }

    #[test]
    fn corner_cases_have_exactly_these_bytes() {
        for (value, expected) in [
            (json!({}), "{}"),
            (json!([]), "[]"),
            (json!({"b": [], "a": {"y": null, "x": [true, false]}}), r#"{"a":{"x":[true,false],"y":null},"b":[]}"#),
            // The raw key is what is sorted: with the closing quote (0x22), "f.txt" would come after "f.txt!" (0x21).
            (json!({"f.txt!": 1, "f.txt b": 2, "f.txt": 3}), r#"{"f.txt":3,"f.txt b":2,"f.txt!":1}"#),
            // The escaped form of `"` begins with a backslash (0x5c), the raw one comes before `A`.
            (json!({"A": 1, "\"": 2, "\\": 3, "a": 4}), r#"{"\"":2,"A":1,"\\":3,"a":4}"#),
            // By code point, not by UTF-16 unit, in which U+1F600 begins with D83D.
            (json!({"\u{1F600}": 1, "\u{FFFD}": 2}), "{\"\u{FFFD}\":2,\"\u{1F600}\":1}"),
            (json!("é e\u{301} / \u{7f}"), "\"é e\u{301} / \u{7f}\""),
            (json!("\n\t\u{0}"), "\"\n\t\u{0}\""),
            (json!([9_007_199_254_740_993_u64, -9_007_199_254_740_993_i64]), "[9007199254740993,-9007199254740993]"),
            (
                json!([1_u64 << 63, u64::MAX, i64::MIN, 0]),
                "[9223372036854775808,18446744073709551615,-9223372036854775808,0]",
            ),
        ] {
            assert_eq!(text(&value), expected);
        }
    }

    #[test]
    fn a_fraction_is_refused_with_its_place() {
        let error = to_vec(&json!({"a": [1, {"b": 1.5}]})).unwrap_err();
        assert_eq!((error.kind, error.field.as_deref()), (Kind::Invalid, Some("a[1].b")));
    }

    #[test]
    fn what_has_two_readings_is_refused_with_its_place() {
        for (bad, place) in [
            (r#"{"a":1,"a":1}"#, None),
            (r#"{"a":1,"\u0061":1}"#, None),
            (r#"{"x":[{"k":{}},{"k":{"a":1,"b":2,"a":3}}]}"#, Some("x[1].k")),
            ("[1,2.0]", Some("[1]")),
            ("1e3", None),
            ("-0", None),
            ("18446744073709551616", None),
            ("-9223372036854775809", None),
            (r#"{"a":{"b":}}"#, Some("a.b")),
            ("{} {}", None),
            ("{},", None),
            ("", None),
            ("\u{feff}{}", None),
            ("\"a\nb\"", None),
        ] {
            let error = parse(bad.as_bytes()).unwrap_err();
            assert_eq!((error.kind, error.field.as_deref()), (Kind::Invalid, place), "{bad}: {error}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        let error = parse(br#"{"a":1,"a":1}"#).unwrap_err();
        assert!(error.message.contains(r#"the key "a" stands twice"#), "{error}");
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |n| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        let error = parse(&nested(MAX_DEPTH + 1)).unwrap_err();
        assert!(error.message.contains("nested deeper than 64 levels"), "{error}");
        assert!(parse(&nested(1_000_000)).is_err());
        assert!(parse(r#"{"a":"#.repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn only_the_one_text_is_canonical() {
        for good in [r#"{"a":1,"b":"\"\\"}"#, "[]", "\"\u{e9}\"", "null"] {
            assert!(is_canonical(good.as_bytes()), "{good}");
        }
        for bad in [r#"{"b":1,"a":2}"#, "[1, 2]", r#""\u00e9""#, r#""\/""#, "[] ", r#""\n""#, "\"\n\""] {
            assert!(!is_canonical(bad.as_bytes()), "{bad}");
        }
    }

    /// Values without control characters, which have no canonical text that is JSON.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("\\PC*", inner, 0..6).prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_comes_back_from_its_text(value in value()) {
            let text = to_vec(&value).unwrap();
            prop_assert_eq!(parse(&text).unwrap(), value);
            prop_assert!(is_canonical(&text));
        }

        #[test]
        fn the_strict_parser_agrees_with_serde_json_or_refuses(text in r#"[\[\]{}:,"ab0-9.\\e -]{0,40}"#) {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = is_canonical(&bytes);
        }
    }
}
