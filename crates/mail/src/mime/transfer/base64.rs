//! base64, as RFC 2045 §6.8 has it and as people's mail does: without its padding, with noise in it, with a footer behind it
//! that somebody appended to what was encoded already.

use super::by_line;

/// A line behind the end is more base64 only if it is this long or padded itself; shorter ones may be words.
const SURELY_BASE64: usize = 40;
/// Of a line that is data one character in so many may be none of base64's.
const NOISE: usize = 16;
/// What is looked at to tell text from base64.
const SAMPLE_BYTES: usize = 1024;

#[expect(clippy::indexing_slicing, reason = "a byte as index into 256 entries, at compile time")]
const fn sextets() -> [u8; 256] {
    let mut table = [255u8; 256];
    let mut i: u8 = 0;
    while i < 64 {
        let c = match i {
            0..=25 => b'A' + i,
            26..=51 => b'a' + (i - 26),
            52..=61 => b'0' + (i - 52),
            62 => b'+',
            _ => b'/',
        };
        table[c as usize] = i;
        i += 1;
    }
    table
}

static SEXTETS: [u8; 256] = sextets();

fn sextet(b: u8) -> u8 {
    SEXTETS.get(usize::from(b)).copied().unwrap_or(255)
}

fn is_coded(b: u8) -> bool {
    sextet(b) < 64
}

/// base64 that comes in pieces. A line is data or a footer, and is judged as a whole; behind a footer nothing is read. Within
/// data everything outside the alphabet is skipped.
#[derive(Debug, Default)]
pub(in crate::mime) struct Base64 {
    group: u32,
    filled: u8,
    /// The line that has no end yet.
    line: Vec<u8>,
    /// How long the first line was: senders write all but the last of one length.
    width: Option<usize>,
    /// The first line has blanks within, so blanks tell nothing.
    spaced: bool,
    /// The last line was shorter, or empty: the data may be over.
    short: bool,
    /// There was padding: the data is over but for what is base64 beyond doubt, as where a sender encoded piece by piece.
    padded: bool,
    /// The next piece goes on with a line.
    within: bool,
    ended: bool,
    /// What a line gives.
    out: Vec<u8>,
}

impl Base64 {
    pub fn push(&mut self, piece: &[u8], sink: &mut impl FnMut(&[u8])) {
        if self.ended {
            return;
        }
        let mut kept = std::mem::take(&mut self.line);
        by_line(&mut kept, piece, |line| self.read(line, sink));
        self.line = kept;
    }

    pub fn finish(mut self, sink: &mut impl FnMut(&[u8])) {
        let last = std::mem::take(&mut self.line);
        self.read(&last, sink);
        self.flush();
        sink(&self.out);
    }

    fn read(&mut self, line: &[u8], sink: &mut impl FnMut(&[u8])) {
        let goes_on = std::mem::replace(&mut self.within, !line.ends_with(b"\n"));
        let text = line.trim_ascii();
        if self.ended || text.is_empty() {
            self.short |= self.width.is_some();
            return;
        }
        let clean = text.iter().all(|b| is_coded(*b));
        if !goes_on && !self.is_data(text, clean) {
            self.ended = true;
            return;
        }
        if clean && !self.padded {
            self.digits(text);
        } else {
            self.mixed(text);
        }
        sink(&self.out);
        self.out.clear();
    }

    /// Whether a line goes on with the data.
    fn is_data(&mut self, line: &[u8], clean: bool) -> bool {
        let Some(width) = self.width else {
            self.width = Some(line.len());
            self.spaced = line.contains(&b' ');
            return true;
        };
        if self.padded {
            return goes_on_behind_padding(line);
        }
        let ending = self.short;
        self.short = line.len() < width;
        if clean {
            // A word, where the data may be over and ends as data may.
            let word = ending && matches!(self.filled, 2 | 3) && line.len() < SURELY_BASE64;
            return !word;
        }
        let padding = line.iter().rev().take_while(|b| **b == b'=').count();
        let data = line.get(..line.len() - padding).unwrap_or_default();
        let blanks = data.iter().filter(|b| b.is_ascii_whitespace()).count();
        let foreign = data.iter().filter(|b| !is_coded(**b)).count() - blanks;
        let few = foreign <= data.len() / NOISE || (padding > 0 && foreign < 2);
        (blanks == 0 || self.spaced) && few && (padding > 0 || foreign == 0 || !ending)
    }

    /// Nothing but digits.
    fn digits(&mut self, mut text: &[u8]) {
        while self.filled != 0
            && let Some((&b, rest)) = text.split_first()
        {
            self.digit(b);
            text = rest;
        }
        let (quads, rest) = text.as_chunks::<4>();
        for quad in quads {
            let [a, b, c, d] = quad.map(|b| u32::from(sextet(b)));
            let [_, a, b, c] = (a << 18 | b << 12 | c << 6 | d).to_be_bytes();
            self.out.extend_from_slice(&[a, b, c]);
        }
        rest.iter().for_each(|b| self.digit(*b));
    }

    /// Digits, what is none, and padding, behind which the rest of the line is judged once more.
    fn mixed(&mut self, text: &[u8]) {
        let mut rest = text;
        loop {
            let end = rest.iter().position(|b| *b == b'=').unwrap_or(rest.len());
            let (data, tail) = rest.split_at(end);
            data.iter().filter(|b| is_coded(**b)).for_each(|b| self.digit(*b));
            let padding = tail.iter().take_while(|b| **b == b'=').count();
            if padding == 0 {
                return;
            }
            self.flush();
            self.padded = true;
            rest = tail.get(padding..).unwrap_or_default();
            if !rest.is_empty() && !goes_on_behind_padding(rest) {
                self.ended = true;
                return;
            }
        }
    }

