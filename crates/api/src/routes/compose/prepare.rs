//! From a request to the content of a draft: addresses judged, sender checked, replies and forwards completed.

use emailclient_core::domain::blob;
use emailclient_core::domain::draft::answer::{Kind, Open, prepare, sign};
use emailclient_core::domain::draft::{Content, Draft, NewAttachment};
use emailclient_core::domain::identity::{self, Identity};
use emailclient_core::platform::budget::Spent;
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::AccountId;
use mail::address::Address;

use super::shape::{AddressInput, Given, refusal};
use crate::caller::Caller;
use crate::error::{ApiError, FieldError};
use crate::limits::{self, Limits};
use crate::state::AppState;

/// A draft ready to be stored.
#[derive(Debug)]
pub struct Prepared {
    /// The account.
    pub account_id: AccountId,
    /// What is written.
    pub content: Content,
    /// Files that a forward carries over.
    pub files: Vec<NewAttachment>,
}

/// What happens to the fields of an existing draft that the request does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// They are emptied.
    Cleared,
    /// They stay.
    Kept,
}

/// Completes what was given. Reads in a transaction of its own: parsing the original takes its time.
pub async fn complete(
    state: &AppState,
    caller: &Caller,
    given: Given,
    before: Option<&Draft>,
    absent: Absent,
) -> Result<Prepared, ApiError> {
    let missing = || ApiError::invalid_field("/account_id", "missing", "this field is required");
    let account_id = given.account_id.or(before.map(|d| d.account_id)).ok_or_else(missing)?;
    let base = before.filter(|_| absent == Absent::Kept).map(|d| d.content.clone()).unwrap_or_default();
    let (open, mut content) = merge(given, base)?;
    let mut tx = caller.tx(state).await?;
    let identities = identity::list(&mut tx, account_id).await?;
    let identities = identities.ok_or_else(|| ApiError::unknown_reference("/account_id"))?;
    content.check().map_err(|e| refusal(&e, &content.headers, content.headers_as_object))?;
    if identity::choose(&identities, content.from.as_ref()).is_none() {
        return Err(ApiError::sender_not_allowed("from must be an identity of the account").with_errors([
            FieldError::new("/from", "sender-not-allowed", "not an identity of the account"),
        ]));
    }
    if before.is_none() && content.answers().is_none() {
        sign(&mut content, &identities);
    }
    let memory = |bytes: usize| in_hand(state, caller, bytes);
    let files = answer(&mut tx, account_id, &mut content, before, (identities, open), memory).await?;
    tx.commit().await?;
    content.check().map_err(|e| refusal(&e, &content.headers, content.headers_as_object))?;
    Ok(Prepared { account_id, content, files })
}

/// Counts `bytes`, what is parsed or made out of them, and the message that holds them, as in hand until the request ends.
///
/// # Errors
/// 503 when they are not free at once: whoever waited here would keep a transaction open.
pub(super) fn in_hand(state: &AppState, caller: &Caller, bytes: usize) -> Result<(), ApiError> {
    let held = state.memory.try_take(Some(caller.tenant()), bytes.saturating_mul(3)).ok_or(Spent)?;
    caller.context.hold(held);
    Ok(())
}

