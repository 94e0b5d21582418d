//! NAMESPACE (RFC 2342): where the user's own mailboxes stand, and where those of others.

use mail::namespace::{Namespace, Namespaces};

use super::ImapError;
use super::command::{Command, Session};
use super::parse::{Cursor, Untagged, Value};

/// Namespaces of one kind beyond this number are passed over; real servers have a handful.
const MAX_NAMESPACES: usize = 50;
const ANSWER_BYTES: u64 = 1 << 20;

impl Session {
    /// What the server tells. Nothing where it does not offer the command, refuses it, or answers what nobody can use.
    ///
    /// # Errors
    /// Any [`ImapError`] but a refusal. A BAD is [`ImapError::Protocol`], and NAMESPACE the promise that was broken.
    pub async fn namespaces(&mut self) -> Result<Namespaces, ImapError> {
        if !self.capabilities().namespace {
            return Ok(Namespaces::default());
        }
        let mut told = Namespaces::default();
        let command = Command::new("NAMESPACE").relying_on(Some("NAMESPACE"));
        let done = self.run_within(command, ANSWER_BYTES, |u| match u {
            Untagged::Data(name, cursor) if name == "NAMESPACE" => {
                told = read(cursor);
                None
            }
            other => Some(other),
        });
        match done.await {
            Ok(_) => Ok(told),
            Err(ImapError::Refused { .. } | ImapError::NoSuchMailbox(_)) if self.is_usable() => {
                Ok(Namespaces::default())
            }
            Err(error) => Err(error),
        }
    }
}

/// Three lists or NIL: the user's own, other users', shared ones.
fn read(mut cursor: Cursor) -> Namespaces {
    let mut next = || cursor.value().map(|value| entries(&value)).unwrap_or_default();
    let personal = next();
    let mut foreign = next();
    foreign.extend(next());
    Namespaces { personal, foreign }
}

fn entries(value: &Value) -> Vec<Namespace> {
    let listed = value.list().unwrap_or_default().iter().filter_map(entry);
    listed.take(MAX_NAMESPACES).collect()
}

/// `(prefix delimiter extension…)`. A prefix that no name of ours could begin with is passed over.
fn entry(value: &Value) -> Option<Namespace> {
    let [prefix, delimiter, ..] = value.list()? else { return None };
    let prefix = if prefix.is_nil() { "" } else { prefix.text()? };
    if prefix.len() > mail::mailbox::MAX_NAME_BYTES || prefix.chars().any(char::is_control) {
        return None;
    }
    let delimiter = if delimiter.is_nil() { None } else { delimiter.text()?.chars().next() };
    Some(Namespace { prefix: prefix.to_owned(), delimiter: delimiter.filter(|c| !c.is_control()) })
}

#[cfg(test)]
mod tests {
    use super::super::ImapError;
    use super::super::script::{commands, session};

    async fn told(answer: &str) -> (String, Vec<String>) {
        let answer = format!("{answer}$ OK done\r\n");
        let (mut s, _) = session("NAMESPACE", &[&answer]).await;
        let told = s.namespaces().await.unwrap();
        (told.own_prefix(), told.foreign.into_iter().map(|n| n.prefix).collect())
    }

    #[tokio::test]
    async fn answers_of_the_rfc_and_of_servers_are_read() {
        for (answer, own, foreign) in [
            ("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n", "", vec![]),
            ("* NAMESPACE ((\"INBOX.\" \".\")) NIL  NIL\r\n", "INBOX.", vec![]),
            (
                "* namespace ((\"INBOX.\" \".\")) ((\"user.\" \".\")) ((\"\" \".\"))\r\n",
                "INBOX.",
                vec!["user.", ""],
            ),
            ("* NAMESPACE ((\"\" \"/\" \"X-PARAM\" (\"F1\" \"F2\"))) ((\"~\" \"/\")) NIL\r\n", "", vec!["~"]),
            ("* NAMESPACE ((\"a/\" \"/\")(\"#mh/\" \"/\")) NIL NIL\r\n", "a/", vec![]),
            ("* NAMESPACE (({6}\r\nINBOX. \".\")) NIL NIL\r\n", "INBOX.", vec![]),
            ("* NAMESPACE NIL NIL ((\"\" \".\"))\r\n", "", vec![""]),
        ] {
            let (prefix, others) = told(answer).await;
            assert_eq!(
                (prefix.as_str(), others),
                (own, foreign.iter().map(|f| (*f).to_owned()).collect()),
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_no_namespace() {
        let long = format!("* NAMESPACE ((\"{}\" \".\")) NIL NIL\r\n", "x".repeat(300));
        for answer in [
            "",
            "* NAMESPACE\r\n",
            "* NAMESPACE NIL\r\n",
            "* NAMESPACE ((NIL \"/\")) NIL NIL\r\n",
            "* NAMESPACE ((\"\" NIL)) NIL NIL\r\n",
            "* NAMESPACE ((\"x\")) NIL NIL\r\n",
            "* NAMESPACE (() (()) x) what ((((\r\n",
            "* NAMESPACE ((\"a\tb\" \".\")) NIL NIL\r\n",
            "* NAMESPACE \"INBOX.\" \".\" NIL\r\n",
            &long,
        ] {
            assert_eq!(told(answer).await.0, "", "{answer}");
        }
    }

    #[tokio::test]
    async fn who_does_not_offer_it_is_not_asked_and_a_refusal_is_an_answer() {
        let (mut s, seen) = session("", &["$ OK\r\n"]).await;
        assert!(s.namespaces().await.unwrap().personal.is_empty() && commands(&seen).is_empty());
        let (mut s, _) = session("NAMESPACE", &["$ NO not for you\r\n", "$ BAD what\r\n"]).await;
        assert!(s.namespaces().await.unwrap().personal.is_empty());
        assert!(matches!(s.namespaces().await, Err(ImapError::Protocol(_))));
        assert_eq!(s.take_broken_promise(), Some("NAMESPACE"));
    }
}
