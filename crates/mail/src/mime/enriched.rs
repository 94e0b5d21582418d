//! `text/enriched` and `text/richtext` (RFC 1896, RFC 1341 §7.1.3) as text.

/// The text without its commands: `<<` is a bracket, one line end is a blank, of several one is left out.
pub(super) fn to_text(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut parameters = 0usize;
    while let Some(c) = rest.chars().next() {
        let tail = rest.get(c.len_utf8()..).unwrap_or_default();
        if c == '<' && tail.starts_with('<') {
            out.push('<');
            rest = tail.get(1..).unwrap_or_default();
        } else if c == '<'
            && let Some((command, after)) = command(tail)
        {
            match command.to_ascii_lowercase().as_str() {
                "param" => parameters += 1,
                "/param" => parameters = parameters.saturating_sub(1),
                "nl" | "paragraph" | "/paragraph" => out.push('\n'),
                _ => {}
            }
            rest = after;
        } else if c == '\n' && parameters == 0 {
            let breaks = rest.bytes().take_while(|b| *b == b'\n').count();
            match breaks {
                1 => out.push(' '),
                n => out.extend(std::iter::repeat_n('\n', n - 1)),
            }
            rest = rest.get(breaks..).unwrap_or_default();
        } else {
            if parameters == 0 {
                out.push(c);
            }
            rest = tail;
        }
    }
    out
}

/// RFC 1896: up to sixty letters, digits and hyphens.
fn command(tail: &str) -> Option<(&str, &str)> {
    let end = tail.bytes().take(62).position(|b| b == b'>')?;
    let (command, after) = tail.split_at_checked(end)?;
    let name = command.strip_prefix('/').unwrap_or(command);
    let word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    word.then(|| (command, after.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::to_text;

    #[test]
    fn commands_go_and_words_stay() {
        assert_eq!(
            to_text("<bold>Now</bold> is\nthe <color><param>red</param>time</color> for <<all>\n\nmen.\n"),
            "Now is the time for <all>\nmen. "
        );
        assert_eq!(to_text("a < b > c and 1 < 2"), "a < b > c and 1 < 2");
        let _ = to_text(&"<".repeat(1_000_001));
        let _ = to_text(&"<a".repeat(500_000));
    }
}
