//! Whether each change was told once: triggers of the test write down every change of what clients see of a message, and
//! every event, with the transaction that made it.
//!
//! - A transaction that changed the visible places of a message, or their flags, told one event of it, and no other did. Where
//!   one row takes the place of another that looked the same, it may. Its conversation is no matter of places.
//! - `message.created` and `message.deleted` take turns, as `mailbox.created` and `mailbox.deleted` do; between a deletion
//!   and the next creation nothing is told; what was created last and not deleted is what is there.

use std::collections::BTreeSet;

use sqlx::{Executor as _, Row as _};
use uuid::Uuid;

use crate::app::App;

/// A mailbox that was reset or deleted tells its readers to look at all of it.
const TABLES: &str = "
CREATE TABLE ledger_places (n bigserial PRIMARY KEY, tx xid8 NOT NULL DEFAULT pg_current_xact_id(), message uuid, sign int, place text, looks text, uid bigint);
CREATE TABLE ledger_events (n bigserial PRIMARY KEY, tx xid8 NOT NULL DEFAULT pg_current_xact_id(), kind text, object uuid, data jsonb);
CREATE FUNCTION ledger_place() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF TG_OP <> 'INSERT' AND OLD.hidden_at IS NULL THEN
    INSERT INTO public.ledger_places (message, sign, uid, place, looks) VALUES (OLD.message_id, -1, OLD.uid, concat_ws(' ', OLD.id, OLD.mailbox_id, OLD.flags, OLD.keywords),
      concat_ws(' ', OLD.mailbox_id, OLD.flags, OLD.keywords));
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.hidden_at IS NULL THEN
    INSERT INTO public.ledger_places (message, sign, uid, place, looks) VALUES (NEW.message_id, 1, NEW.uid, concat_ws(' ', NEW.id, NEW.mailbox_id, NEW.flags, NEW.keywords),
      concat_ws(' ', NEW.mailbox_id, NEW.flags, NEW.keywords));
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION ledger_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO public.ledger_events (kind, object, data) VALUES (NEW.kind, NEW.object_id, NEW.data);
  RETURN NULL;
END $$;
CREATE TRIGGER ledger AFTER INSERT OR UPDATE OR DELETE ON message_mailboxes FOR EACH ROW EXECUTE FUNCTION ledger_place();
CREATE TRIGGER ledger AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION ledger_event();
";

const DIFFERENCES: &str = "
WITH changed AS (
  SELECT tx, message, sum(abs(net)) AS places, string_agg(net || ' × ' || place, '; ') AS what FROM (
    SELECT tx, message, place, sum(sign) AS net FROM ledger_places GROUP BY tx, message, place HAVING sum(sign) <> 0) s
  GROUP BY tx, message
), seen AS (
  SELECT DISTINCT tx, message FROM (
    SELECT tx, message FROM ledger_places GROUP BY tx, message, looks HAVING sum(sign) <> 0) s
), told AS (
  SELECT tx, object AS message, count(*) AS times, string_agg(kind || ' ' || data, ', ' ORDER BY n) AS kinds FROM ledger_events
  WHERE kind LIKE 'message.%' AND data->'changed' IS DISTINCT FROM jsonb_build_array('thread') GROUP BY tx, object
)
SELECT concat_ws(' ', (SELECT subject FROM messages WHERE id = coalesce(c.message, t.message)), coalesce(c.message, t.message), 'told:', coalesce(t.kinds, 'nothing'), 'changed:', coalesce(c.what, 'nothing'),
         'by steps:', (SELECT string_agg(concat_ws(' ', p.sign, p.place, 'UID', p.uid), '; ' ORDER BY p.n) FROM ledger_places p
           WHERE p.tx = coalesce(c.tx, t.tx) AND p.message = coalesce(c.message, t.message)),
         'in a transaction that told also:', (SELECT string_agg(e.kind, ', ') FROM ledger_events e
           WHERE e.tx = coalesce(c.tx, t.tx) AND e.kind NOT LIKE 'message.%'))
FROM changed c FULL JOIN told t ON t.tx = c.tx AND t.message = c.message
WHERE c.message IS NULL OR t.times <> 1
  OR t.message IS NULL AND EXISTS (SELECT 1 FROM seen s WHERE s.tx = c.tx AND s.message = c.message)
LIMIT 5";

/// What became of one object, by transaction.
const HISTORY: &str = "
SELECT concat_ws(' ', 'event', n, 'in', tx, kind, data) FROM ledger_events WHERE object = $1
UNION ALL (SELECT concat_ws(' ', 'place', n, 'in', tx, sign, place, 'UID', uid) FROM ledger_places WHERE message = $1 ORDER BY n)";

/// What was told, and what is there by it.
#[derive(Debug, Default)]
pub struct Ledger {
    messages: BTreeSet<Uuid>,
    mailboxes: BTreeSet<Uuid>,
    /// Events looked at.
    pub events: usize,
}

impl Ledger {
    /// From now on; before the first account is made.
    ///
    /// # Panics
    /// When the triggers cannot be made.
    pub async fn open(app: &App) -> Self {
        app.behind.execute(TABLES).await.unwrap();
        Self::default()
    }

    /// Everything since the last time, while nothing is under way.
    ///
    /// # Panics
    /// With what was told wrongly.
    pub async fn balances(&mut self, app: &App) {
        let behind = &app.behind;
        let wrong: Vec<String> = sqlx::query_scalar(DIFFERENCES).fetch_all(behind).await.unwrap();
        assert!(wrong.is_empty(), "not told once: {wrong:#?}");
        let rows = sqlx::query(
            "SELECT kind, object FROM ledger_events WHERE kind ~ '^(message|mailbox)[.]' ORDER BY n",
        )
        .fetch_all(behind)
        .await
        .unwrap();
        self.events += rows.len();
        for row in rows {
            let (kind, object): (&str, Uuid) = (row.get("kind"), row.get("object"));
            if !self.told(kind, object) {
                let all: Vec<String> =
                    sqlx::query_scalar(HISTORY).bind(object).fetch_all(behind).await.unwrap();
                panic!("{kind} of {object} was told out of turn: {all:#?}");
            }
        }
        for (what, sql, told) in [
            (
                "messages",
                "SELECT DISTINCT message_id FROM message_mailboxes WHERE hidden_at IS NULL",
                &self.messages,
            ),
            ("mailboxes", "SELECT id FROM mailboxes", &self.mailboxes),
        ] {
            let there: Vec<Uuid> = sqlx::query_scalar(sql).fetch_all(behind).await.unwrap();
            assert_eq!(
                &there.into_iter().collect::<BTreeSet<_>>(),
                told,
                "{what} that are there, and those told of"
            );
        }
        behind.execute("TRUNCATE ledger_places, ledger_events").await.unwrap();
    }

    /// Whether it was its turn.
    fn told(&mut self, kind: &str, object: Uuid) -> bool {
        let there = if kind.starts_with("message.") { &mut self.messages } else { &mut self.mailboxes };
        match kind.split_once('.').map(|(_, verb)| verb) {
            Some("created") => there.insert(object),
            Some("deleted") => there.remove(&object),
            _ => there.contains(&object),
        }
    }
}
