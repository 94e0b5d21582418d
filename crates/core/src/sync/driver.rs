//! The driver of synchronisation: performs what the planner (`mail::sync`) decides, against a server and our rows.
//!
//! - `round`: a whole round; `edits`: our users' edits alone; `tree`, `visit`: parts of both
//! - `identity`: which mailbox is which, by what they hold
//! - `believed`: what of an answer is believed
//! - `fetch`: messages from the server to rows, as a pipeline
//! - `push`: what edits want, sent to one mailbox; `empty`: a mailbox that our user deletes
//! - `keep`: which messages are kept at all
//! - `head`: new mail of the mailbox a watcher has open
//! - `audit`: everything compared once a day
//! - `trouble`: what a failure means for the account
//!
//! Nothing is decided here but how errors are survived. Every write is fenced by the account's lease, no transaction is
//! open while the network is waited for, and a process that dies at any point resumes from the checkpoints. A new
//! variant of the planner's `ServerRead`, `ServerWrite` or `Write` gets its arm in `visit` or `push`.
//!
//! # Cases
//!
//! Those that need a server, or a line to one, to be decided; the planner's own are in [`mail::sync`]. A new case: a row
//! here, its test under `tests/sync`, which reads both tables.
//!
//! | case | what happens | test |
//! | --- | --- | --- |
//! | UIDVALIDITY lowered | ids stay, one `mailbox.reset` | `a_lowered_uidvalidity_keeps_ids_and_tells_one_reset` |
//! | UIDVALIDITY changed together with flags, removals, arrivals, our edits | all are found, each told once, the edit waits for its message | `what_changed_together_with_the_uidvalidity_is_found` |
//! | moved A→B, B or A looked at first | same id, one event for each place | `a_move_by_another_client_keeps_the_id_in_either_order_of_looking` |
//! | COPY, then expunge, by a client without MOVE | same id | `copy_and_expunge_is_a_move_too` |
//! | moved away and back between two rounds | what was taken for a copy gets the id of the one that left | `a_message_moved_away_and_back_between_two_rounds_is_the_same` |
//! | moved A→B, and B is read minutes after A | same id: what went is kept until every mailbox was read since | `what_was_moved_keeps_its_id_however_long_it_takes_until_it_is_read` |
//! | our copy and then move into a mailbox that goes before the server hears of either | the message stays where it was | `a_message_whose_copy_was_not_made_yet_stays_when_the_mailbox_of_the_copy_goes` |
//! | tens of thousands of messages go: expunged, of an earlier generation, with their mailboxes | in portions, each told once | `tens_of_thousands_of_messages_go_in_portions_of_a_transaction_each` |
//! | Message-ID twice, missing, garbage | the bytes decide | `message_ids_that_are_twice_missing_or_garbage_confuse_nothing` |
//! | absurd Date and INTERNALDATE | kept and sorted at the edges; nothing is written twice | `absurd_dates_are_kept_and_write_nothing_twice` |
//! | identical copy in the same mailbox, and elsewhere | a message of its own; one more place | `an_identical_copy_in_one_mailbox_is_a_message_of_its_own_and_elsewhere_it_is_not` |
//! | flags, arrivals, removals, moves during the first round | all are found | `flags_mail_and_removals_during_the_first_round_are_all_found` |
//! | expunged while it is fetched | not kept, not asked for again | `mail_expunged_while_it_is_fetched_is_neither_kept_nor_asked_for_again` |
//! | deleted or another UIDVALIDITY while it is fetched | BYE, and read anew | `a_mailbox_deleted_or_given_another_uidvalidity_while_it_is_fetched_does_not_mix_messages` |
//! | kicked at a FETCH | connected again, nothing is lost | `a_connection_kicked_at_a_fetch_is_made_again_and_nothing_is_lost` |
//! | account deleted during a round | all is gone, the round ends | `an_account_deleted_during_its_round_is_gone_and_the_round_ends` |
//! | credentials changed during a round | they count from the next one | `credentials_changed_during_a_round_count_from_the_next_one` |
//! | our flag while the server's older one arrives | both are kept | `our_flag_and_the_servers_older_one_meet_and_both_are_kept` |
//! | EXISTS between SELECT and IDLE | IDLE tells it | `mail_that_comes_between_select_and_idle_is_not_waited_for` |
//! | APPEND racing with the provider's own copy | both stand, no third is filed | `a_copy_that_the_provider_files_while_ours_is_on_its_way_stands_beside_it_and_is_no_third` |
//! | no CONDSTORE, no QRESYNC | the same changes by flags and listing | `without_condstore_or_qresync_the_same_changes_are_found` |
//! | expunge and arrival leave EXISTS equal | both are found | `an_expunge_and_an_arrival_that_leave_the_count_equal_are_both_found` |
//! | nothing but IMAP4rev1 | our edits by STORE and COPY, `\Deleted` left standing | `our_edits_reach_a_server_that_can_do_nothing_but_imap4rev1` |
//! | our own move or copy without COPYUID | found by its bytes in the target | `our_moves_without_copyuid_keep_their_ids` |
//! | mod-sequence forged into the future, then lost | followed; then all flags and a listing | `a_mod_sequence_of_the_far_future_is_followed_and_forgotten_again` |
//! | keywords not permitted, read-only mailbox | taken back; waits | `what_a_mailbox_does_not_permit_is_taken_back_or_waits` |
//! | renamed, alone, with changes, by its parent | same mailbox, same messages | `a_renamed_mailbox_keeps_its_id_and_its_messages_theirs` |
//! | two mailboxes swap names | messages keep their ids | `two_mailboxes_that_swap_their_names_keep_what_is_in_them` |
//! | two mailboxes that hold one message deleted together | the message is told once, as deleted | `of_a_message_in_two_mailboxes_that_go_together_one_thing_is_told` |
//! | deleted and made again | holds what the new one holds; equal bytes keep their id | `a_mailbox_deleted_and_made_again_holds_what_the_new_one_holds` |
//! | our user deletes or renames a mailbox whose name another client gives away before the server hears of it, or hears it again | the one that has the name now stays | `a_mailbox_that_got_the_name_of_one_our_user_deletes_or_renames_is_neither_deleted_nor_renamed` |
//! | INBOX in any case | one mailbox | `inbox_is_one_mailbox_however_it_is_spelt` |
//! | `\Noselect` parents, a phantom left by DELETE | listed, not selectable; emptied when asked alone says there is none | `parents_that_hold_no_messages_come_and_go` |
//! | paused during a round | nothing more is written, edits wait | `a_pause_ends_a_round_at_its_next_write_and_keeps_edits_until_the_account_goes_on` |
//! | a user wants it read anew | what differs is repaired, the rest is not touched | `a_mailbox_that_is_read_anew_is_repaired_and_what_was_right_is_left_alone` |
//! | our rows differ though the server's numbers stand still | the daily audit repairs and counts | `rows_that_were_tampered_with_are_repaired_and_counted` |
//! | the audit meets changes of the server | taken over, not counted | `what_changed_on_the_server_since_the_last_round_is_taken_over_and_not_counted` |
//! | 1,000 mailboxes | one listing; only what changed is opened | `a_thousand_mailboxes_are_listed_in_one_command_and_only_what_changed_is_opened` |
//! | 5,000 mailboxes, nearly all empty | only what holds mail is opened, ever; one listing where the server has LIST-STATUS | `of_five_thousand_mailboxes_only_those_that_hold_mail_are_opened` |
//! | kill -9 between fetch and commit, after commit, before the acknowledgement | each message once, one event each | `killed_between_fetch_and_commit_and_after_it_each_message_is_there_once` |
//! | kill -9 between bytes stored ahead and their rows | each message once; bytes that no message came to use are swept by the audit | `killed_between_bytes_and_their_rows_nothing_is_lost_and_orphans_are_swept` |
//! | kill -9 after the server did our edit, before we noted it | done once, COPY too: its target is read before it is repeated | `killed_after_an_edit_reached_the_server_it_is_done_once` |
//! | our move of what another client took first | its place in the target is given up after a while | `our_move_of_what_another_client_took_first_leaves_nothing_behind` |
//! | the target of our move or copy is deleted by another client | the message is where it was, told once | `our_moves_into_a_mailbox_that_another_client_deleted_are_undone_and_told` |
//! | our user deletes the target while the server moves | the message ends in Trash with what was there | `a_move_under_way_into_a_mailbox_our_user_deletes_ends_in_trash_with_its_mail` |
//! | our user deletes a mailbox whose messages wait to be moved out of it | refused until the server has moved them | `a_mailbox_that_our_user_emptied_is_not_deleted_before_the_server_has_moved_its_messages` |
//! | our user deletes a message in the moment in which a worker adds a place to it | one after the other, and so told | `our_deletion_and_a_place_that_a_worker_adds_in_that_moment_are_told_one_after_the_other` |
//! | the target goes while our user moves something there | refused | `our_move_into_a_mailbox_that_goes_in_that_moment_is_refused` |
//! | a mailbox takes a deleted one's name, and messages, after the round has told the server of names | what needs a name that the server has not heard of waits for the next telling | `a_mailbox_that_takes_the_name_of_a_deleted_one_during_a_round_gets_what_our_user_moves_there` |
//! | our user renames while a round takes over the server's tree | one after the other; what is below goes along and is not looked at before | `a_rename_waits_for_a_round_that_takes_over_the_servers_tree`, `mailboxes_below_one_that_is_renamed_during_a_round_stay_what_they_are` |
//! | our user edits what was moved into a mailbox that is new | pushed in the round that learns its UID | `an_edit_of_what_has_just_arrived_in_a_new_mailbox_goes_in_the_same_round` |
//! | thousands of edits in one mailbox | portion by portion in one visit | `thousands_of_edits_of_one_mailbox_reach_the_server_without_another_round` |
//! | our user changes a message while another change of it is refused | the refused one alone is taken back | `what_our_user_changes_while_another_change_is_refused_is_kept` |
//! | our user copies a message and deletes its original, and the copy is refused, or nobody knows of it | the original stays until the copy is known to be there | `a_message_is_not_deleted_for_the_sake_of_a_copy_that_is_not_made`, `a_message_is_not_deleted_before_it_is_known_that_its_copy_was_made` |
//! | another client flags what our user's move waits with | its flag goes along | `what_another_client_flags_while_our_move_waits_stays_flagged` |
//! | our user flags, or moves on, what then cannot be moved | the flags stay with the message, which goes on from where it is | `a_message_that_cannot_be_moved_keeps_the_flags_it_got_on_the_way_and_goes_on_from_where_it_is` |
//! | our user deletes a message for good where a move brought it that is then refused, or whose target goes | it is deleted where it was | `what_our_user_deleted_for_good_stays_deleted_though_it_could_not_be_moved_before` |
//! | our user edits flags while a worker writes | one after the other: in another order the database would end one of them | `our_users_edit_of_flags_and_what_a_worker_writes_come_one_after_the_other` |
//! | somebody unmarks what our user deleted on a server without UIDPLUS | it is back | `what_our_user_deleted_where_it_can_only_be_marked_is_back_once_somebody_unmarks_it` |
//! | the answer to a COPY is lost, and its target cannot be read | it waits until the target was read as a whole | `a_copy_in_doubt_is_not_made_again_while_its_target_cannot_be_read` |
//! | our user sets a flag, moves, clears it, at once or while paused | cleared there and here | `a_flag_that_is_set_before_a_move_and_cleared_after_it_is_set_nowhere` |
//! | our user copies, then stars the original alone | the copy is as it was copied | `a_star_in_one_mailbox_does_not_reach_the_copy_that_was_made_before_it` |
//! | the answer to our MOVE or COPY is lost, and our user clears a flag meanwhile | it stays cleared, nothing is copied twice | `what_is_cleared_while_the_answer_to_a_move_is_lost_stays_cleared`, `what_is_cleared_while_the_answer_to_a_copy_is_lost_stays_cleared_and_it_is_copied_once` |
//! | a chain of copy, moves and deletions waits, and its first mailbox is renamed or gets another UIDVALIDITY | it ends where the last edit says, on the server too | `a_chain_of_edits_ends_where_it_should_though_its_first_mailbox_was_renamed_or_renumbered` |
//! | moved away and back where our user left it marked before | one message, same id | `what_comes_back_beside_what_our_user_left_marked_there_is_the_same` |
//! | moved between our look and our command, OK for nothing | the edit is done where it went | `what_another_client_moves_in_the_moment_of_our_command_gets_all_of_our_edit_where_it_went` |
//! | moved away and back while a push reads that mailbox | one message, same id | `a_message_that_goes_and_comes_back_while_its_neighbour_is_starred_is_the_same` |
//! | renamed twice, the line cut at SELECT between | same mailbox, its edits are done | `a_mailbox_renamed_twice_before_it_was_looked_at_is_the_same_and_its_edits_are_done` |
//! | our flags wait, and another client moves the message first, one or hundreds | starred where it is now; `updated` counts what happened | `flags_follow_a_message_to_where_another_client_moved_it_first`, `of_many_messages_that_are_starred_at_once_those_moved_first_are_starred_too` |
//! | the target of our move is renamed, and other edits are pushed meanwhile | the move is not given up: into the renamed mailbox | `a_move_into_a_mailbox_that_another_client_renames_is_not_given_up_for_other_edits` |
//! | what our user moves or copies is marked `\Deleted`, by another client or by a removal of ours whose answer was lost | it arrives without the mark; a copied original keeps it | `what_is_marked_as_deleted_arrives_without_the_mark_and_a_copied_original_keeps_it` |
//! | another client expunges what our move or copy waits with | gone at once, told once, nothing in the target | `a_message_that_is_expunged_before_our_move_or_copy_of_it_is_gone_at_once` |
//! | names swapped; a new mailbox under the name of a renamed one; a tree with `\Noselect` parents renamed; with MAILBOXID and without | ids stay with the mailboxes | `two_mailboxes_that_swap_their_names_keep_their_ids`, `a_new_mailbox_under_the_name_of_one_that_was_renamed_is_another`, `parents_without_messages_keep_their_ids_when_their_tree_is_renamed`, `whatever_a_server_tells_of_mailboxes_their_ids_stay_with_them_and_not_with_their_names` |
//! | names swapped while edits wait in them | the listing is asked before a number is given up; each edit reaches its message | `edits_in_mailboxes_that_swapped_their_names_meanwhile_reach_their_messages` |
//! | names swapped, and sizes are lies, the line breaks, or nobody can be asked | proven by dates; asked again; names decide, and messages are found by their bytes | `who_a_mailbox_is_is_found_out_though_the_server_lies_on_sizes_or_breaks_the_line` |
//! | our user deletes a mailbox with mail in it, seen here or not | it is emptied into Trash first; below Trash it goes with its mail | `mail_in_a_mailbox_that_our_user_deletes_is_in_trash_also_what_nobody_here_had_seen`, `a_mailbox_below_trash_goes_with_what_is_in_it` |
//! | our user deletes a mailbox with very much in it, and makes another under its name | it goes here in portions, then on the server, and what went to Trash keeps its ids | `a_mailbox_that_is_removed_in_portions_ends_in_trash_too_and_a_new_one_has_its_name`, `what_another_client_expunges_while_a_mailbox_is_removed_is_told_and_does_not_come_back`, `of_a_conversation_between_a_mailbox_that_is_removed_and_one_that_is_excluded_each_part_goes` |
//! | less of an account is to be kept, then all again; dates at the edge of a day, in all zones | what is outside leaves without a word and comes back, the server is as it was | `narrowing_by_date_takes_out_what_is_older_without_a_word_and_widening_brings_it_back` |
//! | flags, removals and another UIDVALIDITY of what is outside | accounted for, never read, nothing is told | `what_is_outside_is_never_read_and_flags_and_removals_there_confuse_nothing` |
//! | mailboxes that are not kept, by name, pattern and role | listed, and empty here | `mailboxes_that_are_not_kept_are_listed_and_hold_nothing_here`, `a_mailbox_that_is_not_synchronised_is_not_deleted_as_an_empty_one` |
//! | our user moves and copies into a mailbox that is not kept, another client into it and out of it | once each on the server; told as deleted where it left what is kept | `what_is_moved_to_a_mailbox_that_is_not_kept_is_there_on_the_server` |
//! | edits wait of what goes outside | it stays until the server has them | `edits_that_wait_of_what_is_outside_reach_the_server_before_it_leaves` |
//! | kill -9 between two portions of narrowing; mail that grows too old | goes on; leaves by itself, once a day | `a_worker_that_dies_while_it_narrows_leaves_what_the_next_one_does`, `whatever_is_not_kept_a_pass_is_due_once_a_day_and_mailboxes_with_a_cause_widen_nothing` |
//! | more is to be kept while less is being made of it; short slices; midnight | each portion goes by what is wanted then; goes on where it was; a pass is of the day it began | `widening_while_it_narrows_hides_nothing`, `it_comes_to_an_end_however_short_its_slices_are_and_looks_at_nothing_twice_while_edits_wait`, `a_pass_over_midnight_is_one_of_the_day_before` |
//! | our user moves into a mailbox that is not kept, where others put mail meanwhile | what is not ours goes outside unread and untold, unless it cannot be told apart | `what_others_put_into_a_mailbox_that_is_not_kept_is_not_told_when_our_user_moves_something_there` |
//! | messages above the size that is kept | outside until it is raised | `messages_above_a_size_are_outside_until_it_is_raised` |
//! | names begin with `INBOX.` (NAMESPACE): mailboxes of roles, of our user, Sent copies | made under it; `name` is the last part | `where_names_begin_with_inbox_the_mailboxes_of_roles_are_made_under_it_and_mail_reaches_them`, `what_our_user_makes_stands_under_the_prefix_and_can_be_renamed_moved_and_deleted`, `the_copy_of_what_is_sent_goes_into_a_sent_mailbox_under_the_prefix` |
//! | NAMESPACE tells several, none, no delimiter, nonsense, or is refused | the first of the user's own, or the top | `whatever_a_server_says_of_its_namespaces_an_archive_is_made_where_it_takes_one` |
//! | mailboxes of other users, and shared ones | left out until the account asks for them | `shared_mailboxes_are_left_out_until_the_account_asks_for_them`, `mailboxes_of_other_users_are_not_the_accounts` |
//! | names begin with `INBOX.`, and there is no NAMESPACE | refused, taken back and told | `where_nothing_tells_of_the_prefix_the_refusal_is_told_and_the_message_is_back` |
//! | made at the top before the prefix was known | put under it and made | `what_was_made_at_the_top_before_the_prefix_was_known_goes_under_it` |
//! | archive, and the server refuses to make the Archive | taken back and told, each time | `what_goes_to_an_archive_that_the_server_refuses_to_make_is_back_in_its_mailbox_and_told` |
//! | the line breaks twice at one message | there with the next round | `a_line_that_breaks_twice_at_a_message_hides_it_no_longer_than_to_the_next_round` |
//! | log-ins refused for a moment while our user edits | tried again within minutes, the edits wait | `log_ins_refused_for_a_moment_while_our_user_edits_do_not_stop_the_account_for_a_day` |
//! | edits while the server is out of reach | it is tried for them once a minute, and nothing is put off by that | `edits_have_an_unreachable_server_tried_once_a_minute_and_put_nothing_off` |
//! | edits while the server asks for patience or refuses the password | they wait for the account's turn | `edits_try_no_server_that_asked_for_patience_or_refuses_the_password` |
//! | a log-in refused after a long outage | tried again in ten minutes | `a_refusal_after_a_long_outage_is_a_first_refusal` |
//! | a MOVE confirmed and not done | the message is here where it is there, with its id | `a_move_that_a_server_confirms_and_does_not_do_loses_nothing` |
//! | COPYUID with the UID of another message, of one to come, far above | each message stays itself, nothing is done again | `a_copyuid_with_the_numbers_of_others_mixes_no_messages` |
//! | every STORE, MOVE and COPY refused | nothing is lost, the cause has the server's words, other mailboxes go on | `a_server_that_refuses_every_edit_loses_nothing_and_says_so_and_other_mailboxes_go_on` |
//! | STORE, MOVE, COPY or EXPUNGE answered too late, or never, and done at once, later or not at all | nothing is lost, the cause says so, other mailboxes go on | `a_server_that_takes_an_hour_over_an_edit_loses_nothing_and_is_told_and_other_mailboxes_go_on` |
//! | moved away and back where the originals stay as `\Deleted`, then another UIDVALIDITY | what our user sees stays what it was, what is marked stays hidden | `what_our_user_moved_away_and_back_is_not_taken_for_its_marked_original_under_another_uidvalidity` |
//! | anything by anybody, over a line that fails in every way | both sides are the same once it is well, each change was told once | `however_bad_the_line_what_everybody_did_to_an_account_ends_the_same_on_both_sides` |
//! | anything, thousands of times | our rows are the server's, ids stay | `ids_survive_whatever_another_client_does_and_our_rows_are_the_servers` |
//! | anything, while workers are killed, PostgreSQL crashes, a stream is cut and a webhook is away for a day | all doors of the event log tell the same | `the_doors_tell_the_same_whatever_breaks` |
//! | our user's edits beside another client, pauses, lines that end, workers that die, at random; with all extensions and with fewer | each message ends where some allowed order of everybody's acts puts it | `plays_of_edits_with_all_extensions_end_as_their_order_allows`, `plays_of_edits_without_lists_that_tell_all_end_as_their_order_allows`, `plays_of_edits_without_uidplus_end_as_their_order_allows`, `plays_of_edits_without_move_end_as_their_order_allows`, `plays_of_edits_without_qresync_end_as_their_order_allows`, `plays_of_edits_on_a_plain_server_end_as_their_order_allows` |
//! | text that more is arriving after | it is indexed when no more comes, or after 40 s | `text_waits_while_more_of_it_arrives_but_not_for_long` |
//! | text that an earlier release stored and did not index | indexed, newest first, and sorted into the index | `what_an_earlier_release_left_without_words_gets_them_and_they_are_sorted_into_the_index` |
//! | first round, then changes by another client | our rows are what the server has | `a_varied_mailbox_is_synchronised_and_followed` |
//! | moved by another client, UIDVALIDITY changed | ids stay | `ids_survive_moves_by_other_clients_and_a_changed_uidvalidity` |
//! | nothing changed | no event; else one for each change | `a_round_without_changes_writes_no_event_and_each_change_gives_one` |
//! | copies in two mailboxes, both new | one message in two places, a second copy in one mailbox is another | `copies_of_large_messages_are_known_again_in_the_round_that_first_sees_them` |
//! | identical message twice in a mailbox | two messages over the same bytes | `two_equal_messages_in_one_mailbox_are_two_and_deleted_one_by_one` |
//! | UIDVALIDITY missing, and coming later | 0 stands for it; one reset when it comes | `a_missing_uidvalidity_is_one_generation_and_its_coming_loses_no_id` |
//! | UIDVALIDITY other at each SELECT | a generation each time, messages found again by their bytes | `a_uidvalidity_that_flips_at_each_select_loses_no_id_and_doubles_nothing` |
//! | UIDNEXT absent, low, far above, over 2³² | the listing and the count decide | `a_uidnext_that_is_absent_or_too_low_or_far_too_high_hides_no_mail` |
//! | an empty range answered with the last message | what is held or was not asked for is passed over | `a_server_that_answers_empty_ranges_with_its_last_message_doubles_nothing` |
//! | HIGHESTMODSEQ 0, backwards, over 2⁵³, over 2⁶³ | all flags are read where it proves nothing | `mod_sequences_that_are_zero_run_backwards_or_pass_every_number_hide_no_change` |
//! | mod-sequence risen, empty OK about what changed | the flags of the newest are read once | `an_empty_answer_about_changes_hides_no_flag_and_costs_one_command` |
//! | MODSEQ missing in FETCH | the message counts, its mod-sequence is 0 | `messages_without_their_mod_sequence_are_read_all_the_same` |
//! | VANISHED huge, unknown, without EARLIER, wrong, missing | the count asks for a listing, which decides | `vanished_that_is_huge_or_unknown_or_misplaced_or_wrong_removes_what_is_gone_and_nothing_else` |
//! | FETCH twice, unasked, without UID; RFC822.SIZE that lies | the first that was asked for is stored | `messages_that_come_twice_or_unasked_or_without_uid_or_with_a_false_size_are_stored_once_and_whole` |
//! | a message whose UID is never told | it stays missing, and is asked for in each round | `a_message_whose_uid_is_never_told_waits_and_holds_up_no_other` |
//! | literal of 0, 1 and 60 MB, literal8, NUL | stored as it is; over the cap its size only | `messages_of_no_byte_of_one_with_nul_and_of_sixty_megabytes_are_all_there` |
//! | oversized messages moved, alike but for a byte, under another UIDVALIDITY | ids stay, and no two are one: a hash of the bytes is taken while they are thrown away | `messages_too_large_to_be_kept_are_known_again_wherever_they_are_moved` |
//! | literal shorter than announced | the deadline ends it; the message is asked for in each round | `a_literal_that_is_shorter_than_it_says_keeps_its_message_away_and_no_other` |
//! | literal longer than announced | its rest is read as answers, which delete nothing | `a_literal_that_is_longer_than_it_says_lets_a_message_delete_nothing` |
//! | one message cuts the line, or many do | asked for alone once more, then with each round; many take turns | `a_message_that_cuts_the_line_holds_up_no_other_and_is_asked_for_in_each_round`, `ten_messages_that_cut_the_line_use_up_no_round_and_each_has_its_turn` |
//! | the line ends over one message with a word about it, as with Dovecot | it is left out and retried | `a_message_over_which_the_server_says_goodbye_is_left_out_named_and_read_once_it_has_mended_itself` |
//! | one message is refused | all of its command one by one; it is left out and retried | `a_message_that_is_refused_is_tried_again_at_growing_distances_and_forgotten_when_it_goes` |
//! | a worker dies in a long backfill | a dozen batches at most are read one at a time | `killed_in_a_long_backfill_only_what_was_under_way_is_suspected` |
//! | a worker dies twice at a message | stored raw | `a_message_at_which_two_workers_were_killed_is_stored_raw_and_the_mailbox_goes_on` |
//! | a worker is told to stop between fetch and commit | nothing is suspected, nothing is lost | `a_worker_that_is_told_to_stop_leaves_no_suspicion_behind` |
//! | mail that is too much or makes no sense | stored, listed, given back byte by byte | `a_mailbox_full_of_traps_is_stored_listed_and_given_back_byte_by_byte` |
//! | NO, BAD, BYE, OK without data, half an answer to any question | the mailbox or the round fails, nothing is deleted | `refusals_and_half_answers_to_any_question_delete_nothing_and_are_made_up_for`, `a_refused_or_broken_listing_deletes_nothing` |
//! | listing cut short with OK | removals need two ways to ask that agree with EXISTS | `a_listing_cut_short_with_ok_deletes_nothing` |
//! | a listing of far more messages than EXISTS says | the mailbox fails with its cause, the others are read | `a_listing_of_far_more_messages_than_there_are_costs_that_mailbox_and_is_told` |
//! | LIST empty, without INBOX, without a mailbox | STATUS is asked about each that is missing | `a_list_without_inbox_or_without_anything_keeps_the_tree_and_its_mail` |
//! | phantom; SELECT refused though STATUS counts | kept, with its cause; others are read | `a_mailbox_that_refuses_to_be_selected_is_kept_and_holds_up_no_other` |
//! | delimiter NIL, `.`, `\`; broken UTF-7, 8-bit, quotes, literals in names | read and written back byte by byte | `names_in_every_spelling_and_delimiters_of_every_kind_are_read_and_written_back` |
//! | names that are empty, endless or hold NUL or a line end | that mailbox is passed over | `names_that_no_mailbox_can_have_cost_that_mailbox_and_not_the_account` |
//! | BYE as greeting, PREAUTH, silence, no IMAP; login refused for any reason | state and cause; the mail stays | `what_a_server_says_instead_of_letting_us_in_changes_the_state_and_never_the_mail`, `a_refused_login_is_told_with_the_servers_code_and_without_what_it_must_not_say` |
//! | certificate expired, too early, for another name, unknown | no byte of ours is sent | `a_certificate_that_is_not_to_be_trusted_gets_no_password` |
//! | words in clear after STARTTLS, STARTTLS refused | no password is sent | `servers_that_lie_or_say_nothing_get_a_cause` |
//! | throttling by NO, BAD or BYE in a round | the round ends, the account waits as long as it was told | `throttling_in_the_middle_of_a_round_ends_it_keeps_what_came_and_is_waited_out` |
//! | an extension that is offered and answered with BAD | done without it for this session | `an_extension_that_is_offered_and_answered_with_bad_is_done_without` |
//! | OVERQUOTA, TRYCREATE, refusal of a move | after some attempts taken back | `a_move_that_the_server_has_no_room_or_no_place_for_is_taken_back_and_the_message_is_where_it_was` |
//! | throttling of an edit | it waits, and is not counted as refused | `a_server_that_throttles_an_edit_gets_it_later` |
//! | STORE answered with MODIFIED | not confirmed; done again over what the server has | `a_store_that_leaves_messages_alone_is_done_again_and_neither_sides_flag_is_lost` |
//! | APPEND refused for room or place | tried again; filed once | `the_copy_of_a_sent_message_that_finds_no_room_is_filed_once_when_there_is_some` |
//! | APPENDLIMIT below a message | it is not sent there | `a_copy_larger_than_the_server_takes_is_not_sent_to_it` |
//! | a response split at every byte | the same response | `a_conversation_that_arrives_byte_by_byte_is_the_same_conversation` |
//! | the line cut at any point | what came stays, the rest comes next | `a_line_cut_anywhere_loses_nothing_and_doubles_nothing` |
//! | half-open TCP, a line that falls silent | the deadline ends the round; other accounts go on | `a_line_on_which_nothing_comes_any_more_ends_the_round_in_time_and_holds_up_no_other_account` |
//! | a large message over a slow line | what comes steadily buys time | `a_large_message_over_a_slow_line_takes_longer_than_one_answer_may_and_is_read` |
//! | latency | more time | `latency_costs_time_and_nothing_else` |
//! | TLS without close_notify | a lost line: no answer ends without its tagged line | `tls_that_ends_without_close_notify_is_no_end_of_an_answer` |
//! | a name that nobody can use | refused at once | `names_that_no_server_takes_are_refused_at_once` |
//! | a mailbox the server refuses to make | stays with its cause until renamed or deleted | `a_mailbox_that_the_server_refuses_stays_with_its_cause_until_it_is_renamed_or_deleted` |
//! | a rename it refuses | undone, told | `a_rename_that_the_server_refuses_is_undone_and_the_cause_stays` |
//! | a refused mailbox made by another client | it is that one | `a_refused_mailbox_that_another_client_makes_later_is_that_one` |
//! | another client renames a mailbox to the name of a refused one | the refused one goes | `a_refused_mailbox_gives_way_to_one_that_another_client_renames_to_its_name` |
//! | our user and another client rename two mailboxes to one name | the other client's has it; ours is refused and undone, no round fails | `our_rename_to_a_name_that_another_client_gave_to_another_mailbox_fails_no_round` |
//! | Gmail: a message in All Mail and under labels | one message, its bytes fetched once, Starred and Important no mailboxes | `the_first_synchronisation_of_gmail_fetches_the_bytes_of_each_message_once` |
//! | Gmail: mail that comes, labels of another client | bytes once at most, ids stay | `what_arrives_and_what_another_client_labels_at_gmail_costs_its_bytes_once_at_most` |
//! | Gmail: equal bytes under two ids | two messages | `equal_bytes_under_two_ids_are_two_messages_at_gmail_wherever_they_stand` |
//! | Gmail: X-GM-THRID against the headers | the server's word | `messages_of_one_thread_of_gmail_are_one_conversation_whatever_their_headers_say` |
//! | Gmail: our user's edits | labels change by moves; expunged in the Trash alone | `our_users_archive_move_star_and_delete_at_gmail_do_to_labels_what_they_say` |
//! | Gmail: ids that lie, BAD, a line that ends in them | bytes are fetched, nothing is lost | `ids_that_lie_or_are_not_there_after_all_cost_bytes_and_no_mail` |
//! | Gmail: mail from before ids were told | known by its bytes, and then by its id | `what_was_stored_before_gmail_told_its_ids_is_known_again` |
//! | Gmail: an answer to mail from before ids were told | joins its conversation | `an_answer_to_what_was_stored_before_gmail_told_its_ids_joins_its_conversation` |
//! | Gmail's limits | waited out as Gmail does, said in `cause` | `limits_of_gmail_pause_the_account_as_long_as_gmail_does_and_say_so`, `of_gmails_connections_others_may_have_all_and_then_there_is_waited` |
//! | places by provider | as many as it allows | `an_account_has_as_many_places_as_its_provider_allows` |
//! | Gmail, and what is sent by way of another server | the copy is looked for, and filed where it is missing | `a_copy_of_what_another_server_than_gmails_sends_is_looked_for_and_filed_where_it_is_missing` |
//! | Exchange: throttled by BAD or BYE, not connected | waited out, nothing is blamed on an extension | `exchange_that_throttles_by_bad_or_bye_is_left_alone_as_long_as_it_says_and_no_mail_is_lost` |
//! | Exchange: the session ends with its token | another at once | `a_session_that_ends_with_its_token_is_followed_by_another_at_once` |
//! | Exchange: UIDs that jump | one listing | `uids_that_jump_cost_one_listing_and_lose_nothing` |
//! | Exchange: good tokens refused | throttled for an hour, then `needs_reauth` | `good_tokens_that_exchange_refuses_for_a_while_are_no_reason_to_ask_a_person_before_an_hour_is_over` |
//! | Exchange: a copy in Sent or none | looked for, then filed | `a_copy_that_exchange_has_not_filed_itself_is_filed_once_it_was_looked_for` |
//! | subscriptions of another client | taken over | `subscriptions_of_another_client_are_taken_over_by_the_next_round` |
//! | subscriptions and renames of our user | reach the server | `what_our_user_makes_renames_and_unsubscribes_is_so_on_the_server` |

