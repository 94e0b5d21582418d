-- A mailbox that goes with much in it is marked by a row of `mailbox_removals` and goes in portions, as accounts do (migration 38).
-- From the mark on no transaction of the services sees the mailbox, its placements, or the messages that are nowhere else: those
-- of a tenant that has such mailboxes take the role emailclient_remaining. Who may touch some accounts only has the role
-- emailclient_limited already, so that one hides them as well.
--
-- The release before goes on. It does not look for marks: to it the mailbox is one under a name that no server lists, and its
-- next round removes it.
--
-- As in migration 27: a policy needs its table for itself, so none is waited for.
SET LOCAL lock_timeout = '200ms';

CREATE TABLE mailbox_removals (
  tenant_id   uuid NOT NULL,
  account_id  uuid NOT NULL,
  mailbox_id  uuid NOT NULL,
  total       bigint NOT NULL DEFAULT 0,
  removed     bigint NOT NULL DEFAULT 0,
  reached     timestamptz NOT NULL DEFAULT 'infinity',
  asked_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, mailbox_id),
  FOREIGN KEY (tenant_id, mailbox_id) REFERENCES mailboxes(tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX mailbox_removals_account ON mailbox_removals(tenant_id, account_id);
COMMENT ON TABLE mailbox_removals IS 'mailboxes that are deleted and not removed yet; a row goes with its mailbox';
COMMENT ON COLUMN mailbox_removals.total IS 'messages it showed when it was deleted';
COMMENT ON COLUMN mailbox_removals.reached IS 'sort_at of the last one: newer placements in sight are removed, and are not looked for again';
COMMENT ON COLUMN mailbox_removals.removed IS 'placements that are removed, those that nobody saw among them';
ALTER TABLE mailbox_removals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mailbox_removals FOR ALL TO emailclient_app, emailclient_limited, emailclient_remaining
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY reach ON mailbox_removals AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]));
CREATE POLICY remains ON mailbox_removals AS RESTRICTIVE FOR ALL TO emailclient_remaining
  USING (NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (NOT ARRAY[account_id] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]));
GRANT SELECT, INSERT, UPDATE, DELETE ON mailbox_removals TO emailclient_app, emailclient_limited, emailclient_remaining;
-- The scheduler finds those that lost their job.
CREATE POLICY system ON mailbox_removals FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, account_id, mailbox_id) ON mailbox_removals TO emailclient_system;

-- Of a mailbox that is marked nothing is seen, nor of a message that no other mailbox shows; that is asked of accounts alone that
-- lose a mailbox. A message that has just been written has its placement in a moment; one that has just lost its last one is not
-- marked as gone yet, and placements_changed() has to find it. As a scalar: of EXISTS the planner may make a table of all
-- placements there are.
DO $$
DECLARE
  t record;
  list constant text := '((SELECT coalesce(nullif(current_setting(%L, true), ''''), ''{}'')::uuid[])::uuid[])';
BEGIN
  FOR t IN SELECT * FROM (VALUES ('emailclient_limited', 'reach_mailbox'), ('emailclient_remaining', 'remains_mailbox')) AS v(role, policy)
  LOOP
    EXECUTE format('CREATE POLICY %I ON mailboxes AS RESTRICTIVE FOR ALL TO %I USING (NOT ARRAY[id] && %3$s) WITH CHECK (NOT ARRAY[id] && %3$s)',
      t.policy, t.role, format(list, 'app.removed_mailbox_ids'));
    EXECUTE format('CREATE POLICY %I ON message_mailboxes AS RESTRICTIVE FOR ALL TO %I
        USING (NOT ARRAY[mailbox_id] && %3$s) WITH CHECK (NOT ARRAY[mailbox_id] && %3$s)',
      t.policy, t.role, format(list, 'app.removed_mailbox_ids'));
    EXECUTE format('CREATE POLICY %I ON messages AS RESTRICTIVE FOR SELECT TO %I USING (NOT ARRAY[account_id] && %s
        OR gone_at IS NOT NULL OR created_at >= now() OR pg_trigger_depth() > 0
        OR (SELECT true FROM message_mailboxes p
            WHERE p.tenant_id = messages.tenant_id AND p.message_id = messages.id AND p.hidden_at IS NULL LIMIT 1) IS NOT NULL)',
      t.policy, t.role, format(list, 'app.losing_account_ids'));
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION enter_tenant(tenant uuid, reach uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  removed uuid[];
  mailboxes uuid[];
  losing uuid[];
BEGIN
  PERFORM set_config('app.tenant_id', tenant::text, true);
  removed := ARRAY(SELECT r.account_id FROM public.account_removals r WHERE r.tenant_id = tenant);
  SELECT coalesce(array_agg(r.mailbox_id), '{}'), coalesce(array_agg(DISTINCT r.account_id), '{}') INTO mailboxes, losing
    FROM public.mailbox_removals r WHERE r.tenant_id = tenant;
  IF removed <> '{}' OR mailboxes <> '{}' THEN
    PERFORM set_config('app.removed_account_ids', removed::text, true),
            set_config('app.removed_mailbox_ids', mailboxes::text, true),
            set_config('app.losing_account_ids', losing::text, true);
  END IF;
  IF reach IS NOT NULL THEN
    PERFORM set_config('app.account_ids', ARRAY(SELECT a FROM unnest(reach) AS u(a) WHERE a <> ALL (removed))::text, true),
            set_config('app.told_account_ids', reach::text, true), set_config('role', 'emailclient_limited', true);
  ELSIF removed <> '{}' OR mailboxes <> '{}' THEN
    PERFORM set_config('role', 'emailclient_remaining', true);
  END IF;
END $$;