    fn digit(&mut self, b: u8) {
        self.group = self.group << 6 | u32::from(sextet(b));
        self.filled += 1;
        if self.filled == 4 {
            let [_, a, b, c] = self.group.to_be_bytes();
            self.out.extend_from_slice(&[a, b, c]);
            (self.group, self.filled) = (0, 0);
        }
    }

    fn flush(&mut self) {
        match self.filled {
            2 => self.out.push((self.group >> 4).to_be_bytes()[3]),
            3 => {
                let [_, _, a, b] = (self.group >> 2).to_be_bytes();
                self.out.extend_from_slice(&[a, b]);
            }
            _ => {}
        }
        (self.group, self.filled) = (0, 0);
    }
}

fn goes_on_behind_padding(line: &[u8]) -> bool {
    let padding = line.iter().take_while(|b| **b == b'=').count();
    let line = line.get(padding..).unwrap_or_default().trim_ascii();
    let coded = line.iter().all(|b| is_coded(*b) || *b == b'=') && line.len().is_multiple_of(4);
    coded && (line.is_empty() || line.len() >= SURELY_BASE64 || line.ends_with(b"="))
}

/// How many bytes base64 holds, where it is written as it should be, in lines of one length: files are most of a message, and
/// each is measured whenever the message is read. `None` for what must be decoded to tell.
pub(super) fn length(encoded: &[u8]) -> Option<usize> {
    let text = encoded.trim_ascii();
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let data = text.get(..text.len() - padding)?;
    let digits = count_coded(data);
    if digits < data.len() {
        let width = data.iter().position(|b| !is_coded(*b))?;
        let end = if data.get(width) == Some(&b'\r') { b"\r\n".as_slice() } else { b"\n" };
        let step = width + end.len();
        let mut ends = 0;
        for (n, expected) in end.iter().enumerate() {
            let mut places = data.iter().skip(width + n).step_by(step);
            ends += places.len();
            if !places.all(|b| b == expected) {
                return None;
            }
        }
        // So what is no digit is the end of a line, and where it should be.
        if digits + ends != data.len() {
            return None;
        }
    }
    Some(digits / 4 * 3 + (digits % 4).saturating_sub(1))
}

/// How many bytes are of the alphabet. Counted in bytes, of which a processor adds many at once.
fn count_coded(data: &[u8]) -> usize {
    let coded = |b: &u8| u8::from(b.is_ascii_alphanumeric() || *b == b'+' || *b == b'/');
    data.chunks(128).map(|chunk| usize::from(chunk.iter().map(coded).sum::<u8>())).sum()
}

/// The bytes of an encoded word: short, so padding within it (two words that somebody glued together) ends nothing.
pub(in crate::mime) fn word(encoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut sink = |bytes: &[u8]| out.extend_from_slice(bytes);
    for piece in encoded.split(|b| *b == b'=') {
        let mut decoder = Base64::default();
        decoder.push(piece, &mut sink);
        decoder.finish(&mut sink);
    }
    out
}

/// Whether a part that is labelled base64 is text as it stands: its first line has what base64 has not, and decoded it is
/// no text. Only for parts that hold text; what follows the part may stand behind it.
pub(in crate::mime) fn is_text_after_all(encoded: &[u8]) -> bool {
    let sample = encoded.get(..SAMPLE_BYTES).unwrap_or(encoded).trim_ascii();
    let line = sample.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    if line.is_empty() || line.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return false;
    }
    let padding = line.iter().rev().take_while(|b| **b == b'=').count();
    let digits = line.get(..line.len() - padding).unwrap_or_default();
    let clean = digits.iter().all(|b| is_coded(*b));
    if clean && (line.len().is_multiple_of(4) || line.len() == sample.len().max(SAMPLE_BYTES)) {
        return false;
    }
    let mut decoded = Vec::new();
    let mut decoder = Base64::default();
    decoder.push(sample, &mut |bytes| decoded.extend_from_slice(bytes));
    decoder.finish(&mut |bytes| decoded.extend_from_slice(bytes));
    let control = |b: &u8| b.is_ascii_control() && !matches!(b, b'\t' | b'\r' | b'\n' | 0x0c | 0x1b);
    if decoded.is_empty() || decoded.iter().any(control) {
        return true;
    }
    // The sample may end within a character.
    let utf8 = std::str::from_utf8(&decoded).err().is_none_or(|e| e.error_len().is_none());
    !utf8 && !looks_coded(digits, padding > 0)
}

/// Whether a line is base64 by its look: of its letters most stand in what is no word and no number. For text in a charset
/// of one byte a character, of which any bytes might be text.
fn looks_coded(line: &[u8], padded: bool) -> bool {
    if !line.iter().all(|b| is_coded(*b) || b.is_ascii_whitespace()) {
        return false;
    }
    let is_word = |piece: &[u8]| {
        let lower = |p: &[u8]| p.iter().all(u8::is_ascii_lowercase);
        lower(piece)
            || piece.iter().all(u8::is_ascii_uppercase)
            || piece.iter().all(u8::is_ascii_digit)
            || piece.split_first().is_some_and(|(first, rest)| first.is_ascii_uppercase() && lower(rest))
    };
    let pieces = line.split(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'+'));
    let words: usize = pieces.clone().filter(|p| is_word(p)).map(<[u8]>::len).sum();
    let all: usize = pieces.map(<[u8]>::len).sum();
    padded || words * 2 < all
}

#[cfg(test)]
mod tests;
