-- The round that a client asked for last, and the last that nobody asked for. A row that is queued was asked for, and begins
-- in a later transaction; the rows of other rounds begin as they are made, so both instants are the same.
CREATE INDEX sync_runs_asked ON sync_runs(tenant_id, account_id, requested_at DESC) WHERE started_at IS DISTINCT FROM requested_at;
CREATE INDEX sync_runs_finished ON sync_runs(finished_at);
COMMENT ON COLUMN sync_runs.started_at IS 'when it began; the same as requested_at where nobody asked for it';
GRANT SELECT (finished_at), DELETE ON sync_runs TO emailclient_system;
CREATE POLICY system_sweep ON sync_runs FOR DELETE TO emailclient_system USING (finished_at < now() - interval '1 day');
