//! The hot calls, by who makes them. Deep pages start in the middle of a list, where reading from its top would show.

use std::time::Duration;

use chrono::{FixedOffset, TimeDelta};
use emailclient_core::access::idempotency;
use emailclient_core::access::session;
use emailclient_core::access::tenant;
use emailclient_core::access::user;
use emailclient_core::domain::blob;
use emailclient_core::domain::draft;
use emailclient_core::domain::mailbox;
use emailclient_core::domain::message;
use emailclient_core::domain::message::list::{self, Filter, Sort};
use emailclient_core::domain::search::{self, Search};
use emailclient_core::domain::submission;
use emailclient_core::domain::thread;
use emailclient_core::events::log;
use emailclient_core::events::webhook;
use emailclient_core::events::webhook::delivery::{self, DeliveryState};
use emailclient_core::jobs;
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::{
    AccountId, MailboxId, MessageId, SessionId, SubmissionId, ThreadId, UserId, WebhookId,
};
use emailclient_core::queue::job::{self, Job};
use emailclient_core::sync::due;
use emailclient_core::sync::store::{Target, edits, view};
use mail::query::Query;
use uuid::Uuid;

use super::fill::{MESSAGES, TENANT, at, id, kind};
use super::judge::Budget;
use super::{Bench, RUNS};

const LIMIT: u32 = 50;
const PAGE: Budget = Budget::page(LIMIT);
/// For conditions that have no index of their own and that one row in a few fulfils.
const FILTERED: Budget = Budget::page(3 * LIMIT);
/// Where the words are common and the rest of the query is not, candidates are taken 2,000 at a time.
const CANDIDATES: Budget = Budget { rows: 4_000.0, blocks: 40_000.0 };
/// One row and what belongs to it.
const ONE: Budget = Budget::page(4);
const MIDDLE: u32 = MESSAGES / 2;

const fn account(n: u32) -> AccountId {
    AccountId(id(kind::ACCOUNT, n))
}

/// Mailbox `n` of account 1.
const fn mailbox(n: u32) -> MailboxId {
    MailboxId(id(kind::MAILBOX, 100 + n))
}

const fn message(n: u32) -> MessageId {
    MessageId(id(kind::MESSAGE, n))
}

/// What the pages of a mail reader ask.
pub async fn mail(bench: &mut Bench) {
    lists(bench).await;
    filters(bench).await;
    let all: Vec<MessageId> = (MIDDLE..MIDDLE + LIMIT).map(message).collect();
    bench.tenant("a message", ONE, async |tx| message::get(tx, message(MIDDLE)).await).await.unwrap();
    bench.tenant("messages by id", PAGE, async |tx| message::by_ids(tx, &all).await).await;
    bench.tenant("whether messages are visible", PAGE, async |tx| message::visible(tx, &all).await).await;
    bench.tenant("the bytes of a message", ONE, async |tx| blob::of_message(tx, message(MIDDLE)).await).await;
    for after in [None, Some(thread::Key { at: at(MIDDLE), id: id(kind::THREAD, MIDDLE / 3) })] {
        let page = bench
            .tenant("threads", PAGE, async |tx| thread::list(tx, account(1), after, LIMIT as usize).await)
            .await;
        assert_eq!(page.unwrap().threads.len(), LIMIT as usize);
    }
    let (one, long) = (ThreadId(id(kind::THREAD, 1000)), ThreadId(id(kind::THREAD, 0)));
    bench.tenant("a thread", ONE, async |tx| thread::get(tx, one).await).await.unwrap();
    for after in [None, Some(thread::Key { at: at(MIDDLE), id: message(MIDDLE).0 })] {
        let (page, _) = bench
            .tenant("a thread's messages", PAGE, async |tx| {
                thread::messages(tx, long, after, LIMIT as usize).await
            })
            .await;
        assert_eq!(page.len(), LIMIT as usize);
    }
    bench.tenant("mailboxes", PAGE, async |tx| mailbox::list(tx, account(1), None, 200).await).await.unwrap();
    bench.tenant("a mailbox", ONE, async |tx| mailbox::get(tx, mailbox(1)).await).await.unwrap();
}

