-- How much of an account is kept: mail since a day, some mailboxes, messages up to a size. What is outside stays on the server. The
-- release before goes on: it keeps everything, and whoever comes after it takes out again what is outside.
SET LOCAL lock_timeout = '200ms';

ALTER TABLE accounts ADD COLUMN keep_since text, ADD COLUMN keep_mailboxes jsonb, ADD COLUMN keep_max_bytes bigint,
  ADD COLUMN narrowed_at timestamptz;
COMMENT ON COLUMN accounts.keep_since IS 'a day, or a number of days as 90d; NULL: all mail is kept';
COMMENT ON COLUMN accounts.narrowed_at IS 'the moment by which it was last seen to that nothing is here that is outside';
GRANT SELECT (keep_since, keep_mailboxes, keep_max_bytes, narrowed_at, removed_at) ON accounts TO emailclient_system;
ALTER TABLE mailboxes ADD COLUMN synchronised boolean NOT NULL DEFAULT true;
GRANT SELECT (synchronised) ON mailboxes TO emailclient_system;
COMMENT ON COLUMN mailboxes.synchronised IS 'false: its messages are outside';

-- Ranges, because what is outside is mostly everything up to some UID.
CREATE TABLE mailbox_outside (
  tenant_id   uuid NOT NULL,
  account_id  uuid NOT NULL,
  mailbox_id  uuid NOT NULL,
  generation  integer NOT NULL,
  first_uid   bigint NOT NULL,
  last_uid    bigint NOT NULL,
  PRIMARY KEY (tenant_id, mailbox_id, generation, first_uid),
  FOREIGN KEY (tenant_id, mailbox_id) REFERENCES mailboxes(tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX mailbox_outside_account ON mailbox_outside(tenant_id, account_id);
COMMENT ON TABLE mailbox_outside IS 'UIDs of messages that the server has in a mailbox that is synchronised, and that are not kept';

CREATE TABLE account_narrowings (
  tenant_id   uuid NOT NULL,
  account_id  uuid NOT NULL,
  total       bigint,
  removed     bigint NOT NULL DEFAULT 0,
  asked_at    timestamptz,
  bounds_at   timestamptz,
  mailbox     uuid,
  sort_at     timestamptz,
  message     uuid,
  passed_over boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, account_id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE account_narrowings IS 'accounts of which less is to be kept than is here';
COMMENT ON COLUMN account_narrowings.total IS 'placements that were outside when it began; NULL: nobody has counted yet, or it would take too long';
COMMENT ON COLUMN account_narrowings.asked_at IS 'NULL: nobody asked, the daily pass';
COMMENT ON COLUMN account_narrowings.bounds_at IS 'the moment whose bounds the pass goes by; NULL: none has begun';
COMMENT ON COLUMN account_narrowings.mailbox IS 'where the pass goes on, behind sort_at and message; NULL: it has been through all';
COMMENT ON COLUMN account_narrowings.passed_over IS 'edits waited of something that is outside: another pass follows';

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['mailbox_outside', 'account_narrowings']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I FOR ALL TO emailclient_app, emailclient_limited, emailclient_remaining
      USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
      WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    EXECUTE format($p$CREATE POLICY reach ON %I AS RESTRICTIVE FOR ALL TO emailclient_limited
      USING (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
      WITH CHECK (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))$p$, t);
    EXECUTE format($p$CREATE POLICY remains ON %I AS RESTRICTIVE FOR ALL TO emailclient_remaining
      USING (NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]))
      WITH CHECK (NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]))$p$, t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO emailclient_app, emailclient_limited, emailclient_remaining', t);
  END LOOP;
END $$;
CREATE POLICY system ON account_narrowings FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, account_id) ON account_narrowings TO emailclient_system;
