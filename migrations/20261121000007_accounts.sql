-- Accounts that explain themselves: pausing, reading anew, the daily audit, the server's words about a mailbox.

ALTER TABLE account_leases ADD COLUMN paused_at timestamptz;
COMMENT ON COLUMN account_leases.paused_at IS 'nobody takes the lease while this is set; accounts.state says the same to clients';
-- Each account at its own time of the day, so that audits of all of them do not come together.
ALTER TABLE account_leases ADD COLUMN next_audit_at timestamptz NOT NULL DEFAULT now() + random() * interval '1 day';
CREATE INDEX account_leases_audit ON account_leases(next_audit_at);

ALTER TABLE mailboxes ADD COLUMN cause_upstream jsonb;
COMMENT ON COLUMN mailboxes.cause_upstream IS 'what the server said, as in accounts';
ALTER TABLE mailboxes ADD COLUMN resync_asked_at timestamptz;
COMMENT ON COLUMN mailboxes.resync_asked_at IS 'a user wants all of it compared; cleared by the visit that has done so';
ALTER TABLE mailboxes ADD COLUMN audit_repairs bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN mailboxes.audit_repairs IS 'what audits found to differ although the server''s numbers said that nothing had changed: each is a defect of ours, so this stays 0';
