//! `GET /` and `/console/…`: the console, a page for people over the API that everybody has.
//!
//! Its files are part of the binary. It holds no data and is public: what it shows it asks of `/v1` in the browser, with
//! the token that its reader gives it. Its policy lets it run nothing but these files and talk to nobody but this node,
//! so that a path or a batch id from a stranger stays text.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::failure::{Answer, Failure};
use super::metadata::is_match;
use crate::bins::sha256;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// What a browser lets the page do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

/// A file of the console.
struct File {
    name: &'static str,
    kind: &'static str,
    content: &'static [u8],
    etag: String,
}

macro_rules! files {
    ($($kind:ident $name:literal)*) => {
        [$(($name, $kind, include_bytes!(concat!("console/", $name)).as_slice())),*]
    };
}

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let files = files! {
        HTML "index.html"
        CSS "console.css"
        CSS "detail.css"
        CSS "overview.css"
        JS "console.js"
        JS "api.js"
        JS "bins.js"
        JS "chart.js"
        JS "checkpoints.js"
        JS "detail.js"
        JS "dom.js"
        JS "feed.js"
        JS "format.js"
        JS "heatmap.js"
        JS "links.js"
        JS "overview.js"
    };
    let etag = |content| format!("\"{}\"", &hex::encode(sha256(content))[..32]);
    files.into_iter().map(|(name, kind, content)| File { name, kind, content, etag: etag(content) }).collect()
});

/// The page.
pub async fn page(headers: HeaderMap) -> Answer<Response> {
    serve("index.html", &headers)
}

/// What the page loads.
pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Answer<Response> {
    serve(&name, &headers)
}

fn serve(name: &str, headers: &HeaderMap) -> Answer<Response> {
    let found = FILES.iter().find(|file| file.name == name);
    let file = found.ok_or_else(|| Failure::not_found("the console has no such file"))?;
    let mut response = match is_match(headers, &file.etag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, file.kind)], file.content).into_response(),
    };
    let out = response.headers_mut();
    out.extend([
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")), // another version brings other files
    ]);
    out.extend(HeaderValue::from_str(&file.etag).ok().map(|etag| (header::ETAG, etag)));
    Ok(response)
}
