//! LIST, STATUS and the changes of the mailbox tree: CREATE, RENAME, DELETE. Subscriptions: [`super::subscription`].
//!
//! With LIST-STATUS (RFC 5819) the whole tree with its numbers is one round trip; otherwise STATUS commands
//! follow, pipelined. The numbers of the mailbox that is selected in this session are those the session knows:
//! NOOP first, or ask another session. Roles (`special_use`) are the server's word only; guessing is
//! [`mail::mailbox::assign_roles`].

use std::collections::HashMap;

use bytes::Bytes;
use mail::mailbox::{Role, is_inbox};
use mail::modseq::ModSeq;
use mail::uid::UidValidity;

use super::ImapError;
use super::command::{Command, Session};
use super::parse::{Cursor, Response, Status, Untagged, Value};
use super::room::Room;

/// Mailboxes beyond this number are an attack; the largest real trees have some 10,000.
const MAX_MAILBOXES: usize = 50_000;
/// STATUS commands sent ahead; Dovecot reads four and leaves the rest in the socket.
const PIPELINE: usize = 50;
const ANSWER_BYTES: u64 = 64 << 20;
/// How often a listing is asked for that there was no room for.
const MAX_LISTINGS: usize = 3;
/// More attributes than this are passed over; the registered ones are a dozen.
const MAX_ATTRIBUTES: usize = 32;
/// Longer names are passed over: an index could not hold them, and Dovecot stops at 255 bytes a level.
const MAX_NAME_BYTES: usize = 2_000;

/// The numbers of a mailbox. What the server left out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxStatus {
    /// Messages in it.
    pub messages: Option<u32>,
    /// The UID the next message will get at least.
    pub uidnext: Option<u32>,
    /// Generation of its UIDs.
    pub uidvalidity: Option<UidValidity>,
    /// Highest mod-sequence; absent without CONDSTORE.
    pub highestmodseq: Option<ModSeq>,
    /// Messages without `\Seen`.
    pub unseen: Option<u32>,
}

/// A mailbox as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMailbox {
    /// The name as the server wrote it, decoded from quotes or literal only.
    pub wire_name: Vec<u8>,
    /// What separates levels; `None` where there are none.
    pub delimiter: Option<char>,
    /// Attributes as sent (`\HasChildren`, `\Sent`, …).
    pub attributes: Vec<String>,
    /// The role its attributes declare.
    pub special_use: Option<Role>,
    /// OBJECTID's identity of the mailbox (RFC 8474), which survives renames.
    pub mailbox_id: Option<String>,
    /// Whether the user subscribed to it; `None` when the server does not tell.
    pub subscribed: Option<bool>,
    /// Its numbers; `None` when it cannot be selected or the server gave none.
    pub status: Option<MailboxStatus>,
}

impl ListedMailbox {
    /// Whether an attribute is present, in any case (`\Noselect`).
    #[must_use]
    pub fn has_attribute(&self, name: &str) -> bool {
        self.attributes.iter().any(|a| a.eq_ignore_ascii_case(name))
    }

    /// Whether it can hold messages at all (neither `\Noselect` nor `\NonExistent`). A phantom may still refuse.
    #[must_use]
    pub fn is_selectable(&self) -> bool {
        !self.has_attribute("\\Noselect") && !self.has_attribute("\\NonExistent")
    }

    /// Whether it only shows what stands elsewhere and has a mark (`\Flagged`, RFC 6154; `\Important`, RFC 8457).
    #[must_use]
    pub fn is_view(&self) -> bool {
        ["\\Flagged", "\\Starred", "\\Important"].iter().any(|name| self.has_attribute(name))
    }
}

type Statuses = HashMap<Vec<u8>, (MailboxStatus, Option<String>)>;

impl Session {
    /// All mailboxes with their numbers and subscriptions. An untagged NO for one of them (a phantom) costs its numbers
    /// only; a name that no command could carry, the mailbox.
    ///
    /// What it takes is taken from `room`, which is to live as long as the list.
    ///
    /// # Errors
    /// Any [`ImapError`]; then nothing may be concluded from mailboxes seen so far.
    pub async fn list_status(&mut self, room: &mut Room) -> Result<Vec<ListedMailbox>, ImapError> {
        let mut attempts = MAX_LISTINGS;
        loop {
            room.begin();
            let listed = match self.list_once(room).await {
                Ok(Some(listed)) => Ok(listed),
                Ok(None) => {
                    attempts -= 1;
                    if attempts == 0 {
                        return Err(ImapError::protocol("a listing that grows while it is read"));
                    }
                    room.wait().await?;
                    continue;
                }
                Err(error) => Err(error),
            };
            let offered = self.capabilities();
            if !self.lacks(&listed) {
                return listed;
            } else if offered.list_extended {
                self.restrict(|c| (c.list_extended, c.list_status) = (false, false));
            } else if offered.condstore || offered.objectid {
                self.restrict(|c| (c.condstore, c.qresync, c.objectid) = (false, false, false));
            } else {
                return listed;
            }
        }
    }

