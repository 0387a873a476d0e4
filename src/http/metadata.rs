//! `GET /metadata/…`: what TUF clients fetch.
//!
//! Versioned files never change, so they may be cached for ever; timestamp.json is read through the store for every
//! request, so that a client that alternates between nodes never sees it go back. Anything that is not the name of a
//! metadata file is 404, which is also what clients take for "there is no newer root" (go-tuf takes nothing else).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::failure::{Answer, ErrorAnswer, Failure};
use super::variants::{Encoding, Variants};
use super::{App, params};
use crate::store::POINTER;

const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// A metadata file: `timestamp.json`, or `VERSION.ROLE.json`.
///
/// With `ETag`; versioned files are immutable. gzip and zstd for clients that accept them.
#[utoipa::path(
    get, path = "/metadata/{name}", tag = "metadata", operation_id = "getMetadata",
    params(("name" = String, Path, description = "`timestamp.json`, or such as `7.bins-0a.json`, `1.root.json`")),
    responses(
        (status = 200, description = "The file", content_type = "application/json"),
        (status = 304, description = "If-None-Match names the file as it is"),
        (status = 404, description = "No such file", body = ErrorAnswer),
    )
)]
pub async fn get(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Answer<Response> {
    let missing = || Failure::not_found("no such metadata file");
    let name = params::rest(&uri, "/metadata/", "name").map_err(|_| missing())?;
    if name == "timestamp.json" {
        let bytes = app.store.get(POINTER).await?.ok_or_else(missing)?;
        return Ok(respond(&app, &headers, &Variants::new(bytes), NO_CACHE).await);
    }
    if !is_versioned(&name) {
        return Err(missing());
    }
    let file = app.file(&name).await?.ok_or_else(missing)?;
    Ok(respond(&app, &headers, &file, IMMUTABLE).await)
}

async fn respond(app: &App, headers: &HeaderMap, file: &Variants, caching: HeaderValue) -> Response {
    let (body, encoding) = file.body(Encoding::accepted(headers), &app.pool).await;
    let etag = file.etag(encoding);
    let fresh = is_match(headers, &etag);
    let mut response = if fresh {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(name) = encoding.name() {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        response
    };
    let out = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        out.insert(header::ETAG, etag);
    }
    if file.varies() {
        out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    out.insert(header::CACHE_CONTROL, caching);
    response
}

/// True if `If-None-Match` names this ETag (RFC 9110, weak comparison).
pub(super) fn is_match(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let mut tags = values.flat_map(|v| v.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// `VERSION.ROLE.json`: a version from 1 without leading zeros, and a role that is published that way.
fn is_versioned(name: &str) -> bool {
    let Some((version, role)) = name.strip_suffix(".json").and_then(|rest| rest.split_once('.')) else { return false };
    let is_version = version.parse::<u64>().is_ok_and(|n| n > 0 && n.to_string() == version);
    let is_role = match role.strip_prefix("bins-") {
        Some(hex) => {
            (1..=8).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        }
        None => ["root", "snapshot", "targets"].contains(&role),
    };
    is_version && is_role
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_metadata_files_are_looked_for() {
        for good in ["1.root.json", "7.bins-0a.json", "18446744073709551615.snapshot.json", "2.targets.json"] {
            assert!(is_versioned(good), "{good}");
        }
        let bad = [
            "root.json",
            "0.root.json",
            "01.root.json",
            "+1.root.json",
            "1.timestamp.json",
            "1.bins-.json",
            "1.bins-0A.json",
            "../keys/online.pem",
            "1.root.json/..",
            "1.root",
            "1.",
            ".json",
            "",
            "1..json",
            "1.bins-../x.json",
        ];
        for bad in bad {
            assert!(!is_versioned(bad), "{bad}");
        }
    }

    #[test]
    fn an_etag_matches_itself_in_any_list() {
        let headers = |v: &str| HeaderMap::from_iter([(header::IF_NONE_MATCH, v.parse().unwrap())]);
        assert!(is_match(&headers("\"a\", W/\"b\""), "\"b\"") && is_match(&headers("*"), "\"b\""));
        assert!(!is_match(&headers("\"b-gzip\""), "\"b\"") && !is_match(&HeaderMap::new(), "\"b\""));
    }
}
