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