mod audit;
mod believed;
mod edits;
mod empty;
mod fetch;
mod head;
mod identity;
mod keep;
mod link;
mod lots;
mod push;
mod round;
mod tree;
mod trouble;
mod visit;

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use mail::sync::Depth;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::connect::oauth::GrantError;
use crate::connect::{ConnectError, Process};
use crate::domain::account::credential::Unusable;
use crate::platform::db::DbError;
use crate::platform::id::{AccountId, TenantId};
use crate::queue::lease::{self, Lease, LeaseError};
use crate::sync::measured;
use crate::sync::store::attempts;
use wire::imap::{ImapError, MemoryBudget, Rooms, Session};
use wire::pace::Haste;

pub use audit::{Audited, audit_account};
pub use head::{Fresh, fetch_new};
pub use trouble::cause_of;
pub use trouble::{tell_watch_trouble, watch_is_well};

/// Bytes of messages held in memory by all rounds of a process together.
pub const MEMORY_BYTES: usize = 64 << 20;
/// The same for new mail, which must not wait until a backfill lets go of memory.
pub const FRESH_MEMORY_BYTES: usize = 16 << 20;
/// Bytes of listings and flags, as they stand in memory, of all accounts of a process together. A tree of 50,000 mailboxes takes
/// some 70 MiB of it, an ordinary one nothing.
pub const TOLD_MEMORY_BYTES: usize = 160 << 20;
/// Besides, for large messages, which may be on their way for minutes: once for old mail, once for new.
pub const LARGE_MEMORY_BYTES: usize = 32 << 20;

