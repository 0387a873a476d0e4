//! Batches and changes as they come in: parsed strictly, not yet validated.
//!
//! Unknown fields, duplicate keys at any depth and wrong types are refused with the path of the field. The fast path
//! parses once; only a refusal parses a second time to find out where.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Batch, Change, HASHES, INBOX_PREFIX, MAX_BATCH_CHANGES, MAX_CUSTOM_BYTES, MAX_CUSTOM_DEPTH, TOO_MANY_CHANGES,
};
use crate::error::{Error, Result};

/// `POST /v1/batches`: an ordered list of changes, all or nothing.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// The batch's id, chosen by its producer: `[A-Za-z0-9._:-]{1,128}`, not beginning with `inbox:`. Sent again with
    /// the same changes it is the same batch. When absent it is random, or in the inbox `inbox:PARTITION:OFFSET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A ledger position that an earlier answer returned: makes a retry safe however late it arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<u64>,
    /// 1 to 100,000 changes; they apply in this order.
    #[serde(deserialize_with = "bounded_changes")]
    pub changes: Vec<ChangeRequest>,
}

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Adds a target, or replaces the one at this path. Needs `length` and `hashes`.
    Add,
    /// Removes the target at a path. Removing an absent path is no error; the receipt names it.
    Remove,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// What it does.
    pub op: Op,
    /// `/`-separated parts of `[A-Za-z0-9._+~@=,-]`, at most 1,024 bytes.
    pub path: String,
    /// The target's length in bytes, at most 2^53 − 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Lower-case hexadecimal digests by algorithm. `sha256` is required; others only if the server admits them.
    #[serde(default, deserialize_with = "unique_map", skip_serializing_if = "Option::is_none")]
    pub hashes: Option<BTreeMap<String, String>>,
    /// A non-empty JSON object for applications, at most 16 KiB: no floats, integers within ±(2^53 − 1).
    #[serde(default, deserialize_with = "unique_value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    #[schema(value_type = Option<Object>)]
    pub custom: Option<Value>,
}

impl BatchRequest {
    /// Parses a request body.
    pub fn parse(body: &[u8]) -> Result<BatchRequest> {
        parse(body)
    }

    /// Validates every change. `id` stands in for an absent one; `extra_hashes` names the algorithms admitted beside
    /// sha256.
    pub fn validate(self, id: impl FnOnce() -> String, extra_hashes: &[String]) -> Result<Batch> {
        let mut changes = Vec::with_capacity(self.changes.len());
        for (i, change) in self.changes.into_iter().enumerate() {
            changes.push(change.validate(extra_hashes).map_err(|e| e.within(&format!("changes[{i}]")))?);
        }
        if self.id.as_ref().is_some_and(|id| id.starts_with(INBOX_PREFIX)) {
            let rule = format!("must not begin with {INBOX_PREFIX}, which is for records of the inbox that have no id");
            return Err(Error::invalid("id", rule));
        }
        Batch::new(self.id.unwrap_or_else(id), self.basis, changes)
    }
}

impl ChangeRequest {
    /// Parses one change.
    pub fn parse(text: &[u8]) -> Result<ChangeRequest> {
        parse(text)
    }

    /// Checks every rule of [`Change`]; of the hash algorithms beside sha256 only those in `extra_hashes` are admitted.
    pub fn validate(self, extra_hashes: &[String]) -> Result<Change> {
        let hashes = self.hashes.as_ref().map(BTreeMap::keys).into_iter().flatten();
        let known = |name: &str| HASHES.iter().any(|(n, _)| *n == name);
        for name in hashes {
            if name != "sha256" && known(name) && !extra_hashes.contains(name) {
                let message = "is an algorithm that this server does not admit (its setting extra_hashes)";
                return Err(Error::invalid(format!("hashes.{name}"), message));
            }
        }
        self.validate_known()
    }

