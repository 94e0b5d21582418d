//! From the tree of a query to a parameterised SQL condition over `messages g` and `message_search s`.
//!
//! Every value is bound; only SQL of ours is written into the statement. Names of mailboxes and accounts are looked up
//! once, before, for the whole query.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use mail::query::{Place, Query, Status, Term, to_tsquery_text};
use sqlx::{Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use super::Search;
use crate::platform::db::{DbError, Reach, TenantTx};

/// What the names in a query stand for.
#[derive(Debug, Default)]
pub(super) struct Names {
    mailboxes: HashMap<String, Vec<Uuid>>,
    accounts: HashMap<String, Vec<Uuid>>,
    /// Accounts that every match is in, if the query says so.
    required_accounts: Option<Vec<Uuid>>,
    anywhere: bool,
    trash_named: bool,
    junk_named: bool,
}

impl Names {
    /// Looks up the values of `in:` and `account:`, without regard to case.
    pub(super) async fn resolve(tx: &mut TenantTx, query: &Query) -> Result<Self, DbError> {
        let mut names = Self::default();
        let (mut mailboxes, mut accounts) = (Vec::new(), Vec::new());
        each_term(query, &mut |term| match term {
            Term::In(Place::Anywhere) => names.anywhere = true,
            Term::In(Place::Role(role)) => mailboxes.push(role.as_str().to_owned()),
            Term::In(Place::Mailbox(name)) => mailboxes.push(name.clone()),
            Term::Account(account) => accounts.push(account.clone()),
            _ => {}
        });
        names.resolve_mailboxes(tx, mailboxes).await?;
        names.resolve_accounts(tx, accounts).await?;
        names.required_accounts = names.required(query);
        Ok(names)
    }

    async fn resolve_mailboxes(&mut self, tx: &mut TenantTx, wanted: Vec<String>) -> Result<(), DbError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query(
            "SELECT DISTINCT w.name AS wanted, b.id, b.role FROM unnest($2::text[]) AS w(name)
             JOIN mailboxes b ON b.tenant_id = $1
               AND (b.role = w.name OR lower(b.name) = lower(w.name) OR lower(b.path) = lower(w.name) OR b.id::text = lower(w.name))",
        )
        .bind(tx.tenant())
        .bind(&wanted)
        .fetch_all(tx.conn())
        .await?;
        for row in &rows {
            let role: Option<String> = row.try_get("role")?;
            self.trash_named |= role.as_deref() == Some("trash");
            self.junk_named |= role.as_deref() == Some("junk");
            self.mailboxes.entry(row.try_get("wanted")?).or_default().push(row.try_get("id")?);
        }
        Ok(())
    }

    async fn resolve_accounts(&mut self, tx: &mut TenantTx, wanted: Vec<String>) -> Result<(), DbError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query(
            "SELECT DISTINCT w.name AS wanted, a.id FROM unnest($2::text[]) AS w(name)
             JOIN accounts a ON a.tenant_id = $1 AND (lower(a.email) = lower(w.name) OR a.id::text = lower(w.name))",
        )
        .bind(tx.tenant())
        .bind(&wanted)
        .fetch_all(tx.conn())
        .await?;
        for row in &rows {
            self.accounts.entry(row.try_get("wanted")?).or_default().push(row.try_get("id")?);
        }
        Ok(())
    }

    fn required(&self, query: &Query) -> Option<Vec<Uuid>> {
        match query {
            Query::Term(Term::Account(name)) => Some(self.accounts.get(name).cloned().unwrap_or_default()),
            Query::And(parts) => parts.iter().find_map(|part| self.required(part)),
            _ => None,
        }
    }

    /// Accounts that a hit can be of: those that are asked for, as far as they are within reach. `None`: all.
    pub(super) fn accounts_scope(&self, search: &Search, reach: &Reach) -> Option<Vec<Uuid>> {
        let asked = search.account.map(|a| vec![a.0]).or_else(|| self.required_accounts.clone());
        match (asked, reach) {
            (asked, Reach::All) => asked,
            (None, Reach::Only(accounts)) => Some(accounts.iter().map(|a| a.0).collect()),
            (Some(asked), reach) => Some(asked.into_iter().filter(|a| reach.has((*a).into())).collect()),
        }
    }

    /// Roles whose mailboxes do not count as a place of a message.
    fn left_out(&self) -> &'static [&'static str] {
        match (self.anywhere, self.trash_named, self.junk_named) {
            (true, ..) | (_, true, true) => &[],
            (_, true, false) => &["junk"],
            (_, false, true) => &["trash"],
            (_, false, false) => &["trash", "junk"],
        }
    }
}

