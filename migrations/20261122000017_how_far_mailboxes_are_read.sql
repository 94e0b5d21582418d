-- Messages in no mailbox are kept while one of the account's mailboxes has mail that was not read yet: they may have been
-- moved there. The scheduler, which looks for accounts with messages to remove, has to see how far mailboxes are read.
CREATE POLICY system_read ON mailboxes FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, account_id, selectable, tail_uid, last_synced_at) ON mailboxes TO emailclient_system;
