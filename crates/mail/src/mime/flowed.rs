//! `format=flowed` (RFC 3676): lines that a program broke are put together again.

/// The text with its paragraphs on one line each. `del_sp`: the blank at which a line was broken is no text (§4.3).
pub(super) fn unflow(text: &str, del_sp: bool) -> String {
    let mut out = String::with_capacity(text.len());
    // The depth of the quote whose last line goes on.
    let mut open: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let line = line.trim_end_matches(['\n', '\r']);
        let depth = line.bytes().take_while(|b| *b == b'>').count();
        let quoted = line.get(depth..).unwrap_or_default();
        let content = quoted.strip_prefix(' ').unwrap_or(quoted);
        // §4.3: a signature's separator is never part of a paragraph.
        let signature = content == "-- ";
        let goes_on = open == Some(depth) && !signature;
        if open.is_some() && !goes_on {
            out.push('\n');
        }
        if !goes_on {
            out.extend(std::iter::repeat_n('>', depth));
            if depth > 0 && !content.is_empty() {
                out.push(' ');
            }
        }
        let soft = content.ends_with(' ') && !signature;
        out.push_str(if soft && del_sp { content.strip_suffix(' ').unwrap_or(content) } else { content });
        open = soft.then_some(depth);
        if !soft {
            out.push('\n');
        }
    }
    if open.is_some() || !text.ends_with('\n') {
        out.truncate(out.trim_end_matches('\n').len());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::unflow;

    #[test]
    fn paragraphs_are_put_together() {
        for (flowed, text) in [
            ("one \ntwo\nthree\n", "one two\nthree\n"),
            ("a http://x.example/ \nb\n", "a http://x.example/ b\n"),
            ("> one \n> two\n>> three\nfour\n", "> one two\n>> three\nfour\n"),
            ("> one \nown\n", "> one \nown\n"),
            (" From here\n  two\n", "From here\n two\n"),
            ("text \n-- \nAnn\n", "text \n-- \nAnn\n"),
            (">\n> x\n", ">\n> x\n"),
            ("end ", "end "),
            ("end", "end"),
            ("", ""),
        ] {
            assert_eq!(unflow(flowed, false), text, "{flowed:?}");
        }
    }

    #[test]
    fn with_del_sp_words_are_put_together() {
        assert_eq!(unflow("http://x.example/a/ \nb/c\n", true), "http://x.example/a/b/c\n");
        assert_eq!(unflow("東京 \nタワー\nend\n", true), "東京タワー\nend\n");
        assert_eq!(unflow("one  \ntwo\n", true), "one two\n");
    }

    proptest! {
        #[test]
        fn no_word_gets_lost(text in "[a-z> \n-]{0,80}") {
            let letters = |t: &str| t.chars().filter(char::is_ascii_alphabetic).collect::<String>();
            prop_assert_eq!(letters(&unflow(&text, false)), letters(&text));
            prop_assert_eq!(letters(&unflow(&text, true)), letters(&text));
        }
    }
}
