//! Character references (HTML §13.2.5.72 and on): with their semicolon, and the old ones without it.

use mail_parser::decoders::html::add_html_token;

/// Names that end without a semicolon too, those that text is written with.
const BARE: [&str; 106] = [
    "AElig", "AMP", "Aacute", "Acirc", "Agrave", "Aring", "Atilde", "Auml", "COPY", "Ccedil", "ETH",
    "Eacute", "Ecirc", "Egrave", "Euml", "GT", "Iacute", "Icirc", "Igrave", "Iuml", "LT", "Ntilde", "Oacute",
    "Ocirc", "Ograve", "Oslash", "Otilde", "Ouml", "QUOT", "REG", "THORN", "Uacute", "Ucirc", "Ugrave",
    "Uuml", "Yacute", "aacute", "acirc", "acute", "aelig", "agrave", "amp", "aring", "atilde", "auml",
    "brvbar", "ccedil", "cedil", "cent", "copy", "curren", "deg", "divide", "eacute", "ecirc", "egrave",
    "eth", "euml", "frac12", "frac14", "frac34", "gt", "iacute", "icirc", "iexcl", "igrave", "iquest",
    "iuml", "laquo", "lt", "macr", "micro", "middot", "nbsp", "not", "ntilde", "oacute", "ocirc", "ograve",
    "ordf", "ordm", "oslash", "otilde", "ouml", "para", "plusmn", "pound", "quot", "raquo", "reg", "sect",
    "shy", "sup1", "sup2", "sup3", "szlig", "thorn", "times", "uacute", "ucirc", "ugrave", "uml", "uuml",
    "yacute", "yen", "yuml",
];
/// Longest name looked at.
const MAX_NAME_BYTES: usize = 32;

/// The text with its references decoded. In an attribute a name without semicolon is one only if nothing of a word follows:
/// `?a=1&copy=2` has none.
pub(in crate::mime::html) fn decode(text: &str, in_attribute: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'#';
        let length = after.bytes().take(MAX_NAME_BYTES).take_while(is_name).count();
        let (name, tail) = after.split_at_checked(length).unwrap_or(("", after));
        rest = match tail.strip_prefix(';') {
            _ if name.is_empty() => {
                out.push('&');
                after
            }
            Some(tail) if reference(&mut out, name) => tail,
            _ => match bare(name, tail, in_attribute) {
                Some((known, length)) => {
                    reference(&mut out, known);
                    after.get(length..).unwrap_or_default()
                }
                None => {
                    out.push('&');
                    out.push_str(name);
                    tail
                }
            },
        };
    }
    out.push_str(rest);
    out
}

/// The name that a run of letters begins with, and its length.
fn bare<'a>(name: &'a str, tail: &str, in_attribute: bool) -> Option<(&'a str, usize)> {
    let length = if let Some(number) = name.strip_prefix('#') {
        let hex = number.starts_with(['x', 'X']);
        let digit = |b: &u8| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
        let digits = number.bytes().skip(usize::from(hex)).take_while(digit).count();
        (digits > 0).then_some(1 + usize::from(hex) + digits)?
    } else {
        BARE.iter().filter(|known| name.starts_with(**known)).map(|known| known.len()).max()?
    };
    let goes_on = length < name.len() || tail.starts_with('=');
    if in_attribute && goes_on {
        return None;
    }
    Some((name.get(..length)?, length))
}

/// Writes the character that a name stands for. HTML §13.2.5.80: numbers of windows-1252's upper half mean its characters.
fn reference(out: &mut String, name: &str) -> bool {
    let number = name.strip_prefix('#').and_then(|n| match n.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => n.parse().ok(),
    });
    if let Some(byte @ 0x80..=0x9f) = number.and_then(|n| u8::try_from(n).ok()) {
        out.push_str(&encoding_rs::WINDOWS_1252.decode_without_bom_handling(&[byte]).0);
        return true;
    }
    let before = out.len();
    let token = format!("&{name};");
    add_html_token(out, token.as_bytes(), false);
    if out.get(before..) == Some(token.as_str()) {
        out.truncate(before);
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn references_are_decoded() {
        assert_eq!(decode("&lt;&amp;&#252;&#xFC;&uuml;&nosuch;&&x &#0;", false), "<&üüü&nosuch;&&x \0");
        assert_eq!(decode("?a=1&copy=2&b=3&amp;c=4&lt", true), "?a=1&copy=2&b=3&c=4<");
        assert_eq!(decode("&#xZ; &#; &;", false), "&#xZ; &#; &;");
    }
}
