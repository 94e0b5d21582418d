//! `/device` and `/activate`: consent by another device than the one that asks (RFC 8628).

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use serde_json::json;

use super::keys;
use super::model::Kind;
use super::page::{self, Consent};
use super::params::{Params, Refusal, authenticate};
use super::server::Shared;
use super::state::{Device, DeviceAnswer, State};

pub(super) async fn begin(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let form = Params::form(&headers, &body)?;
    let mut state = shared.lock();
    let client = authenticate(&state, &headers, &form)?;
    let scope = form.scope()?;
    if scope.is_empty() {
        return Err(Refusal::bad("invalid_scope", "Missing required parameter: scope"));
    }
    let (code, user_code) = (keys::random(32)?, keys::random_user_code()?);
    let (lifetime, interval) = (state.switches.device_lifetime, state.switches.device_interval);
    let page = format!("{}/activate", shared.base);
    let answer = json!({
        "device_code": code,
        "user_code": user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={user_code}"),
        "expires_in": lifetime.num_seconds(),
        "interval": interval.as_secs(),
    });
    state.note(Kind::Device, &code, None);
    let device = Device {
        client: client.id,
        scope,
        user_code,
        ends: state.now() + lifetime,
        interval: TimeDelta::from_std(interval).unwrap_or_default(),
        polled: None,
        answer: DeviceAnswer::Waiting,
    };
    state.devices.insert(code, device);
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// The device that shows this code and waits. Small letters and missing hyphens do not matter (RFC 8628 §6.1).
fn waiting<'a>(state: &'a mut State, user_code: &str) -> Option<&'a mut Device> {
    let plain = |code: &str| -> String {
        code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
    };
    let (now, wanted) = (state.now(), plain(user_code));
    let open = |d: &&mut Device| d.answer == DeviceAnswer::Waiting && d.ends > now;
    state.devices.values_mut().filter(open).find(|device| plain(&device.user_code) == wanted)
}

pub(super) async fn show(Extract(shared): Extract<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let query = Params::parse(query.unwrap_or_default().as_bytes());
    let Some(code) = query.any("user_code") else {
        let body = "<form action=\"/activate\">\n<p><label for=\"code\">The code on your device</label><br>\n\
                    <input id=\"code\" name=\"user_code\" autocomplete=\"off\"></p>\n\
                    <p><button>Continue</button></p>\n</form>\n";
        return page::page(StatusCode::OK, "Connect a device", body);
    };
    match waiting(&mut shared.lock(), code) {
        Some(device) => form(device, "", None),
        None => page::wrong("No device waits with this code."),
    }
}

fn form(device: &Device, user: &str, fault: Option<&str>) -> Response {
    let hidden = ("user_code", device.user_code.as_str());
    let (client, scope) = (device.client.as_str(), device.scope.as_slice());
    Consent { action: "/activate", hidden, client, scope, user, fault }.into_response()
}

pub(super) async fn answer(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let posted = Params::form(&headers, &body).map_err(|e| page::wrong(&e.description))?;
    let mut state = shared.lock();
    let gone = || page::wrong("No device waits with this code.");
    let device = waiting(&mut state, posted.any("user_code").unwrap_or_default()).ok_or_else(gone)?;
    if posted.any("answer") != Some("allow") {
        device.answer = DeviceAnswer::Denied;
        return Ok(page::page(StatusCode::OK, "Denied", "<p>The device gets nothing.</p>\n"));
    }
    let user = posted.any("user").unwrap_or_default();
    if !page::is_address(user) {
        return Ok(form(device, user, Some("This is no address.")));
    }
    device.answer = DeviceAnswer::Allowed(user.to_lowercase());
    Ok(page::page(StatusCode::OK, "Connected", "<p>Go back to your device.</p>\n"))
}