async fn lists(bench: &mut Bench) {
    let thread = Some(ThreadId(id(kind::THREAD, 1000)));
    for (named, role, in_thread) in [
        (None, None, None),
        (Some(mailbox(1)), None, None),
        (None, Some("inbox"), None),
        (None, None, thread),
    ] {
        let scope = bench
            .tenant("what a list names", ONE, async |tx| {
                list::scope(tx, account(1), named, role, in_thread).await
            })
            .await;
        assert!(matches!(scope, list::Scope::Of(_)), "{scope:?}");
    }
    for (place, mailbox) in
        [("the account", None), ("the inbox", Some(mailbox(1))), ("a mailbox", Some(mailbox(4)))]
    {
        for sort in [Sort::ReceivedDesc, Sort::ReceivedAsc, Sort::DateDesc, Sort::DateAsc] {
            for after in [None, Some(list::Key { at: at(MIDDLE), id: message(MIDDLE) })] {
                let filter = Filter { mailbox, ..Filter::default() };
                let name = format!("messages of {place}, {sort:?}, {after:?}");
                let page = bench
                    .tenant(&name, PAGE, async |tx| {
                        list::page(tx, account(1), &filter, sort, after, LIMIT as usize).await
                    })
                    .await;
                assert_eq!(page.messages.len(), LIMIT as usize, "{name}");
            }
        }
    }
}

async fn filters(bench: &mut Bench) {
    let thread = Some(ThreadId(id(kind::THREAD, 1000)));
    let plain = Filter::default;
    for mailbox in [None, Some(mailbox(1))] {
        for filter in [
            Filter { unread: Some(true), ..plain() },
            Filter { unread: Some(false), ..plain() },
            Filter { starred: Some(true), ..plain() },
            Filter { starred: Some(false), ..plain() },
            Filter { has_attachments: Some(true), ..plain() },
            Filter { thread, ..plain() },
        ] {
            let filter = Filter { mailbox, ..filter };
            let name = format!("{filter:?}");
            let page = bench
                .tenant(&name, FILTERED, async |tx| {
                    list::page(tx, account(1), &filter, Sort::ReceivedDesc, None, LIMIT as usize).await
                })
                .await;
            assert!(!page.messages.is_empty(), "{name}");
        }
    }
}

/// Words that few, some and all messages have, and what is asked without words.
pub async fn search(bench: &mut Bench) {
    for text in [
        "word12345",
        "common97",
        "everywhere",
        "everywhere in:inbox",
        "in:inbox",
        "everywhere is:unread has:attachment",
        "word12345 OR word54",
        "in:anywhere is:starred",
        "has:attachment",
    ] {
        let query = Query::parse(text, at(MESSAGES), FixedOffset::east_opt(0).unwrap()).unwrap();
        for one in [None, Some(account(1))] {
            let search = Search { query: query.clone(), account: one };
            for after in [None, Some(search::Key { at: at(MIDDLE), id: message(MIDDLE) })] {
                let name = format!("search for {text}, {one:?}, {after:?}");
                let budget = if text.contains("is:unread") { CANDIDATES } else { FILTERED };
                bench
                    .tenant(&name, budget, async |tx| search::page(tx, &search, after, LIMIT as usize).await)
                    .await;
            }
        }
    }
}

/// Drafts and what was sent.
pub async fn compose(bench: &mut Bench) {
    for one in [None, Some(account(1))] {
        for after in [None, Some((at(4_000), id(kind::DRAFT, 4_000).into()))] {
            let drafts = bench
                .tenant("drafts", PAGE, async |tx| draft::list(tx, one, after, i64::from(LIMIT) + 1).await)
                .await;
            assert_eq!(drafts.len(), LIMIT as usize + 1);
        }
        for state in [None, Some("sent"), Some("failed")] {
            let filter = submission::Filter {
                account_id: one,
                state: state.and_then(submission::SubmissionState::from_word),
            };
            for after in [None, Some((at(3_000), id(kind::SUBMISSION, 3_000).into()))] {
                let budget = if one.is_some() && state.is_some() { FILTERED } else { PAGE };
                let name = format!("submissions, {filter:?}, {after:?}");
                bench
                    .tenant(&name, budget, async |tx| {
                        submission::list(tx, &filter, after, i64::from(LIMIT) + 1).await
                    })
                    .await;
            }
        }
    }
    let (draft, sent) = (id(kind::DRAFT, 4_000).into(), SubmissionId(id(kind::SUBMISSION, 4_000)));
    bench.tenant("a draft", ONE, async |tx| draft::get(tx, draft).await).await.unwrap();
    bench.tenant("a submission", ONE, async |tx| submission::get(tx, sent).await).await.unwrap();
    bench.tenant("whether it is due", ONE, async |tx| submission::due(tx, sent).await).await;
    bench.tenant("the next to be sent", ONE, async |tx| submission::call_next(tx, account(1)).await).await;
}

