//! What our users ask of messages: decided by what they see, written as edits, shown at once.

use std::collections::BTreeMap;
use std::time::Duration;

use mail::flags::Keywords;
use mail::sync::StoreChange;
use mail::sync::edits::{Change, MailboxKey, Message, Scope, Shown};
use uuid::Uuid;

use super::{Work, key, load, save};
use crate::domain::message::edit::FlagEdit;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId, MessageId};
use crate::queue::job::{self, Job};
use crate::queue::lease;

/// What becomes of a message for a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Into the target, out of the others.
    Move(MailboxId),
    /// Into the target, staying in the others.
    Copy(MailboxId),
    /// Into the target (Trash); a message that is nowhere else is removed for good.
    Delete(MailboxId),
    /// Out of every mailbox.
    Expunge,
    /// The same in a store of labels, where a message is expunged in a bin alone: by way of this one.
    ExpungeIn(MailboxId),
    /// In a store of labels: out of INBOX, or a bin, into All Mail.
    Archive {
        /// All Mail.
        all: MailboxId,
        /// INBOX.
        inbox: MailboxId,
    },
}

/// The messages by account, each account's lease row locked: whoever changes where messages are comes one after the other.
pub async fn lock(tx: &mut TenantTx, ids: &[MessageId]) -> Result<BTreeMap<AccountId, Vec<Uuid>>, DbError> {
    let raw: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows: Vec<(AccountId, Uuid)> =
        sqlx::query_as("SELECT account_id, id FROM messages WHERE tenant_id = $1 AND id = ANY ($2)")
            .bind(tx.tenant())
            .bind(&raw)
            .fetch_all(tx.conn())
            .await?;
    let mut by_account: BTreeMap<AccountId, Vec<Uuid>> = BTreeMap::new();
    for (account, id) in rows {
        by_account.entry(account).or_default().push(id);
    }
    let accounts: Vec<AccountId> = by_account.keys().copied().collect();
    lease::lock(tx, &accounts).await?;
    Ok(by_account)
}

/// Asks of each message what `wanted` says of it as it is seen, in this order. Returns the messages of which something was
/// asked.
///
/// # Errors
/// Those of the database. [`DbError::MissingReference`]: the target has just gone.
pub async fn ask<C: IntoIterator<Item = Change>>(
    tx: &mut TenantTx,
    account: AccountId,
    ids: &[Uuid],
    wanted: impl Fn(&Work, &[Shown]) -> C,
) -> Result<Vec<MessageId>, DbError> {
    let mut works = load(tx, account, ids).await?;
    let mut asked = Vec::new();
    for work in &mut works {
        let visible = work.message.visible();
        let mut changes = wanted(work, &visible).into_iter().peekable();
        if changes.peek().is_some() {
            asked.push(work.id);
        }
        for change in changes {
            work.message.ask(change);
        }
    }
    if !asked.is_empty() {
        save(tx, account, &works).await?;
        push(tx, account).await?;
    }
    Ok(asked)
}

/// Asks a worker to bring the account's edits to its server.
pub async fn push(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    job::enqueue(tx, &Job::PushChanges { account_id: account }, Duration::ZERO).await?;
    Ok(())
}

/// The change of flags, if anything of it is not so already where it is meant.
#[must_use]
pub fn flags(visible: &[Shown], mailbox: Option<MailboxId>, edit: &FlagEdit) -> Option<Change> {
    let there = |place: &&Shown| mailbox.is_none_or(|m| place.mailbox == key(m));
    let mut change = StoreChange::default();
    let mut differs = false;
    for place in visible.iter().filter(there) {
        let (flags, keywords) = edit.apply(place.flags.flags, &place.flags.keywords);
        differs |= flags != place.flags.flags || keywords != place.flags.keywords;
        // Those that a message has no room for are left out.
        change.add_keywords = change.add_keywords.union(&keywords.difference(&place.flags.keywords));
    }
    let asked = |names: &[String]| Keywords::from_wire(names.iter().map(String::as_str));
    change.add = edit.add.difference(edit.remove);
    change.remove = edit.remove;
    change.remove_keywords = asked(&edit.keywords_remove);
    change.add_keywords = change.add_keywords.difference(&change.remove_keywords);
    let scope = mailbox.map_or(Scope::All, |m| Scope::In(key(m)));
    differs.then_some(Change::Flags { change, scope })
}

