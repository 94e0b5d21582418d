//! The items of a FETCH, asked for and told.

use super::model::Message;

pub(super) fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The items of a FETCH; brackets and what is in them belong to an item.
pub(super) fn items(text: &str) -> Vec<String> {
    let Some((_, list)) = text.split_once(" (") else { return Vec::new() };
    let (mut items, mut item, mut depth) = (Vec::new(), String::new(), 0);
    for c in list.chars() {
        match c {
            ' ' | ')' if depth == 0 => {
                items.extend(Some(std::mem::take(&mut item)).filter(|i| !i.is_empty()));
                if c == ')' {
                    break;
                }
            }
            _ => {
                depth += i32::from(c == '[') - i32::from(c == ']');
                item.push(c);
            }
        }
    }
    items
}

pub(super) fn fetched(message: &Message, item: &str) -> Vec<u8> {
    let literal =
        |name: &str, bytes: &[u8]| [format!("{name} {{{}}}\r\n", bytes.len()).as_bytes(), bytes].concat();
    match item {
        "UID" => format!("UID {}", message.uid).into_bytes(),
        "FLAGS" => format!("FLAGS ({})", message.flags.join(" ")).into_bytes(),
        "INTERNALDATE" => format!("INTERNALDATE \"{}\"", message.date).into_bytes(),
        "RFC822.SIZE" => format!("RFC822.SIZE {}", message.bytes.len()).into_bytes(),
        "MODSEQ" => format!("MODSEQ ({})", message.modseq).into_bytes(),
        "X-GM-MSGID" => {
            message.ids.map(|ids| format!("X-GM-MSGID {}", ids.message)).unwrap_or_default().into_bytes()
        }
        "X-GM-THRID" => {
            message.ids.map(|ids| format!("X-GM-THRID {}", ids.thread)).unwrap_or_default().into_bytes()
        }
        "BODY.PEEK[]" | "BODY[]" => literal("BODY[]", &message.bytes),
        "BODY.PEEK[HEADER]" => {
            let head = message
                .bytes
                .windows(4)
                .position(|w| w == b"\r\n\r\n")
                .map_or(message.bytes.len(), |at| at + 4);
            literal("BODY[HEADER]", &message.bytes[..head])
        }
        _ => match item.strip_prefix("BODY.PEEK[HEADER.FIELDS (").and_then(|i| i.strip_suffix(")]")) {
            Some(fields) => literal(&item.replace(".PEEK", ""), &header(&message.bytes, fields)),
            None => format!("{item} NIL").into_bytes(),
        },
    }
}

/// The header lines of these fields, and the empty line.
fn header(bytes: &[u8], fields: &str) -> Vec<u8> {
    let head = String::from_utf8_lossy(bytes);
    let head = head.split("\r\n\r\n").next().unwrap_or_default();
    let wanted = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        fields.split(' ').any(|f| f.eq_ignore_ascii_case(name))
    };
    let lines: String = head.split("\r\n").filter(wanted).map(|l| format!("{l}\r\n")).collect();
    format!("{lines}\r\n").into_bytes()
}
