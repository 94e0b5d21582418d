//! What a handler needs, said in its signature: `caller: May<MailSend, DraftSend>` is a caller who may send, and a handler whose
//! effect has the line `draft.send` in the audit trail.
//!
//! There is no other way to a [`Caller`], so a route without a permission does not compile. The description of the route names
//! the same scope; a test asks every route of the description as every role. [`Unaudited`] is for reads and for edits of
//! single messages and drafts. The next scope: a word in `core::access::principal`, a line in `scopes!`. The next action: a
//! word in `core::access::audit`, a line in `actions!`.

use std::marker::PhantomData;
use std::ops::Deref;

use axum::extract::FromRequestParts;
use emailclient_core::access::audit::Action;
use emailclient_core::access::principal::Scope;
use emailclient_core::platform::db::TenantTx;
use http::request::Parts;

use crate::caller::{Address, Caller};
use crate::error::ApiError;
use crate::state::AppState;

/// What a caller must be allowed.
pub trait Permission: Send + Sync + 'static {
    /// The scope that is needed; `None`: whoever is logged in may.
    const SCOPE: Option<Scope>;
    /// What in the address may say who asks, where no header does.
    const ADDRESS: Address = Address::Silent;
}

/// What a handler leaves in the audit trail.
pub trait Trail: Send + Sync + 'static {
    /// The action of the line that its transaction owes, if any.
    const ACTION: Option<Action>;
}

/// A [`Trail`] with a line.
pub trait Audited: Trail {
    /// Its action.
    const DONE: Action;
}

macro_rules! scopes {
    ($($name:ident)+) => {$(
        #[doc = concat!("Needs [`Scope::", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl Permission for $name {
            const SCOPE: Option<Scope> = Some(Scope::$name);
        }
    )+};
}

macro_rules! actions {
    ($($name:ident)+) => {$(
        #[doc = concat!("Leaves a line [`Action::", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl Trail for $name {
            const ACTION: Option<Action> = Some(Action::$name);
        }
        impl Audited for $name {
            const DONE: Action = Action::$name;
        }
    )+};
}

scopes! { MailRead MailWrite MailSend AccountsManage WebhooksManage AuditRead TenantManage }

actions! {
    SessionLogout
    AccountCreate AccountUpdate AccountDelete AccountPause AccountResume AccountResync
    MailboxCreate MailboxUpdate MailboxDelete MailboxResync
    MessageDelete MessageExpunge
    DraftSend SubmissionCancel SubmissionResend
    JobCancel
    WebhookCreate WebhookUpdate WebhookDelete WebhookRotate WebhookEnable WebhookReplay WebhookRetry WebhookTest
    OAuthAppCreate OAuthAppUpdate OAuthAppDelete
    TenantUpdate
}

/// Needs [`Scope::MailRead`], of a caller or of whom the address of a part was made for.
#[derive(Debug, Clone, Copy)]
pub struct PartRead;

impl Permission for PartRead {
    const SCOPE: Option<Scope> = Some(Scope::MailRead);
    const ADDRESS: Address = Address::Part;
}

/// Needs a valid token and no more.
#[derive(Debug, Clone, Copy)]
pub struct LoggedIn;

impl Permission for LoggedIn {
    const SCOPE: Option<Scope> = None;
}

/// Needs [`Scope::MailRead`]; a ticket will do, for a browser's `EventSource` sets no header.
#[derive(Debug, Clone, Copy)]
pub struct MailFollow;

impl Permission for MailFollow {
    const SCOPE: Option<Scope> = Some(Scope::MailRead);
    const ADDRESS: Address = Address::Ticket;
}

/// Leaves nothing in the audit trail.
#[derive(Debug, Clone, Copy)]
pub struct Unaudited;

impl Trail for Unaudited {
    const ACTION: Option<Action> = None;
}

/// A caller who may do what `P` says, for a handler that leaves what `A` says in the audit trail.
#[derive(Debug)]
pub struct May<P, A>(Caller, PhantomData<(P, A)>);

impl<P, A> Deref for May<P, A> {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<P: Permission, A: Trail> FromRequestParts<AppState> for May<P, A> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        Ok(Self(Caller::admit(parts, state, P::SCOPE, A::ACTION, P::ADDRESS).await?, PhantomData))
    }
}

impl<P: Permission, A: Audited> May<P, A> {
    /// Adds the handler's line to the audit trail, in the transaction that did the thing.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn audit(&self, tx: &mut TenantTx, target: &str) -> Result<(), ApiError> {
        self.0.record(tx, A::DONE, target, "ok").await
    }
}
