//! uuencode, as POSIX has it: `begin MODE NAME`, lines whose first character counts their bytes, `end`.

use super::LONGEST_LINE;
use crate::mime::header::trim_line_end;

/// Decodes what comes in pieces: what stands before `begin` and behind `end` is no data.
#[derive(Debug, Default)]
pub(in crate::mime) struct Uu {
    line: Vec<u8>,
    begun: bool,
    ended: bool,
}

impl Uu {
    pub fn push(&mut self, piece: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut rest = piece;
        while !rest.is_empty() && !self.ended {
            let end = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
            let (now, later) = rest.split_at(end);
            rest = later;
            // No line of data has more than 62 characters; of a longer one the rest is noise.
            let room = LONGEST_LINE.saturating_sub(self.line.len()).min(now.len());
            self.line.extend_from_slice(now.get(..room).unwrap_or_default());
            if now.ends_with(b"\n") {
                self.line_done(sink);
            }
        }
    }

    pub fn finish(mut self, sink: &mut impl FnMut(&[u8])) {
        if !self.ended {
            self.line_done(sink);
        }
    }

    fn line_done(&mut self, sink: &mut impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        let text = trim_line_end(&line);
        if !self.begun {
            self.begun = begin_line(text).is_some();
        } else if text == b"end" {
            self.ended = true;
        } else {
            sink(&data_line(text));
        }
    }
}

/// The name in a line that begins a file.
pub(in crate::mime) fn begin_line(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"begin ")?;
    let (mode, name) = rest.split_at(rest.iter().position(|b| *b == b' ')?);
    let octal = matches!(mode.len(), 3 | 4) && mode.iter().all(|b| (b'0'..=b'7').contains(b));
    let name = name.trim_ascii();
    (octal && !name.is_empty()).then_some(name)
}

/// Whether a line can be data: it holds as much as its first character says, give or take the padding.
pub(in crate::mime) fn is_data_line(line: &[u8]) -> bool {
    let Some((&count, data)) = line.split_first() else { return false };
    let coded = |b: &u8| (0x20..=0x60).contains(b);
    let wanted = usize::from(value(count)).div_ceil(3) * 4;
    coded(&count) && data.iter().all(coded) && data.len() <= wanted + 4 && data.len() + 4 >= wanted
}

fn value(b: u8) -> u8 {
    b.wrapping_sub(0x20) & 0x3f
}

fn data_line(line: &[u8]) -> Vec<u8> {
    let Some((&count, data)) = line.split_first() else { return Vec::new() };
    let wanted = usize::from(value(count));
    let mut out = Vec::with_capacity(wanted + 3);
    for group in data.chunks(4) {
        // Blanks at the end of a line get lost on the way.
        let at = |n: usize| u32::from(group.get(n).map_or(0, |b| value(*b)));
        let bits = at(0) << 18 | at(1) << 12 | at(2) << 6 | at(3);
        let [_, a, b, c] = bits.to_be_bytes();
        out.extend([a, b, c]);
    }
    out.resize(wanted, 0);
    out
}
