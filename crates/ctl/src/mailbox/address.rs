//! Addresses that a mailbox of ours may have.
//!
//! Fewer than RFC 5321 allows, on purpose: the address is a name in Dovecot's passwd-file, a part of the path where the
//! mail lies, and what a user types to log in. Dovecot 2.3 lets in letters, digits and `.-_@` only
//! (`auth_username_chars`), in lower case (`auth_username_format = %Lu`), and takes `+` for the separator of a detail.

use anyhow::bail;

/// `text` in lower case.
///
/// # Errors
/// When it is no address that a mailbox can have; the message says what is allowed.
pub fn parse(text: &str) -> anyhow::Result<String> {
    let address = text.to_ascii_lowercase();
    if let Some((local, domain)) = address.split_once('@')
        && is_local(local)
        && is_domain(domain)
    {
        return Ok(address);
    }
    bail!(
        "{text:?} is no address for a mailbox: name@domain, the name of letters, digits and . _ - (1 to 64, beginning \
         and ending with a letter or digit, no two dots together), the domain of labels with letters, digits and -"
    )
}

fn is_plain(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_local(local: &str) -> bool {
    (1..=64).contains(&local.len())
        && local.starts_with(is_plain)
        && local.ends_with(is_plain)
        && !local.contains("..")
        && local.chars().all(|c| is_plain(c) || "._-".contains(c))
}

/// RFC 1035 §2.3.1 and §2.3.4, with digits in front (RFC 1123 §2.1).
fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.starts_with(is_plain)
            && label.ends_with(is_plain)
            && label.chars().all(|c| is_plain(c) || c == '-')
    };
    domain.len() <= 253 && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_address_is_taken_in_lower_case() {
        assert_eq!(parse("Alice.B-c_9@Mail.Example").unwrap(), "alice.b-c_9@mail.example");
        assert_eq!(parse("a@localhost").unwrap(), "a@localhost");
    }

    #[test]
    fn what_would_break_the_file_or_leave_the_mail_folder_is_refused() {
        let long = format!("{}@x.test", "a".repeat(65));
        for bad in [
            "",
            "alice",
            "@x.test",
            "alice@",
            "a@b@c",
            "a:b@x.test",
            "a\n@x.test",
            "a@x.test\nb",
            "a b@x.test",
            "#a@x.test",
            "../a@x.test",
            "a/b@x.test",
            "a@../x",
            "a@x..test",
            ".a@x.test",
            "a..b@x.test",
            "a+b@x.test",
            "ä@x.test",
            "a%u@x.test",
            "a@-x.test",
            "a@x_y.test",
            &long,
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
