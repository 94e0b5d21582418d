//! Text as forms and queries have it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The pairs of `application/x-www-form-urlencoded` text.
///
/// # Errors
/// What is wrong with the encoding.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let pieces = text.split('&').filter(|p| !p.is_empty());
    pieces
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Ok((percent_decode(name)?, percent_decode(value)?))
        })
        .collect()
}

fn percent_decode(text: &str) -> Result<String, &'static str> {
    // A decoder that lets a broken escape pass for itself would take another text than the client meant.
    let whole = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(whole) {
        return Err("a percent sign without two hexadecimal digits");
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(Cow::into_owned).map_err(|_| "not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_text_is_decoded_once_and_strictly() {
        assert_eq!(
            pairs("a=b%20c+d&&e=%C3%A9&f").unwrap(),
            [("a", "b c d"), ("e", "é"), ("f", "")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=%+1", "a=%%41", "%c3=%a9"] {
            assert!(pairs(bad).is_err(), "{bad}");
        }
    }
}