/// The transfer of a message, out of `source` or out of all it is in; nothing when it is as wanted already.
#[must_use]
pub fn transfer(
    (visible, message): (&[Shown], &Message),
    source: Option<MailboxId>,
    transfer: Transfer,
) -> Vec<Change> {
    let labels = &message.labels;
    let is_in = |place: MailboxKey| visible.iter().any(|p| p.mailbox == place);
    let one = |transfer| in_folders(visible, message.all_mail, source, transfer);
    match transfer {
        Transfer::Archive { all, inbox } => {
            let source = source.map_or_else(|| key(inbox), key);
            let from = [source].into_iter().chain(labels.bins.iter().copied()).find(|m| is_in(*m));
            let from = from.filter(|m| *m == source || !is_in(key(all)));
            from.map(|from| Change::Move { from: Scope::In(from), to: key(all) }).into_iter().collect()
        }
        Transfer::ExpungeIn(trash) => expunge_in(trash, (visible, message), source),
        // What All Mail alone has, or is to leave, gets a label: All Mail cannot be left.
        Transfer::Move(to)
            if labels.are
                && !labels.takes_all(key(to))
                && (visible.iter().all(|p| Some(p.mailbox) == message.all_mail)
                    || source.is_some_and(|m| Some(key(m)) == message.all_mail)) =>
        {
            one(Transfer::Copy(to)).into_iter().collect()
        }
        other => one(other).into_iter().collect(),
    }
}

/// [`Transfer::ExpungeIn`].
fn expunge_in(
    trash: MailboxId,
    (visible, message): (&[Shown], &Message),
    source: Option<MailboxId>,
) -> Vec<Change> {
    let bins = &message.labels.bins;
    let is_in = |place: MailboxKey| visible.iter().any(|p| p.mailbox == place);
    let named = source.map(key);
    if named.is_some_and(|m| !is_in(m)) {
        return Vec::new();
    }
    // Of a label alone only that is taken.
    let label = named.filter(|m| !bins.contains(m));
    let all = message.all_mail.filter(|all| is_in(*all));
    if let (Some(label), Some(all)) = (label, all)
        && label != all
    {
        return vec![Change::Move { from: Scope::In(label), to: all }];
    }
    if let Some(bin) = visible.iter().map(|p| p.mailbox).find(|m| bins.contains(m)) {
        return vec![Change::Remove { from: Scope::In(bin) }];
    }
    let to_trash = in_folders(visible, message.all_mail, source, Transfer::Move(trash));
    let gone = Change::Remove { from: Scope::In(key(trash)) };
    to_trash.into_iter().chain([gone]).collect()
}

/// The same where each mailbox has messages of its own.
fn in_folders(
    visible: &[Shown],
    all_mail: Option<MailboxKey>,
    source: Option<MailboxId>,
    transfer: Transfer,
) -> Option<Change> {
    let from = source.map_or(Scope::All, |m| Scope::In(key(m)));
    let named: Vec<&Shown> = visible.iter().filter(|p| source.is_none_or(|m| p.mailbox == key(m))).collect();
    let is_all = |place: &Shown| Some(place.mailbox) == all_mail;
    let first = named.iter().find(|p| !is_all(p)).or_else(|| named.first())?;
    let is_in = |places: &[&Shown], to: MailboxKey| places.iter().any(|p| p.mailbox == to);
    match transfer {
        Transfer::Expunge | Transfer::ExpungeIn(_) => Some(Change::Remove { from }),
        Transfer::Archive { .. } => None,
        Transfer::Copy(to) => {
            let there = visible.iter().any(|p| p.mailbox == key(to));
            (!there).then_some(Change::Copy { from: first.mailbox, to: key(to) })
        }
        Transfer::Delete(to) if named.iter().all(|p| p.mailbox == key(to)) => Some(Change::Remove { from }),
        Transfer::Move(to) | Transfer::Delete(to) => {
            let to = key(to);
            let there = is_in(&visible.iter().collect::<Vec<_>>(), to);
            let leaves = named.iter().any(|p| p.mailbox != to && !(there && source.is_none() && is_all(p)));
            leaves.then_some(Change::Move { from, to })
        }
    }
}

#[cfg(test)]
mod tests {
    use mail::sync::FlagState;
    use mail::sync::edits::Labels;

    use super::*;

    /// In a store without labels.
    fn transfer(
        visible: &[Shown],
        all_mail: Option<MailboxKey>,
        source: Option<MailboxId>,
        wanted: Transfer,
    ) -> Option<Change> {
        let message = Message { all_mail, ..Message::default() };
        let mut asked = super::transfer((visible, &message), source, wanted);
        assert!(asked.len() < 2);
        asked.pop()
    }

    fn seen(mailboxes: &[MailboxId]) -> Vec<Shown> {
        let place =
            |m: &MailboxId| Shown { mailbox: key(*m), flags: FlagState::default(), held: None, like: None };
        mailboxes.iter().map(place).collect()
    }