/// What a round needs of its process.
#[derive(Clone, Debug)]
pub struct SyncContext {
    /// What the process has once: settings, database, keys, the way out.
    pub process: Process,
    /// This process, in leases.
    pub worker_id: Uuid,
    /// Shared by all rounds of the process, usually [`MEMORY_BYTES`] and [`LARGE_MEMORY_BYTES`].
    pub memory: MemoryBudget,
    /// The same for new mail, usually [`FRESH_MEMORY_BYTES`] and [`LARGE_MEMORY_BYTES`].
    pub fresh_memory: MemoryBudget,
    /// Room for what is no message, usually [`TOLD_MEMORY_BYTES`].
    pub rooms: Rooms,
    /// Places for parsing and storing in bulk. Never held while a server is waited for.
    pub work: Arc<Semaphore>,
    /// Who waits for what is done in this context: how its connections stand in line.
    pub haste: Haste,
    /// Fires when the process is to stop: rounds end at the next wait, and what they stored stays.
    pub shutdown: CancellationToken,
}

impl Deref for SyncContext {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Mailboxes that were opened.
    pub visited: usize,
    /// Mailboxes that could not be read; their rows say why.
    pub failed: usize,
    /// Messages that were not known before.
    pub created: usize,
    /// Placements whose flags changed on the server.
    pub flagged: usize,
    /// Placements that went.
    pub removed: usize,
    /// Local edits that the server confirmed.
    pub pushed: usize,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Another worker, or another job of this one, has the account: try again in a moment.
    #[error("the account is being synchronised")]
    Busy,
    /// A user paused the account: nothing is done until it goes on, which asks for a round of its own.
    #[error("the account is paused")]
    Paused,
    /// The account is gone.
    #[error("there is no such account")]
    NoSuchAccount,
    /// The lease ran out or was taken over; nothing was written since.
    #[error("the lease of the account was lost")]
    Lost,
    /// The process stops; the rest is for the next round.
    #[error("the process stops")]
    Stopped,
    /// The account has no password, or one that cannot be decrypted. Its rows say so.
    #[error(transparent)]
    Credentials(#[from] Unusable),
    /// There is no token to log in with.
    #[error(transparent)]
    Grant(GrantError),
    /// The server failed us. The account's rows say why and when the next round is due, so the job need not be repeated.
    #[error(transparent)]
    Imap(#[from] ImapError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<LeaseError> for SyncError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Lost => Self::Lost,
            LeaseError::Db(error) => Self::Db(error),
        }
    }
}

