//! Commands as they come: tag, text and words, literals included.

use std::sync::Mutex;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{State, What, matches};

/// One command.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub tag: String,
    /// Without the tag; a literal is only its `{n}`.
    pub text: String,
    /// Atoms, strings without quotes, literals, and groups in parentheses as they stand.
    pub words: Vec<Vec<u8>>,
}

/// The next command; the go-ahead is given for its literals, unless a rule answers the command instead.
pub(super) async fn hear(
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    state: &Mutex<State>,
) -> std::io::Result<Option<Heard>> {
    let (mut text, mut found) = (String::new(), Vec::new());
    loop {
        let mut line = Vec::new();
        if read.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        while line.last().is_some_and(|b| matches!(b, b'\r' | b'\n')) {
            line.pop();
        }
        let literal = literal(&line);
        let plain = literal.map_or(line.as_slice(), |(at, ..)| &line[..at]);
        found.extend(words(plain));
        text.push_str(&String::from_utf8_lossy(&line));
        let command = text.split_once(' ').map_or("", |(_, rest)| rest);
        let Some((_, size, at_once)) = literal.filter(|l| l.2 || !is_refused(state, command)) else { break };
        if !at_once {
            write.write_all(b"+ go\r\n").await?;
        }
        let mut bytes = vec![0; size];
        read.read_exact(&mut bytes).await?;
        found.push(bytes);
    }
    let (tag, command) = text.split_once(' ').unwrap_or((&text, ""));
    let words = found.into_iter().skip(1).collect();
    Ok(Some(Heard { tag: tag.to_owned(), text: command.to_owned(), words }))
}

fn is_refused(state: &Mutex<State>, command: &str) -> bool {
    let state = state.lock().unwrap();
    let mut rules = state.rules.iter().filter(|r| matches(&r.command, command));
    rules.any(|r| matches!(r.what, What::Instead(_)) && r.times.holds(r.seen + 1))
}

/// Where `{n}` or `{n+}` begins at the end of a line, its number, and whether the bytes come unasked.
fn literal(line: &[u8]) -> Option<(usize, usize, bool)> {
    let at = line.strip_suffix(b"}")?.iter().rposition(|b| *b == b'{')?;
    let digits = std::str::from_utf8(&line[at + 1..line.len() - 1]).ok()?;
    let at_once = digits.ends_with('+');
    Some((at, digits.trim_end_matches('+').parse().ok()?, at_once))
}

fn words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let end = match line[at] {
            b' ' => {
                at += 1;
                continue;
            }
            b'"' => {
                let (word, after) = quoted(&line[at..]);
                found.push(word);
                at += after;
                continue;
            }
            b'(' => {
                let mut depth = 0i32;
                let closes = |b: &u8| {
                    depth += i32::from(*b == b'(') - i32::from(*b == b')');
                    depth == 0
                };
                line[at..].iter().position(closes).map_or(line.len(), |n| at + n + 1)
            }
            _ => line[at..].iter().position(|b| *b == b' ').map_or(line.len(), |n| at + n),
        };
        found.push(line[at..end].to_vec());
        at = end;
    }
    found
}

fn quoted(text: &[u8]) -> (Vec<u8>, usize) {
    let mut word = Vec::new();
    let mut at = 1;
    while at < text.len() && text[at] != b'"' {
        at += usize::from(text[at] == b'\\');
        word.extend(text.get(at));
        at += 1;
    }
    (word, at + 1)
}
