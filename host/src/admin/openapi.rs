//! The description of the endpoint for other programs.

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::answer::text;

/// OpenAPI 3.1; a test holds it against the paths.
pub(super) const DESCRIPTION: &str = include_str!("openapi.json");

pub(super) async fn serve() -> Response<Body> {
    text(StatusCode::OK, "application/json", DESCRIPTION.into())
}
