//! Errors shared by several modules of this crate. An error that only one module can raise is declared there.

/// A text that is bound for a header, an address or a command held a byte that could end it early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must not contain CR, LF or NUL")]
pub struct UnsafeText;

/// Refuses CR, LF and NUL: the three bytes by which a value becomes a header or a command of its own.
///
/// # Errors
/// [`UnsafeText`] when one of them is present.
pub fn check_single_line(text: &str) -> Result<(), UnsafeText> {
    if text.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) { Err(UnsafeText) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::check_single_line;

    #[test]
    fn line_ends_and_nul_are_refused() {
        assert!(check_single_line("ok ü\t").is_ok());
        for bad in ["a\rb", "a\nb", "a\0b"] {
            assert!(check_single_line(bad).is_err());
        }
    }
}