    #[test]
    fn nothing_is_asked_for_what_is_so_already() {
        let (inbox, work) = (MailboxId::new(), MailboxId::new());
        let here = seen(&[work]);
        assert_eq!(transfer(&here, None, None, Transfer::Move(work)), None);
        assert_eq!(transfer(&here, None, None, Transfer::Copy(work)), None);
        assert_eq!(transfer(&[], None, None, Transfer::Move(work)), None);
        assert_eq!(transfer(&here, None, Some(inbox), Transfer::Expunge), None);
        let both = seen(&[inbox, work]);
        let moved = Some(Change::Move { from: Scope::All, to: key(work) });
        assert_eq!(transfer(&both, None, None, Transfer::Move(work)), moved);
        assert_eq!(
            flags(&here, None, &FlagEdit { remove: mail::flags::Flags::SEEN, ..FlagEdit::default() }),
            None
        );
    }

    #[test]
    fn deleting_goes_through_the_trash_and_from_there_away() {
        let (inbox, trash) = (MailboxId::new(), MailboxId::new());
        let all = Scope::All;
        let to_trash = Some(Change::Move { from: all, to: key(trash) });
        assert_eq!(transfer(&seen(&[inbox]), None, None, Transfer::Delete(trash)), to_trash);
        assert_eq!(transfer(&seen(&[inbox, trash]), None, None, Transfer::Delete(trash)), to_trash);
        let for_good = Some(Change::Remove { from: all });
        assert_eq!(transfer(&seen(&[trash]), None, None, Transfer::Delete(trash)), for_good);
        let there = Some(Change::Remove { from: Scope::In(key(trash)) });
        assert_eq!(transfer(&seen(&[inbox, trash]), None, Some(trash), Transfer::Delete(trash)), there);
    }

    #[test]
    fn all_mail_is_no_place_to_leave_for_one_that_has_the_message() {
        let (inbox, all, to) = (MailboxId::new(), MailboxId::new(), MailboxId::new());
        let holds_all = Some(key(all));
        assert_eq!(transfer(&seen(&[all, to]), holds_all, None, Transfer::Move(to)), None);
        let copy = Some(Change::Copy { from: key(inbox), to: key(to) });
        assert_eq!(transfer(&seen(&[all, inbox]), holds_all, None, Transfer::Copy(to)), copy);
    }

    #[test]
    fn in_a_store_of_labels_archiving_takes_one_label_and_deleting_goes_through_a_bin() {
        let [inbox, work, all, trash, junk] = [(); 5].map(|()| MailboxId::new());
        let bins = vec![key(trash), key(junk)];
        let message =
            Message { all_mail: Some(key(all)), labels: Labels { are: true, bins }, ..Message::default() };
        let asked =
            |places: &[MailboxId], source, wanted| super::transfer((&seen(places), &message), source, wanted);
        let moved = |from, to| Change::Move { from, to: key(to) };
        let archive = Transfer::Archive { all, inbox };
        assert_eq!(asked(&[inbox, work, all], None, archive), [moved(Scope::In(key(inbox)), all)]);
        assert_eq!(asked(&[inbox, work, all], Some(work), archive), [moved(Scope::In(key(work)), all)]);
        assert_eq!(asked(&[work, all], None, archive), [], "it is archived already");
        assert_eq!(asked(&[junk], None, archive), [moved(Scope::In(key(junk)), all)]);
        let gone = Transfer::ExpungeIn(trash);
        let away = Change::Remove { from: Scope::In(key(trash)) };
        assert_eq!(asked(&[inbox, all], None, gone), [moved(Scope::All, trash), away.clone()]);
        assert_eq!(asked(&[all], None, gone), [moved(Scope::All, trash), away.clone()]);
        assert_eq!(asked(&[trash], None, gone), [away]);
        assert_eq!(asked(&[junk], Some(junk), gone), [Change::Remove { from: Scope::In(key(junk)) }]);
        assert_eq!(asked(&[inbox, work, all], Some(work), gone), [moved(Scope::In(key(work)), all)]);
        assert_eq!(asked(&[inbox, all], Some(work), gone), []);
        let labelled = [Change::Copy { from: key(all), to: key(work) }];
        assert_eq!(asked(&[all], None, Transfer::Move(work)), labelled);
        assert_eq!(asked(&[inbox, all], Some(all), Transfer::Move(work)), labelled);
        assert_eq!(asked(&[work, all], Some(all), Transfer::Move(work)), []);
        assert_eq!(
            asked(&[inbox, all], Some(all), Transfer::Move(trash)),
            [moved(Scope::In(key(all)), trash)]
        );
        assert_eq!(asked(&[inbox, all], None, Transfer::Move(work)), [moved(Scope::All, work)]);
        assert_eq!(asked(&[all], None, Transfer::Delete(trash)), [moved(Scope::All, trash)]);
    }
}
