-- A claim takes turns over tenants, so the waiting jobs of each are a range of their own. jobs_ready is for the release
-- before, and goes one release later.
CREATE INDEX jobs_turn ON jobs(tenant_id, priority DESC, run_at) WHERE state = 'ready';

-- An extension that a host advertises and does not honour is left alone for a while.
CREATE TABLE capabilities_off (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  host        text NOT NULL,
  port        integer NOT NULL,
  capability  text NOT NULL,
  words       text NOT NULL,
  until       timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, host, port, capability)
);
COMMENT ON TABLE capabilities_off IS 'what a mail server offers and fails at; each tenant learns for itself, so that none can lame another''s accounts';
COMMENT ON COLUMN capabilities_off.words IS 'what the server said';

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['capabilities_off']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I FOR ALL TO emailclient_app
      USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
      WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO emailclient_app', t);
  END LOOP;
END $$;
