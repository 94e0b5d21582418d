//! Which placements of one message are left, and how.

use crate::id::{MailboxId, PlacementId};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Into the target, out of the others.
    Move,
    /// Into the target, staying in the others.
    Copy,
    /// Into the target (Trash); a message that is nowhere else is expunged.
    Delete,
    /// Out of every mailbox.
    Expunge,
}

/// A visible placement of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The row.
    pub id: PlacementId,
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// The mailbox shows all mail of the account (Gmail): being there is not a place of its own.
    pub holds_all: bool,
}

/// How a placement is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Goes to the target.
    Move,
    /// Stays and is copied to the target.
    Copy,
    /// Goes away.
    Expunge,
}

impl StepKind {
    /// The word in `pending_changes.kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Copy => "copy",
            Self::Expunge => "expunge",
        }
    }
}

/// One step for the server to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What happens.
    pub kind: StepKind,
    /// To which placement.
    pub placement: PlacementId,
    /// In which mailbox.
    pub mailbox: MailboxId,
}

/// The steps for one message, all placements or only that in `source`.
///
/// Placements of one message hold the same bytes, so only one has to reach the target and none does when it is there
/// already; the others are expunged.
#[must_use]
pub fn plan(
    places: &[Place],
    source: Option<MailboxId>,
    target: Option<MailboxId>,
    action: Action,
) -> Vec<Step> {
    let step = |kind: StepKind, place: &Place| Step { kind, placement: place.id, mailbox: place.mailbox };
    let in_target = |place: &Place| Some(place.mailbox) == target;
    let named: Vec<&Place> = places.iter().filter(|p| source.is_none_or(|s| p.mailbox == s)).collect();
    let expunge_all = || named.iter().map(|p| step(StepKind::Expunge, p)).collect();
    let there = places.iter().any(in_target);
    match action {
        Action::Expunge => expunge_all(),
        Action::Delete if named.iter().all(|p| in_target(p)) => expunge_all(),
        Action::Copy if there => Vec::new(),
        Action::Copy => named.first().map(|p| step(StepKind::Copy, p)).into_iter().collect(),
        Action::Move | Action::Delete => {
            let mut leaving: Vec<&Place> = named.into_iter().filter(|p| !in_target(p)).collect();
            if source.is_none() && leaving.iter().any(|p| !p.holds_all) {
                leaving.retain(|p| !p.holds_all);
            }
            let kind = |index| if index == 0 && !there { StepKind::Move } else { StepKind::Expunge };
            leaving.iter().enumerate().map(|(index, p)| step(kind(index), p)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(mailbox: MailboxId) -> Place {
        Place { id: PlacementId::new(), mailbox, holds_all: false }
    }

    fn kinds(steps: &[Step]) -> Vec<StepKind> {
        steps.iter().map(|s| s.kind).collect()
    }

    #[test]
    fn one_placement_moves_and_the_other_copies_go() {
        let target = Some(MailboxId::new());
        let places = [place(MailboxId::new()), place(MailboxId::new())];
        let steps = plan(&places, None, target, Action::Move);
        assert_eq!(kinds(&steps), [StepKind::Move, StepKind::Expunge]);
        let only = plan(&places, Some(places[1].mailbox), target, Action::Move);
        assert_eq!((kinds(&only), only[0].placement), (vec![StepKind::Move], places[1].id));
    }

    #[test]
    fn nothing_is_put_twice_into_one_mailbox() {
        let (from, to) = (place(MailboxId::new()), place(MailboxId::new()));
        let target = Some(to.mailbox);
        assert_eq!(kinds(&plan(&[from, to], None, target, Action::Move)), [StepKind::Expunge]);
        assert!(plan(&[from, to], None, target, Action::Copy).is_empty());
        assert!(plan(&[to], None, target, Action::Move).is_empty());
    }

    #[test]
    fn deleting_goes_through_the_trash_and_from_there_away() {
        let (inbox, trash) = (place(MailboxId::new()), place(MailboxId::new()));
        let target = Some(trash.mailbox);
        assert_eq!(kinds(&plan(&[inbox], None, target, Action::Delete)), [StepKind::Move]);
        assert_eq!(kinds(&plan(&[trash], None, target, Action::Delete)), [StepKind::Expunge]);
        let both = plan(&[inbox, trash], None, target, Action::Delete);
        assert_eq!((kinds(&both), both[0].placement), (vec![StepKind::Expunge], inbox.id));
        assert_eq!(plan(&[inbox, trash], None, None, Action::Expunge).len(), 2);
    }

    #[test]
    fn a_mailbox_that_shows_all_mail_is_left_alone_unless_the_message_is_only_there() {
        let all = Place { holds_all: true, ..place(MailboxId::new()) };
        let inbox = place(MailboxId::new());
        let target = Some(MailboxId::new());
        let steps = plan(&[all, inbox], None, target, Action::Move);
        assert_eq!((steps.len(), steps[0].placement), (1, inbox.id));
        assert_eq!(kinds(&plan(&[all], None, target, Action::Delete)), [StepKind::Move]);
    }
}
