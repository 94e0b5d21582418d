//! The recursive descent over the characters of a query: groups, `OR`, `-`, quotes and where a word ends.
//! What the value of an operator means is in `value.rs`.

use chrono::{DateTime, Utc};

use super::value::{self, Operator};
use super::{DEPTH_MAX, QUERY_MAX_CHARS, Query, QueryError, TERMS_MAX, Term, Zone};

/// `None` stands for words without a letter or digit, which are left out.
type Parsed = Result<Option<Query>, QueryError>;

pub(super) fn parse(text: &str, now: DateTime<Utc>, tz: Zone) -> Result<Query, QueryError> {
    let chars: Vec<char> = text.chars().take(QUERY_MAX_CHARS + 1).collect();
    if chars.len() > QUERY_MAX_CHARS {
        return Err(error(QUERY_MAX_CHARS, format!("a query has at most {QUERY_MAX_CHARS} characters")));
    }
    if let Some(at) = chars.iter().position(|c| *c == '\0') {
        return Err(error(at, "NUL is not allowed"));
    }
    let mut parser = Parser { chars, at: 0, terms: 0, context: value::Context { now, tz } };
    parser.skip_space();
    if parser.peek().is_none() {
        return Err(error(0, "the query is empty"));
    }
    let start = parser.at;
    let query = parser.sequence(None, None, 0)?;
    if let Some(stray) = parser.peek() {
        return Err(error(parser.at, format!("“{stray}” without its opening bracket")));
    }
    query.ok_or_else(|| error(start, "there is no word to search for"))
}

/// An error at a character counted from 0.
pub(super) fn error(at: usize, message: impl Into<String>) -> QueryError {
    QueryError { column: at + 1, message: message.into() }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    terms: usize,
    context: value::Context,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Round,
    Curly,
}

