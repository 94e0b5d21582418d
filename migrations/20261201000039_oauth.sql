-- OAuth2: apps that a tenant registered at providers, what their users and organisations granted (one row of tokens each), people
-- who are on their way to a provider and back, and where they may be sent then.
SET LOCAL lock_timeout = '200ms';

CREATE TABLE oauth_apps (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id          uuid NOT NULL,
  provider    text NOT NULL CHECK (provider IN ('google', 'microsoft', 'yahoo', 'custom')),
  name        text NOT NULL DEFAULT '',
  client_id   text NOT NULL,
  client_secret     bytea,
  client_secret_key text,
  private_key       bytea,
  private_key_key   text,
  directory   text,
  endpoints   jsonb,
  scopes      text[] NOT NULL DEFAULT '{}',
  version     bigint NOT NULL DEFAULT 1,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
COMMENT ON COLUMN oauth_apps.private_key IS 'of a service account, which signs assertions (RFC 7523)';
COMMENT ON COLUMN oauth_apps.directory IS 'the organisation at Microsoft; NULL: any';
COMMENT ON COLUMN oauth_apps.endpoints IS 'of a custom provider';
COMMENT ON COLUMN oauth_apps.scopes IS 'asked for in place of the provider''s usual ones, where there are any';

CREATE TABLE oauth_grants (
  tenant_id     uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id            uuid NOT NULL,
  app_id        uuid NOT NULL,
  provider      text NOT NULL,
  kind          text NOT NULL CHECK (kind IN ('person', 'client', 'service')),
  subject       text NOT NULL DEFAULT '',
  scopes        text NOT NULL DEFAULT '',
  refresh_token     bytea,
  refresh_token_key text,
  access_token      bytea,
  access_token_key  text,
  generation    bigint NOT NULL DEFAULT 1,
  expires_at    timestamptz,
  renew_at      timestamptz,
  used          boolean NOT NULL DEFAULT false,
  claim         uuid,
  claimed_until timestamptz,
  failures      integer NOT NULL DEFAULT 0,
  next_try_at   timestamptz,
  invalid_since timestamptz,
  refused       text,
  app_fault     text,
  handed_hash   bytea,
  created_at    timestamptz NOT NULL DEFAULT now(),
  renewed_at    timestamptz,
  PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 50);
CREATE INDEX oauth_grants_app ON oauth_grants(tenant_id, app_id);
CREATE UNIQUE INDEX oauth_grants_client ON oauth_grants(tenant_id, app_id) WHERE kind = 'client';
COMMENT ON COLUMN oauth_grants.app_id IS 'of oauth_apps, or of the deployment';
COMMENT ON COLUMN oauth_grants.kind IS 'person: a refresh token; client: the app itself; service: an assertion for subject';
COMMENT ON COLUMN oauth_grants.generation IS 'grows with each refresh token: an answer to an earlier one is not stored';
COMMENT ON COLUMN oauth_grants.used IS 'the access token was asked for since it was renewed';
COMMENT ON COLUMN oauth_grants.invalid_since IS 'the provider called the refresh token invalid; it is asked once more before that counts';
COMMENT ON COLUMN oauth_grants.app_fault IS 'what the provider said of the app when it was asked last: its owner has to act';
COMMENT ON COLUMN oauth_grants.handed_hash IS 'of the refresh token that a caller gave, which its provider may have replaced since';
COMMENT ON COLUMN oauth_grants.refused IS 'what the provider said; a person has to act';

ALTER TABLE accounts ADD COLUMN grant_id uuid;
ALTER TABLE accounts ADD CONSTRAINT accounts_grant FOREIGN KEY (tenant_id, grant_id) REFERENCES oauth_grants(tenant_id, id);
CREATE INDEX accounts_grant ON accounts(tenant_id, grant_id) WHERE grant_id IS NOT NULL;
COMMENT ON COLUMN accounts.grant_id IS 'it logs in with tokens in place of passwords';

CREATE TABLE oauth_flows (
  tenant_id    uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  state_hash   bytea NOT NULL,
  app_id       uuid NOT NULL,
  account_id   uuid,
  email        text,
  redirect_url text NOT NULL,
  client_state text,
  actor        uuid NOT NULL,
  expires_at   timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, state_hash),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX oauth_flows_account ON oauth_flows(tenant_id, account_id);
COMMENT ON COLUMN oauth_flows.account_id IS 'it is renewed; NULL: a new one is connected';
COMMENT ON COLUMN oauth_flows.client_state IS 'given back to redirect_url as it is';

CREATE TABLE oauth_devices (
  tenant_id    uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id           uuid NOT NULL,
  app_id       uuid NOT NULL,
  account_id   uuid,
  actor        uuid NOT NULL,
  device_code     bytea,
  device_code_key text,
  user_code    text NOT NULL,
  verification_uri text NOT NULL,
  verification_uri_complete text,
  interval_seconds integer NOT NULL,
  next_poll_at timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  connected_id uuid,
  error        text,
  error_text   text,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX oauth_devices_account ON oauth_devices(tenant_id, account_id);
COMMENT ON COLUMN oauth_devices.connected_id IS 'the account that came of it';

ALTER TABLE tenants ADD COLUMN redirect_urls text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN tenants.redirect_urls IS 'where people may be sent after they connected an account, compared whole';

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['oauth_apps', 'oauth_grants', 'oauth_flows', 'oauth_devices'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I FOR ALL TO emailclient_app, emailclient_limited, emailclient_remaining
      USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
      WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO emailclient_app, emailclient_limited, emailclient_remaining', t);
  END LOOP;
END $$;
-- Who may touch some accounts only sees no tokens of others, and connects no new ones.
CREATE POLICY reach ON oauth_grants AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (EXISTS (SELECT 1 FROM accounts a WHERE a.tenant_id = oauth_grants.tenant_id AND a.grant_id = oauth_grants.id))
  WITH CHECK (true);
CREATE POLICY reach ON oauth_flows AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]));
CREATE POLICY reach ON oauth_devices AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]));
-- Of an account that is deleted nothing is seen.
CREATE POLICY remains ON oauth_flows AS RESTRICTIVE FOR ALL TO emailclient_remaining
  USING (account_id IS NULL OR NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id IS NULL OR NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]));
CREATE POLICY remains ON oauth_devices AS RESTRICTIVE FOR ALL TO emailclient_remaining
  USING (account_id IS NULL OR NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id IS NULL OR NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]));
-- Which grants are due to be renewed.
CREATE INDEX oauth_grants_due ON oauth_grants(renew_at) WHERE refused IS NULL;
CREATE POLICY system ON oauth_grants FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, id, renew_at, refused) ON oauth_grants TO emailclient_system;
