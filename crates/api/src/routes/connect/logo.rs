//! The tenant's logo: fetched by us, once, when the tenant names it, and served by us, so that no page tells another host who is
//! looking at it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use emailclient_core::access::tenant::branding::{self, Logo};
use emailclient_core::access::token::{open, seal};
use emailclient_core::platform::id::TenantId;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use imagesize::ImageType;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use wire::post::{Address, Poster};
use wire::secret::Secret;

use crate::error::{ApiError, FieldError, Problem};
use crate::limits;
use crate::state::AppState;

/// For all of it: a person waits.
const PATIENCE: Duration = Duration::from_secs(10);
const PURPOSE: &str = "logo";
/// Where a fault of the logo stands.
const AT: &str = "/branding/logo_url";

/// What stands in the address of a logo: its tenant and which one, under a code.
pub fn key(secret: &Secret, tenant: TenantId, hash: &[u8]) -> String {
    seal(secret, PURPOSE, &[tenant.0.as_bytes().as_slice(), hash].concat())
}

/// Where a logo is.
pub fn path(base: &str, key: &str) -> String {
    format!("{base}/connect/logo/{key}")
}

/// The picture of a tenant's logo. Its address changes with it.
#[utoipa::path(get, path = "/connect/logo/{key}", tag = "connect", params(("key" = String, Path, description = "as it stands in a page")),
    responses((status = 200, description = "the picture", content((Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/gif"), (Vec<u8> = "image/webp"))),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn logo(State(state): State<AppState>, Path(key): Path<String>) -> Result<Response, ApiError> {
    let body = open(&state.config.jwt_secret, PURPOSE, &key).ok_or_else(ApiError::not_found)?;
    let (tenant, hash) = body.split_first_chunk::<16>().ok_or_else(ApiError::not_found)?;
    let mut tx = state.db.tenant(TenantId(Uuid::from_bytes(*tenant))).await?;
    let logo = branding::logo(&mut tx, hash).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    let mut response = logo.bytes.into_response();
    let fields = response.headers_mut();
    let kind = HeaderValue::from_str(&logo.media_type).map_err(ApiError::internal)?;
    fields.insert(CONTENT_TYPE, kind);
    let mut set = |name, value| fields.insert(name, HeaderValue::from_static(value));
    set(CACHE_CONTROL, "public, max-age=31536000, immutable");
    // Opened by itself it is a picture and nothing else.
    set(CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox; frame-ancestors 'none'");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    Ok(response)
}

/// Fetches a logo over the guarded way out.
///
/// # Errors
/// 422 with what is wrong with it, at `/branding/logo_url`.
pub async fn fetch(state: &AppState, url: &str) -> Result<Logo, ApiError> {
    let refuse = |code: &str, detail: String| {
        ApiError::validation("see errors for the fields").with_errors([FieldError::new(AT, code, detail)])
    };
    let address = Address::parse(url).map_err(|error| refuse(error.code(), error.to_string()))?;
    if let Err(error) = address.check(&state.outbound).await {
        return Err(refuse(error.code(), error.to_string()));
    }
    let poster = Poster::new(Arc::clone(&state.outbound), state.tls.clone(), address, PATIENCE);
    let accept = HeaderValue::from_static("image/png, image/jpeg, image/webp, image/gif");
    let headers = HeaderMap::from_iter([(http::header::ACCEPT, accept)]);
    let answer = poster.ask_once(Method::GET, &headers, &Bytes::new(), limits::LOGO_BYTES).await;
    let answer = answer.map_err(|error| match error.0 {
        wire::trouble::Trouble::Protocol => {
            refuse("not-a-picture", format!("no answer over HTTP of at most {} bytes", limits::LOGO_BYTES))
        }
        trouble => refuse(trouble.code(), trouble.text().to_owned()),
    })?;
    if answer.status != StatusCode::OK.as_u16() {
        return Err(refuse("not-a-picture", format!("its server answers {}, and no picture", answer.status)));
    }
    let told = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type =
        picture(&answer.body, told).map_err(|detail| refuse("not-a-picture", detail.to_owned()))?;
    let hash = Sha256::digest(&answer.body).to_vec();
    Ok(Logo { bytes: answer.body.to_vec(), media_type: media_type.to_owned(), hash })
}

/// The type of a picture by its first bytes, if it is one of pixels, of a size that a telephone can show, and is not called
/// something else.
fn picture(bytes: &[u8], told: Option<&str>) -> Result<&'static str, &'static str> {
    let kind = match imagesize::image_type(bytes) {
        Ok(ImageType::Png) => "image/png",
        Ok(ImageType::Jpeg) => "image/jpeg",
        Ok(ImageType::Gif) => "image/gif",
        Ok(ImageType::Webp) => "image/webp",
        _ => return Err("a PNG, JPEG, GIF or WebP picture is expected"),
    };
    let size = imagesize::blob_size(bytes).map_err(|_| "the picture cannot be read")?;
    let fits = |side: usize| (1..=limits::LOGO_PIXELS).contains(&side);
    if !fits(size.width) || !fits(size.height) {
        return Err("the picture has too many pixels, or none");
    }
    let told = told.and_then(|text| text.split(';').next()).map(|text| text.trim().to_ascii_lowercase());
    match told.as_deref() {
        None | Some("" | "application/octet-stream" | "binary/octet-stream") => Ok(kind),
        Some("image/jpg") if kind == "image/jpeg" => Ok(kind),
        Some(told) if told == kind => Ok(kind),
        Some(_) => Err("its server calls the picture something else than it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a PNG (RFC 2083 §3.1, §4.1.1) of this size.
    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend([8, 6, 0, 0, 0]);
        bytes
    }

    #[test]
    fn a_picture_is_what_its_bytes_say_and_its_server_calls_it() {
        assert_eq!(picture(&png(64, 32), Some("image/png")), Ok("image/png"));
        assert_eq!(picture(&png(64, 32), Some("Image/PNG; charset=binary")), Ok("image/png"));
        assert_eq!(picture(&png(64, 32), None), Ok("image/png"));
        assert_eq!(picture(b"GIF89a\x10\0\x10\0\0\0\0;", Some("image/gif")), Ok("image/gif"));
        for (bytes, told) in [
            (png(64, 32), Some("text/html")),
            (png(64, 32), Some("image/svg+xml")),
            (png(100_000, 10), None),
            (png(0, 10), None),
            (
                b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>".to_vec(),
                Some("image/svg+xml"),
            ),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(), Some("image/png")),
            (b"<html>".to_vec(), Some("image/png")),
            (Vec::new(), Some("image/png")),
            (b"\x89PNG\r\n\x1a\n".to_vec(), Some("image/png")),
            (b"BM\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(), Some("image/bmp")),
        ] {
            assert!(picture(&bytes, told).is_err(), "{told:?} {bytes:?}");
        }
    }
}