impl Group {
    const fn closing(self) -> char {
        match self {
            Self::Round => ')',
            Self::Curly => '}',
        }
    }
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Parts side by side, up to a closing bracket or the end, which is left in place. `operator` is what a
    /// group stands behind.
    fn sequence(&mut self, operator: Option<Operator>, group: Option<Group>, depth: usize) -> Parsed {
        let mut parts = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                None | Some(')' | '}') => break,
                Some(_) => parts.extend(self.alternatives(operator, depth)?),
            }
        }
        Ok(match group {
            Some(Group::Curly) => any_of(parts),
            Some(Group::Round) | None => all_of(parts),
        })
    }

    /// `a OR b OR c`
    fn alternatives(&mut self, operator: Option<Operator>, depth: usize) -> Parsed {
        if self.at_or() {
            return Err(error(self.at, "OR needs something on its left"));
        }
        let mut parts: Vec<Query> = self.unary(operator, depth)?.into_iter().collect();
        loop {
            self.skip_space();
            let or_at = self.at;
            if !self.at_or() {
                return Ok(any_of(parts));
            }
            self.at += 2;
            self.skip_space();
            if matches!(self.peek(), None | Some(')' | '}')) || self.at_or() {
                return Err(error(or_at, "OR needs something on its right"));
            }
            parts.extend(self.unary(operator, depth)?);
        }
    }

    fn at_or(&self) -> bool {
        self.chars.get(self.at..self.at + 2).is_some_and(|two| two == ['O', 'R'])
            && self.chars.get(self.at + 2).is_none_or(|next| ends_word(*next))
    }

    fn unary(&mut self, operator: Option<Operator>, depth: usize) -> Parsed {
        let negated = self.peek() == Some('-')
            && self
                .chars
                .get(self.at + 1)
                .is_some_and(|next| !next.is_whitespace() && !matches!(next, ')' | '}'));
        if !negated {
            return self.primary(operator, depth);
        }
        self.at += 1;
        Ok(self.primary(operator, depth)?.map(|part| match part {
            Query::Not(inner) => *inner,
            other => Query::Not(Box::new(other)),
        }))
    }

    fn primary(&mut self, operator: Option<Operator>, depth: usize) -> Parsed {
        match self.peek() {
            Some('(') => self.group(Group::Round, operator, depth),
            Some('{') => self.group(Group::Curly, operator, depth),
            Some('"') => {
                let at = self.at;
                let text = self.quoted()?;
                self.text(operator, &text, at, true)
            }
            _ => {
                if operator.is_none()
                    && let Some(found) = self.operator()
                {
                    return self.value_of(found, depth);
                }
                let at = self.at;
                let word = self.word();
                self.text(operator, &word, at, false)
            }
        }
    }

    fn group(&mut self, group: Group, operator: Option<Operator>, depth: usize) -> Parsed {
        let open_at = self.at;
        if depth >= DEPTH_MAX {
            return Err(error(open_at, format!("groups may be nested {DEPTH_MAX} deep")));
        }
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(group.closing()) {
            return Err(error(open_at, "the group is empty"));
        }
        let inner = self.sequence(operator, Some(group), depth + 1)?;
        match self.peek() {
            Some(c) if c == group.closing() => self.at += 1,
            Some(c) => return Err(error(self.at, format!("“{c}” where “{}” was expected", group.closing()))),
            None => return Err(error(open_at, "the group is not closed")),
        }
        Ok(inner)
    }

    /// Takes `name:` when it is a known operator.
    fn operator(&mut self) -> Option<(Operator, usize)> {
        let start = self.at;
        let rest = self.chars.get(start..)?;
        let length = rest.iter().take(20).position(|c| *c == ':')?;
        let name: String = rest.get(..length)?.iter().collect();
        let operator = Operator::named(&name)?;
        self.at = start + length + 1;
        Some((operator, start))
    }

    fn value_of(&mut self, (operator, start): (Operator, usize), depth: usize) -> Parsed {
        match self.peek() {
            None => Err(empty_value(operator, start)),
            Some(c) if c.is_whitespace() || matches!(c, ')' | '}') => Err(empty_value(operator, start)),
            Some('(') => self.group(Group::Round, Some(operator), depth),
            Some('{') => self.group(Group::Curly, Some(operator), depth),
            Some('"') => {
                let at = self.at;
                let text = self.quoted()?;
                self.text(Some(operator), &text, at, true)
            }
            Some(_) => {
                let at = self.at;
                let word = self.word();
                self.text(Some(operator), &word, at, false)
            }
        }
    }

    fn text(&mut self, operator: Option<Operator>, text: &str, at: usize, quoted: bool) -> Parsed {
        let term = match operator {
            Some(operator) => {
                Some(value::term(operator, text, quoted, self.context).map_err(|m| error(at, m))?)
            }
            None if quoted && text.trim().is_empty() => return Err(error(at, "the quotation is empty")),
            None => value::words(text, quoted).map(Term::Text),
        };
        let Some(term) = term else { return Ok(None) };
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(error(at, format!("a query has at most {TERMS_MAX} terms")));
        }
        Ok(Some(Query::Term(term)))
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| !ends_word(c)) {
            self.at += 1;
        }
        self.chars.get(start..self.at).unwrap_or_default().iter().collect()
    }

    fn quoted(&mut self) -> Result<String, QueryError> {
        let open_at = self.at;
        let rest = self.chars.get(open_at + 1..).unwrap_or_default();
        let Some(length) = rest.iter().position(|c| *c == '"') else {
            return Err(error(open_at, "the quotation is not closed"));
        };
        let text = rest.get(..length).unwrap_or_default().iter().collect();
        self.at = open_at + length + 2;
        Ok(text)
    }
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '{' | '}' | '"')
}

fn empty_value(operator: Operator, at: usize) -> QueryError {
    error(at, format!("“{}:” needs a value right behind it", operator.name()))
}

fn all_of(parts: Vec<Query>) -> Option<Query> {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Query::And(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    if flat.len() > 1 { Some(Query::And(flat)) } else { flat.pop() }
}

fn any_of(parts: Vec<Query>) -> Option<Query> {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Query::Or(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    if flat.len() > 1 { Some(Query::Or(flat)) } else { flat.pop() }
}
