//! Lines of `path;length;hash-name;hash`, the form of RSTUF's `import-artifacts`.
//!
//! A field may be quoted (`"`), a record ends with its line, and the first line may be the header
//! `path;length;hash-name;hash`. Empty lines are passed over.

use super::Item;
use super::input::Lines;
use crate::error::Result;

const HEADER: &[u8] = b"path;length;hash-name;hash";

/// The next change.
pub(super) fn next(lines: &mut Lines) -> Result<Option<Item>> {
    loop {
        let number = lines.number() + 1;
        let Some(line) = lines.next()? else { return Ok(None) };
        let line = line.trim_ascii();
        if line.is_empty() || (number == 1 && line.eq_ignore_ascii_case(HEADER)) {
            continue;
        }
        return parse(line).map(Some).map_err(|message| lines.error(message));
    }
}

fn parse(line: &[u8]) -> std::result::Result<Item, String> {
    if line.contains(&b'"') {
        return parse_quoted(line);
    }
    // As the reader below would; but that one is expensive to make.
    let text = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
    let fields: Vec<&str> = text.split(';').collect();
    match fields[..] {
        [path, length, name, hash] => Item::add(path, length.trim(), name.trim(), hash.trim()),
        _ => Err(expected(text, fields.len())),
    }
}

fn expected(line: &str, fields: usize) -> String {
    match (fields, line.matches(',').count()) {
        (1, 3..) => "expected path;length;hash-name;hash: the separator is `;`, not a comma".into(),
        _ => format!("expected path;length;hash-name;hash, found {fields} fields"),
    }
}

fn parse_quoted(line: &[u8]) -> std::result::Result<Item, String> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b';')
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(line.len())
        .from_reader(line);
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(true) => {}
        Ok(false) => return Err("expected path;length;hash-name;hash".into()),
        Err(e) if matches!(e.kind(), csv::ErrorKind::Utf8 { .. }) => return Err("the line is not UTF-8".into()),
        Err(e) => return Err(e.to_string()),
    }
    if record.len() != 4 {
        return Err(expected(&String::from_utf8_lossy(line), record.len()));
    }
    Item::add(&record[0], record[1].trim(), record[2].trim(), record[3].trim())
}
