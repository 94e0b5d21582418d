//! `GET /api/accounts/{id}/messages`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use emailclient_core::domain::message::list::{self, Filter, Key, Scope as Names, Sort};
use emailclient_core::platform::id::{AccountId, MailboxId, ThreadId};
use mail::mailbox::Role;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::fields::{Cut, Fields};
use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{PathId, Query};
use crate::page::{Limit, Page, Scope};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;
use emailclient_core::view::message::{SUMMARY_FIELDS, SummaryView};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Rows of a page, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Those in this mailbox.
    #[param(value_type = Option<Uuid>)]
    mailbox_id: Option<MailboxId>,
    /// Those in the mailbox of this role.
    role: Option<String>,
    /// Without (or with) `\Seen`.
    unread: Option<bool>,
    /// With (or without) `\Flagged`.
    starred: Option<bool>,
    /// With (or without) attachments.
    has_attachments: Option<bool>,
    /// Those of this thread.
    #[param(value_type = Option<Uuid>)]
    thread_id: Option<ThreadId>,
    /// `-received_at` (default), `received_at`, `-date` or `date`.
    #[param(pattern = "^-?(received_at|date)$")]
    sort: Option<String>,
    /// Names of the fields to answer with, separated by commas.
    fields: Option<String>,
}

impl ListQuery {
    /// Every parameter that changes the rows or their order, for the cursor.
    fn filter_text(&self, account: AccountId) -> String {
        let of = |flag: Option<bool>| flag.map_or("-", |f| if f { "1" } else { "0" });
        format!(
            "{account} {:?} {:?} {}{}{} {:?}",
            self.mailbox_id,
            self.role,
            of(self.unread),
            of(self.starred),
            of(self.has_attachments),
            self.thread_id
        )
    }

    fn filter(&self, mailbox: Option<MailboxId>) -> Filter {
        Filter {
            mailbox,
            unread: self.unread,
            starred: self.starred,
            has_attachments: self.has_attachments,
            thread: self.thread_id,
        }
    }

    fn check(&self) -> Result<Sort, ApiError> {
        let refuse = |name: &str, detail: &str| {
            let fault = FieldError::new(format!("/{name}"), "invalid", detail);
            ApiError::invalid_parameter(format!("{name}: {detail}")).with_errors([fault])
        };
        if self.role.is_some() && self.mailbox_id.is_some() {
            return Err(refuse("role", "name the mailbox by mailbox_id or by role, not by both"));
        }
        if self
            .role
            .as_deref()
            .is_some_and(|role| Role::parse(role).is_none_or(|known| known.as_str() != role))
        {
            return Err(refuse("role", "one of inbox, sent, drafts, junk, trash, archive, all is expected"));
        }
        let sort = self.sort.as_deref().map_or(Some(Sort::default()), Sort::parse);
        sort.ok_or_else(|| refuse("sort", "one of -received_at, received_at, -date, date is expected"))
    }
}

/// The messages of an account, newest first unless `sort` says otherwise.
#[utoipa::path(get, path = "/api/accounts/{id}/messages", tag = "messages", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path), ListQuery),
    responses((status = 200, body = Page<SummaryView>), (status = 400, body = Problem, content_type = "application/problem+json"),
              (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_messages(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(account): PathId<AccountId>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Cut<SummaryView>>>, ApiError> {
    let sort = query.check()?;
    let fields = Fields::parse(query.fields.as_deref(), &SUMMARY_FIELDS)?;
    let filter_text = query.filter_text(account);
    let scope = Scope::new(&state, caller.tenant(), "messages", &[&format!("{sort:?}"), &filter_text]);
    let after = scope.open::<(DateTime<Utc>, Uuid)>(query.cursor.as_deref())?;
    let after = after.map(|(at, id)| Key { at, id: id.into() });
    let mut tx = caller.tx(&state).await?;
    let mut mailbox = query.mailbox_id;
    // A row of this account proves that what was named exists and is of this account, as a mailbox and a thread are of one.
    // So the names are looked up for a role, whose mailbox must be known first, and for a page without such a row.
    let mut page = list::Page::default();
    if query.role.is_none() {
        page = list::page(&mut tx, account, &query.filter(mailbox), sort, after, query.limit.rows()).await?;
    }
    if page.messages.first().is_none_or(|m| m.account_id != account) {
        let role = query.role.as_deref();
        match list::scope(&mut tx, account, mailbox, role, query.thread_id).await? {
            Names::NotFound => return Err(ApiError::not_found()),
            Names::Of(found) if role.is_some() => {
                mailbox = found;
                let filter = query.filter(mailbox);
                page = list::page(&mut tx, account, &filter, sort, after, query.limit.rows()).await?;
            }
            Names::Empty | Names::Of(_) => page = list::Page::default(),
        }
    }
    tx.release();
    let next_cursor = page.next.map(|k| scope.seal(&(k.at, k.id.0))).transpose()?;
    let rows = page.messages.into_iter().map(|m| fields.cut(SummaryView::new(m, mailbox)));
    Ok(Json(Page { data: rows.collect::<Result<_, _>>()?, has_more: next_cursor.is_some(), next_cursor }))
}
