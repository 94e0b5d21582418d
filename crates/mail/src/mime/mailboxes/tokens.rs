//! A list of addresses as tokens (RFC 5322 §3.2), on bytes.

use super::super::words;

/// A token; blanks and folds between tokens are one [`Token::Gap`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Gap,
    /// Without its outer brackets.
    Comment(&'a [u8]),
    /// Without its quotes, still escaped.
    Quoted(&'a [u8]),
    /// What stands between angle brackets.
    Angle(&'a [u8]),
    /// An atom with its dots, an encoded word, a domain literal.
    Text(&'a [u8]),
    At,
    Comma,
    /// The name of a group has ended and is no address.
    Group,
    /// `;`
    GroupEnd,
}

pub(super) struct Tokens<'a> {
    rest: &'a [u8],
    /// Semicolons left: a colon without one is part of a name.
    semicolons: usize,
    /// An odd number of quotes: one of them ends nothing.
    odd_quotes: bool,
    /// Nothing ends a quote or a comment any more; each is looked for once.
    no_quote: bool,
    no_comment: bool,
    /// What is left of the field behind its last `?=`: from there on no encoded word ends.
    behind_words: usize,
    /// No bracket ends outside quotes any more, by whether the bracket is a route's and whether an odd number of quotes
    /// stood before it: each is looked for once.
    no_angle: [[bool; 2]; 2],
    quotes_odd: bool,
    after_at: bool,
}

impl<'a> Tokens<'a> {
    pub fn new(field: &'a [u8]) -> Self {
        let count = |wanted: u8| field.iter().filter(|b| **b == wanted).count();
        Self {
            rest: field,
            semicolons: count(b';'),
            odd_quotes: !count(b'"').is_multiple_of(2),
            no_quote: false,
            no_comment: false,
            behind_words: field
                .array_windows::<2>()
                .rposition(|w| w == b"?=")
                .map_or(usize::MAX, |at| field.len() - at),
            no_angle: [[false; 2]; 2],
            quotes_odd: false,
            after_at: false,
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        self.quotes_odd ^= !taken.iter().filter(|b| **b == b'"').count().is_multiple_of(2);
        taken
    }

    /// Whether an encoded word that begins here may end.
    fn may_be_word(&self, rest: &[u8]) -> bool {
        rest.starts_with(b"=?") && self.behind_words != usize::MAX && rest.len() >= self.behind_words + 2
    }

    /// What stands before the closing byte `length` bytes on, the opening one dropped.
    fn inside(&mut self, length: usize) -> &'a [u8] {
        let taken = self.take(length + 2);
        taken.get(1..length + 1).unwrap_or_default()
    }

    fn quoted(&mut self) -> Option<Token<'a>> {
        let inner = self.rest.get(1..)?;
        let end = if self.no_quote { None } else { closing(inner, |b, _| b == b'"') };
        let Some(end) = end else {
            self.no_quote = true;
            return None;
        };
        let text = inner.get(..end)?;
        if self.odd_quotes && text.contains(&b'@') && text.contains(&b'<') {
            self.odd_quotes = false;
            return None;
        }
        Some(Token::Quoted(self.inside(end)))
    }

    fn comment(&mut self) -> Option<Token<'a>> {
        let inner = self.rest.get(1..)?;
        let mut depth = 1usize;
        let end = if self.no_comment {
            None
        } else {
            closing(inner, |b, _| {
                match b {
                    b'(' => depth += 1,
                    b')' => depth -= 1,
                    _ => {}
                }
                depth == 0
            })
        };
        self.no_comment = end.is_none();
        Some(Token::Comment(self.inside(end?)))
    }

    /// Up to `>`; where that is missing, up to the next comma. A route (`<@a,@b:c@d>`) has commas of its own.
    fn angle(&mut self) -> Token<'a> {
        let inner = self.rest.get(1..).unwrap_or_default();
        let route = inner.trim_ascii_start().starts_with(b"@");
        let mut quoted = false;
        let known =
            self.no_angle.get_mut(usize::from(route)).and_then(|r| r.get_mut(usize::from(self.quotes_odd)));
        let end = match known {
            Some(none) if !*none => {
                let end = closing(inner, |b, _| {
                    quoted ^= b == b'"';
                    !quoted && (b == b'>' || (!route && matches!(b, b',' | b';')))
                });
                *none = end.is_none();
                end
            }
            _ => None,
        };
        let end =
            end.or_else(|| closing(inner, |b, _| matches!(b, b'>' | b',' | b';'))).unwrap_or(inner.len());
        let token = Token::Angle(inner.get(..end).unwrap_or_default());
        let closed = inner.get(end) == Some(&b'>');
        self.take(end + 1 + usize::from(closed));
        // `<<a@x>>` has one more.
        let more = self.rest.iter().take_while(|b| **b == b'>').count();
        self.take(more);
        token
    }

    fn text(&mut self) -> Token<'a> {
        if self.may_be_word(self.rest)
            && let Some(length) = words::encoded_word_length(self.rest)
        {
            return Token::Text(self.take(length));
        }
        if self.after_at && self.rest.starts_with(b"[") {
            let end = self.rest.iter().position(|b| *b == b']' || *b == b',').unwrap_or(self.rest.len());
            let closed = self.rest.get(end) == Some(&b']');
            return Token::Text(self.take(end + usize::from(closed)));
        }
        // An encoded word may follow an atom directly.
        let ends = |w: &[u8]| {
            let special = |b: &u8| b.is_ascii_whitespace() || b"()<>,;:@\"".contains(b);
            w.first().is_some_and(special) || self.may_be_word(w)
        };
        let end =
            (1..self.rest.len()).find(|at| self.rest.get(*at..).is_some_and(ends)).unwrap_or(self.rest.len());
        Token::Text(self.take(end))
    }

    fn colon(&mut self) -> Token<'a> {
        let after = self.rest.get(1..).unwrap_or_default();
        if self.semicolons > 0 || after.iter().all(u8::is_ascii_whitespace) {
            self.take(1);
            return Token::Group;
        }
        Token::Text(self.take(1))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let first = *self.rest.first()?;
        let token = match first {
            b if b.is_ascii_whitespace() => {
                let length = self.rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
                self.take(length);
                return Some(Token::Gap);
            }
            b'"' => match self.quoted() {
                Some(token) => token,
                None => {
                    self.take(1);
                    return Some(Token::Gap);
                }
            },
            b'(' => self.comment().unwrap_or_else(|| Token::Text(self.take(1))),
            b'<' => self.angle(),
            b',' | b';' | b'@' | b':' => match first {
                b':' => self.colon(),
                _ => {
                    self.take(1);
                    match first {
                        b',' => Token::Comma,
                        b'@' => Token::At,
                        _ => {
                            self.semicolons = self.semicolons.saturating_sub(1);
                            Token::GroupEnd
                        }
                    }
                }
            },
            b'>' | b')' => {
                self.take(1);
                return Some(Token::Gap);
            }
            _ => self.text(),
        };
        self.after_at = token == Token::At;
        Some(token)
    }
}

/// Where the first byte stands that ends it and is not escaped.
fn closing(inner: &[u8], mut ends: impl FnMut(u8, usize) -> bool) -> Option<usize> {
    let mut escaped = false;
    inner.iter().enumerate().position(|(at, &b)| {
        let was = escaped;
        escaped = b == b'\\' && !was;
        !was && ends(b, at)
    })
}
