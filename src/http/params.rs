//! Paths and query parameters, read strictly.
//!
//! A path is percent-decoded once, and `+` stands for itself: it is common in the names of packages. A query
//! parameter that a route does not know, or one that stands twice, is refused: a misspelt `wait` must not pass
//! silently.

use std::collections::BTreeMap;

use axum::http::Uri;

use crate::error::{Error, Result};

/// Undoes percent-encoding; `None` unless what comes out is UTF-8 and every `%` has its two digits.
pub fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                out.push((high * 16 + low) as u8);
            }
            b => out.push(b),
        }
    }
    String::from_utf8(out).ok()
}

/// What stands behind `prefix` in a request's path, decoded. `Invalid` with `field` when it cannot be.
pub fn rest(uri: &Uri, prefix: &str, field: &str) -> Result<String> {
    let rest = uri.path().strip_prefix(prefix).unwrap_or_default();
    decode(rest).ok_or_else(|| Error::invalid(field, "is not percent-encoded UTF-8"))
}

/// The query parameters of a request, of which only those in `known` may stand, each once.
pub fn query(uri: &Uri, known: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let malformed = || Error::invalid("query", format!("{pair:?} is not percent-encoded UTF-8"));
        let (key, value) = (decode(key).ok_or_else(malformed)?, decode(value).ok_or_else(malformed)?);
        if !known.contains(&key.as_str()) {
            let may = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Error::invalid(key, format!("is not a query parameter of this route, which has: {may}")));
        }
        if found.insert(key.clone(), value).is_some() {
            return Err(Error::invalid(key, "stands twice in the query"));
        }
    }
    Ok(found)
}

/// The unsigned number that a parameter holds.
pub fn number(query: &BTreeMap<String, String>, name: &str) -> Result<Option<u64>> {
    let parse =
        |text: &String| text.parse().map_err(|_| Error::invalid(name, format!("must be a number, not {text:?}")));
    query.get(name).map(parse).transpose()
}

/// Whether a parameter says `full`, which is all that it may say.
pub fn full(query: &BTreeMap<String, String>, name: &str) -> Result<bool> {
    match query.get(name).map(String::as_str) {
        None => Ok(false),
        Some("full") => Ok(true),
        Some(other) => Err(Error::invalid(name, format!("may only be full, not {other:?}"))),
    }
}

/// The parameter `limit`: how many of something are asked for.
pub fn limit(query: &BTreeMap<String, String>, usual: usize, most: usize) -> Result<usize> {
    let limit = number(query, "limit")?.unwrap_or(usual as u64);
    match usize::try_from(limit).ok().filter(|limit| (1..=most).contains(limit)) {
        Some(limit) => Ok(limit),
        None => Err(Error::invalid("limit", format!("must be from 1 to {most}, not {limit}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_is_a_plus_and_nothing_is_decoded_twice() {
        assert_eq!(decode("libstdc++-6.deb").as_deref(), Some("libstdc++-6.deb"));
        assert_eq!(decode("a%2Bb%2fc%252e").as_deref(), Some("a+b/c%2e"));
        for bad in ["%", "%2", "%zz", "a%ff", "%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused_by_name() {
        let uri = |q: &str| format!("/v1/batches?{q}").parse::<Uri>().unwrap();
        assert_eq!(query(&uri("wait=published"), &["wait"]).unwrap()["wait"], "published");
        assert_eq!(query(&uri("wiat=x"), &["wait"]).unwrap_err().field.as_deref(), Some("wiat"));
        assert_eq!(query(&uri("wait=a&wait=b"), &["wait"]).unwrap_err().field.as_deref(), Some("wait"));
        assert_eq!(query(&uri("limit=%zz"), &["limit"]).unwrap_err().field.as_deref(), Some("query"));
        assert!(number(&query(&uri("limit=-1"), &["limit"]).unwrap(), "limit").is_err());
    }
}
