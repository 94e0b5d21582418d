-- Before a table was analysed the planner expects a tenant to have hardly any rows, and reads all of them for one. Checks
-- of foreign keys keep such a plan for as long as the session lives: with 8,000 messages each placement cost 0.7 ms.
-- autovacuum looks once a minute. The scheduler calls this every few seconds; it costs nothing once tables have grown.
CREATE FUNCTION analyze_young_tables() RETURNS integer
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
      AND pg_stat_get_mod_since_analyze(c.oid) > 200 + greatest(c.reltuples, 0) / 2
  LOOP
    EXECUTE format('ANALYZE (SKIP_LOCKED) %s', young.name);
    done := done + 1;
  END LOOP;
  RETURN done;
END $$;
REVOKE ALL ON FUNCTION analyze_young_tables FROM PUBLIC;
GRANT EXECUTE ON FUNCTION analyze_young_tables TO emailclient_system;
