-- Webhooks: events of the log, sent to addresses of the tenant's own. An endpoint remembers a place in the log and what it has
-- settled beyond that, so a backlog is no rows, and sending again is a second place.
CREATE TABLE webhooks (
  tenant_id      uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id             uuid NOT NULL,
  url            text NOT NULL,
  types          text[],
  account_ids    uuid[],
  description    text NOT NULL DEFAULT '',
  include        text NOT NULL DEFAULT 'summary' CHECK (include IN ('summary', 'ids')),
  backfill       boolean NOT NULL DEFAULT false,
  version        bigint NOT NULL DEFAULT 1,
  secret         bytea NOT NULL,
  secret_key     text NOT NULL,
  previous_secret     bytea,
  previous_secret_key text,
  previous_until timestamptz,
  state          text NOT NULL DEFAULT 'enabled' CHECK (state IN ('enabled', 'failing', 'disabled')),
  cause          text,
  failures       integer NOT NULL DEFAULT 0,
  failing_since  timestamptz,
  next_try_at    timestamptz,
  delivered      bigint NOT NULL DEFAULT 0,
  failed         bigint NOT NULL DEFAULT 0,
  last_success_at timestamptz,
  position       bigint NOT NULL,
  settled        bigint[] NOT NULL DEFAULT '{}',
  replay_position bigint,
  replay_until   bigint,
  replay_types   text[],
  replay_settled bigint[] NOT NULL DEFAULT '{}',
  seen           bigint NOT NULL,
  wake_at        timestamptz,
  owner          uuid,
  epoch          bigint NOT NULL DEFAULT 0,
  lease_until    timestamptz,
  created_at     timestamptz NOT NULL DEFAULT now(),
  updated_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 50);
COMMENT ON COLUMN webhooks.types IS 'kinds of events; NULL: all';
COMMENT ON COLUMN webhooks.account_ids IS 'events of these accounts; NULL: of all, and those of the tenant';
COMMENT ON COLUMN webhooks.failures IS 'failures of the endpoint one after the other';
COMMENT ON COLUMN webhooks.failing_since IS 'of the first failure after the last success';
COMMENT ON COLUMN webhooks.position IS 'everything up to here is settled';
COMMENT ON COLUMN webhooks.settled IS 'what is settled beyond that';
COMMENT ON COLUMN webhooks.replay_position IS 'the same of what is sent again, up to replay_until';
COMMENT ON COLUMN webhooks.seen IS 'a log that ends here has nothing to look for, until wake_at';

-- Events that failed at least once. What succeeds at once is counted and leaves no row.
CREATE TABLE webhook_deliveries (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  webhook_id  uuid NOT NULL,
  position    bigint NOT NULL,
  replay      boolean NOT NULL,
  asked       boolean NOT NULL DEFAULT false,
  account_id  uuid,
  kind        text NOT NULL,
  event_at    timestamptz NOT NULL,
  state       text NOT NULL CHECK (state IN ('waiting', 'failed', 'delivered')),
  tries       integer NOT NULL DEFAULT 0,
  next_try_at timestamptz,
  attempts    jsonb NOT NULL DEFAULT '[]',
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, webhook_id, replay, position),
  FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhooks(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX webhook_deliveries_list ON webhook_deliveries(tenant_id, webhook_id, id);
COMMENT ON COLUMN webhook_deliveries.asked IS 'a client asked for it, beside the log and its order';
COMMENT ON COLUMN webhook_deliveries.tries IS 'how often the event was refused for itself, since it was asked for';
COMMENT ON COLUMN webhook_deliveries.attempts IS 'the last ones: at, status, error, duration_ms';

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['webhooks', 'webhook_deliveries'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I FOR ALL TO emailclient_app, emailclient_limited
      USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
      WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO emailclient_app, emailclient_limited', t);
  END LOOP;
END $$;
-- One that sends events of all accounts shows more than who may touch some of them may see.
CREATE POLICY reach ON webhooks AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (account_ids <@ ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_ids <@ ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]));
CREATE POLICY reach ON webhook_deliveries AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]));
-- Which endpoints have something to do.
CREATE POLICY system ON webhooks FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, id, state, failures, next_try_at, seen, wake_at, owner, lease_until) ON webhooks TO emailclient_system;