fn each_term<'q>(query: &'q Query, visit: &mut impl FnMut(&'q Term)) {
    match query {
        Query::And(parts) | Query::Or(parts) => parts.iter().for_each(|part| each_term(part, visit)),
        Query::Not(part) => each_term(part, visit),
        Query::Term(term) => visit(term),
    }
}

/// Whether any part of the query is about text.
pub(super) fn has_words(query: &Query) -> bool {
    let mut found = false;
    each_term(query, &mut |term| found |= matches!(term, Term::Text(_) | Term::Field(..)));
    found
}

/// Bounds on `sort_at` that every match keeps, as far as the query says so outright.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) before: Option<DateTime<Utc>>,
}

/// The dates of the query compare `received_at`, which `sort_at` follows only between 1970 and 2100, the ends excluded.
pub(super) fn bounds(query: &Query) -> Bounds {
    let (first, last) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + TimeDelta::days(365 * 129));
    let trusted = |at: &DateTime<Utc>| *at > first && *at < last;
    match query {
        Query::Term(Term::After(at)) if trusted(at) => Bounds { since: Some(*at), before: None },
        Query::Term(Term::Before(at)) if trusted(at) => Bounds { since: None, before: Some(*at) },
        Query::And(parts) => parts.iter().map(bounds).fold(Bounds::default(), |all, one| Bounds {
            since: all.since.max(one.since),
            before: [all.before, one.before].into_iter().flatten().min(),
        }),
        _ => Bounds::default(),
    }
}

/// Writes the whole condition: the query, and a place that is not left out.
pub(super) fn condition(sql: &mut QueryBuilder<Postgres>, search: &Search, names: &Names) {
    sql.push("(");
    if let Some(account) = search.account {
        sql.push("g.account_id = ").push_bind(account).push(" AND ");
    }
    node(sql, &search.query, names);
    let left_out = names.left_out();
    if !left_out.is_empty() {
        let roles: Vec<String> = left_out.iter().map(|r| (*r).to_owned()).collect();
        // The mailboxes are asked for once; joined, they were gone through again for each message.
        sql.push(" AND ")
            .push(PLACED)
            .push("p.mailbox_id <> ALL (ARRAY(SELECT b.id FROM mailboxes b WHERE b.role = ANY (");
        sql.push_bind(roles).push(")))").push(LOOKED_UP);
    }
    sql.push(")");
}

fn node(sql: &mut QueryBuilder<Postgres>, query: &Query, names: &Names) {
    match query {
        Query::And(parts) => join(sql, parts, " AND ", names),
        Query::Or(parts) => join(sql, parts, " OR ", names),
        Query::Not(part) => {
            // A value that is missing (no Message-ID) does not match, so its negation does.
            sql.push("NOT coalesce(");
            node(sql, part, names);
            sql.push(", false)");
        }
        Query::Term(term) => leaf(sql, term, names),
    }
}

fn join(sql: &mut QueryBuilder<Postgres>, parts: &[Query], between: &str, names: &Names) {
    sql.push("(");
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            sql.push(between);
        }
        node(sql, part, names);
    }
    sql.push(")");
}

