//! What a response means: one tolerant tokenizer over the parts that `guard.rs` delivers.
//!
//! Everything the server says is read here into [`Response`]; the arguments of data responses stay a
//! [`Cursor`], which each verb file reads by itself, so a response nobody asked for costs nothing. A line
//! that cannot be read is [`Response::Unknown`] and skipped, never fatal. Recursion is bounded by the depth
//! that the guard allows and again here.

use bytes::Bytes;

use super::guard::{MAX_DEPTH, Oversized, Part, RawResponse};

/// A status word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    No,
    Bad,
    Bye,
    Preauth,
}

impl Status {
    /// As it is counted.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::No => "no",
            Self::Bad => "bad",
            Self::Bye => "bye",
            Self::Preauth => "preauth",
        }
    }
}

/// A response code: `[NAME arguments]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code {
    /// In capitals.
    pub name: String,
    pub arguments: Bytes,
}

/// Status, code and text of a status response.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub status: Status,
    pub code: Option<Code>,
    /// Without the code, as sent.
    pub text: Bytes,
}

/// One response.
#[derive(Debug)]
pub(super) enum Response {
    Continue(Bytes),
    Tagged { tag: Bytes, condition: Condition },
    Untagged(Untagged),
}

/// One untagged response.
#[derive(Debug)]
pub(super) enum Untagged {
    Condition(Condition),
    Exists(u32),
    Expunge,
    Fetch(Fetch),
    /// Name in capitals.
    Data(String, Cursor),
    Unknown,
}

/// The items of a FETCH response, by name in capitals, with what was reserved for its body.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    pub items: Vec<(String, Value)>,
    pub permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// An atom, number or flag; NIL stays an atom, because a mailbox may be called so.
    Atom(Bytes),
    /// Quoted string or literal.
    Text(Bytes),
    /// A literal that was too large to keep.
    Skipped(Oversized),
    List(Vec<Self>),
}

impl Value {
    /// The bytes of an atom or string.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Atom(b) | Self::Text(b) => Some(b),
            Self::Skipped(_) | Self::List(_) => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        self.bytes().and_then(|b| std::str::from_utf8(b).ok())
    }

    pub fn number(&self) -> Option<u64> {
        self.text()?.parse().ok()
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Atom(b) if b.eq_ignore_ascii_case(b"NIL"))
    }

    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(l) => Some(l),
            _ => None,
        }
    }
}

/// A position in a response.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    parts: std::vec::IntoIter<Part>,
    text: Bytes,
}

impl Cursor {
    fn new(parts: Vec<Part>) -> Self {
        let mut parts = parts.into_iter();
        let text = match parts.next() {
            Some(Part::Text(text)) => text,
            _ => Bytes::new(),
        };
        Self { parts, text }
    }

    /// For texts that stand alone, such as the arguments of a response code.
    pub fn over(text: Bytes) -> Self {
        Self { parts: Vec::new().into_iter(), text }
    }

    fn advance(&mut self, count: usize) {
        let _ = self.text.split_to(count.min(self.text.len()));
    }

    fn skip_spaces(&mut self) {
        let spaces = self.text.iter().take_while(|b| **b == b' ').count();
        self.advance(spaces);
    }

    /// What is left of the current line, unread.
    pub fn rest(&self) -> &Bytes {
        &self.text
    }

    /// The next value; `None` at the end, at a closing parenthesis, or when nothing sensible stands there.
    pub fn value(&mut self) -> Option<Value> {
        self.value_within(MAX_DEPTH)
    }

    fn value_within(&mut self, depth: usize) -> Option<Value> {
        self.skip_spaces();
        match self.text.first() {
            Some(b'(') => {
                let depth = depth.checked_sub(1)?;
                self.advance(1);
                let mut items = Vec::new();
                while let Some(item) = self.value_within(depth) {
                    items.push(item);
                }
                self.skip_spaces();
                if self.text.first() != Some(&b')') {
                    return None;
                }
                self.advance(1);
                Some(Value::List(items))
            }
            Some(b'"') => self.quoted().map(Value::Text),
            Some(b')') => None,
            Some(b'~') if self.text.len() == 1 => {
                self.advance(1);
                self.literal()
            }
            Some(_) => Some(Value::Atom(self.atom())),
            None => self.literal(),
        }
    }

    fn literal(&mut self) -> Option<Value> {
        let value = match self.parts.next()? {
            Part::Literal(bytes) => Value::Text(bytes),
            Part::Skipped(oversized) => Value::Skipped(oversized),
            Part::Text(text) => {
                self.text = text;
                return None;
            }
        };
        if let Some(Part::Text(text)) = self.parts.next() {
            self.text = text;
        }
        Some(value)
    }

    /// Never empty: the first byte is taken whatever it is, so that a caller's loop always moves.
    fn atom(&mut self) -> Bytes {
        let rest = self.text.iter().skip(1);
        let length = 1 + rest.take_while(|b| !matches!(**b, b' ' | b'(' | b')' | b'"')).count();
        self.text.split_to(length.min(self.text.len()))
    }