    /// Checks every rule of [`Change`], with every known hash algorithm admitted.
    pub fn validate_known(self) -> Result<Change> {
        match self.op {
            Op::Add => {
                let length = self.length.ok_or_else(|| Error::invalid("length", "is required"))?;
                let hashes = self.hashes.ok_or_else(|| Error::invalid("hashes", "is required"))?;
                Change::add(self.path, length, &hashes, self.custom.as_ref())
            }
            Op::Remove => {
                let extra = [
                    ("length", self.length.is_some()),
                    ("hashes", self.hashes.is_some()),
                    ("custom", self.custom.is_some()),
                ];
                match extra.iter().find(|(_, there)| *there) {
                    Some((field, _)) => Err(Error::invalid(*field, "must not stand in a removal")),
                    None => Change::remove(self.path),
                }
            }
        }
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|first| {
        let mut de = serde_json::Deserializer::from_slice(text);
        match serde_path_to_error::deserialize::<_, T>(&mut de) {
            Err(e) if e.path().iter().next().is_some() => {
                let (field, message) = (e.path().to_string(), e.into_inner().to_string());
                let too_large = message.starts_with(TOO_MANY_CHANGES);
                Error { too_large, ..Error::invalid(field, message) }
            }
            _ => Error { field: None, ..Error::invalid("", format!("not a valid request: {first}")) },
        }
    })
}

/// The changes of a batch. Parsing stops at the first one too many: what is refused must not take memory either.
fn bounded_changes<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<ChangeRequest>, D::Error> {
    struct Bounded;
    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<ChangeRequest>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an array of changes")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
            let mut out = Vec::new();
            while let Some(change) = seq.next_element()? {
                if out.len() == MAX_BATCH_CHANGES {
                    return Err(de::Error::custom(TOO_MANY_CHANGES));
                }
                out.push(change);
            }
            Ok(out)
        }
    }
    d.deserialize_seq(Bounded)
}

/// A map of strings in which no key stands twice, and which has no more keys than there are algorithms.
fn unique_map<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Hashes;
    impl<'de> Visitor<'de> for Hashes {
        type Value = BTreeMap<String, String>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object of strings")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let mut out = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                if out.len() == HASHES.len() {
                    return Err(de::Error::custom(format!("has more than {} algorithms", HASHES.len())));
                }
                if out.insert(key.clone(), value).is_some() {
                    return Err(de::Error::custom(format!("key {key:?} stands twice")));
                }
            }
            Ok(out)
        }
    }
    d.deserialize_map(Hashes).map(Some)
}

/// `custom`, bounded while it is parsed.
fn unique_value<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<Value>, D::Error> {
    // Canonical JSON of the largest `custom` has no more values than every second byte.
    let left = Cell::new(MAX_CUSTOM_BYTES / 2);
    Unique { left: &left, depth: 0 }.deserialize(d).map(Some)
}

/// Any JSON value in which no object has a key twice, and which is no larger than `custom` may be.
#[derive(Clone, Copy)]
struct Unique<'a> {
    /// How many values there may be yet.
    left: &'a Cell<usize>,
    depth: usize,
}

impl Unique<'_> {
    fn take<E: de::Error>(self, values: usize) -> std::result::Result<(), E> {
        let Some(left) = self.left.get().checked_sub(values) else {
            return Err(E::custom(format!("too large: the limit is {MAX_CUSTOM_BYTES} bytes")));
        };
        self.left.set(left);
        Ok(())
    }

    fn inner<E: de::Error>(self) -> std::result::Result<Self, E> {
        match self.depth {
            // One level is left to the validation, which says where it is.
            depth if depth > MAX_CUSTOM_DEPTH => Err(E::custom(format!("nests deeper than {MAX_CUSTOM_DEPTH}"))),
            depth => Ok(Unique { depth: depth + 1, ..self }),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Value, D::Error> {
        self.take(1)?;
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, b: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(b))
    }
    fn visit_i64<E>(self, n: i64) -> std::result::Result<Value, E> {
        Ok(n.into())
    }
    fn visit_u64<E>(self, n: u64) -> std::result::Result<Value, E> {
        Ok(n.into())
    }
    fn visit_f64<E: de::Error>(self, n: f64) -> std::result::Result<Value, E> {
        Err(E::custom(format!("numbers must be integers within ±(2^53 - 1), found {n}")))
    }
    fn visit_str<E: de::Error>(self, s: &str) -> std::result::Result<Value, E> {
        self.take(s.len() / 2)?;
        Ok(s.into())
    }
    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let (inner, mut out) = (self.inner()?, Vec::new());
        while let Some(item) = seq.next_element_seed(inner)? {
            out.push(item);
        }
        Ok(out.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let (inner, mut out) = (self.inner()?, serde_json::Map::new());
        while let Some(key) = map.next_key::<String>()? {
            self.take(key.len() / 2)?;
            let item = map.next_value_seed(inner)?;
            if out.insert(key.clone(), item).is_some() {
                return Err(de::Error::custom(format!("key {key:?} stands twice")));
            }
        }
        Ok(out.into())
    }
}
