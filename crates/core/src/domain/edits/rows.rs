//! Which row of `message_mailboxes` carries which placement of a message: a pure decision.
//!
//! A row has a part of the server's, a part that clients see, or both. Rows keep their ids where they can: a placement that
//! an edit made gets its UID in the same row, and what is shown in a mailbox where the server has the message is shown by
//! that row.

use mail::sync::FlagState;
use mail::sync::edits::{Held, Shown};
use uuid::Uuid;

use super::{Dates, Row, ServerPart, Work};
use crate::platform::id::PlacementId;

/// The rows of a message before and after.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// To be inserted.
    pub new: Vec<Row>,
    /// To be written.
    pub changed: Vec<Row>,
    /// To be deleted.
    pub gone: Vec<Uuid>,
}

/// `generation` of a mailbox, for placements of the present one; `fallback` are dates of a message that the server has nowhere.
pub(super) fn difference(
    work: &Work,
    visible: &[Shown],
    generation: impl Fn(Uuid) -> i32,
    fallback: Dates,
) -> Rows {
    let mut rows: Vec<(Row, bool)> =
        work.rows.iter().map(|row| (Row { server: None, shown: None, ..row.clone() }, false)).collect();
    let mut carriers: Vec<usize> = Vec::new();
    // Placements that have a row first: no other may take it.
    for kept in [true, false] {
        for held in &work.message.server {
            if held.row.is_some() == kept {
                place_server(work, held, &mut rows, &generation, fallback);
            }
        }
    }
    for held in &work.message.server {
        carriers.push(carrier(work, held, &rows));
    }
    for shown in visible.iter().filter(|s| s.held.is_some()) {
        let row = shown.held.and_then(|at| carriers.get(at)).and_then(|at| rows.get_mut(*at));
        if let Some((row, _)) = row {
            row.shown = Some(shown.flags.clone());
        }
    }
    for shown in visible.iter().filter(|s| s.held.is_none()) {
        let mailbox = Uuid::from_u128(shown.mailbox.0);
        let marked = |row: &Row| row.server.as_ref().is_some_and(|s| s.marked);
        let free = rows.iter().position(|(r, _)| r.mailbox == mailbox && r.shown.is_none() && !marked(r));
        let at = free.unwrap_or_else(|| {
            let like = shown.like.and_then(|at| carriers.get(at)).and_then(|at| rows.get(*at));
            let dates = like.map_or(fallback, |(row, _)| Dates { modseq: 0, ..row.dates });
            rows.push((Row { id: PlacementId::new().0, mailbox, server: None, shown: None, dates }, true));
            rows.len() - 1
        });
        if let Some((row, _)) = rows.get_mut(at) {
            row.shown = Some(shown.flags.clone());
        }
    }
    sort_out(work, rows)
}

fn place_server(
    work: &Work,
    held: &Held,
    rows: &mut Vec<(Row, bool)>,
    generation: &impl Fn(Uuid) -> i32,
    fallback: Dates,
) {
    let mailbox = Uuid::from_u128(held.mailbox.0);
    let is_it = |row: &Row| match held.row {
        Some(id) => row.id.as_u128() == id,
        None => row.mailbox == mailbox && row.server.is_none(),
    };
    let at = rows.iter().position(|(row, _)| is_it(row)).unwrap_or_else(|| {
        // What was moved keeps its dates.
        let dates = work
            .rows
            .iter()
            .find(|r| r.server.is_some())
            .map_or(fallback, |r| Dates { modseq: 0, ..r.dates });
        rows.push((Row { id: PlacementId::new().0, mailbox, server: None, shown: None, dates }, true));
        rows.len() - 1
    });
    let before = work.rows.iter().find(|r| Some(r.id.as_u128()) == held.row).and_then(|r| r.server.clone());
    let Some((row, _)) = rows.get_mut(at) else { return };
    let (generation, uid) = match (held.uid, before) {
        (Some(uid), _) => (generation(mailbox), i64::from(uid.get())),
        // Of an earlier generation: it stays what it was.
        (None, Some(before)) => (before.generation, before.uid),
        (None, None) => return,
    };
    row.server = Some(ServerPart { generation, uid, flags: held.flags.clone(), marked: held.marked });
    let arrived = work.arrivals.iter().find(|a| a.mailbox.0 == mailbox && Some(a.uid) == held.uid);
    if let Some(arrived) = arrived {
        row.dates = Dates { internal: arrived.internal_date, sort: arrived.sort_at, modseq: arrived.modseq };
    }
}

/// The row that has this placement now.
fn carrier(work: &Work, held: &Held, rows: &[(Row, bool)]) -> usize {
    let uid = held.uid.map(|uid| i64::from(uid.get()));
    let is_it = |row: &Row| match (held.row, uid) {
        (Some(id), _) => row.id.as_u128() == id,
        (None, uid) => {
            row.mailbox.as_u128() == held.mailbox.0
                && row.server.as_ref().map(|s| s.uid) == uid
                && !work.message.server.iter().any(|h| h.row == Some(row.id.as_u128()))
        }
    };
    rows.iter().position(|(row, _)| is_it(row)).unwrap_or(usize::MAX)
}

fn sort_out(work: &Work, rows: Vec<(Row, bool)>) -> Rows {
    let mut sorted = Rows::default();
    for (row, is_new) in rows {
        let is_empty = row.server.is_none() && row.shown.is_none();
        match (is_new, is_empty) {
            (true, true) => {}
            (true, false) => sorted.new.push(row),
            (false, true) => sorted.gone.push(row.id),
            (false, false) if work.rows.contains(&row) => {}
            (false, false) => sorted.changed.push(row),
        }
    }
    sorted
}

/// What clients see of a message: mailboxes and flags, in one order.
pub(super) fn seen<'a>(places: impl Iterator<Item = (Uuid, &'a FlagState)>) -> Vec<(Uuid, &'a FlagState)> {
    let mut seen: Vec<_> = places.collect();
    seen.sort_by_key(|(mailbox, flags)| (*mailbox, flags.flags.bits(), flags.keywords.as_slice()));
    seen
}
