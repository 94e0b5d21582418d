-- Files on their way into a draft: kept piece by piece until the upload has ended, so that no process holds a file whole.
-- The release before knows nothing of the table and goes on as it did.

CREATE TABLE upload_pieces (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  upload_id   uuid NOT NULL,
  file        integer NOT NULL,
  n           integer NOT NULL,
  bytes       bytea NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, upload_id, file, n)
);
ALTER TABLE upload_pieces ALTER COLUMN bytes SET STORAGE EXTERNAL;
CREATE INDEX upload_pieces_age ON upload_pieces(created_at);
COMMENT ON TABLE upload_pieces IS 'pieces of files whose upload has not ended; they go with its end, and after two hours when its process died';
ALTER TABLE upload_pieces ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON upload_pieces FOR ALL TO emailclient_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON upload_pieces TO emailclient_app;
CREATE POLICY system_read ON upload_pieces FOR SELECT TO emailclient_system USING (true);
CREATE POLICY system_sweep ON upload_pieces FOR DELETE TO emailclient_system USING (created_at < now() - interval '2 hours');
GRANT SELECT (tenant_id, created_at), DELETE ON upload_pieces TO emailclient_system;
