//! Debian `Packages` indexes: `Filename`, `Size` and `SHA256` of every stanza.
//!
//! Indexes overlap (a package stands in `bookworm` and in `bookworm-updates`). A path that occurs again
//! with the content it had last is passed over; with other content it is a change again, and the later
//! one wins. To know that costs 16 bytes a path: two halves of SHA-256, of which both would have to
//! collide for a change to be lost.
//!
//! A leading `./`, as flat repositories write it, is not part of the target's path.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::Item;
use super::input::Lines;
use crate::error::{Error, Result};

/// What has been read in this import: digest of path → digest of the change it had last.
#[derive(Default)]
pub(super) struct Seen(HashMap<u64, u64>);

impl Seen {
    /// The next change that is not a repetition.
    pub fn next(&mut self, lines: &mut Lines) -> Result<Option<Item>> {
        while let Some(stanza) = Stanza::read(lines)? {
            let item = stanza.item().map_err(|message| stanza.error(lines, message))?;
            if self.is_change(&item) {
                lines.item = Some(stanza.line);
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn is_change(&mut self, item: &Item) -> bool {
        let digest = |text: &str| {
            let bytes: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
        };
        let content = digest(&format!("{item:?}"));
        self.0.insert(digest(item.path()), content) != Some(content)
    }
}

/// The fields that matter of one stanza.
#[derive(Default)]
struct Stanza {
    line: u64,
    fields: [Option<String>; 4],
}

const NAMES: [&str; 4] = ["Package", "Filename", "Size", "SHA256"];

impl Stanza {
    /// Reads up to the next empty line; `None` at the end.
    fn read(lines: &mut Lines) -> Result<Option<Stanza>> {
        let mut stanza = Stanza::default();
        while let Some(line) = lines.next()? {
            let trimmed = line.trim_ascii();
            if trimmed.is_empty() {
                if stanza.line > 0 {
                    break;
                }
                continue;
            }
            // A continuation of a field (never one of ours), or a comment.
            let skip = matches!(line[0], b' ' | b'\t' | b'#');
            let field = if skip { Ok(None) } else { field(trimmed) };
            if stanza.line == 0 {
                stanza.line = lines.number();
            }
            let Some((index, value)) = field.map_err(|message| stanza.error(lines, message))? else { continue };
            if stanza.fields[index].replace(value).is_some() {
                return Err(stanza.error(lines, format!("{} occurs twice", NAMES[index])));
            }
        }
        Ok((stanza.line > 0).then_some(stanza))
    }

    fn item(&self) -> std::result::Result<Item, String> {
        let field = |index: usize| self.fields[index].as_deref().ok_or_else(|| format!("{} is missing", NAMES[index]));
        let path = field(1)?;
        Item::add(path.strip_prefix("./").unwrap_or(path), field(2)?, "sha256", field(3)?)
    }

    fn error(&self, lines: &Lines, message: String) -> Error {
        let package = self.fields[0].as_deref().unwrap_or("without a name");
        lines.error_at(self.line, format!("package {package}: {message}"))
    }
}

/// Which of [`NAMES`] the line is, and its value; `None` for other fields.
fn field(line: &[u8]) -> std::result::Result<Option<(usize, String)>, String> {
    let Some(colon) = line.iter().position(|c| *c == b':') else {
        return Err("a line is not of the form `Name: value`; is this a Packages index?".into());
    };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let Some(index) = NAMES.iter().position(|n| name.eq_ignore_ascii_case(n.as_bytes())) else { return Ok(None) };
    match std::str::from_utf8(value) {
        Ok(value) => Ok(Some((index, value.to_owned()))),
        Err(_) => Err(format!("{} is not UTF-8", NAMES[index])),
    }
}
