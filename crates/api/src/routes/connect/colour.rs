//! The tenant's colour, and what can be read on it and in it (WCAG 2.2 §1.4.3: 4.5 to 1).

/// What text on a page needs.
const READABLE: f64 = 4.5;
/// From here on a colour is one that white stands on.
const STRONG: f64 = 3.0;
/// Of our own, where the tenant has none.
pub const DEFAULT: Colour = Colour([0x1f, 0x5f, 0xc4]);
/// What is behind texts in light and dark: the darker of the light ones, the lighter of the dark ones, as in style.css.
const LIGHT_SURFACE: Colour = Colour([0xf4, 0xf5, 0xf7]);
const DARK_SURFACE: Colour = Colour([0x1d, 0x21, 0x28]);
const WHITE: Colour = Colour([0xff, 0xff, 0xff]);
const INK: Colour = Colour([0x10, 0x13, 0x18]);

/// A colour in sRGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour([u8; 3]);

impl Colour {
    /// Reads `#rrggbb` or `#rgb`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let doubled: String = match digits.len() {
            3 => digits.chars().flat_map(|c| [c, c]).collect(),
            6 => digits.to_owned(),
            _ => return None,
        };
        <[u8; 3]>::try_from(hex::decode(doubled).ok()?).ok().map(Self)
    }

    /// `#rrggbb`.
    pub fn text(self) -> String {
        format!("#{}", hex::encode(self.0))
    }

    /// Relative luminance (WCAG 2.2).
    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let [red, green, blue] = self.0.map(linear);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    /// The contrast ratio, from 1 to 21 (WCAG 2.2).
    fn against(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// Between the two: `part` of 32 of the other.
    fn towards(self, other: Self, part: u16) -> Self {
        let mut mixed = self.0;
        for (own, far) in mixed.iter_mut().zip(other.0) {
            let sum = u16::from(*own) * (32 - part) + u16::from(far) * part;
            *own = u8::try_from((sum + 16) / 32).unwrap_or(u8::MAX);
        }
        Self(mixed)
    }

    /// As near to this one as can be read on `surface`.
    fn readable_on(self, surface: Self, far: Self) -> Self {
        let steps = (0..=32).map(|part| self.towards(far, part));
        steps.into_iter().find(|colour| colour.against(surface) >= READABLE).unwrap_or(far)
    }
}

/// What a style sheet needs of a colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Palette {
    /// Of buttons.
    pub button: String,
    /// Of the text on them.
    pub on_button: String,
    /// Of links and of what has the focus, on light.
    pub accent_light: String,
    /// The same on dark.
    pub accent_dark: String,
}

impl Palette {
    /// That of a colour.
    pub fn of(colour: Colour) -> Self {
        // White looks best on a strong colour, which may have to be a little darker for it.
        let on_button = if colour.against(WHITE) >= STRONG { WHITE } else { INK };
        let button = colour.readable_on(on_button, if on_button == WHITE { INK } else { WHITE });
        Self {
            button: button.text(),
            on_button: on_button.text(),
            accent_light: colour.readable_on(LIGHT_SURFACE, INK).text(),
            accent_dark: colour.readable_on(DARK_SURFACE, WHITE).text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_colour_texts_on_it_and_in_it_can_be_read() {
        let channels = [0u8, 0x33, 0x66, 0x77, 0x80, 0x99, 0xcc, 0xff];
        for red in channels {
            for green in channels {
                for blue in channels {
                    let colour = Colour([red, green, blue]);
                    let palette = Palette::of(colour);
                    let read = |text: &str| Colour::parse(text).unwrap();
                    let pairs = [
                        (read(&palette.button), read(&palette.on_button)),
                        (read(&palette.accent_light), LIGHT_SURFACE),
                        (read(&palette.accent_light), WHITE),
                        (read(&palette.accent_dark), DARK_SURFACE),
                    ];
                    for (one, other) in pairs {
                        let ratio = one.against(other);
                        assert!(ratio >= READABLE, "{colour:?}: {one:?} on {other:?} is {ratio}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_colour_has_three_or_six_digits_and_nothing_else() {
        assert_eq!(Colour::parse("#1A5fC4").unwrap().text(), "#1a5fc4");
        assert_eq!(Colour::parse("#1af").unwrap().text(), "#11aaff");
        for none in [
            "",
            "#",
            "1a5fc4",
            "#1a5fc",
            "#1a5fc4f",
            "red",
            "#ggg",
            "#12é",
            "#fff;}body{",
            " #fff",
            "#+12345",
        ] {
            assert_eq!(Colour::parse(none), None, "{none}");
        }
        assert!((WHITE.against(Colour([0, 0, 0])) - 21.0).abs() < 0.01);
        assert!(DEFAULT.against(WHITE) >= READABLE);
    }
}
