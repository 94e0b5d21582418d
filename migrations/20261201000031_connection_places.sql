-- Connections of an account that are open now, over all processes: each has one of the few places of its protocol, so that
-- the key itself allows no more. The release before knows nothing of the table and connects without.

CREATE TABLE connection_places (
  tenant_id   uuid NOT NULL,
  account_id  uuid NOT NULL,
  protocol    text NOT NULL CHECK (protocol IN ('imap', 'smtp')),
  place       smallint NOT NULL CHECK (place BETWEEN 1 AND 4),
  holder      uuid NOT NULL,
  held_until  timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, account_id, protocol, place),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE connection_places IS 'open connections of an account; one that its process does not renew is free after a minute';
ALTER TABLE connection_places ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON connection_places FOR ALL TO emailclient_app, emailclient_limited
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY reach ON connection_places AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]));
GRANT SELECT, INSERT, UPDATE, DELETE ON connection_places TO emailclient_app, emailclient_limited;

-- Whoever is done calls the submission of its account that waits longest.
CREATE INDEX submissions_due ON submissions(tenant_id, account_id, send_after, id) WHERE state = 'queued';
