//! Which mailbox is which, where name and UIDVALIDITY disagree: the planner names pairs, here their contents are compared.

use std::collections::HashMap;

use mail::sync::{Candidate, Facts, Findings, ListedMailbox, StatusAnswer, Verdict, judge};
use mail::uid::UidValidity;

use super::SyncError;
use super::link::Link;
use super::visit::is_refusal;
use crate::platform::id::MailboxId;
use crate::sync::store::view::Entry;
use crate::sync::store::{Target, contents};
use wire::imap::ImapError;

/// Mailboxes that may cost a connection twice before no other is looked at: the tree must be taken over some time.
const MAX_DEADLY: usize = 3;
/// Listings in which a mailbox was not what another client had made of it by the time it was opened.
const MAX_STALE: usize = 3;

/// What was found out since the tree began to be taken over. By what mailboxes are and not by their place in a listing: that
/// changes with the next one.
#[derive(Default)]
pub(super) struct Known {
    /// It is the second listing in a row.
    pub confirmed: bool,
    verdicts: HashMap<(MailboxId, Vec<u8>, UidValidity), Verdict>,
    deadly: usize,
    stale: usize,
    /// A mailbox is open.
    open: bool,
}

/// The answer to one look.
enum Look {
    Seen(Verdict),
    /// It has another UIDVALIDITY than the listing said.
    Stale,
    /// The line broke.
    Lost(ImapError),
}

impl Known {
    /// For the planner, who counts places.
    pub fn findings(&self, listed: &[ListedMailbox], entries: &[Entry]) -> Findings {
        let mut findings = Findings { confirmed: self.confirmed, ..Findings::default() };
        if self.verdicts.is_empty() {
            return findings;
        }
        let names: HashMap<&[u8], usize> =
            listed.iter().enumerate().rev().map(|(at, m)| (m.wire_name.as_slice(), at)).collect();
        let ids: HashMap<MailboxId, usize> = entries.iter().enumerate().map(|(at, e)| (e.id, at)).collect();
        for ((id, name, epoch), verdict) in &self.verdicts {
            let (Some(local), Some(at)) = (ids.get(id), names.get(name.as_slice())) else { continue };
            if listed.get(*at).and_then(epoch_of) == Some(*epoch) {
                findings.verdicts.insert(Candidate { local: *local, listed: *at }, *verdict);
            }
        }
        findings
    }

    /// Compares each pair. `false`: the listing is not true any more, and another one should be asked for.
    pub async fn compare(
        &mut self,
        link: &mut Link<'_>,
        pairs: &[Candidate],
        listed: &[ListedMailbox],
        entries: &[Entry],
    ) -> Result<bool, SyncError> {
        for pair in pairs {
            let (Some(entry), Some(mailbox)) = (entries.get(pair.local), listed.get(pair.listed)) else {
                continue;
            };
            let verdict = match self.look(link, entry, mailbox).await? {
                Some(verdict) => verdict,
                None if self.stale < MAX_STALE => {
                    self.stale += 1;
                    self.leave(link).await?;
                    return Ok(false);
                }
                None => Verdict::Unknown,
            };
            tracing::info!(account_id = %link.lease.account, mailbox_id = %entry.id, ?verdict,
                "a mailbox with the UIDVALIDITY of one we know was compared with it");
            let epoch = epoch_of(mailbox).unwrap_or(UidValidity(0));
            self.verdicts.insert((entry.id, mailbox.wire_name.clone(), epoch), verdict);
        }
        self.leave(link).await?;
        Ok(true)
    }

    /// `None`: it is not what the listing said.
    async fn look(
        &mut self,
        link: &mut Link<'_>,
        entry: &Entry,
        mailbox: &ListedMailbox,
    ) -> Result<Option<Verdict>, SyncError> {
        let target = Target {
            account: link.lease.account,
            mailbox: entry.id,
            generation: entry.local.checkpoint.generation,
        };
        let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
        let held = contents::held(&mut tx, &target).await?;
        tx.release();
        if judge(&held, &[]) == Verdict::Nothing {
            return Ok(Some(Verdict::Nothing));
        }
        // A line that breaks once is an accident: what is not proven now may never be. Twice, it is this mailbox.
        for last in [false, true] {
            if self.deadly >= MAX_DEADLY {
                break;
            }
            match Box::pin(self.ask(link, mailbox, &held)).await? {
                Look::Seen(verdict) => return Ok(Some(verdict)),
                Look::Stale => return Ok(None),
                Look::Lost(error) => {
                    tracing::info!(account_id = %link.lease.account, mailbox_id = %entry.id, %error,
                        "the connection was lost while a mailbox was compared");
                    self.deadly += usize::from(last);
                    self.open = false;
                    link.reopen().await?;
                }
            }
        }
        Ok(Some(Verdict::Unknown))
    }

    async fn ask(
        &mut self,
        link: &mut Link<'_>,
        mailbox: &ListedMailbox,
        held: &[Facts],
    ) -> Result<Look, SyncError> {
        loop {
            let error = match self.facts(link, mailbox, held).await {
                Ok(look) => return Ok(look),
                Err(error) => error,
            };
            let error = match link.forgo(error).await {
                Ok(()) => continue,
                Err(SyncError::Imap(error)) => error,
                Err(error) => return Err(error),
            };
            return match error {
                error @ (ImapError::Throttled { .. } | ImapError::AuthRejected { .. }) => Err(error.into()),
                error if !link.session.is_usable() => Ok(Look::Lost(error)),
                error if is_refusal(&error) => Ok(Look::Seen(Verdict::Unknown)),
                error => Err(error.into()),
            };
        }
    }

    async fn facts(
        &mut self,
        link: &mut Link<'_>,
        mailbox: &ListedMailbox,
        held: &[Facts],
    ) -> Result<Look, ImapError> {
        let selected = link.session.select(&mailbox.wire_name, None, true).await?;
        self.open = true;
        if selected.uidvalidity != epoch_of(mailbox) {
            return Ok(Look::Stale);
        }
        let told = link.session.fetch_facts(&held.iter().map(|facts| facts.uid).collect()).await?;
        Ok(Look::Seen(judge(held, &told)))
    }

    /// What is told of a mailbox that is open is what the session knows.
    async fn leave(&mut self, link: &mut Link<'_>) -> Result<(), SyncError> {
        if std::mem::take(&mut self.open) { link.unselect().await } else { Ok(()) }
    }
}

fn epoch_of(mailbox: &ListedMailbox) -> Option<UidValidity> {
    match mailbox.status {
        StatusAnswer::Numbers(numbers) => numbers.uidvalidity,
        StatusAnswer::None | StatusAnswer::Refused => None,
    }
}