/// Lays what was given over `content`; says what is left for the reply to fill in.
fn merge(given: Given, mut content: Content) -> Result<(Open, Content), ApiError> {
    let limits = over_limit(&given);
    let mut faults = Vec::new();
    let open = Open {
        to: given.to.is_none(),
        cc: given.cc.is_none(),
        subject: given.subject.is_none(),
        quote: true,
    };
    if let Some(from) = &given.from {
        content.from = from.read("/from", &mut faults);
    }
    for (field, list, target) in [
        ("to", given.to, &mut content.to),
        ("cc", given.cc, &mut content.cc),
        ("bcc", given.bcc, &mut content.bcc),
        ("reply_to", given.reply_to, &mut content.reply_to),
    ] {
        if let Some(list) = list {
            *target = read_list(field, &list, &mut faults);
        }
    }
    if !faults.is_empty() {
        return Err(ApiError::invalid_address("see errors for the addresses").with_errors(faults));
    }
    faults.extend(limits);
    for (pointer, text) in [("/text", &given.text), ("/html", &given.html)] {
        if text.as_ref().is_some_and(|t| t.contains('\0')) {
            faults.push(FieldError::new(pointer, "nul", "a NUL is not allowed"));
        }
    }
    let named = [given.reply_to_message_id, given.reply_all_to_message_id, given.forward_message_id];
    // The first of them could be meant; each further one is at fault.
    let pointers = ["/reply_to_message_id", "/reply_all_to_message_id", "/forward_message_id"];
    let given_twice = pointers.iter().zip(&named).filter(|(_, id)| id.is_some()).skip(1);
    faults.extend(given_twice.map(|(pointer, _)| {
        FieldError::new(*pointer, "conflict", "a draft answers or passes on one message, in one way")
    }));
    if !faults.is_empty() {
        return Err(ApiError::validation("see errors for the fields").with_errors(faults));
    }
    if named.iter().flatten().count() == 1 {
        [content.reply_to_message_id, content.reply_all_to_message_id, content.forward_message_id] = named;
    }
    content.subject = given.subject.unwrap_or(content.subject);
    content.text = given.text.or(content.text);
    content.html = given.html.or(content.html);
    if let Some(headers) = given.headers {
        (content.headers, content.headers_as_object) = headers.into_fields();
    }
    Ok((open, content))
}

fn over_limit(given: &Given) -> Vec<FieldError> {
    let mut limits = Limits::default();
    limits.text("/subject", given.subject.as_deref().unwrap_or_default(), limits::SUBJECT_BYTES);
    for (pointer, list) in
        [("/to", &given.to), ("/cc", &given.cc), ("/bcc", &given.bcc), ("/reply_to", &given.reply_to)]
    {
        limits.count(pointer, list.as_ref().map_or(0, Vec::len), limits::ADDRESSES);
    }
    if let Some(headers) = &given.headers {
        headers.check_limits(&mut limits);
    }
    limits.faults()
}

fn read_list(field: &str, list: &[AddressInput], faults: &mut Vec<FieldError>) -> Vec<Address> {
    list.iter().enumerate().filter_map(|(index, a)| a.read(&format!("/{field}/{index}"), faults)).collect()
}

/// Fills in what a reply or forward brings. The quote and the files come once: when the draft begins to answer that
/// message, not with each later change.
async fn answer(
    tx: &mut TenantTx,
    account: AccountId,
    content: &mut Content,
    before: Option<&Draft>,
    (identities, open): (Vec<Identity>, Open),
    memory: impl Fn(usize) -> Result<(), ApiError>,
) -> Result<Vec<NewAttachment>, ApiError> {
    let Some((kind, id)) = content.answers() else {
        (content.in_reply_to, content.references) = (Vec::new(), Vec::new());
        return Ok(Vec::new());
    };
    let earlier = before.filter(|d| d.content.answers() == Some((kind, id)));
    let stored = blob::find(tx, id).await?.filter(|s| s.account_id == account);
    let source = match stored {
        Some(stored) => {
            memory(stored.size)?;
            blob::load(tx, stored).await?
        }
        None => None,
    };
    let Some(source) = source else {
        // Gone meanwhile; what it gave to the draft stays.
        let Some(earlier) = earlier else { return Err(unknown(kind)) };
        content.in_reply_to.clone_from(&earlier.content.in_reply_to);
        content.references.clone_from(&earlier.content.references);
        return Ok(Vec::new());
    };
    let open = Open {
        to: open.to && content.to.is_empty(),
        cc: open.cc && content.cc.is_empty(),
        subject: open.subject && content.subject.is_empty(),
        quote: earlier.is_none(),
    };
    let mut draft = std::mem::take(content);
    let work = tokio::task::spawn_blocking(move || {
        let files = prepare(&mut draft, kind, source.readable(), &identities, open);
        (draft, files)
    });
    let (done, files) = work.await.map_err(ApiError::internal)?;
    *content = done;
    Ok(files)
}

fn unknown(kind: Kind) -> ApiError {
    ApiError::unknown_reference(match kind {
        Kind::Reply => "/reply_to_message_id",
        Kind::ReplyAll => "/reply_all_to_message_id",
        Kind::Forward => "/forward_message_id",
    })
}
