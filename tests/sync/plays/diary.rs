//! What the product notes of our user's edits and of where it has read each message, in order: triggers of the test write
//! it down.

use sqlx::{Executor as _, PgConnection, Row as _};

/// Under the names of the mailboxes' ids; messages by their subject.
const TABLES: &str = "
CREATE TABLE plays (n bigserial PRIMARY KEY, tx text NOT NULL DEFAULT pg_current_xact_id()::text, what text, subject text, message uuid, edit bigint,
  kind text, mailbox text, target text, state text, flags_add int, flags_remove int);
CREATE FUNCTION plays_edit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE r edits; word text;
BEGIN
  r := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
  word := CASE TG_OP WHEN 'INSERT' THEN 'ask' WHEN 'DELETE' THEN 'over' ELSE 'state' END;
  IF TG_OP = 'UPDATE' AND (NEW.flags_add, NEW.flags_remove) IS DISTINCT FROM (OLD.flags_add, OLD.flags_remove) THEN
    word := 'merge';
  ELSIF TG_OP = 'UPDATE' AND (NEW.state, NEW.sent_from, NEW.done_in) IS NOT DISTINCT FROM (OLD.state, OLD.sent_from, OLD.done_in) THEN
    RETURN NULL;
  END IF;
  INSERT INTO public.plays (what, subject, message, edit, kind, mailbox, target, state, flags_add, flags_remove)
  VALUES (word, (SELECT subject FROM public.messages WHERE id = r.message_id), r.message_id, r.id, r.kind, r.mailbox_id, r.target_mailbox_id,
    CASE WHEN r.kind = 'remove' AND r.sent_from IS NOT NULL THEN 'sent' ELSE r.state END, r.flags_add, r.flags_remove);
  RETURN NULL;
END $$;
CREATE FUNCTION plays_place() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE was text; now text; message uuid;
BEGIN
  IF TG_OP <> 'INSERT' AND OLD.uid IS NOT NULL AND NOT OLD.marked THEN was := OLD.mailbox_id; END IF;
  IF TG_OP <> 'DELETE' AND NEW.uid IS NOT NULL AND NOT NEW.marked THEN now := NEW.mailbox_id; END IF;
  message := CASE TG_OP WHEN 'DELETE' THEN OLD.message_id ELSE NEW.message_id END;
  IF was IS DISTINCT FROM now THEN
    IF was IS NOT NULL THEN
      INSERT INTO public.plays (what, subject, message, mailbox, edit) VALUES ('misses', (SELECT subject FROM public.messages WHERE id = message), message, was, OLD.uid);
    END IF;
    IF now IS NOT NULL THEN
      INSERT INTO public.plays (what, subject, message, mailbox, edit) VALUES ('reads', (SELECT subject FROM public.messages WHERE id = message), message, now, NEW.uid);
    END IF;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER plays AFTER INSERT OR UPDATE OR DELETE ON edits FOR EACH ROW EXECUTE FUNCTION plays_edit();
CREATE TRIGGER plays AFTER INSERT OR UPDATE OR DELETE ON message_mailboxes FOR EACH ROW EXECUTE FUNCTION plays_place();
";

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its transaction.
    pub tx: String,
    /// `ask`, `merge`, `state`, `over` of an edit; `reads`, `misses` of a place.
    pub what: String,
    pub subject: String,
    /// The id of the message, the end of it.
    pub id: String,
    /// The edit's number; of a place its UID.
    pub edit: i64,
    pub kind: String,
    pub mailbox: Option<String>,
    pub target: Option<String>,
    pub state: String,
    pub flags: (i32, i32),
}

impl Line {
    /// Whether a command for the edit may have been sent by now.
    pub fn is_sent(&self) -> bool {
        self.what == "state" && self.state != "open"
    }
}

/// From now on.
pub async fn open(conn: &mut PgConnection) {
    conn.execute(TABLES).await.unwrap();
}

/// Everything since the last time.
pub async fn read(conn: &mut PgConnection) -> Vec<Line> {
    let rows = sqlx::query("WITH gone AS (DELETE FROM plays RETURNING *) SELECT * FROM gone ORDER BY n")
        .fetch_all(conn)
        .await
        .unwrap();
    let text = |row: &sqlx::postgres::PgRow, name: &str| row.get::<Option<String>, _>(name);
    let line = |row: &sqlx::postgres::PgRow| Line {
        tx: row.get("tx"),
        what: row.get("what"),
        subject: text(row, "subject").unwrap_or_default(),
        id: row
            .get::<Option<uuid::Uuid>, _>("message")
            .map_or_else(String::new, |id| id.to_string().split_off(32)),
        edit: row.get::<Option<i64>, _>("edit").unwrap_or_default(),
        kind: text(row, "kind").unwrap_or_default(),
        mailbox: text(row, "mailbox"),
        target: text(row, "target"),
        state: text(row, "state").unwrap_or_default(),
        flags: (
            row.get::<Option<i32>, _>("flags_add").unwrap_or_default(),
            row.get::<Option<i32>, _>("flags_remove").unwrap_or_default(),
        ),
    };
    rows.iter().map(line).collect()
}