impl From<ConnectError<ImapError>> for SyncError {
    fn from(error: ConnectError<ImapError>) -> Self {
        match error {
            ConnectError::NoSuchAccount => Self::NoSuchAccount,
            ConnectError::Credentials(error) => Self::Credentials(error),
            ConnectError::Grant(GrantError::Db(error)) => Self::Db(error),
            ConnectError::Grant(error) => Self::Grant(error),
            // No round asks for a place.
            ConnectError::InUse => Self::Busy,
            ConnectError::Server(error) => Self::Imap(error),
            ConnectError::Db(error) => Self::Db(error),
        }
    }
}

impl SyncError {
    /// Whether the account's rows record the failure and when to try again, so that the queue need not.
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        matches!(self, Self::Imap(_) | Self::Credentials(_) | Self::Grant(_))
    }

    /// A word for what it is, of few.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Paused => "paused",
            Self::NoSuchAccount => "no-such-account",
            Self::Lost => "lease-lost",
            Self::Stopped => "stopped",
            Self::Credentials(_) => "credentials",
            Self::Grant(_) => "grant",
            Self::Imap(error) => error.trouble().code(),
            Self::Db(_) => "database",
        }
    }
}

/// One round over all mailboxes: local edits go out, then everything that changed comes in.
///
/// # Errors
/// [`SyncError`]. What was stored until then stays and is not read again.
pub async fn sync_account(
    ctx: &SyncContext,
    tenant: TenantId,
    account: AccountId,
    depth: Depth,
) -> Result<Report, SyncError> {
    let lease = take(ctx, tenant, account).await?;
    // On the heap: polled in place, a whole round outgrows the stack of a thread in an unoptimised build.
    let begun = Instant::now();
    let result = guarded(ctx, &lease, Box::pin(round::run(ctx, &lease, depth))).await;
    measured::round(begun, result.as_ref().err().map(SyncError::class));
    result
}

