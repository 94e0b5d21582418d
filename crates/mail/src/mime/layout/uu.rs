//! uuencoded files within a plain text, as programs without MIME send them.

use std::ops::Range;

use memchr::memmem;

use crate::mime::charset::{self, Fallback};
use crate::mime::header::{line_len, trim_line_end};
use crate::mime::part::Transfer;
use crate::mime::structure::Part;
use crate::mime::transfer::uu::{begin_line, is_data_line};

/// Files looked for in one text.
const MAX_FILES: usize = 100;
/// How the line before the data begins.
const BEGIN: &[u8] = b"begin ";

/// Where the files of a text stand in the message, and their names.
pub(super) fn files<'a>(
    raw: &'a [u8],
    part: &Part<'_>,
) -> impl Iterator<Item = (Range<usize>, String)> + use<'a> {
    let body = if part.info.transfer == Transfer::Identity { part.body.clone() } else { 0..0 };
    let start = body.start;
    regions(raw.get(body).unwrap_or_default())
        .map(move |(range, name)| (start + range.start..start + range.end, name))
        .take(MAX_FILES)
}

/// The text without its files.
pub(in crate::mime) fn without_files(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut from = 0;
    for (range, _) in regions(body).take(MAX_FILES) {
        out.extend_from_slice(body.get(from..range.start).unwrap_or_default());
        from = range.end;
    }
    out.extend_from_slice(body.get(from..).unwrap_or_default());
    out
}

fn regions(body: &[u8]) -> impl Iterator<Item = (Range<usize>, String)> + '_ {
    let begin = memmem::Finder::new(BEGIN);
    let mut pos = 0;
    std::iter::from_fn(move || {
        while let Some(found) = body.get(pos..).and_then(|rest| begin.find(rest)) {
            let start = pos + found;
            pos = start + BEGIN.len();
            if start > 0 && body.get(start - 1) != Some(&b'\n') {
                continue;
            }
            let rest = body.get(start..).unwrap_or_default();
            let length = line_len(rest);
            if let Some(name) = begin_line(trim_line_end(rest.get(..length).unwrap_or_default()))
                && let Some(data) = data_length(rest.get(length..).unwrap_or_default())
            {
                pos = start + length + data;
                return Some((start..pos, charset::guess(name, Fallback::default())));
            }
        }
        None
    })
}

/// How far lines of data reach, with the line that ends them. None where they break off: then it was a sentence. What was
/// looked at in vain is text without such lines, so few texts are looked at twice.
fn data_length(rest: &[u8]) -> Option<usize> {
    let mut pos = 0;
    while let Some(line) = rest.get(pos..).filter(|r| !r.is_empty()) {
        let length = line_len(line);
        let text = trim_line_end(line.get(..length).unwrap_or_default());
        pos += length;
        if text == b"end" {
            return (pos > length).then_some(pos);
        }
        if !text.is_empty() && !is_data_line(text) {
            return None;
        }
    }
    None
}
