//! `GET /targets/…`: target files from a directory, under all the names that TUF clients ask for.
//!
//! ```text
//!   dir/HASH.file    python-tuf, tuf-js, go-tuf        HASH.dir/file   tough        dir/file   php-tuf, people
//! ```
//!
//! HASH must be a digest of the target as it is published now; a file that is there but not published is 404. So the
//! directory may hold anything, and what was removed from the repository is gone at once.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use tower_http::services::ServeFile;

use super::failure::{Answer, ErrorAnswer, Failure};
use super::{App, params};
use crate::change::check_path;
use crate::error::Error;
use crate::query::TargetAnswer;

/// A target file, if the server has a directory of them (`serve --targets DIR`).
#[utoipa::path(
    get, path = "/targets/{path}", tag = "metadata",
    params(("path" = String, Path, description = "`dir/HASH.file`, `HASH.dir/file` or `dir/file`")),
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream"),
        (status = 206, description = "The range asked for"),
        (status = 404, description = "Not published, not with this digest, or not there", body = ErrorAnswer),
    )
)]
pub async fn get(State(app): State<Arc<App>>, request: Request<Body>) -> Answer<Response> {
    let missing = || Failure::not_found("no such target file is published here");
    let Some(dir) = &app.options.targets else {
        return Err(Failure::not_found("this server serves no target files (start it with --targets DIR)"));
    };
    let path = params::rest(request.uri(), "/targets/", "path").map_err(|_| missing())?;
    check_path(&path).map_err(|_| missing())?;
    let target = published(&app, &path).await?.ok_or_else(missing)?;
    // A checked path has no part that could lead out of the directory.
    let file = dir.join(Path::new(&target.path));
    let size = tokio::fs::metadata(&file).await.ok().filter(|m| m.is_file()).map(|m| m.len());
    match size {
        Some(size) if size == target.length => {}
        Some(size) => {
            tracing::warn!(path = target.path, size, published = target.length, "target file is not the published one");
            return Err(Failure::not_found("the file here has another length than the published target"));
        }
        None => return Err(missing()),
    }
    let served = ServeFile::new(file).try_call(request).await;
    let response = served.map_err(|e| Error::unavailable(format!("a target file cannot be read: {e}")))?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(missing());
    }
    let mut response = response.map(Body::new);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// The published target that a requested path means.
async fn published(app: &App, path: &str) -> Answer<Option<TargetAnswer>> {
    for (digest, plain) in readings(path) {
        if let Some(target) = app.query.target(&plain).await?
            && target.hashes.values().any(|h| h.as_str() == Some(digest))
        {
            return Ok(Some(target));
        }
    }
    Ok(app.query.target(path).await?)
}

/// The ways to read a digest in front of the file's name, or in front of everything.
fn readings(path: &str) -> Vec<(&str, String)> {
    let digest = |part: &str| {
        let hex = part.split_once('.')?.0.len();
        let is_digest = [64, 128].contains(&hex) && part.bytes().take(hex).all(|b| b.is_ascii_hexdigit());
        is_digest.then_some(hex)
    };
    let mut readings = Vec::new();
    let name = path.rfind('/').map_or(0, |i| i + 1);
    for at in if name > 0 { vec![name, 0] } else { vec![0] } {
        if let Some(len) = digest(&path[at..])
            && path.len() > at + len + 1
        {
            readings.push((&path[at..at + len], format!("{}{}", &path[..at], &path[at + len + 1..])));
        }
    }
    readings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_found_where_clients_put_it() {
        let hash = "ab".repeat(32);
        let read = |path: &str| readings(path).into_iter().map(|(_, p)| p).collect::<Vec<_>>();
        assert_eq!(read(&format!("dir/{hash}.file.tar.gz")), ["dir/file.tar.gz"]);
        assert_eq!(read(&format!("{hash}.dir/file")), ["dir/file"]);
        assert_eq!(read(&format!("{hash}.file")), ["file"]);
        assert!(read("dir/file").is_empty() && read(&format!("dir/{hash}.")).is_empty());
        assert!(read(&format!("dir/{hash}")).is_empty() && read(&format!("dir/{}.x", "zz".repeat(32))).is_empty());
    }
}
