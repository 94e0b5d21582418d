//! Which mailbox a change of the tree was meant for.

use mail::uid::UidValidity;
use serde_json::{Value, json};

/// Which mailbox it was that our user renamed or deleted: by the time the server is told, another client may have given its
/// name to another one. Nothing is known of one that was never opened, and of changes that earlier releases wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meant {
    pub(crate) uidvalidity: Option<UidValidity>,
    pub(crate) mailboxid: Option<String>,
}

impl Meant {
    /// As [`Meant::write`] wrote it.
    #[must_use]
    pub fn read(data: &Value) -> Self {
        let uidvalidity = data.get("uidvalidity").and_then(Value::as_i64);
        Self {
            uidvalidity: uidvalidity.and_then(|v| UidValidity::try_from(v).ok()),
            mailboxid: data.get("mailboxid").and_then(Value::as_str).map(str::to_owned),
        }
    }

    pub(crate) fn write(&self, mut data: Value) -> Value {
        if let Some(data) = data.as_object_mut() {
            data.insert("uidvalidity".to_owned(), json!(self.uidvalidity.map(UidValidity::get)));
            data.insert("mailboxid".to_owned(), json!(self.mailboxid));
        }
        data
    }

    /// Whether there is anything to compare.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.uidvalidity.is_some() || self.mailboxid.is_some()
    }

    /// Whether a mailbox with these numbers is certainly another one.
    #[must_use]
    pub fn is_not(&self, uidvalidity: Option<UidValidity>, mailboxid: Option<&str>) -> bool {
        match (self.mailboxid.as_deref(), mailboxid) {
            (Some(ours), Some(theirs)) => ours != theirs,
            _ => matches!((self.uidvalidity, uidvalidity), (Some(ours), Some(theirs)) if ours != theirs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mailbox_is_told_by_its_id_or_else_by_its_uidvalidity() {
        let known = |uidvalidity: Option<u32>, mailboxid: Option<&str>| Meant {
            uidvalidity: uidvalidity.map(UidValidity),
            mailboxid: mailboxid.map(str::to_owned),
        };
        for (ours, theirs, other) in [
            ((Some(1), None), (Some(1), None), false),
            ((Some(1), None), (Some(2), None), true),
            ((Some(1), None), (None, None), false),
            ((None, None), (Some(2), Some("B")), false),
            ((Some(1), Some("A")), (Some(1), Some("B")), true),
            ((Some(1), Some("A")), (Some(2), Some("A")), false),
            ((Some(1), Some("A")), (Some(2), None), true),
            ((None, Some("A")), (Some(2), Some("B")), true),
        ] {
            let meant = known(ours.0, ours.1);
            assert_eq!(meant.is_not(theirs.0.map(UidValidity), theirs.1), other, "{ours:?} {theirs:?}");
            assert_eq!(Meant::read(&meant.write(json!({}))), meant);
            assert_eq!(meant.is_known(), ours != (None, None));
        }
        assert!(!Meant::read(&json!({ "wire_name_hex": "41" })).is_known());
    }
}
