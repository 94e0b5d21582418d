//! All that a message shows as HTML: parts of HTML, texts, pictures and files between them. Each is made safe alone, never
//! put together first: what one part leaves open must not change the next.

use super::{Policy, Sanitized, escape, from_text, sanitize, to_text_limited};

/// HTML of all parts together that is made safe as HTML; what follows is shown as text.
const MAX_HTML_BYTES: usize = 4 * 1024 * 1024;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mime) enum Piece {
    /// As it came.
    Html(String),
    /// Text without markup.
    Text(String),
    /// A picture that is attached.
    Picture {
        /// Its number.
        index: usize,
        /// Its file name; may be empty.
        name: String,
    },
    /// Another file.
    File {
        /// Its name.
        name: String,
    },
}

/// The HTML of a message as it came: make it safe before it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Html {
    pieces: Vec<Piece>,
}

impl Html {
    pub(in crate::mime) fn new(pieces: Vec<Piece>) -> Self {
        Self { pieces }
    }

    /// One part of HTML.
    #[must_use]
    pub fn from_source(html: &str) -> Self {
        Self { pieces: vec![Piece::Html(html.to_owned())] }
    }

    /// The sources of its HTML parts.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|p| match p {
            Piece::Html(html) => Some(html.as_str()),
            _ => None,
        })
    }

    /// All of it as text with its links; of each part the first mebibyte.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            let next = match piece {
                Piece::Html(html) => to_text_limited(html),
                Piece::Text(text) => text.clone(),
                Piece::File { name } => format!("[{name}]\n"),
                Piece::Picture { .. } => continue,
            };
            if !out.is_empty() && !next.is_empty() {
                out.push('\n');
            }
            out.push_str(&next);
        }
        out
    }

    /// Makes it safe, part by part. `picture` says where a picture between the parts can be loaded from.
    #[must_use]
    pub fn sanitize(&self, policy: &Policy<'_>, picture: &dyn Fn(usize) -> Option<String>) -> Sanitized {
        let mut all = Sanitized::default();
        let mut room = MAX_HTML_BYTES;
        for piece in &self.pieces {
            match piece {
                Piece::Html(html) => {
                    let small = super::without_data(html);
                    let safe =
                        if small.len() > room { super::text_only(&small) } else { sanitize(html, policy) };
                    room = room.saturating_sub(small.len());
                    all.remote_blocked |= safe.remote_blocked;
                    all.text_only |= safe.text_only;
                    all.cut |= safe.cut;
                    all.html.push_str(&safe.html);
                }
                Piece::Text(text) => all.html.push_str(&from_text(text)),
                Piece::Picture { index, name } => {
                    if let Some(url) = picture(*index) {
                        let image =
                            format!("<div><img src=\"{}\" alt=\"{}\"></div>", escape(&url), escape(name));
                        all.html.push_str(&image);
                    }
                }
                Piece::File { name } => all.html.push_str(&format!("<div>[{}]</div>", escape(name))),
            }
        }
        all
    }
}
