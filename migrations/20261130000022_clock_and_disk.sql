-- What waits for an instant that no wait can reach is drawn in: the clock was set back since. The scheduler looks for such
-- rows among all tenants, and needs to see what of it was put off, and by how much.
GRANT SELECT (attempt, created_at) ON submissions TO emailclient_system;

-- Whether the database takes writes, asked by health checks. A row fills a page, and the table is emptied before it, so that each
-- try needs room on the disk: a row that is changed in its place finds some long after nothing else does.
CREATE TABLE write_probe (room text NOT NULL);
ALTER TABLE write_probe ALTER COLUMN room SET STORAGE PLAIN;
GRANT INSERT, TRUNCATE ON write_probe TO emailclient_system;
