//! Emoji as words. They are no letters, so the words of a text do without them; a query may be of nothing else.

/// Different pictures of one text that are kept.
const PICTURES_MAX: usize = 200;
/// Joins pictures to one (Unicode Technical Standard #51).
const JOINER: char = '\u{200d}';

/// The characters that are shown as pictures. Of the older blocks only those with symbols of things, not arrows, boxes or
/// mathematics; the tones of skin are no pictures by themselves.
const fn shows_a_thing(c: char) -> bool {
    matches!(c as u32,
        0x231a..=0x231b | 0x2328 | 0x23cf | 0x23e9..=0x23fa | 0x2600..=0x27bf | 0x2b50 | 0x2b55 | 0x1f000..=0x1f3fa | 0x1f400..=0x1faff)
}

const fn is_flag_letter(c: char) -> bool {
    matches!(c as u32, 0x1f1e6..=0x1f1ff)
}

/// Whether a word of the index is a picture.
#[must_use]
pub fn is_picture(word: &str) -> bool {
    word.chars().next().is_some_and(shows_a_thing)
}

/// The pictures of `text`, each once, in their order: a flag and what is joined count as one, tones of skin and the choice
/// between picture and letter are left out.
#[must_use]
pub fn pictures(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut open = String::new();
    let mut joined = false;
    let mut end = |open: &mut String| {
        if !open.is_empty() && all.len() < PICTURES_MAX && !all.contains(open) {
            all.push(open.clone());
        }
        open.clear();
    };
    for c in text.chars().filter(|c| !c.is_ascii()) {
        match c {
            JOINER => joined = !open.is_empty(),
            '\u{fe0e}' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}' => {}
            _ if !shows_a_thing(c) => {
                end(&mut open);
                joined = false;
            }
            _ => {
                let half_flag =
                    is_flag_letter(c) && open.chars().eq(open.chars().filter(|f| is_flag_letter(*f)).take(1));
                if !joined && (!half_flag || open.is_empty()) {
                    end(&mut open);
                }
                if joined {
                    open.push(JOINER);
                }
                open.push(c);
                joined = false;
            }
        }
    }
    end(&mut open);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_as_one_picture_is_one() {
        for (text, expected) in [
            ("party 🎉 time 🎉🎊", &["🎉", "🎊"][..]),
            ("❤\u{fe0f}❤", &["❤"]),
            ("👍🏽👍", &["👍"]),
            ("👩🏽\u{200d}💻 👩", &["👩\u{200d}💻", "👩"]),
            ("🇩🇪🇫🇷", &["🇩🇪", "🇫🇷"]),
            ("🇩🇪 🎉🇫🇷", &["🇩🇪", "🎉", "🇫🇷"]),
            ("→ € ™ — 5 ü 東", &[]),
            ("\u{200d}\u{fe0f}🏽", &[]),
        ] {
            assert_eq!(pictures(text), expected, "{text}");
        }
        assert!(is_picture("👩\u{200d}💻") && !is_picture("a🎉") && !is_picture(""));
        assert_eq!(pictures(&"🎉a".repeat(100_000)), ["🎉"]);
        let many: String = (0x1f400..0x1f600).filter_map(char::from_u32).collect();
        assert_eq!(pictures(&many).len(), PICTURES_MAX);
    }
}
