//! The sync planner: what to do next, decided from what the server said and what is stored.
//!
//! Here: [`plan_tree`] for the mailboxes of an account, [`plan`] for one selected mailbox, and the small
//! decisions beside them; [`edits`] for what our users want of a message. Not here:
//! commands, sockets, SQL, clocks, retries. All of it is total: no `Result`, no `async`, any input is answered.
//!
//! # How a driver uses it
//!
//! 1. LIST with STATUS, load the local mailboxes, [`plan_tree`]; look where it wants to know who is who
//!    ([`TreePlan::compare`]) and plan again; write its [`TreeWrite`]s in one transaction; visit what it lists, in its order.
//! 2. Per visit: SELECT (`CONDSTORE` where offered), fill [`ServerView`] from the answer, load [`LocalView`],
//!    and repeat [`plan`] until [`Plan::Done`]:
//!    - [`Plan::Read`]: perform it; only after its tagged OK note the result in [`Seen`]. On NO, BAD or a lost
//!      connection note nothing and leave the visit: what was not said is never taken for "nothing there".
//!    - [`ServerRead::Messages`] is noted in the rows before any byte is looked into, and the note taken back with the
//!      last row: what a dead process left noted comes back in [`LocalView::alone`] and [`LocalView::raw`].
//!    - [`Plan::Record`]: one transaction with the writes and the checkpoint, then the same in [`LocalView`].
//!    - [`Plan::Send`]: perform it, record the confirmation, and take what it sent out of [`LocalView::ready`]
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
//! | messages that are not kept here | accounted for and never asked for; forgotten once a whole listing lacks them | `what_is_not_kept_is_accounted_for_and_never_asked_for` |
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
//! | no MOVE, no UIDPLUS | COPY; `\Deleted` stays standing, never a bare EXPUNGE | `without_uidplus_a_move_leaves_deleted_standing` |
//! | LIST empty or without INBOX | the tree is kept | `a_listing_without_inbox_keeps_the_tree` |
//! | LIST lacks many mailboxes | a second listing first, nothing is written | `many_missing_mailboxes_need_a_second_listing`, `a_rename_onto_one_of_many_missing_mailboxes_waits_for_the_second_listing` |
//! | renamed, names swapped | by MAILBOXID; else by UIDVALIDITY and by what twenty messages look like: all that is held stays true | `a_rename_is_found_by_mailboxid`, `a_rename_without_mailboxid_is_proven_by_its_contents_and_keeps_its_numbers`, `mailboxes_that_swap_their_names_keep_what_they_are` |
//! | renamed, and a new one made under its name | the id goes along; INBOX is always INBOX | `a_new_mailbox_under_the_name_of_a_renamed_one_is_another` |
//! | renamed and not proven | by UIDVALIDITY, if the old name is gone; its messages are found again by their bytes | `a_rename_that_contents_do_not_prove_is_relinked`, `where_all_mailboxes_share_a_uidvalidity_counts_or_names_tell_a_rename` |
//! | renamed, nothing in it, or nothing read of it yet | by a UIDVALIDITY that no other has | `a_renamed_mailbox_that_holds_nothing_keeps_its_numbers`, `a_mailbox_renamed_once_more_before_it_was_read_is_known_by_its_number` |
//! | all mailboxes share a UIDVALIDITY | three looks for each of ours at most; sizes and dates must be equal | `where_all_mailboxes_share_a_uidvalidity_few_are_compared_and_the_likeliest_first` |
//! | RFC822.SIZE or INTERNALDATE that lies, dates that no server keeps | 18 of 20 dates prove where UIDVALIDITY is its own; dates before 1970 and after 2037 are left out | `eighteen_of_twenty_messages_prove_a_mailbox_whatever_became_of_the_others`, `dates_that_no_server_keeps_are_not_compared` |
//! | `\Noselect` parents of a renamed tree | where those below them went | `parents_that_cannot_be_selected_go_where_those_below_them_went` |
//! | a rename to a name that is kept, or waits for our user | not taken over, nor what wants the name it leaves | `a_mailbox_that_keeps_its_name_keeps_others_from_it_while_the_tree_is_kept` |
//! | deleted and created again | same row, new generation | `a_recreated_mailbox_starts_a_generation` |
//! | `\Noselect`, phantom that refuses STATUS | kept, not visited; emptied only when said to be no mailbox | `a_phantom_is_kept_but_not_visited` |
//! | spelling of INBOX | one mailbox | `inbox_is_one_mailbox_in_any_case` |
//! | unchanged numbers | not selected | `a_mailbox_with_unchanged_numbers_is_not_visited` |
//! | new and empty | settled by its numbers, not selected, unless UIDVALIDITY or UIDNEXT is missing or 0, or STATUS refused | `an_empty_mailbox_is_settled_by_its_numbers` |

pub mod edits;
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

pub use mailboxes::{
    Candidate, Facts, Findings, ListedMailbox, LocalEntry, StatusAnswer, StatusNumbers, TreePlan, TreeWrite,
    Verdict, judge, plan_tree, sample,
};
pub use merge::{FlagState, StoreChange};
pub use pending::{ExpungeBy, Push, Ready, ReadyKind, ServerWrite, next_push};
pub use plan::{Batch, ListBy, Plan, ServerRead, Write, is_settled, plan};
pub use view::{Checkpoint, Depth, LocalView, PermanentFlags, Policy, Seen, ServerMailbox, ServerView};
