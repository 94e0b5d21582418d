-- Statistics of young tables were taken at each half as much again, ten times in a first synchronisation, for a twentieth of
-- PostgreSQL's work in it. What goes wrong without them does so while a table is taken for empty.
CREATE OR REPLACE FUNCTION analyze_young_tables() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public
AS $$
DECLARE
  young record;
  done integer := 0;
BEGIN
  FOR young IN
    SELECT c.oid::regclass AS name FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.reltuples < 200000
      AND c.relname IN ('blobs', 'events', 'message_mailboxes', 'message_search', 'messages', 'thread_keys', 'threads')
      AND pg_stat_get_mod_since_analyze(c.oid) > 200 + 2 * greatest(c.reltuples, 0)
  LOOP
    EXECUTE format('ANALYZE (SKIP_LOCKED) %s', young.name);
    done := done + 1;
  END LOOP;
  RETURN done;
END $$;

-- Placements whose UID the server has not said are few, and each round looks for those that waited too long.
CREATE INDEX message_mailboxes_seatless ON message_mailboxes(tenant_id, account_id) WHERE uid IS NULL;

-- Our users' flags that the server does not have yet are few. Of two columns that differ the planner thinks that nearly
-- every row has them, and reads the whole table for each mailbox rather than this index; of an expression with statistics
-- it knows. The index of the release before has the other form.
CREATE INDEX message_mailboxes_edited ON message_mailboxes(tenant_id, account_id, mailbox_id) INCLUDE (uid)
  WHERE (CASE WHEN flags <> base_flags OR keywords <> base_keywords THEN 1 ELSE 0 END) = 1;
CREATE STATISTICS message_mailboxes_is_edited
  ON (CASE WHEN flags <> base_flags OR keywords <> base_keywords THEN 1 ELSE 0 END) FROM message_mailboxes;
DROP INDEX message_mailboxes_dirty;

-- New words wait in a list until it has 4 MB; whoever stores the next message then sorts all of them into the index, for
-- 0.1 s. The scheduler does it before.
CREATE FUNCTION merge_search_index() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public
AS $$ SELECT gin_clean_pending_list('public.message_search_tsv') $$;
REVOKE ALL ON FUNCTION merge_search_index FROM PUBLIC;
GRANT EXECUTE ON FUNCTION merge_search_index TO emailclient_system;
