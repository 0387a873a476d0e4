//! The API's own description: `schemas/openapi.json`, also served as `/openapi.json`.

use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};

use super::json::Json;
use super::{batches, explore, files, metadata, metrics, published, status, streams};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tuflog",
        description = "Publish target changes; TUF clients fetch signed metadata. Unknown query parameters and unknown fields are refused.",
    ),
    paths(
        batches::post, batches::get,
        published::target, published::route, published::checkpoints, published::checkpoint, published::lag,
        status::status, status::rates,
        explore::bins, explore::bin, explore::search, explore::history, explore::records, explore::record,
        streams::diff, streams::replay, streams::feed,
        published::healthz, published::readyz, metrics::get,
        metadata::get, files::get,
    ),
    tags(
        (name = "batches", description = "Publishing"),
        (name = "published", description = "What is published, and how far the node is"),
        (name = "history", description = "What was published then, what changed, and the ledger itself"),
        (name = "metadata", description = "What TUF clients fetch: public"),
        (name = "operation", description = "For orchestrators and Prometheus"),
    )
)]
struct Api;

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut api = Api::openapi();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("A token of the server's tokens file, if it has one")).build();
    api.components.get_or_insert_default().security_schemes.insert("token".into(), SecurityScheme::Http(bearer).into());
    // Only a server with tokens asks for one.
    api.security = Some(vec![SecurityRequirement::default(), SecurityRequirement::new("token", [""; 0])]);
    api
}

pub(super) async fn get() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
