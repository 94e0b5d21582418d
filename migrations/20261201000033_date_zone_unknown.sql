-- Whether the date of a message is its sender's clock read as UTC, for want of a zone that anybody knows. Lists tell it too.
-- What is stored already is read again by the parser (accounts.read_by).
ALTER TABLE messages ADD COLUMN date_zone_unknown boolean NOT NULL DEFAULT false;