fn leaf(sql: &mut QueryBuilder<Postgres>, term: &Term, names: &Names) {
    match term {
        Term::Text(_) | Term::Field(..) => {
            sql.push("coalesce(s.tsv @@ ").push_bind(to_tsquery_text(term)).push("::tsquery, false)");
        }
        Term::In(Place::Anywhere) => {
            sql.push("true");
        }
        Term::In(Place::Role(role)) => in_mailboxes(sql, names, role.as_str()),
        Term::In(Place::Mailbox(name)) => in_mailboxes(sql, names, name),
        Term::Is(status) => is(sql, *status),
        Term::HasAttachment => {
            sql.push("g.has_attachments");
        }
        Term::After(at) => {
            sql.push("g.received_at >= ").push_bind(*at);
        }
        Term::Before(at) => {
            sql.push("g.received_at < ").push_bind(*at);
        }
        Term::Larger(bytes) => {
            sql.push("g.size_bytes > ").push_bind(*bytes);
        }
        Term::Smaller(bytes) => {
            sql.push("g.size_bytes < ").push_bind(*bytes);
        }
        Term::MessageId(id) => {
            sql.push("g.message_id_header = ").push_bind(id.clone());
        }
        Term::Thread(id) => {
            sql.push("g.thread_id = ").push_bind(Uuid::parse_str(id).unwrap_or_default());
        }
        Term::Account(name) => {
            let ids = names.accounts.get(name).cloned().unwrap_or_default();
            sql.push("g.account_id = ANY (").push_bind(ids).push(")");
        }
    }
}

/// Closes an EXISTS over placements. With OFFSET it is looked up for each message in order, which ends with the page; left
/// free, the planner may join whole mailboxes, and on a freshly filled account without statistics a thousand messages
/// took more than 15 s.
const LOOKED_UP: &str = " OFFSET 0)";

const PLACED: &str = "EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = g.tenant_id AND p.message_id = g.id AND p.hidden_at IS NULL AND ";

fn in_mailboxes(sql: &mut QueryBuilder<Postgres>, names: &Names, name: &str) {
    let ids = names.mailboxes.get(name).cloned().unwrap_or_default();
    sql.push(PLACED).push("p.mailbox_id = ANY (").push_bind(ids).push(")").push(LOOKED_UP);
}

fn is(sql: &mut QueryBuilder<Postgres>, status: Status) {
    let (not, bit) = match status {
        Status::Unread => ("NOT ", 1),
        Status::Read => ("", 1),
        Status::Starred => ("", 4),
        Status::Answered => ("", 2),
        Status::Draft => ("", 16),
    };
    sql.push(not).push(PLACED).push(format!("p.flags & {bit} <> 0")).push(LOOKED_UP);
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    fn parse(text: &str) -> Query {
        Query::parse(text, DateTime::UNIX_EPOCH + TimeDelta::days(20_000), FixedOffset::east_opt(0).unwrap())
            .unwrap()
    }

    #[test]
    fn dates_bound_the_walk_only_where_every_match_keeps_them() {
        let day = |n| Some(DateTime::UNIX_EPOCH + TimeDelta::days(n));
        assert_eq!(
            bounds(&parse("a after:1970-01-11 before:1970-02-01")),
            Bounds { since: day(10), before: day(31) }
        );
        assert_eq!(
            bounds(&parse("a after:1970-01-11 after:1970-01-21")),
            Bounds { since: day(20), before: None }
        );
        assert_eq!(bounds(&parse("a OR after:1970-01-11")), Bounds::default());
        assert_eq!(bounds(&parse("a -after:1970-01-11")), Bounds::default());
        // Arrivals before 1970 and after 2099 stand at the edge of the sort key.
        assert_eq!(bounds(&parse("a before:1960-01-01 after:2099-06-01")), Bounds::default());
    }

    #[test]
    fn no_word_of_a_query_becomes_part_of_the_statement() {
        let search = Search {
            query: parse("from:mallory in:\"x') OR true --\" -larger:5 OR subject:\"drop table\""),
            account: None,
        };
        let mut sql = QueryBuilder::<Postgres>::new("");
        condition(&mut sql, &search, &Names::default());
        let text = sql.into_string();
        assert!(!text.contains("mallory") && !text.contains("true --") && !text.contains("drop"), "{text}");
    }

    #[test]
    fn trash_and_junk_are_left_out_until_they_are_named() {
        let named = |trash_named, junk_named, anywhere| Names {
            trash_named,
            junk_named,
            anywhere,
            ..Names::default()
        };
        assert_eq!(named(false, false, false).left_out(), ["trash", "junk"]);
        assert_eq!(named(true, false, false).left_out(), ["junk"]);
        assert!(named(true, true, false).left_out().is_empty());
        assert!(named(false, false, true).left_out().is_empty());
    }
}
