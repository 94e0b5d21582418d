-- The page on which a person connects a mailbox: who was sent there, how far they came, and whose name and colours it shows.
SET LOCAL lock_timeout = '200ms';

CREATE TABLE connect_sessions (
  tenant_id    uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id           uuid NOT NULL,
  token_hash   bytea NOT NULL,
  redirect_url text NOT NULL,
  email        text,
  account_id   uuid,
  client_state text,
  locale       text,
  actor        uuid NOT NULL,
  found        jsonb,
  fault        jsonb,
  expires_at   timestamptz NOT NULL,
  ended_at     timestamptz,
  connected_id uuid,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, token_hash),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX connect_sessions_account ON connect_sessions(tenant_id, account_id);
CREATE INDEX connect_sessions_expired ON connect_sessions(tenant_id, expires_at);
COMMENT ON COLUMN connect_sessions.account_id IS 'it is renewed; NULL: a new one is connected';
COMMENT ON COLUMN connect_sessions.client_state IS 'given back to redirect_url as it is';
COMMENT ON COLUMN connect_sessions.email IS 'expected, or entered';
COMMENT ON COLUMN connect_sessions.found IS 'servers of the address, once it was entered';
COMMENT ON COLUMN connect_sessions.fault IS 'why the person came back from a provider without an account';
COMMENT ON COLUMN connect_sessions.connected_id IS 'the account that came of it; NULL with ended_at: given up';

ALTER TABLE oauth_flows ADD COLUMN connect_id uuid;
ALTER TABLE oauth_flows ADD CONSTRAINT oauth_flows_connect
  FOREIGN KEY (tenant_id, connect_id) REFERENCES connect_sessions(tenant_id, id) ON DELETE CASCADE;
CREATE INDEX oauth_flows_connect ON oauth_flows(tenant_id, connect_id) WHERE connect_id IS NOT NULL;
COMMENT ON COLUMN oauth_flows.connect_id IS 'the page it was begun on';

-- Not in tenants, which each request reads: a logo is large.
CREATE TABLE tenant_branding (
  tenant_id uuid PRIMARY KEY REFERENCES tenants(id) ON DELETE CASCADE,
  name      text NOT NULL,
  colour    text CHECK (colour ~ '^#[0-9a-f]{6}$'),
  logo_url  text,
  logo      bytea,
  logo_type text CHECK (logo_type IN ('image/png', 'image/jpeg', 'image/gif', 'image/webp')),
  logo_hash bytea,
  CHECK ((logo IS NULL) = (logo_type IS NULL) AND (logo IS NULL) = (logo_hash IS NULL))
);
COMMENT ON COLUMN tenant_branding.logo IS 'as it was fetched from logo_url; served by us';

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['connect_sessions', 'tenant_branding'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I FOR ALL TO emailclient_app, emailclient_limited, emailclient_remaining
      USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
      WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO emailclient_app, emailclient_limited, emailclient_remaining', t);
  END LOOP;
END $$;
-- Who may touch some accounts only renews those, and connects no new ones.
CREATE POLICY reach ON connect_sessions AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]));
-- Of an account that is deleted nothing is seen.
CREATE POLICY remains ON connect_sessions AS RESTRICTIVE FOR ALL TO emailclient_remaining
  USING (account_id IS NULL OR NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id IS NULL OR NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]));
