//! The sync planner: what to do next, decided from what the server said and what is stored.
//!
//! Here: [`plan_tree`] for the mailboxes of an account, [`plan`] for one selected mailbox, and the small
//! decisions beside them (merging flags, grouping local edits). Not here:
//! commands, sockets, SQL, clocks, retries. All of it is total: no `Result`, no `async`, any input is answered.
//!
//! # How a driver uses it
//!
//! 1. LIST with STATUS, load the local mailboxes, [`plan_tree`]; write its [`TreeWrite`]s in one transaction;
//!    visit what it lists, in its order.
//! 2. Per visit: SELECT (`CONDSTORE` where offered), fill [`ServerView`] from the answer, load [`LocalView`],
//!    and repeat [`plan`] until [`Plan::Done`]:
//!    - [`Plan::Read`]: perform it; only after its tagged OK note the result in [`Seen`]. On NO, BAD or a lost
//!      connection note nothing and leave the visit: what was not said is never taken for "nothing there".
//!    - [`ServerRead::Messages`] is noted in the rows before any byte is looked into, and the note taken back with the
//!      last row: what a dead process left noted comes back in [`LocalView::alone`] and [`LocalView::raw`].
//!    - [`Plan::Record`]: one transaction with the writes and the checkpoint, then the same in [`LocalView`].
//!    - [`Plan::Send`]: perform it, record the confirmation, and take its edits out of [`LocalView::edits`]
//!      whether or not the server agreed (a refusal is counted in the rows, and tried again next round).
//! 3. Untagged EXISTS go to [`ServerView::note_exists`], EXPUNGE and VANISHED to [`ServerView::note_removed`]
//!    as soon as they are read. Untagged FETCH rows may be merged like any others.
//!
//! Every read asks for a UID at most once per visit, so the number of steps is bounded by the size of the
//! mailbox, whatever the server answers.
//!
//! # Cases
//!
//! Each is decided here and has the named test. A new case: a row here, its arm, its test.
//!
//! | case | what happens | test |
//! | --- | --- | --- |
//! | never synced | remember UIDNEXT and the mod-sequence, then newest first | `a_new_mailbox_is_filled_newest_first` |
//! | UIDNEXT absent or lower than what we hold | the listing tells where new mail begins | `without_uidnext_the_listing_finds_new_mail` |
//! | UIDNEXT far above what is assigned later | the count differs, the listing repairs | `mail_below_a_forged_uidnext_is_found_by_the_count` |
//! | `n:*` returns the last message | UIDs are asked for by closed ranges or by listing only | `new_mail_is_asked_for_by_closed_ranges` |
//! | UIDVALIDITY changed, lowered, missing | new generation; all is fetched again and known by its bytes | `another_uidvalidity_starts_a_generation` |
//! | UIDs returned twice or never | asked for once per visit | `a_uid_that_never_comes_is_asked_for_once` |
//! | a process died while it looked into a batch | those not stored go one at a time, nothing behind them | `what_a_dead_process_was_looking_into_is_fetched_one_at_a_time` |
//! | two processes died at one message | it is stored without being looked into, the mailbox goes on | `a_message_that_ended_two_processes_is_stored_raw_and_the_rest_goes_on` |
//! | one message the server cannot deliver | left out and accounted for; the rest goes on | `a_message_left_out_is_accounted_for_and_not_asked_for` |
//! | its daily retry is due | looked up and asked for alone, whatever the numbers say | `a_message_left_out_is_tried_again_when_it_is_due` |
//! | it is expunged meanwhile | forgotten once a whole listing lacks it | `a_message_in_the_way_is_forgotten_when_the_server_has_it_no_more` |
//! | killed between rows and checkpoint | rows that exist are not fetched again | `rows_beyond_the_checkpoint_are_not_fetched_again` |
//! | new mail during the backfill | goes before the next batch | `new_mail_goes_before_backfill` |
//! | a user wants it read anew | all UIDs and flags are compared, nothing known is fetched again | `a_mailbox_that_is_to_be_read_anew_is_compared_whatever_its_numbers_say` |
//! | a round while another's backfill is under way | all but old mail, and the first page of what is new | `without_backfill_only_the_first_page_of_old_mail_is_read` |
//! | mod-sequence unchanged | nothing is read | `an_unchanged_mailbox_is_done_at_once` |
//! | QRESYNC | changes and vanished since the stored mod-sequence | `with_qresync_changes_and_removals_come_in_one_read` |
//! | CONDSTORE without QRESYNC | changes; removals only when the count differs | `with_condstore_removals_are_found_by_the_count` |
//! | mod-sequence risen, and the answer names no change | the newest flags are read, one command for each such rise; what an older message hides the audit finds | `a_mod_sequence_that_rose_for_nothing_has_the_newest_flags_read_once` |
//! | neither, NOMODSEQ, 0, over 2⁶³ | all flags in chunks | `without_mod_sequences_all_flags_are_read` |
//! | mod-sequence backwards or forged | as without; the new one is stored | `a_mod_sequence_that_ran_backwards_is_not_trusted` |
//! | expunge and arrival leave EXISTS equal | arrivals are counted on our side | `an_expunge_hidden_by_an_arrival_is_found` |
//! | the numbers hide it (a false UIDNEXT), an answer about flags does not fit what is held | the listing decides | `an_answer_that_does_not_fit_what_we_hold_asks_for_a_listing` |
//! | VANISHED of unknown UIDs, of huge ranges | only what we hold; many need a listing | `a_huge_vanished_range_needs_a_listing` |
//! | truncated or omitted SEARCH | many removals need a second, different query | `a_truncated_search_deletes_nothing` |
//! | new mail missing in a truncated SEARCH | the head waits for a second listing | `the_head_does_not_move_over_mail_a_truncated_search_left_out` |
//! | two listings that contradict EXISTS | nothing is removed, the mailbox stays unsettled | `listings_that_contradict_exists_remove_nothing` |
//! | read-only mailbox | edits wait | `a_read_only_mailbox_is_sent_nothing` |
//! | keyword not permitted | the edit is taken back | `a_keyword_the_server_cannot_keep_is_reverted` |
//! | our flag against the server's | three-way merge, our edit wins until confirmed | `a_local_edit_survives_the_servers_old_value` |
//! | no MOVE, no UIDPLUS | COPY; `\Deleted` stays standing, never a bare EXPUNGE | `without_uidplus_a_move_leaves_deleted_standing` |
//! | LIST empty or without INBOX | the tree is kept | `a_listing_without_inbox_keeps_the_tree` |
//! | LIST lacks many mailboxes | a second listing first, nothing is written | `many_missing_mailboxes_need_a_second_listing`, `a_rename_onto_one_of_many_missing_mailboxes_waits_for_the_second_listing` |
//! | renamed | by MAILBOXID; else by UIDVALIDITY, and the contents, if there are any, are relinked | `a_rename_is_found_by_mailboxid`, `a_rename_without_mailboxid_is_relinked`, `a_renamed_mailbox_that_holds_nothing_keeps_its_numbers` |
//! | deleted and created again | same row, new generation | `a_recreated_mailbox_starts_a_generation` |
//! | `\Noselect`, phantom that refuses STATUS | kept, not visited; emptied only when said to be no mailbox | `a_phantom_is_kept_but_not_visited` |
//! | spelling of INBOX | one mailbox | `inbox_is_one_mailbox_in_any_case` |
//! | unchanged numbers | not selected | `a_mailbox_with_unchanged_numbers_is_not_visited` |
//! | new and empty | settled by its numbers, not selected, unless UIDVALIDITY or UIDNEXT is missing or 0, or STATUS refused | `an_empty_mailbox_is_settled_by_its_numbers` |

mod flags;
mod mailboxes;
mod merge;
mod messages;
mod pending;
mod plan;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod uidvalidity;
mod view;

pub use mailboxes::{ListedMailbox, LocalEntry, StatusAnswer, StatusNumbers, TreePlan, TreeWrite, plan_tree};
pub use merge::{FlagState, StoreChange, diff, merge};
pub use pending::{Edit, EditKind, ExpungeBy, Push, ServerWrite, TransferBy, next_push};
pub use plan::{Batch, ListBy, Plan, ServerRead, Write, is_settled, plan};
pub use view::{Checkpoint, Depth, LocalView, PermanentFlags, Policy, Seen, ServerMailbox, ServerView};
