//! Requests are counted by the pattern of their path, never by the path.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use emailclient_core::platform::metrics::table;
use http::{Method, StatusCode};
use metrics::{counter, gauge, histogram};
use wire::measured::Held;

/// A request that has no route.
const UNMATCHED: &str = "unmatched";

/// Counts a request and the time until its answer begins.
pub async fn count(request: Request, next: Next) -> Response {
    let (begun, method) = (Instant::now(), method(request.method()));
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| UNMATCHED.to_owned());
    let in_flight = Held::new(gauge!(table::HTTP_IN_FLIGHT.name));
    let response = next.run(request).await;
    drop(in_flight);
    let status = class(response.status());
    histogram!(table::HTTP_DURATION.name, "method" => method, "route" => route.clone())
        .record(begun.elapsed().as_secs_f64());
    counter!(table::HTTP_REQUESTS.name, "method" => method, "route" => route, "status" => status)
        .increment(1);
    response
}

/// A client may call its method as it likes.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}
