-- A message of a few kilobytes went out of its row in chunks of 2 KB, each a row with an index entry of its own. What two
-- rows of a page have room for stays where it is; rows that exist are left as they are.
ALTER TABLE blobs SET (toast_tuple_target = 4080);

-- Statistics of columns that no condition and no order names: sorting samples of them was most of an ANALYZE of messages.
ALTER TABLE blobs ALTER COLUMN raw SET STATISTICS 0;
ALTER TABLE events ALTER COLUMN data SET STATISTICS 0;
ALTER TABLE threads ALTER COLUMN subject SET STATISTICS 0;
ALTER TABLE messages
  ALTER COLUMN email_id SET STATISTICS 0, ALTER COLUMN in_reply_to SET STATISTICS 0, ALTER COLUMN refs SET STATISTICS 0,
  ALTER COLUMN subject SET STATISTICS 0, ALTER COLUMN from_addresses SET STATISTICS 0,
  ALTER COLUMN to_addresses SET STATISTICS 0, ALTER COLUMN cc_addresses SET STATISTICS 0,
  ALTER COLUMN bcc_addresses SET STATISTICS 0, ALTER COLUMN reply_to_addresses SET STATISTICS 0,
  ALTER COLUMN snippet SET STATISTICS 0, ALTER COLUMN attachments SET STATISTICS 0;

-- Text is indexed when no more is arriving, so that it does not take the processor from what brings it.
ALTER TABLE unindexed_batches ADD COLUMN stored_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX unindexed_batches_stored ON unindexed_batches(tenant_id, stored_at);

-- A message's conversation and bytes each name the account already, so it needs no look of its own at each message. As both
-- refuse to go while it refers to them, the messages of an account that is deleted go before it.
CREATE FUNCTION account_goes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM messages WHERE tenant_id = OLD.tenant_id AND account_id = OLD.id;
  RETURN OLD;
END $$;
CREATE TRIGGER account_goes BEFORE DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION account_goes();
ALTER TABLE messages DROP CONSTRAINT messages_tenant_id_account_id_fkey;

-- A young table changes its face too quickly for samples of 30,000 rows, as many as the default target takes, to be worth
-- their time. Once it has grown, autovacuum takes them.
ALTER FUNCTION analyze_young_tables SET default_statistics_target = 25;
