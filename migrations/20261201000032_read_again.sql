-- What of a message is kept in columns was read by the parser of the release that stored it. A newer parser reads the stored
-- sources again, account by account: by which version all of them were read, how far it has come, and how often the next
-- portion was begun.
ALTER TABLE accounts ADD COLUMN read_by smallint NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN read_again_to bytea;
ALTER TABLE accounts ADD COLUMN read_again_tries smallint NOT NULL DEFAULT 0;
GRANT SELECT (read_by) ON accounts TO emailclient_system;