    /// `None`: there was no room for it.
    async fn list_once(&mut self, room: &mut Room) -> Result<Option<Vec<ListedMailbox>>, ImapError> {
        let caps = self.capabilities();
        let items = status_items(caps.condstore, caps.objectid);
        let combined = caps.list_status && caps.list_extended;
        let extended = caps.list_extended;
        let special = if caps.special_use { " SPECIAL-USE" } else { "" };
        let numbers = if combined { format!(" STATUS {items}") } else { String::new() };
        let relies_on = if combined { "LIST-STATUS" } else { "LIST-EXTENDED" };
        let command = if extended {
            format!("LIST \"\" \"*\" RETURN (SUBSCRIBED{special}{numbers})")
        } else {
            "LIST \"\" \"*\"".to_owned()
        };
        let command = Command::new(command).relying_on(extended.then_some(relies_on));
        let (mut mailboxes, mut statuses) = (Vec::new(), Statuses::new());
        let (mut count, mut fits) = (0, true);
        self.run_within(command, ANSWER_BYTES, |u| match u {
            Untagged::Data(name, cursor) if name == "LIST" => {
                let mailbox = read_list(cursor)?;
                count += 1;
                fits &= room.take(cost(&mailbox)) && count <= MAX_MAILBOXES;
                if fits {
                    mailboxes.push(mailbox);
                } else {
                    (mailboxes, statuses) = Default::default();
                }
                None
            }
            Untagged::Data(name, cursor) if name == "STATUS" => {
                if fits {
                    fits = room.take(note_status(&mut statuses, cursor));
                }
                None
            }
            other => Some(other),
        })
        .await?;
        if count > MAX_MAILBOXES {
            return Err(ImapError::protocol("more mailboxes than can be real"));
        }
        if !fits {
            return Ok(None);
        }
        if !combined {
            let names: Vec<&[u8]> =
                mailboxes.iter().filter(|m| m.is_selectable()).map(|m| m.wire_name.as_slice()).collect();
            self.pipeline_status(names, &items, &mut statuses).await?;
        }
        let asked = if extended { None } else { self.subscribed_names().await? };
        for mailbox in &mut mailboxes {
            mailbox.subscribed = if extended {
                Some(mailbox.has_attribute("\\Subscribed"))
            } else {
                asked.as_ref().map(|names| names.contains(&status_key(&mailbox.wire_name)))
            };
        }
        for mailbox in &mut mailboxes {
            if let Some((status, id)) = statuses.remove(&status_key(&mailbox.wire_name)) {
                mailbox.status = Some(status);
                mailbox.mailbox_id = id;
            }
        }
        Ok(Some(mailboxes))
    }

    /// The numbers of one mailbox.
    ///
    /// # Errors
    /// [`ImapError::NoSuchMailbox`] or any other [`ImapError`].
    pub async fn status(&mut self, wire_name: &[u8]) -> Result<MailboxStatus, ImapError> {
        self.status_and_id(wire_name).await.map(|(status, _)| status)
    }

    /// The same, with its MAILBOXID where the server has one.
    ///
    /// # Errors
    /// As for [`Session::status`].
    pub async fn status_and_id(
        &mut self,
        wire_name: &[u8],
    ) -> Result<(MailboxStatus, Option<String>), ImapError> {
        let items = status_items(self.capabilities().condstore, self.capabilities().objectid);
        let mut statuses = Statuses::new();
        let command = Command::new("STATUS").string(wire_name)?.text(" ").text(&items);
        let done = self.run(command, |u| collect_status(u, &mut statuses)).await;
        done.map_err(super::verdict::as_missing)?;
        let found = statuses.remove(&status_key(wire_name));
        found.ok_or_else(|| ImapError::protocol("no STATUS in the answer to STATUS"))
    }

    /// The numbers of each of these mailboxes, as far as the server has one of that name.
    ///
    /// # Errors
    /// Any [`ImapError`], but none for a mailbox that is refused.
    pub async fn numbers_of(&mut self, names: &[&[u8]]) -> Result<Vec<Option<MailboxStatus>>, ImapError> {
        let items = status_items(self.capabilities().condstore, self.capabilities().objectid);
        let mut statuses = Statuses::new();
        self.pipeline_status(names.to_vec(), &items, &mut statuses).await?;
        Ok(names.iter().map(|name| statuses.remove(&status_key(name)).map(|(status, _)| status)).collect())
    }