/// What a round of synchronisation asks of our copy.
pub async fn sync(bench: &mut Bench) {
    let target = Target { account: account(1), mailbox: mailbox(1), generation: 1 };
    bench.tenant("the tree", PAGE, async |tx| view::tree(tx, account(1)).await).await;
    let (at, many) = (mailbox(1), Budget::ANY);
    bench.tenant("a visit", many, async |tx| view::visit(tx, account(1), at).await).await.unwrap();
    bench.tenant("the uids", many, async |tx| view::known(tx, &target).await).await;
    bench.tenant("the edits", many, async |tx| edits::ready(tx, &target, 0).await).await;
    bench.tenant("mailboxes with edits", many, async |tx| edits::mailboxes(tx, account(1)).await).await;
}

/// What workers and scheduler ask across tenants.
pub async fn queue(bench: &mut Bench) {
    let (owner, lease) = (Uuid::from_u128(1), Duration::from_secs(60));
    let room = job::queue::Room { total: 4_000, free: 4 };
    let claimed = bench
        .system("a claim of jobs", PAGE, async |tx| job::queue::claim(tx, owner, room, lease).await)
        .await;
    assert_eq!(claimed.len(), 4);
    bench.system("abandoned jobs", PAGE, async |tx| job::queue::reap(tx).await).await;
    let due = bench
        .system("due accounts", PAGE, async |tx| jobs::sync_account::due(tx, i64::from(LIMIT)).await)
        .await;
    assert_eq!(due.len(), 8);
    bench.system("abandoned submissions", PAGE, async |tx| jobs::send_submission::abandoned(tx).await).await;
    bench.system("forgotten submissions", PAGE, async |tx| jobs::send_submission::lost(tx).await).await;
    bench.system("forgotten copies", PAGE, async |tx| jobs::file_sent_copy::lost(tx).await).await;
    bench.system("forgotten searches", PAGE, async |tx| jobs::probe_submission::lost(tx).await).await;
    bench.system("accounts without index", PAGE, async |tx| jobs::index_text::lost(tx).await).await;
    bench.system("accounts with gone messages", PAGE, async |tx| due::accounts_with_gone(tx).await).await;
    let when = (at(MESSAGES), lease);
    let due = bench
        .system("endpoints with something to do", PAGE, async |tx| {
            webhook::lease::due(tx, None, (32, 128), when).await
        })
        .await;
    assert_eq!(due.len(), 2);
    let round = Job::SyncAccount { account_id: account(3) };
    bench.tenant("a job enqueued", ONE, async |tx| job::enqueue(tx, &round, Duration::ZERO).await).await;
}

/// What an endpoint of a webhook is sent, and what is looked at of it.
pub async fn webhooks(bench: &mut Bench) {
    let hook = WebhookId(id(kind::WEBHOOK, 1));
    let wanted = webhook::filter(Some(&["message.created".to_owned()]), None, false);
    for after in [0, 10_000, 19_990] {
        let read = async |tx: &mut TenantTx| log::read(tx, (after, 20_000), &wanted, 50).await;
        bench.tenant("events for an endpoint", FILTERED, read).await;
    }
    bench.tenant("an endpoint", PAGE, async |tx| webhook::get(tx, hook).await).await.unwrap();
    let now = at(MESSAGES);
    for state in [None, Some(DeliveryState::Failed)] {
        for after in [None, Some(id(14, 1500))] {
            let list = async |tx: &mut TenantTx| {
                delivery::list(tx, hook, state, (after, i64::from(LIMIT)), now).await
            };
            assert_eq!(bench.tenant("deliveries", PAGE, list).await.len(), LIMIT as usize);
        }
    }
    bench.tenant("what waits", Budget::ANY, async |tx| delivery::waiting(tx, hook).await).await;
}

/// What is asked at the edge before a handler runs.
pub async fn edge(bench: &mut Bench) {
    let (session, someone) = (SessionId(id(kind::SESSION, 1000)), UserId(id(kind::USER, 1001)));
    let now = at(MESSAGES);
    let live =
        bench.tenant("a session", ONE, async |tx| session::live(tx, session, someone, now).await).await;
    assert!(live.is_some());
    bench.tenant("a user by address", ONE, async |tx| user::for_login(tx, "7@lab.test").await).await.unwrap();
    let mut n = 0;
    bench
        .tenant("a refresh", ONE, async |tx| {
            n += 1;
            session::refresh(tx, &[n], &[n, 0], now, now + TimeDelta::days(30)).await
        })
        .await;
    assert_eq!(usize::from(n), RUNS);
    let slot = idempotency::Slot { caller: "user", route: "/x", key: "77" };
    bench.tenant("a kept answer", ONE, async |tx| idempotency::find(tx, &slot).await).await;
    let name = TENANT.to_string();
    bench.system("a tenant", ONE, async |tx| tenant::find(tx, &name).await).await.unwrap();
}
