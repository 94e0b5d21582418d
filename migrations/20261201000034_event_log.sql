-- The event log. Each event has a position in the log of its tenant: without gaps, in the order of commits, given at the end of
-- the transaction that did what it tells. Nobody could read what the release before wrote, so it goes; that release may go on
-- writing, and its events get their positions by the default of the column.

-- One row a tenant, the last that a transaction locks. No foreign keys here or in `events`: a look at the tenant's row would
-- come after it.
CREATE TABLE tenant_streams (
  tenant_id   uuid PRIMARY KEY,
  position    bigint NOT NULL DEFAULT 0,
  durable     bigint NOT NULL DEFAULT 0,
  oldest      bigint NOT NULL DEFAULT 1,
  last_at     timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 20);
COMMENT ON COLUMN tenant_streams.position IS 'of the last event';
COMMENT ON COLUMN tenant_streams.durable IS 'up to here all events are on disk; readers stop there';
COMMENT ON COLUMN tenant_streams.oldest IS 'where the log begins; what came before was cut off';
COMMENT ON COLUMN tenant_streams.last_at IS 'when the last event was given its position';

CREATE FUNCTION next_event_position() RETURNS bigint LANGUAGE sql VOLATILE AS $$
  INSERT INTO public.tenant_streams AS s (tenant_id, position, last_at)
  VALUES (nullif(current_setting('app.tenant_id', true), '')::uuid, 1, clock_timestamp())
  ON CONFLICT (tenant_id) DO UPDATE SET position = s.position + 1, last_at = greatest(s.last_at, clock_timestamp())
  RETURNING position
$$;

DROP TABLE events;
CREATE TABLE events (
  tenant_id    uuid NOT NULL,
  position     bigint NOT NULL DEFAULT next_event_position(),
  kind         text NOT NULL,
  account_id   uuid,
  object_id    uuid,
  thread_id    uuid,
  thread_shown boolean,
  backfill     boolean NOT NULL DEFAULT false,
  data         jsonb NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, position)
);
CREATE INDEX events_account ON events(tenant_id, account_id, position);
COMMENT ON COLUMN events.thread_id IS 'of an event of a message: its conversation after it';
COMMENT ON COLUMN events.thread_shown IS 'with this event that conversation came into sight (true) or went out of it (false)';
COMMENT ON COLUMN events.backfill IS 'old mail that was read for the first time';
ALTER TABLE events ALTER COLUMN data SET STATISTICS 0;

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['events', 'tenant_streams'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I FOR ALL TO emailclient_app, emailclient_limited
      USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
      WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO emailclient_app, emailclient_limited', t);
  END LOOP;
END $$;
CREATE POLICY reach ON events AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]));
-- Which tenants have news, and whose log is to be cut.
CREATE POLICY system ON tenant_streams FOR SELECT TO emailclient_system USING (true);
GRANT SELECT ON tenant_streams TO emailclient_system;
CREATE POLICY system ON events FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, position, created_at) ON events TO emailclient_system;

-- Whether it was told that all mail of the account is there; told again after mail was read anew.
ALTER TABLE accounts ADD COLUMN synced_told boolean NOT NULL DEFAULT false;
UPDATE accounts SET synced_told = true WHERE last_synced_at IS NOT NULL;
