//! Extensions: switched on where the server has them, done without where it only says so.
//!
//! Some servers offer what they answer with BAD. Where the command can be written another way, the verb asks
//! [`Session::lacks`] and does so at once, for as long as the session lasts. Where only the caller can choose another way
//! (IDLE, NOTIFY, changes since a mod-sequence), the command names the extension it relies on, and the caller takes the
//! broken promise and may remember it for the host.

use mail::capabilities::Capabilities;

use super::ImapError;
use super::command::{Command, Session};
use super::parse::{Condition, Status, Untagged};

impl Session {
    /// Forgets abilities that turned out not to work with this server.
    pub fn restrict(&mut self, change: impl FnOnce(&mut Capabilities)) {
        change(&mut self.capabilities);
    }

    /// Forgets extensions by their names, as far as there is a way to do without them.
    pub fn do_without(&mut self, extensions: &[String]) {
        for extension in extensions {
            self.capabilities.forgo(extension);
        }
    }

    /// Whether the last command was answered with BAD and would be written differently without an extension.
    #[must_use]
    pub const fn broke_promise(&self) -> bool {
        self.broken_promise.is_some()
    }

    /// The extension that the server advertises and answered with BAD, once; the session does without it from here on.
    pub fn take_broken_promise(&mut self) -> Option<&'static str> {
        let extension = self.broken_promise.take()?;
        self.capabilities.forgo(extension).then_some(extension)
    }

    pub(super) fn blame(&mut self, condition: &Condition, extension: &'static str) {
        self.broken_promise = (condition.status == Status::Bad).then_some(extension);
    }

    /// What a command that used an extension came to: `true` when the server refused the command itself, so that it is
    /// to be sent again without the extension. There are servers that offer what they do not have.
    pub(super) fn lacks<T>(&self, result: &Result<T, ImapError>) -> bool {
        self.is_usable() && matches!(result, Err(ImapError::Protocol(_)))
    }

    /// Switches extensions on (ENABLE, RFC 5161); returns the names the server confirmed, in capitals. Nothing
    /// is sent to a server without ENABLE; one that answers with BAD has it no longer.
    ///
    /// # Errors
    /// Any [`ImapError`]; a name that is no atom is [`ImapError::Refused`].
    pub async fn enable(&mut self, extensions: &[&str]) -> Result<Vec<String>, ImapError> {
        let is_atom = |e: &&str| {
            !e.is_empty() && e.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'=' | b'_'))
        };
        if !extensions.iter().all(is_atom) {
            return Err(ImapError::refused("not the name of an extension"));
        }
        if !self.capabilities.enable || extensions.is_empty() {
            return Ok(Vec::new());
        }
        let mut enabled = Vec::new();
        let done = self.run(Command::new(format!("ENABLE {}", extensions.join(" "))), |u| match u {
            Untagged::Data(name, mut cursor) if name == "ENABLED" => {
                while let Some(v) = cursor.value() {
                    enabled.extend(v.text().map(str::to_ascii_uppercase));
                }
                None
            }
            other => Some(other),
        });
        let done = done.await;
        if self.lacks(&done) {
            self.capabilities.enable = false;
            return Ok(Vec::new());
        }
        done?;
        self.qresync_enabled |= enabled.iter().any(|e| e == "QRESYNC");
        Ok(enabled)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ImapError;
    use super::super::script::session;

    #[tokio::test]
    async fn enabling_is_remembered_only_when_confirmed() {
        let (mut s, _) =
            session("ENABLE QRESYNC", &["* ENABLED\r\n$ OK\r\n", "* ENABLED QRESYNC\r\n$ OK\r\n"]).await;
        assert!(s.enable(&["QRESYNC"]).await.unwrap().is_empty() && !s.qresync_enabled);
        assert_eq!(s.enable(&["QRESYNC"]).await.unwrap(), ["QRESYNC"]);
        assert!(s.qresync_enabled);
        assert!(matches!(s.enable(&["A B"]).await, Err(ImapError::Refused { .. })));
    }
}
