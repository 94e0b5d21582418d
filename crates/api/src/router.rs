//! All routes under all layers.

use std::any::Any;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version, header};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate as _};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::again;
use crate::answer;
use crate::coding;
use crate::cors::{self, Cors};
use crate::error::ApiError;
use crate::headers::edge;
use crate::measured;
use crate::openapi::{Description, EXPLORER_POLICY, problems, whole};
use crate::routes;
use crate::state::AppState;
use crate::trail;

/// The service for one process.
///
/// # Errors
/// When its description cannot be written as JSON.
pub fn build(state: AppState) -> anyhow::Result<Router> {
    let (api, description) =
        OpenApiRouter::with_openapi(Description::openapi()).merge(routes::all()).split_for_parts();
    let description = whole(&description, &state.config)?;
    let explorer = Router::<AppState>::new()
        .route("/docs/problems", get(problems))
        .merge(SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", description))
        .layer(from_fn(async |request: axum::extract::Request, next: axum::middleware::Next| {
            let mut response = next.run(request).await;
            response
                .headers_mut()
                .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(EXPLORER_POLICY));
            response
        }));
    let mut router = api
        .merge(explorer)
        .fallback(async || ApiError::not_found())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(again::run))
        .layer(from_fn_with_state(state.clone(), trail::watch))
        .layer(from_fn_with_state(state.clone(), answer::hold))
        .layer(CompressionLayer::new().compress_when(DefaultPredicate::new().and(in_one_piece)))
        .layer(from_fn(coding::mark));
    // Switched off, OPTIONS is a method like any other.
    if let Some(cors) = Cors::new(&state) {
        router = router.layer(from_fn_with_state(cors, cors::layer));
    }
    Ok(router
        .layer(from_fn_with_state(state.clone(), edge))
        .layer(from_fn(measured::count))
        .with_state(state))
}

/// Bytes that may be asked for in parts stay as they are: ranges and the strong tag belong to one form of them.
fn in_one_piece(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    !headers.contains_key(header::ACCEPT_RANGES)
}

fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let text = cause
        .downcast_ref::<&str>()
        .map(|t| (*t).to_owned())
        .or_else(|| cause.downcast_ref::<String>().cloned());
    ApiError::internal(anyhow::anyhow!("a handler panicked: {}", text.unwrap_or_default())).into_response()
}