/// Brings local edits to the server and reads the mailboxes they touched; others are left for the next round.
///
/// # Errors
/// [`SyncError`], as for [`sync_account`].
pub async fn push_changes(
    ctx: &SyncContext,
    tenant: TenantId,
    account: AccountId,
) -> Result<Report, SyncError> {
    let lease = take(ctx, tenant, account).await?;
    guarded(ctx, &lease, Box::pin(edits::push(ctx, &lease))).await
}

/// Whether a round would find nothing to do, by the numbers of all mailboxes. `session` is one of
/// [`crate::connect::imap::connect`].
///
/// # Errors
/// [`SyncError::Imap`] or [`SyncError::Db`].
pub async fn is_current(
    ctx: &SyncContext,
    of: (TenantId, AccountId),
    session: &mut Session,
) -> Result<bool, SyncError> {
    tree::is_current(ctx, of, session).await
}

async fn take(ctx: &SyncContext, tenant: TenantId, account: AccountId) -> Result<Lease, SyncError> {
    let mut tx = ctx.db.tenant(tenant).await?;
    let lease = lease::acquire(&mut tx, account, ctx.worker_id, ctx.config.worker_lease).await?;
    let paused = match lease {
        Some(_) => Some(false),
        None => crate::domain::account::paused(&mut tx, account).await?,
    };
    tx.commit().await?;
    match (lease, paused) {
        (Some(lease), _) => Ok(lease),
        (None, None) => Err(SyncError::NoSuchAccount),
        (None, Some(true)) => Err(SyncError::Paused),
        (None, Some(false)) => Err(SyncError::Busy),
    }
}

