-- Trouble with a server goes by the time since it began, not by how often somebody tried. The release before, which counts,
-- is stopped for 18 already.
ALTER TABLE account_leases DROP COLUMN failures;
ALTER TABLE account_leases ADD COLUMN failing_since timestamptz, ADD COLUMN woken_at timestamptz;
COMMENT ON COLUMN account_leases.failing_since IS 'the first failure since the account was last well; NULL: it is. Decides how long the next try waits';
COMMENT ON COLUMN account_leases.woken_at IS 'when an edit last had a failing account tried before its time';
COMMENT ON COLUMN ingest_attempts.refusals IS 'how often the server refused it when it was asked for alone; a line that breaks is none';
COMMENT ON COLUMN ingest_attempts.next_try_at IS 'left out until then; NULL: asked for alone with the next round';
