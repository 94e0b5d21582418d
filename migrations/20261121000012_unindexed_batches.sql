-- What the text index still lacks, a row for each batch of a backfill. A mark on each message made its index job write
-- every message a second time, with all of its indexes.
CREATE TABLE unindexed_batches (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  account_id  uuid NOT NULL,
  sort_at     timestamptz NOT NULL,
  message_ids uuid[] NOT NULL,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX unindexed_batches_newest ON unindexed_batches(tenant_id, account_id, sort_at DESC, id);
COMMENT ON COLUMN unindexed_batches.sort_at IS 'of its newest message; the newest batch is indexed first';
COMMENT ON COLUMN unindexed_batches.message_ids IS 'no foreign key: a message that goes meanwhile is passed over';
COMMENT ON COLUMN messages.indexed_at IS 'NULL: stored by a release before unindexed_batches, and not indexed yet';

ALTER TABLE unindexed_batches ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON unindexed_batches FOR ALL TO emailclient_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON unindexed_batches TO emailclient_app;

-- The scheduler finds accounts whose job was lost.
CREATE POLICY system_read ON unindexed_batches FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, account_id) ON unindexed_batches TO emailclient_system;
