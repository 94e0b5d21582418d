-- Messages that may end a process, a statement or a connection: counted before they are looked into, so that none of
-- them can hold up its mailbox.

CREATE TABLE ingest_batches (
  tenant_id   uuid NOT NULL,
  mailbox_id  uuid NOT NULL,
  epoch       bigint NOT NULL,
  generation  integer NOT NULL,
  uids        text NOT NULL,
  started_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, mailbox_id, epoch),
  FOREIGN KEY (tenant_id, mailbox_id) REFERENCES mailboxes(tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE ingest_batches IS 'messages a worker is looking into; the row goes in the transaction that stores the last of them. One of an earlier epoch was left by a process that ended there';
COMMENT ON COLUMN ingest_batches.epoch IS 'of the account''s lease; a lease has one batch at a time';
COMMENT ON COLUMN ingest_batches.uids IS 'a UID set as IMAP writes it';

CREATE TABLE ingest_attempts (
  tenant_id   uuid NOT NULL,
  mailbox_id  uuid NOT NULL,
  generation  integer NOT NULL,
  uid         bigint NOT NULL,
  deaths      integer NOT NULL DEFAULT 0,
  refusals    integer NOT NULL DEFAULT 0,
  reason      text NOT NULL,
  last_at     timestamptz NOT NULL DEFAULT now(),
  next_try_at timestamptz,
  PRIMARY KEY (tenant_id, mailbox_id, generation, uid),
  FOREIGN KEY (tenant_id, mailbox_id) REFERENCES mailboxes(tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE ingest_attempts IS 'messages that are not stored yet and were in the way; a row goes when its message is stored or gone from the server';
COMMENT ON COLUMN ingest_attempts.deaths IS 'processes that ended while they looked into it: from the second on it is stored without being looked into';
COMMENT ON COLUMN ingest_attempts.refusals IS 'how often the server failed to deliver it when asked for it alone';
COMMENT ON COLUMN ingest_attempts.reason IS 'what happened last, a code or the server''s words';
COMMENT ON COLUMN ingest_attempts.next_try_at IS 'left out until then; NULL: not left out';

ALTER TABLE messages ADD COLUMN never_parse boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN messages.never_parse IS 'processes ended while they looked into it: nobody looks again, the bytes are all there is';

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['ingest_batches','ingest_attempts']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I FOR ALL TO emailclient_app
      USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
      WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO emailclient_app', t);
  END LOOP;
END $$;
