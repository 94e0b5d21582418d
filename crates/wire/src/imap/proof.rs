//! What proves that a message in one mailbox is the one that stood in another: asked of the server before the original is
//! removed.

use std::collections::BTreeMap;

use mail::uid::{Uid, UidSet};
use sha2::{Digest as _, Sha256};

use super::ImapError;
use super::command::{Command, Session, set_chunks, uid_of};
use super::flags::find;
use super::parse::{Untagged, Value};

/// Headers of one command's messages, 500 at most.
const ANSWER_BYTES: u64 = 512 << 20;

/// Two messages with the same are taken for the same. A server may lie about sizes: so what it says of one is compared with
/// what it says of the other, not with what we have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// RFC822.SIZE.
    pub size: Option<u64>,
    /// SHA-256 of the header; `None` for one that is too large to be kept, or was not told.
    pub header: Option<[u8; 32]>,
}

impl Session {
    /// Size and header of messages of the open mailbox; those that are not there are left out.
    ///
    /// # Errors
    /// Any [`ImapError`].
    pub async fn proofs(&mut self, uids: &UidSet) -> Result<BTreeMap<Uid, Proof>, ImapError> {
        let mut found = BTreeMap::new();
        for set in set_chunks(uids) {
            let command = Command::new(format!("UID FETCH {set} (UID RFC822.SIZE BODY.PEEK[HEADER])"));
            self.run_within(command, ANSWER_BYTES, |u| {
                let Untagged::Fetch(fetch) = u else { return Some(u) };
                let Some(uid) = find(&fetch, "UID").and_then(uid_of).filter(|uid| uids.contains(*uid)) else {
                    return Some(Untagged::Fetch(fetch));
                };
                // A server may tell one half of it without being asked, and then the other.
                let proof: &mut Proof = found.entry(uid).or_default();
                if let Some(size) = find(&fetch, "RFC822.SIZE").and_then(Value::number) {
                    proof.size = Some(size);
                }
                if let Some(header) = find(&fetch, "BODY[HEADER]").and_then(Value::bytes) {
                    proof.header = Some(Sha256::digest(header).into());
                }
                None
            })
            .await?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use mail::uid::UidSet;

    use super::super::script::session;

    #[tokio::test]
    async fn equal_headers_and_sizes_are_the_same_proof_and_what_is_not_there_has_none() {
        let answer = "* 1 FETCH (UID 1 RFC822.SIZE 9 BODY[HEADER] \"a: b\")\r\n* 2 FETCH (UID 2 RFC822.SIZE 9 BODY[HEADER] {4}\r\na: b)\r\n\
                      * 3 FETCH (UID 3 RFC822.SIZE 8 BODY[HEADER] \"a: b\")\r\n* 4 FETCH (UID 9 RFC822.SIZE 9 BODY[HEADER] \"a: b\")\r\n$ OK\r\n";
        let (mut s, _) = session("", &[answer]).await;
        let found = s.proofs(&UidSet::parse("1:4").unwrap()).await.unwrap();
        let of = |n: u32| found.get(&mail::uid::Uid::new(n).unwrap());
        assert_eq!(of(1), of(2));
        assert_ne!(of(1), of(3));
        assert_eq!((found.len(), of(4)), (3, None));
    }
}
