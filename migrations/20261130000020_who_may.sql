-- A function that runs as its owner looks for tables and types in its caller's pg_temp before all else, unless its
-- search_path names pg_temp: a temporary domain called uuid ran the caller's code as the owner. So pg_temp is last, and every
-- type is named with its schema. That nobody can make temporary objects at all is said of the database, by `emailctl migrate`.
CREATE OR REPLACE FUNCTION search_messages(query tsquery, accounts uuid[], before_at timestamptz, before_id uuid, since_at timestamptz, max_rows integer)
RETURNS TABLE (message_id uuid, sort_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN QUERY EXECUTE
    'SELECT s.message_id, s.sort_at FROM public.message_search s
     WHERE s.tenant_id = (SELECT nullif(current_setting(''app.tenant_id'', true), '''')::pg_catalog.uuid)
       AND s.tsv @@ $1
       AND ($2 IS NULL OR s.account_id = ANY ($2))
       AND ($3 IS NULL OR (s.sort_at, s.message_id) < ($3, $4))
       AND ($5 IS NULL OR s.sort_at >= $5)
     ORDER BY s.sort_at DESC, s.message_id DESC
     LIMIT least($6, 2000)'
    USING query, accounts, before_at, before_id, since_at, max_rows;
END $$;

CREATE OR REPLACE FUNCTION analyze_young_tables() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET default_statistics_target = 25
AS $$
DECLARE
  young pg_catalog.record;
  done pg_catalog.int4 := 0;
BEGIN
  FOR young IN
    SELECT c.relname AS name FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.reltuples < 200000
      AND c.relname IN ('blobs', 'edits', 'events', 'message_mailboxes', 'message_search', 'messages', 'thread_keys', 'threads')
      AND pg_catalog.pg_stat_get_mod_since_analyze(c.oid) > 200 + 2 * greatest(c.reltuples, 0)
  LOOP
    EXECUTE format('ANALYZE (SKIP_LOCKED) public.%I', young.name);
    done := done + 1;
  END LOOP;
  RETURN done;
END $$;

CREATE OR REPLACE FUNCTION merge_search_index() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT pg_catalog.gin_clean_pending_list('public.message_search_tsv'::pg_catalog.regclass) $$;

-- With a tenant its audit goes. No service deletes one.
REVOKE DELETE ON tenants FROM emailclient_app;

-- A user who reads and changes nothing. The release before takes one for a member.
ALTER TABLE users DROP CONSTRAINT users_role_check;
ALTER TABLE users ADD CONSTRAINT users_role_check CHECK (role IN ('viewer','member','admin','owner'));

-- From where a user has logged in: who guesses the password from elsewhere does not slow the user down there.
CREATE TABLE login_networks (
  tenant_id   uuid NOT NULL,
  user_id     uuid NOT NULL,
  network     text NOT NULL,
  seen_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, user_id, network),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users(tenant_id, id) ON DELETE CASCADE
);
COMMENT ON COLUMN login_networks.network IS 'an IPv4 address, or the /64 of an IPv6 one';
ALTER TABLE login_networks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON login_networks FOR ALL TO emailclient_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON login_networks TO emailclient_app;
