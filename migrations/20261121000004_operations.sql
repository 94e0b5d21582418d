-- Long work that a client follows at /api/jobs/{id}: one action on many messages, done in batches by a worker.

CREATE TABLE operations (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id          uuid NOT NULL,
  user_id     uuid,
  kind        text NOT NULL,
  action      jsonb NOT NULL,
  state       text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued','running','done','failed','cancelled')),
  selection   uuid[] NOT NULL,
  total       integer NOT NULL,
  done        integer NOT NULL DEFAULT 0,
  updated     integer NOT NULL DEFAULT 0,
  attempts    integer NOT NULL DEFAULT 0,
  error       text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  started_at  timestamptz,
  finished_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users(tenant_id, id) ON DELETE SET NULL (user_id),
  CHECK (0 <= updated AND updated <= done AND done <= total),
  CHECK ((finished_at IS NULL) = (state IN ('queued','running')))
);
CREATE INDEX operations_user ON operations(tenant_id, user_id);
CREATE INDEX operations_open ON operations(tenant_id, id) WHERE finished_at IS NULL;
CREATE INDEX operations_finished ON operations(finished_at) WHERE finished_at IS NOT NULL;
COMMENT ON COLUMN operations.selection IS 'the messages as they were chosen, frozen; emptied when the work is over';
COMMENT ON COLUMN operations.done IS 'how many of the selection are behind us, which is also where the next batch begins';
COMMENT ON COLUMN operations.updated IS 'those of done that still existed and were changed';
COMMENT ON COLUMN operations.attempts IS 'starts since a batch was last committed; written before the work';

ALTER TABLE operations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON operations FOR ALL TO emailclient_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON operations TO emailclient_app;

-- The scheduler finds work that lost its job, and removes what ended a week ago.
CREATE POLICY system_read ON operations FOR SELECT TO emailclient_system USING (true);
CREATE POLICY system_sweep ON operations FOR DELETE TO emailclient_system USING (finished_at < now() - interval '7 days');
GRANT SELECT (tenant_id, id, finished_at), DELETE ON operations TO emailclient_system;
