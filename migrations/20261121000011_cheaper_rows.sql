-- The words of a message are the largest value beside its bytes, and went through PostgreSQL's own compression, which
-- takes several times the processor of lz4 for a few hundredths of the space. Rows that exist are left as they are.
ALTER TABLE message_search ALTER COLUMN tsv SET COMPRESSION lz4;
ALTER TABLE messages ALTER COLUMN attachments SET COMPRESSION lz4, ALTER COLUMN refs SET COMPRESSION lz4,
  ALTER COLUMN to_addresses SET COMPRESSION lz4, ALTER COLUMN cc_addresses SET COMPRESSION lz4;

-- A placement's mailbox and message each name the account already, and go with it. Each foreign key is a look-up a row.
ALTER TABLE message_mailboxes DROP CONSTRAINT message_mailboxes_tenant_id_account_id_fkey;