    fn quoted(&mut self) -> Option<Bytes> {
        let mut escaped = false;
        let mut has_escapes = false;
        let end = self.text.iter().skip(1).position(|b| {
            let closes = *b == b'"' && !escaped;
            escaped = *b == b'\\' && !escaped;
            has_escapes |= escaped;
            closes
        })?;
        let raw = self.text.slice(1..=end);
        self.advance(end + 2);
        if !has_escapes {
            return Some(raw);
        }
        let mut plain = Vec::with_capacity(raw.len());
        let mut bytes = raw.iter();
        while let Some(byte) = bytes.next() {
            plain.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
        }
        Some(plain.into())
    }

    /// The name of a FETCH item: an atom in which brackets may hold anything (`BODY[HEADER.FIELDS (X)]<0>`).
    fn item_name(&mut self) -> Option<String> {
        self.skip_spaces();
        let mut in_brackets = false;
        let ends = |b: &u8| {
            in_brackets = (in_brackets || *b == b'[') && *b != b']';
            !in_brackets && matches!(*b, b' ' | b')' | b'(')
        };
        let length = self.text.iter().position(ends).unwrap_or(self.text.len());
        let name = self.text.split_to(length);
        (!name.is_empty()).then(|| String::from_utf8_lossy(&name).to_ascii_uppercase())
    }

    fn word(&mut self) -> Bytes {
        let length = self.text.iter().position(|b| *b == b' ').unwrap_or(self.text.len());
        let word = self.text.split_to(length);
        self.skip_spaces();
        word
    }
}

/// Reads a response. Total: what is not understood is [`Untagged::Unknown`].
pub(super) fn parse(raw: RawResponse) -> Response {
    let mut cursor = Cursor::new(raw.parts);
    if cursor.text.first() == Some(&b'+') {
        cursor.advance(1);
        cursor.skip_spaces();
        return Response::Continue(cursor.text);
    }
    let first = cursor.word();
    if first.as_ref() != b"*" {
        return match parse_condition(cursor) {
            Some(condition) => Response::Tagged { tag: first, condition },
            None => Response::Untagged(Untagged::Unknown),
        };
    }
    Response::Untagged(parse_untagged(cursor, raw.permit))
}

fn parse_untagged(mut cursor: Cursor, permit: Option<tokio::sync::OwnedSemaphorePermit>) -> Untagged {
    if let Some(condition) = parse_condition(cursor.clone()) {
        return Untagged::Condition(condition);
    }
    let word = cursor.word();
    let Some(number) = std::str::from_utf8(&word).ok().and_then(|w| w.parse::<u32>().ok()) else {
        let name = String::from_utf8_lossy(&word).to_ascii_uppercase();
        return if name.is_empty() { Untagged::Unknown } else { Untagged::Data(name, cursor) };
    };
    match cursor.word().to_ascii_uppercase().as_slice() {
        b"EXISTS" => Untagged::Exists(number),
        b"EXPUNGE" => Untagged::Expunge,
        b"FETCH" => parse_fetch(cursor, permit).map_or(Untagged::Unknown, Untagged::Fetch),
        _ => Untagged::Unknown,
    }
}

fn parse_fetch(mut cursor: Cursor, permit: Option<tokio::sync::OwnedSemaphorePermit>) -> Option<Fetch> {
    if cursor.text.first() != Some(&b'(') {
        return None;
    }
    cursor.advance(1);
    let mut items = Vec::new();
    while let Some(name) = cursor.item_name() {
        items.push((name, cursor.value()?));
    }
    cursor.skip_spaces();
    (cursor.text.first() == Some(&b')')).then_some(Fetch { items, permit })
}

fn parse_condition(mut cursor: Cursor) -> Option<Condition> {
    let status = match cursor.word().to_ascii_uppercase().as_slice() {
        b"OK" => Status::Ok,
        b"NO" => Status::No,
        b"BAD" => Status::Bad,
        b"BYE" => Status::Bye,
        b"PREAUTH" => Status::Preauth,
        _ => return None,
    };
    let (code, text) = split_code(cursor.text);
    Some(Condition { status, code, text })
}

fn split_code(mut text: Bytes) -> (Option<Code>, Bytes) {
    let end = match text.first() {
        Some(b'[') => text.iter().position(|b| *b == b']'),
        _ => None,
    };
    let Some(end) = end else { return (None, text) };
    let mut inner = text.split_to(end + 1).slice(1..end);
    let name_length = inner.iter().position(|b| *b == b' ').unwrap_or(inner.len());
    let name = String::from_utf8_lossy(&inner.split_to(name_length)).to_ascii_uppercase();
    let spaces = inner.iter().take_while(|b| **b == b' ').count();
    let spaces_after = text.iter().take_while(|b| **b == b' ').count();
    (Some(Code { name, arguments: inner.slice(spaces..) }), text.slice(spaces_after..))
}
