//! A message's own pictures put into its HTML, for a reader that can send no header with what it loads.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use emailclient_core::platform::id::MessageId;
use mail::mime::AttachmentMeta;
use wire::secret::Secret;

use crate::caller::Caller;
use crate::part_token::{self, Whose};
use crate::state::AppState;

/// What of a picture is embedded; a larger one stays linked.
const EMBEDDED_BYTES: u64 = 5 * 1024 * 1024;
/// What is embedded in one HTML. A picture counts each time that it is shown: one of 5 MiB may be shown 60,000 times.
const ALL_EMBEDDED_BYTES: u64 = 20 * 1024 * 1024;
/// SVG can hold scripts and references, so raster images only.
const RASTER: [&str; 6] = ["image/png", "image/gif", "image/jpeg", "image/jpg", "image/webp", "image/bmp"];

/// Where an attachment of the message can be loaded from.
pub(super) fn address(id: MessageId, index: usize) -> String {
    format!("/api/messages/{id}/attachments/{index}")
}

/// Who is given addresses that a browser can load.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    key: Secret,
    pub(super) whose: Whose,
}

impl Signer {
    /// For this caller, from now on.
    pub(super) fn new(state: &AppState, caller: &Caller) -> Self {
        let whose = Whose {
            tenant: caller.tenant(),
            user: caller.user.id,
            session: caller.session_id,
            until: part_token::until(state.clock.now()),
        };
        Self { key: state.config.jwt_secret.clone(), whose }
    }

    /// As [`address`], with the token.
    pub(super) fn address(&self, id: MessageId, index: usize) -> Option<String> {
        let token = part_token::sign(&self.key, &self.whose, id, u32::try_from(index).ok()?);
        Some(format!("{}?{}={token}", address(id, index), part_token::PARAMETER))
    }
}

/// Replaces the addresses of pictures in HTML that was made safe by the pictures, as long as there is room; the others
/// stay addresses. Linear in what comes out.
pub(super) fn embed(id: MessageId, raw: &[u8], listed: &[AttachmentMeta], html: &str) -> String {
    // The sanitiser quotes each value like this, and lets no sender write an address of ours.
    let mark = format!("=\"{}", address(id, 0).trim_end_matches('0'));
    let mut pieces = html.split(mark.as_str());
    let mut out = pieces.next().unwrap_or_default().to_owned();
    let shown: Vec<(Option<usize>, &str)> = pieces.map(|piece| (number(piece), piece)).collect();
    let room = within_budget(&shown, listed);
    let data = mail::mime::attachments(raw, room.iter().flatten().copied());
    let urls: HashMap<usize, String> = data
        .into_iter()
        .map(|(n, a)| (n, format!("data:{};base64,{}", a.content_type, STANDARD.encode(a.bytes))))
        .collect();
    for ((_, piece), embedded) in shown.into_iter().zip(room) {
        let url = embedded.and_then(|n| urls.get(&n));
        match url.zip(piece.split_once('"')) {
            Some((url, (_, tail))) => {
                out.push_str("=\"");
                out.push_str(url);
                out.push('"');
                out.push_str(tail);
            }
            None => {
                out.push_str(&mark);
                out.push_str(piece);
            }
        }
    }
    out
}

fn number(piece: &str) -> Option<usize> {
    let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
    piece.get(..digits)?.parse().ok()
}

/// For each place the picture that is to stand there.
fn within_budget(shown: &[(Option<usize>, &str)], listed: &[AttachmentMeta]) -> Vec<Option<usize>> {
    let mut spent = 0u64;
    let fits = |(index, _): &(Option<usize>, &str)| {
        let meta = index.and_then(|n| listed.get(n))?;
        let all = spent.saturating_add(meta.size_bytes);
        let raster = RASTER.contains(&meta.content_type.as_str());
        let fits = raster && meta.size_bytes <= EMBEDDED_BYTES && all <= ALL_EMBEDDED_BYTES;
        spent = if fits { all } else { spent };
        fits.then_some(meta.index)
    };
    shown.iter().map(fits).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use emailclient_core::platform::id::{MessageId, SessionId, TenantId, UserId};
    use wire::secret::Secret;

    use super::Signer;
    use crate::part_token::Whose;
    use crate::routes::messages::content::{Pictures, readable};

    pub(in crate::routes::messages) fn signer() -> Signer {
        let (tenant, user, session) = (TenantId::new(), UserId::new(), SessionId::new());
        Signer { key: Secret::new("k".repeat(32)), whose: Whose { tenant, user, session, until: 0 } }
    }

    fn with_pictures(html: &str, pictures: &[(&str, usize)]) -> String {
        let mut raw = format!(
            "Content-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n{html}\r\n"
        );
        for (fields, bytes) in pictures {
            let head = format!("--b\r\nContent-Type: image/png\r\n{fields}\r\n\r\n");
            raw.push_str(&head);
            raw.push_str(&"x".repeat(*bytes));
            raw.push_str("\r\n");
        }
        raw + "--b--\r\n"
    }

    fn embedded(html: &str, pictures: &[(&str, usize)]) -> String {
        let raw = with_pictures(html, pictures);
        readable(MessageId::new(), raw.as_bytes(), false, &Pictures::Embedded(signer())).html.unwrap().html
    }

    #[test]
    fn what_is_embedded_is_bounded_however_often_a_picture_is_shown() {
        for (src, fields) in [("cid:x@y", "Content-ID: <x@y>"), ("x.png", "Content-Location: x.png")] {
            let html = format!("<img src=\"{src}\">").repeat(3000);
            let safe = embedded(&html, &[(fields, 4 << 20)]);
            assert!(safe.len() < 40 << 20, "{}", safe.len());
            assert_eq!(safe.matches("src=\"data:image/png;base64,").count(), 5, "{src}");
            assert_eq!(safe.matches("src=\"/api/messages/").count(), 2995, "{src}");
        }
    }

    #[test]
    fn a_picture_counts_when_it_is_shown_and_once_by_whatever_name() {
        let both = |n: usize| format!("Content-ID: <{n}@x>\r\nContent-Location: p{n}.png");
        let fields: Vec<String> = (0..6).map(both).collect();
        let pictures: Vec<(&str, usize)> = fields.iter().map(|f| (f.as_str(), 4 << 20)).collect();
        let html: String = (1..6).map(|n| format!("<img src=\"cid:{n}@x\">")).collect();
        let safe = embedded(&html, &pictures);
        assert_eq!(safe.matches("src=\"data:image/png;base64,").count(), 5);
    }
}
