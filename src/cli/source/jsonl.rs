//! JSON Lines: one change a line, in the form of the API's `changes`. Empty lines are passed over.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::input::Lines;
use super::{Item, unique};
use crate::error::Result;

/// A change as it is written, before its parts are known to fit together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    op: String,
    path: String,
    length: Option<u64>,
    #[serde(default, deserialize_with = "unique::value")]
    hashes: Option<Value>,
    #[serde(default, deserialize_with = "unique::value")]
    custom: Option<Value>,
}

impl TryFrom<Line> for Item {
    type Error = String;

    fn try_from(line: Line) -> std::result::Result<Item, String> {
        let Line { op, path, length, hashes, custom } = line;
        match op.as_str() {
            "add" => {
                let length = length.ok_or("an add needs its length")?;
                let hashes = hashes.ok_or("an add needs its hashes")?;
                let hashes: BTreeMap<String, String> =
                    serde_json::from_value(hashes).map_err(|_| "hashes: expected an object of strings")?;
                Ok(Item::Add { path, length, hashes, custom })
            }
            "remove" if length.is_some() || hashes.is_some() || custom.is_some() => {
                Err("a remove has a path and nothing else".into())
            }
            "remove" => Ok(Item::Remove { path }),
            other => Err(format!("op: expected \"add\" or \"remove\", found {other:?}")),
        }
    }
}

/// The next change.
pub(super) fn next(lines: &mut Lines) -> Result<Option<Item>> {
    while let Some(line) = lines.next()? {
        if line.trim_ascii().is_empty() {
            continue;
        }
        return match serde_json::from_slice(line) {
            Ok(item) => Ok(Some(item)),
            Err(e) => {
                let what = if e.is_data() { "" } else { "not JSON, one change a line: " };
                Err(lines.error(format!("{what}{e}").replace(" at line 1 column ", " at column ")))
            }
        };
    }
    Ok(None)
}