/// Runs `work` while the lease is renewed beside it, and gives the lease up afterwards.
async fn guarded<T>(
    ctx: &SyncContext,
    lease: &Lease,
    work: impl Future<Output = Result<T, SyncError>>,
) -> Result<T, SyncError> {
    let (result, told_to_stop) = tokio::select! {
        result = work => (result, false),
        () = keep(ctx, lease) => (Err(SyncError::Lost), false),
        () = ctx.shutdown.cancelled() => (Err(SyncError::Stopped), true),
    };
    if !matches!(result, Err(SyncError::Lost)) {
        // Without this the next holder only waits for the lease to run out.
        if let Err(error) = release(ctx, lease, told_to_stop).await {
            tracing::warn!(account_id = %lease.account, %error, "the lease could not be given up");
        }
    }
    result
}

async fn release(ctx: &SyncContext, lease: &Lease, told_to_stop: bool) -> Result<(), DbError> {
    if told_to_stop {
        // On its own: the row of the lease may still be locked by what was just abandoned.
        let mut tx = ctx.db.tenant(lease.tenant).await?;
        attempts::end_all(&mut tx, lease).await?;
        tx.commit().await?;
    }
    let mut tx = ctx.db.tenant(lease.tenant).await?;
    lease::release(&mut tx, lease).await?;
    tx.commit().await
}

/// Renews the lease until it is lost. A database that is away for a moment is no loss yet: the time decides, also when
/// it does not even refuse.
async fn keep(ctx: &SyncContext, lease: &Lease) {
    let ttl = ctx.config.worker_lease;
    let mut held_until = Instant::now() + ttl;
    loop {
        tokio::time::sleep(ttl / 3).await;
        let asked = Instant::now();
        match timeout_at(held_until, renew(ctx, lease)).await {
            Ok(Ok(true)) => held_until = asked + ttl,
            Ok(Ok(false)) | Err(_) => return,
            Ok(Err(_)) if Instant::now() < held_until => {}
            Ok(Err(_)) => return,
        }
    }
}

async fn renew(ctx: &SyncContext, lease: &Lease) -> Result<bool, DbError> {
    let mut tx = ctx.db.tenant(lease.tenant).await?;
    let held = lease::renew(&mut tx, lease, ctx.config.worker_lease).await?;
    tx.commit().await?;
    Ok(held)
}