    async fn pipeline_status(
        &mut self,
        names: Vec<&[u8]>,
        items: &str,
        statuses: &mut Statuses,
    ) -> Result<(), ImapError> {
        // A name that needs a literal waits for the server's go-ahead and cannot be sent ahead.
        let (quotable, literal): (Vec<&[u8]>, Vec<&[u8]>) =
            names.into_iter().partition(|n| mail::mailbox::quote(n).is_some());
        for group in quotable.chunks(PIPELINE) {
            self.status_group(group, items, statuses).await?;
        }
        for name in literal {
            let command = Command::new("STATUS").string(name)?.text(" ").text(items);
            match self.run(command, |u| collect_status(u, statuses)).await {
                Ok(_) | Err(ImapError::Refused { .. } | ImapError::NoSuchMailbox(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn status_group(
        &mut self,
        group: &[&[u8]],
        items: &str,
        statuses: &mut Statuses,
    ) -> Result<(), ImapError> {
        let mut tag = self.begin(ANSWER_BYTES)?;
        let mut out = Vec::new();
        let mut waiting = Vec::new();
        for name in group.iter().filter_map(|n| mail::mailbox::quote(n)) {
            out.extend_from_slice(format!("{tag} STATUS {name} {items}\r\n").as_bytes());
            waiting.push(std::mem::replace(&mut tag, self.tag()));
        }
        self.framer.write(&out).await?;
        let mut first_error = None;
        while !waiting.is_empty() {
            match self.next().await? {
                Response::Tagged { tag, condition } => {
                    waiting.retain(|t| t.as_bytes() != tag.as_ref());
                    // NO means this one mailbox, unless it is a plea for patience, which would make a phantom of every
                    // one; BAD, that the command itself is not understood.
                    let is_bad = condition.status == Status::Bad;
                    match super::verdict::judge(condition) {
                        Err(e) if is_bad || matches!(e, ImapError::Throttled { .. }) => {
                            first_error = first_error.or(Some(e));
                        }
                        Ok(_) | Err(_) => {}
                    }
                }
                Response::Untagged(u) => {
                    if let Some(e) = self.dispatch(collect_status(u, statuses)) {
                        return Err(e);
                    }
                }
                Response::Continue(_) => {}
            }
        }
        self.settle();
        first_error.map_or(Ok(()), Err)
    }

    /// Creates a mailbox, with a role where the server can take one (RFC 6154 §3). What it is called afterwards
    /// only LIST knows: servers rewrite names.
    ///
    /// # Errors
    /// [`ImapError::Refused`] (`ALREADYEXISTS`, `CANNOT`, …) or any other [`ImapError`].
    pub async fn create_mailbox(&mut self, wire_name: &[u8], role: Option<Role>) -> Result<(), ImapError> {
        let mut command = Command::new("CREATE").string(wire_name)?;
        if let Some(attribute) =
            role.and_then(Role::attribute).filter(|_| self.capabilities().create_special_use)
        {
            command = command.text(&format!(" (USE ({attribute}))"));
        }
        self.run(command, Some).await.map(drop)
    }

    /// Renames a mailbox and, on most servers, those below it.
    ///
    /// # Errors
    /// [`ImapError::NoSuchMailbox`], [`ImapError::Refused`] or any other [`ImapError`].
    pub async fn rename_mailbox(&mut self, from: &[u8], to: &[u8]) -> Result<(), ImapError> {
        self.run(Command::new("RENAME").string(from)?.string(to)?, Some).await.map(drop)
    }

    /// Deletes a mailbox with every message in it. Only a user's explicit wish may lead here.
    ///
    /// # Errors
    /// [`ImapError::NoSuchMailbox`], [`ImapError::Refused`] or any other [`ImapError`].
    pub async fn delete_mailbox(&mut self, wire_name: &[u8]) -> Result<(), ImapError> {
        let done = self.run(Command::new("DELETE").string(wire_name)?, Some).await;
        done.map(drop).map_err(super::verdict::as_missing)
    }
}

fn status_items(condstore: bool, objectid: bool) -> String {
    let modseq = if condstore { " HIGHESTMODSEQ" } else { "" };
    let id = if objectid { " MAILBOXID" } else { "" };
    format!("(MESSAGES UIDNEXT UIDVALIDITY{modseq} UNSEEN{id})")
}

/// INBOX may be spelt differently in LIST and STATUS; other names are compared byte for byte.
pub(super) fn status_key(wire_name: &[u8]) -> Vec<u8> {
    if is_inbox(wire_name) { b"INBOX".to_vec() } else { wire_name.to_vec() }
}

/// What a mailbox takes until its tree is taken over: it is kept here, as the planner sees it, and as our row.
fn cost(mailbox: &ListedMailbox) -> usize {
    let attributes: usize = mailbox.attributes.iter().map(|a| 40 + a.len()).sum();
    800 + 6 * mailbox.wire_name.len() + 2 * attributes
}

pub(super) fn read_list(mut cursor: Cursor) -> Option<ListedMailbox> {
    let attributes = cursor.value()?;
    let attributes: Vec<String> =
        attributes.list()?.iter().take(MAX_ATTRIBUTES).filter_map(|v| v.text().map(str::to_owned)).collect();
    let delimiter = cursor.value()?;
    let delimiter = if delimiter.is_nil() { None } else { delimiter.text().and_then(|d| d.chars().next()) };
    let delimiter = delimiter.filter(|c| !c.is_control());
    let name: Bytes = cursor.value()?.bytes().filter(|name| is_usable(name))?.clone();
    let special_use = Role::from_attributes(attributes.iter().map(String::as_str));
    Some(ListedMailbox {
        wire_name: name.to_vec(),
        delimiter,
        special_use,
        attributes,
        mailbox_id: None,
        subscribed: None,
        status: None,
    })
}

/// Whether a command can name it, and a row keep it.
fn is_usable(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.iter().any(|b| matches!(b, 0 | b'\r' | b'\n'))
}

/// An `objectid` (RFC 8474 §7).
fn is_objectid(id: &str) -> bool {
    (1..=255).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn collect_status(untagged: Untagged, statuses: &mut Statuses) -> Option<Untagged> {
    match untagged {
        Untagged::Data(name, cursor) if name == "STATUS" => {
            note_status(statuses, cursor);
            None
        }
        other => Some(other),
    }
}

/// `STATUS name (item value …)`; unknown items are passed over. Returns what it takes in memory.
fn note_status(statuses: &mut Statuses, mut cursor: Cursor) -> usize {
    let Some(name) = cursor.value().and_then(|v| v.bytes().filter(|n| is_usable(n)).cloned()) else {
        return 0;
    };
    let Some(Value::List(items)) = cursor.value() else { return 0 };
    if statuses.len() >= MAX_MAILBOXES {
        return 0;
    }
    let (mut status, mut id) = (MailboxStatus::default(), None);
    for pair in items.chunks_exact(2) {
        let [item, value] = pair else { continue };
        let number = value.number();
        let short = number.and_then(|n| u32::try_from(n).ok());
        match item.text().unwrap_or_default().to_ascii_uppercase().as_str() {
            "MESSAGES" => status.messages = short,
            "UIDNEXT" => status.uidnext = short,
            "UIDVALIDITY" => status.uidvalidity = short.map(UidValidity),
            "HIGHESTMODSEQ" => status.highestmodseq = number.map(ModSeq),
            "UNSEEN" => status.unseen = short,
            "MAILBOXID" => {
                let told = value.list().and_then(<[Value]>::first).and_then(Value::text);
                id = told.filter(|id| is_objectid(id)).map(str::to_owned);
            }
            _ => {}
        }
    }
    let takes = 200 + name.len();
    statuses.insert(status_key(&name), (status, id));
    takes
}

#[cfg(test)]
mod tests {
    use mail::mailbox::Role;
    use mail::modseq::ModSeq;

    use super::super::ImapError;
    use super::super::script::{commands, is_protocol, session};

    fn room() -> super::Room {
        super::super::Rooms::new(4 << 20).of(0)
    }

    const EXTENDED: &str = "LIST-EXTENDED LIST-STATUS SPECIAL-USE CONDSTORE OBJECTID";

    #[tokio::test]
    async fn one_command_lists_names_and_numbers_despite_a_phantom() {
        let answer = "* LIST (\\HasNoChildren \\subscribed) \"/\" inbox\r\n* STATUS INBOX (MESSAGES 3 UIDNEXT 9 UIDVALIDITY 4 \
                      HIGHESTMODSEQ 7 UNSEEN 1 SIZE 100 MAILBOXID (F1) X (a b))\r\n\
                      * LIST (\\Sent) \"/\" \"a\\\"b\" (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n\
                      * LIST () NIL {3}\r\nx)(\r\n* LIST (\\Noselect) \"\\\\\" NIL\r\n\
                      * NO [SERVERBUG] phantom\r\n* LIST ((((\r\n* STATUS x\r\n$ OK done\r\n";
        let (mut s, seen) = session(EXTENDED, &[answer]).await;
        let list = s.list_status(&mut room()).await.unwrap();
        assert_eq!(list.len(), 4);
        let inbox = list[0].status.as_ref().unwrap();
        assert_eq!((inbox.messages, inbox.uidnext, inbox.highestmodseq), (Some(3), Some(9), Some(ModSeq(7))));
        assert_eq!(list[0].mailbox_id.as_deref(), Some("F1"));
        assert_eq!((list[1].wire_name.as_slice(), list[1].special_use), (&b"a\"b"[..], Some(Role::Sent)));
        assert_eq!((list[2].wire_name.as_slice(), list[2].delimiter), (&b"x)("[..], None));
        assert_eq!((list[3].wire_name.as_slice(), list[3].delimiter), (&b"NIL"[..], Some('\\')));
        assert!(!list[3].is_selectable() && list[1].status.is_none());
        assert!(list.iter().all(|m| m.subscribed == Some(m.wire_name == b"inbox")));
        let asked = commands(&seen);
        assert_eq!(asked.len(), 1);
        assert!(asked[0].starts_with("LIST \"\" \"*\" RETURN (SUBSCRIBED SPECIAL-USE STATUS ("), "{asked:?}");
    }

    #[tokio::test]
    async fn without_the_extension_status_commands_follow_and_a_refused_one_costs_its_numbers_only() {
        let list = "* LIST () \"/\" a\r\n* LIST () \"/\" b\r\n* LIST (\\Noselect) \"/\" c\r\n$ OK\r\n";
        let status = "A3 NO phantom\r\n* STATUS b (MESSAGES 2)\r\nA4 OK\r\n";
        let lsub = "* LSUB () \"/\" b\r\n* LSUB (\\Noselect) \"/\" gone\r\n$ OK\r\n";
        let (mut s, seen) = session("", &[list, "", status, lsub]).await;
        let found = s.list_status(&mut room()).await.unwrap();
        assert!(found[0].status.is_none() && found[2].status.is_none());
        assert_eq!(found[1].status.as_ref().unwrap().messages, Some(2));
        assert_eq!(
            found.iter().map(|m| m.subscribed).collect::<Vec<_>>(),
            [Some(false), Some(true), Some(false)]
        );
        assert_eq!(commands(&seen)[3], "LSUB \"\" \"*\"");
        assert_eq!(commands(&seen)[2], "STATUS \"b\" (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)");
        s.framer.allow_until(tokio::time::Instant::now());
        assert!(s.is_usable());
    }

    #[tokio::test]
    async fn a_refused_list_is_an_error() {
        let (mut s, _) = session(
            EXTENDED,
            &["* LIST () \"/\" a\r\n$ NO later\r\n", "$ BAD what\r\n", "$ BAD what\r\n", "$ BAD what\r\n"],
        )
        .await;
        assert!(matches!(s.list_status(&mut room()).await, Err(ImapError::Refused { .. })));
        assert!(is_protocol(&s.list_status(&mut room()).await));
    }

    #[tokio::test]
    async fn a_missing_mailbox_is_told_by_code_or_prose() {
        let answers =
            ["$ NO [NONEXISTENT] x\r\n", "$ NO Mailbox doesn't exist: x\r\n", "$ NO denied\r\n", "$ OK\r\n"];
        let (mut s, _) = session("", &answers).await;
        assert!(matches!(s.status(b"x").await, Err(ImapError::NoSuchMailbox(_))));
        assert!(matches!(s.delete_mailbox(b"x").await, Err(ImapError::NoSuchMailbox(_))));
        assert!(matches!(s.status(b"x").await, Err(ImapError::Refused { .. })));
        assert!(is_protocol(&s.status(b"x").await));
    }

    #[tokio::test]
    async fn a_mailbox_is_created_with_its_role_where_possible() {
        let (mut s, seen) = session("CREATE-SPECIAL-USE", &["$ OK\r\n", "$ OK\r\n"]).await;
        s.create_mailbox(b"Sent", Some(Role::Sent)).await.unwrap();
        s.restrict(|c| c.create_special_use = false);
        s.create_mailbox(b"Sent", Some(Role::Sent)).await.unwrap();
        assert_eq!(commands(&seen), ["CREATE \"Sent\" (USE (\\Sent))", "CREATE \"Sent\""]);
    }
}
