//! Lists in pages: `?limit=&cursor=`, ordered by a key that no later change of other rows can shift.
//!
//! A cursor is opaque to clients: the position, with an authentication code over tenant, route, sort and filter, so that
//! one of another list, another tenant or another filter is refused.
//!
//! ```text
//! let scope = Scope::new(&state, caller.tenant(), "messages", &[sort, &filter]);
//! let after: Option<(DateTime<Utc>, Uuid)> = scope.open(query.cursor.as_deref())?;
//! let rows = core::list(&mut tx, after, limit.get() + 1).await?;      // one more than asked for
//! Ok(Page::cut(rows, limit, |last| scope.seal(&(last.sort_at, last.id)))?)
//! ```

use emailclient_core::access::token;
use emailclient_core::platform::id::TenantId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use wire::secret::Secret;

use crate::error::ApiError;
use crate::state::AppState;

const MAX_CURSOR: usize = 2048;

/// How many rows a page has: 1 to 200, 50 unless asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = u32, minimum = 1, maximum = 200, default = 50)]
pub struct Limit(u16);

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl Limit {
    /// The number.
    #[must_use]
    pub fn get(self) -> i64 {
        i64::from(self.0)
    }
    /// The number, to compare lengths with.
    #[must_use]
    pub fn rows(self) -> usize {
        usize::from(self.0)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        if (1..=200).contains(&number) {
            Ok(Self(number))
        } else {
            Err(serde::de::Error::custom("1 to 200 is expected"))
        }
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// What to send as `cursor` for the next page.
    pub next_cursor: Option<String>,
    /// Whether there is a next page.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// Cuts `rows` (asked for with one more than `limit`) to a page; `cursor` names the place of its last row.
    ///
    /// # Errors
    /// What `cursor` fails with.
    pub fn cut(
        mut rows: Vec<T>,
        limit: Limit,
        cursor: impl FnOnce(&T) -> Result<String, ApiError>,
    ) -> Result<Self, ApiError> {
        let has_more = rows.len() > limit.rows();
        rows.truncate(limit.rows());
        let next_cursor = rows.last().filter(|_| has_more).map(cursor).transpose()?;
        Ok(Self { data: rows, next_cursor, has_more })
    }

    /// The same page with every row turned into something else.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            data: self.data.into_iter().map(f).collect(),
            next_cursor: self.next_cursor,
            has_more: self.has_more,
        }
    }
}

/// The list a cursor belongs to.
#[derive(Debug)]
pub struct Scope {
    key: Secret,
    name: String,
}

impl Scope {
    /// The list `route` of `tenant` under this sort and filter (every parameter that changes the rows or their order).
    #[must_use]
    pub fn new(state: &AppState, tenant: TenantId, route: &str, filter: &[&str]) -> Self {
        Self::with_key(state.config.jwt_secret.clone(), tenant, route, filter)
    }

    fn with_key(key: Secret, tenant: TenantId, route: &str, filter: &[&str]) -> Self {
        // Lengths in front of the parts: ["a", "bc"] is not ["ab", "c"].
        let parts = filter.iter().fold(String::new(), |all, part| format!("{all}{}:{part}", part.len()));
        Self { key, name: format!("cursor {tenant} {route} {parts}") }
    }

    /// A cursor for `position`.
    ///
    /// # Errors
    /// 500 when it cannot be written as JSON.
    pub fn seal(&self, position: &impl Serialize) -> Result<String, ApiError> {
        let body = serde_json::to_vec(position).map_err(ApiError::internal)?;
        Ok(token::seal(&self.key, &self.name, &body))
    }

    /// The position in a cursor that [`Scope::seal`] made for the same list; nothing for the first page.
    ///
    /// # Errors
    /// 400 `invalid-cursor` for anything else.
    pub fn open<T: DeserializeOwned>(&self, cursor: Option<&str>) -> Result<Option<T>, ApiError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let refused = || ApiError::invalid_cursor("send the next_cursor of this very list, or none");
        if cursor.len() > MAX_CURSOR {
            return Err(refused());
        }
        let body = token::open(&self.key, &self.name, cursor).ok_or_else(refused)?;
        serde_json::from_slice(&body).map(Some).map_err(|_| refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_in_its_own_list_only() {
        let key = Secret::new("k".repeat(32));
        let tenant = TenantId::new();
        let scope =
            |t: TenantId, route: &str, filter: &[&str]| Scope::with_key(key.clone(), t, route, filter);
        let own = scope(tenant, "messages", &["-date", "unread"]);
        let cursor = own.seal(&(7, "x")).unwrap();
        assert_eq!(own.open::<(u32, String)>(Some(&cursor)).unwrap(), Some((7, "x".into())));
        assert!(own.open::<(u32, String)>(None).unwrap().is_none());
        for other in [
            scope(TenantId::new(), "messages", &["-date", "unread"]),
            scope(tenant, "threads", &["-date", "unread"]),
            scope(tenant, "messages", &["date", "unread"]),
            scope(tenant, "messages", &["-dateu", "nread"]),
        ] {
            assert_eq!(other.open::<(u32, String)>(Some(&cursor)).unwrap_err().code(), "invalid-cursor");
        }
        for bad in ["", "x", "AAAA", &"A".repeat(3000), &format!("{cursor}AA")] {
            assert!(own.open::<(u32, String)>(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_knows_whether_more_follows() {
        let page = Page::cut((0..51).collect(), Limit::default(), |last| Ok(last.to_string())).unwrap();
        assert_eq!((page.data.len(), page.next_cursor.as_deref(), page.has_more), (50, Some("49"), true));
        let page = Page::cut(vec![1], Limit::default(), |_| Ok(String::new())).unwrap();
        assert_eq!((page.next_cursor, page.has_more), (None, false));
    }
}
