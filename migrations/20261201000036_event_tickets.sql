-- Tickets for streams of events: a browser's EventSource can set no header, and a token in a URL would stand in logs. Good once,
-- for a minute; only the hash is kept here.
CREATE TABLE event_tickets (
  tenant_id     uuid NOT NULL,
  ticket_hash   bytea NOT NULL,
  user_id       uuid NOT NULL,
  session_id    uuid NOT NULL,
  token_expires bigint NOT NULL,
  expires_at    timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, ticket_hash),
  FOREIGN KEY (tenant_id, session_id) REFERENCES sessions(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX event_tickets_session ON event_tickets(tenant_id, session_id);
COMMENT ON COLUMN event_tickets.token_expires IS 'seconds since 1970: the end of the token that asked for it';
ALTER TABLE event_tickets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON event_tickets FOR ALL TO emailclient_app, emailclient_limited
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON event_tickets TO emailclient_app, emailclient_limited;
