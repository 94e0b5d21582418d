-- What waits for an instant that no wait can reach is drawn in: the clock was set back since. The scheduler looks for such
-- rows among all tenants, and needs to see what of it was put off, and by how much.
GRANT SELECT (attempt, created_at) ON submissions TO emailclient_system;

-- Whether the database takes writes, asked by health checks. It is emptied and filled again, so that each try needs room on the
-- disk: a row that is changed in its place finds some long after nothing else does.
CREATE TABLE write_probe (at timestamptz NOT NULL);
GRANT INSERT, TRUNCATE ON write_probe TO emailclient_system;
