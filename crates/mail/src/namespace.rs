//! Namespaces (RFC 2342): where a user's own mailboxes stand, and which are other people's.

use serde::{Deserialize, Serialize};

use crate::mailbox::is_inbox;

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// What its names begin with, on the wire, the delimiter at its end included.
    pub prefix: String,
    /// What separates levels; `None` where there are none.
    pub delimiter: Option<char>,
}

/// All that a server told. Nothing at all stands for a server that tells nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// The user's own, in the server's order.
    pub personal: Vec<Namespace>,
    /// Other users' and shared ones.
    pub foreign: Vec<Namespace>,
}

impl Namespace {
    /// How much of `name` is this namespace's prefix, in bytes; `None`: it stands elsewhere. The root itself is listed
    /// without the delimiter.
    fn fits(&self, name: &[u8]) -> Option<usize> {
        let prefix = self.prefix.as_bytes();
        let head = prefix.get(..5).filter(|head| is_inbox(head)).map_or(0, <[u8]>::len);
        let begins = |prefix: &[u8]| {
            let (Some(start), Some(rest)) = (name.get(..head), name.get(head..)) else { return false };
            start.eq_ignore_ascii_case(prefix.get(..head).unwrap_or_default())
                && rest.starts_with(prefix.get(head..).unwrap_or_default())
        };
        let root = self.prefix.strip_suffix(|c| Some(c) == self.delimiter).map(str::as_bytes);
        let is_root = root.is_some_and(|root| root.len() == name.len() && begins(root));
        (begins(prefix) || is_root).then_some(prefix.len())
    }
}

impl Namespaces {
    /// What names of new mailboxes begin with, delimiter included: the first personal namespace. Empty: they stand at the top.
    /// A server that forgets the delimiter at the end means one level all the same.
    #[must_use]
    pub fn own_prefix(&self) -> String {
        let Some(own) = self.personal.first() else { return String::new() };
        match own.delimiter {
            Some(d) if !own.prefix.is_empty() && !own.prefix.ends_with(d) => format!("{}{d}", own.prefix),
            _ => own.prefix.clone(),
        }
    }

    /// What separates levels of the user's own mailboxes, where the server told it.
    #[must_use]
    pub fn own_delimiter(&self) -> Option<char> {
        self.personal.first().and_then(|own| own.delimiter)
    }

    /// Whether a wire name is a mailbox of other users or a shared one: the longest prefix decides, and the user's own goes
    /// before others of the same length. INBOX is always the user's.
    #[must_use]
    pub fn is_foreign(&self, name: &[u8]) -> bool {
        if is_inbox(name) {
            return false;
        }
        let longest = |all: &[Namespace]| all.iter().filter_map(|n| n.fits(name)).max();
        // Without a personal namespace there is nothing to tell the others at the top from.
        let own = if self.personal.is_empty() { Some(0) } else { longest(&self.personal) };
        longest(&self.foreign) > own
    }

    /// Whether a mailbox of this name could not be the user's own: it is no other's either, and CREATE would be refused.
    #[must_use]
    pub fn is_outside(&self, name: &[u8]) -> bool {
        let known = self.personal.iter().chain(self.foreign.iter().filter(|n| !n.prefix.is_empty()));
        !self.personal.is_empty() && !is_inbox(name) && !known.into_iter().any(|n| n.fits(name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::{Namespace, Namespaces};

    fn all(of: &[(&str, &str)]) -> Vec<Namespace> {
        let one = |(prefix, delimiter): &(&str, &str)| Namespace {
            prefix: (*prefix).to_owned(),
            delimiter: delimiter.chars().next(),
        };
        of.iter().map(one).collect()
    }

    fn told(personal: &[(&str, &str)], foreign: &[(&str, &str)]) -> Namespaces {
        Namespaces { personal: all(personal), foreign: all(foreign) }
    }

    #[test]
    fn the_longest_prefix_says_whose_a_mailbox_is() {
        // Cyrus, where everything at the top is shared but INBOX.
        let cyrus = told(&[("INBOX.", ".")], &[("user.", "."), ("", ".")]);
        for (name, foreign) in [
            ("INBOX", false),
            ("inbox", false),
            ("INBOX.Sent", false),
            ("Inbox.Sent", false),
            ("INBOX.user.x", false),
            ("user.anna", true),
            ("user", true),
            ("Board", true),
            ("INBOXES", true),
        ] {
            assert_eq!(cyrus.is_foreign(name.as_bytes()), foreign, "{name}");
        }
        let uw = told(&[("", "/"), ("#mh/", "/")], &[("~", "/"), ("#shared/", "/"), ("#news.", ".")]);
        for (name, foreign) in [("Sent", false), ("#mh/x", false), ("~anna/x", true), ("#news.comp", true)] {
            assert_eq!(uw.is_foreign(name.as_bytes()), foreign, "{name}");
        }
        assert_eq!((uw.own_prefix(), cyrus.own_prefix()), (String::new(), "INBOX.".to_owned()));
    }

    #[test]
    fn odd_answers_hide_nothing_of_the_users_own() {
        let nothing = Namespaces::default();
        assert!(!nothing.is_foreign(b"a") && !nothing.is_outside(b"a") && nothing.own_prefix().is_empty());
        // No personal namespace: only what has a prefix of its own is somebody else's.
        let none = told(&[], &[("", "/"), ("user/", "/")]);
        assert!(!none.is_foreign(b"Sent") && none.is_foreign(b"user/x"));
        // One prefix for all kinds.
        let same = told(&[("", "/")], &[("", "/")]);
        assert!(!same.is_foreign(b"Sent"));
        let flat = told(&[("", "")], &[]);
        assert_eq!((flat.own_prefix().as_str(), flat.own_delimiter()), ("", None));
        assert_eq!(told(&[("INBOX", ".")], &[]).own_prefix(), "INBOX.");
        assert_eq!(told(&[("x", "")], &[]).own_prefix(), "x");
    }

    #[test]
    fn names_outside_every_namespace_are_told() {
        let courier = told(&[("INBOX.", ".")], &[("shared.", ".")]);
        for (name, outside) in [
            ("Archive", true),
            ("INBOX", false),
            ("INBOX.Archive", false),
            ("shared.x", false),
            ("x.y", true),
        ] {
            assert_eq!(courier.is_outside(name.as_bytes()), outside, "{name}");
        }
        assert!(!told(&[("", "/")], &[]).is_outside(b"x"));
    }
}
