-- Deleting at any size. An account that is deleted is marked by a row of `account_removals`; a job removes what it has in
-- portions, and the account's own row at the end. From the mark on no transaction of the services sees anything of it: those of
-- a tenant that has such accounts take the role emailclient_remaining, which sees what emailclient_app sees less what is marked.
-- The statements of all other tenants are planned as before.
--
-- The release before goes on. It does not look for marks, so until the removal is through its processes still show what is left,
-- as an account that is paused, under an address that no account can have and without a password: they can neither read nor
-- write mail with it. Their own DELETE removes an account in one statement, marked or not, as before.
--
-- As in migration 27: a policy needs its table for itself, so none is waited for.
SET LOCAL lock_timeout = '200ms';

-- Of a foreign key: an account's drafts were looked for among all of its tenant. First: nothing else is locked while it is built.
CREATE INDEX drafts_account ON drafts(tenant_id, account_id);

CREATE TABLE account_removals (
  tenant_id   uuid NOT NULL,
  account_id  uuid NOT NULL,
  total       bigint NOT NULL DEFAULT 0,
  removed     bigint NOT NULL DEFAULT 0,
  reached     timestamptz NOT NULL DEFAULT 'infinity',
  asked_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, account_id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE account_removals IS 'accounts that are deleted and not removed yet; a row goes with its account';
COMMENT ON COLUMN account_removals.total IS 'messages it showed when it was deleted';
COMMENT ON COLUMN account_removals.reached IS 'sort_at of the last one: newer messages in sight are removed, and are not looked for again';
COMMENT ON COLUMN account_removals.removed IS 'messages that are removed, those that no mailbox showed among them';
-- Whoever waited for the row of an account while it was marked finds that in the row itself.
ALTER TABLE accounts ADD COLUMN removed_at timestamptz;
ALTER TABLE account_leases ADD COLUMN removed_at timestamptz;
COMMENT ON COLUMN accounts.removed_at IS 'since when it is deleted: see account_removals';
COMMENT ON COLUMN account_leases.removed_at IS 'of the account';
ALTER TABLE account_removals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON account_removals FOR ALL TO emailclient_app, emailclient_limited
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY reach ON account_removals AS RESTRICTIVE FOR ALL TO emailclient_limited
  USING (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
  WITH CHECK (account_id = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]));
GRANT SELECT, INSERT, UPDATE, DELETE ON account_removals TO emailclient_app, emailclient_limited;
-- The scheduler finds those that lost their job.
CREATE POLICY system ON account_removals FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, account_id) ON account_removals TO emailclient_system;

DO $$
DECLARE
  t record;
BEGIN
  FOR t IN SELECT c.relname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
           WHERE c.relnamespace = 'public'::regnamespace AND p.polname = 'tenant'
  LOOP
    EXECUTE format('ALTER POLICY tenant ON %I TO emailclient_app, emailclient_limited, emailclient_remaining', t.relname);
  END LOOP;
  -- What the application may do, no more and no less.
  FOR t IN SELECT DISTINCT c.relname, a.privilege_type AS what
           FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
           WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = 'emailclient_app'::regrole
  LOOP
    EXECUTE format('GRANT %s ON %I TO emailclient_remaining', t.what, t.relname);
  END LOOP;
  -- The log goes on telling what happened to an account, its deletion above all. That a list is unset hides everything. The
  -- planner takes `&&` to hold for one row in a hundred; of `<> ALL` it thinks that it hides nearly every row of a tenant with
  -- few accounts, and sorts a mailbox for each page.
  FOR t IN SELECT c.relname, CASE c.relname WHEN 'accounts' THEN 'id' ELSE 'account_id' END AS of
           FROM pg_class c JOIN pg_attribute g ON g.attrelid = c.oid AND NOT g.attisdropped
             AND g.attname = CASE c.relname WHEN 'accounts' THEN 'id' ELSE 'account_id' END
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
             AND c.relname NOT IN ('events', 'webhook_deliveries')
  LOOP
    EXECUTE format($p$CREATE POLICY remains ON %I AS RESTRICTIVE FOR ALL TO emailclient_remaining
      USING (NOT ARRAY[%2$I] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]))
      WITH CHECK (NOT ARRAY[%2$I] && ((SELECT nullif(current_setting('app.removed_account_ids', true), '')::uuid[])::uuid[]))$p$,
      t.relname, t.of);
  END LOOP;
  FOR t IN SELECT * FROM (VALUES
      ('draft_attachments', 'drafts', 'draft_id'), ('submission_recipients', 'submissions', 'submission_id'),
      ('submission_attempts', 'submissions', 'submission_id'), ('ingest_batches', 'mailboxes', 'mailbox_id'),
      ('ingest_attempts', 'mailboxes', 'mailbox_id')) AS v(relname, parent, of)
  LOOP
    EXECUTE format($p$CREATE POLICY remains ON %1$I AS RESTRICTIVE FOR ALL TO emailclient_remaining
      USING (EXISTS (SELECT 1 FROM %2$I p WHERE p.tenant_id = %1$I.tenant_id AND p.id = %1$I.%3$I))
      WITH CHECK (EXISTS (SELECT 1 FROM %2$I p WHERE p.tenant_id = %1$I.tenant_id AND p.id = %1$I.%3$I))$p$,
      t.relname, t.parent, t.of);
  END LOOP;
  -- Who may touch some accounts only loses those that are marked, but goes on hearing what is told of them.
  FOR t IN SELECT * FROM (VALUES ('events', 'account_id = ANY (%s)'), ('webhook_deliveries', 'account_id = ANY (%s)'),
      ('webhooks', 'account_ids <@ (%s)')) AS v(relname, condition)
  LOOP
    EXECUTE format('ALTER POLICY reach ON %I USING (%s) WITH CHECK (%2$s)', t.relname, format(t.condition,
      '(SELECT coalesce(nullif(current_setting(''app.told_account_ids'', true), ''''), nullif(current_setting(''app.account_ids'', true), ''''))::uuid[])::uuid[]'));
  END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION search_messages TO emailclient_remaining;
GRANT SELECT ON _sqlx_migrations TO emailclient_remaining;

-- Begins a transaction of the services: says whose it is, and takes the role by which it sees what it may. `reach`: NULL, or the
-- accounts it is limited to.
CREATE FUNCTION enter_tenant(tenant uuid, reach uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  removed uuid[];
BEGIN
  PERFORM set_config('app.tenant_id', tenant::text, true);
  removed := ARRAY(SELECT r.account_id FROM public.account_removals r WHERE r.tenant_id = tenant);
  IF removed <> '{}' THEN
    PERFORM set_config('app.removed_account_ids', removed::text, true);
  END IF;
  IF reach IS NOT NULL THEN
    PERFORM set_config('app.account_ids', ARRAY(SELECT a FROM unnest(reach) AS u(a) WHERE a <> ALL (removed))::text, true),
            set_config('app.told_account_ids', reach::text, true), set_config('role', 'emailclient_limited', true);
  ELSIF removed <> '{}' THEN
    PERFORM set_config('role', 'emailclient_remaining', true);
  END IF;
END $$;
REVOKE ALL ON FUNCTION enter_tenant FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enter_tenant TO emailclient_app;

-- It runs as another role, so it keeps away from what is marked by itself.
CREATE OR REPLACE FUNCTION search_messages(query tsquery, accounts uuid[], before_at timestamptz, before_id uuid, since_at timestamptz, max_rows integer)
RETURNS TABLE (message_id uuid, sort_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN QUERY EXECUTE
    'SELECT s.message_id, s.sort_at FROM public.message_search s
     WHERE s.tenant_id = (SELECT nullif(current_setting(''app.tenant_id'', true), '''')::pg_catalog.uuid)
       AND s.tsv @@ $1
       AND ($2 IS NULL OR s.account_id = ANY ($2))
       AND ($3 IS NULL OR (s.sort_at, s.message_id) < ($3, $4))
       AND ($5 IS NULL OR s.sort_at >= $5)
       AND ($7 IS NULL OR s.account_id <> ALL ($7))
     ORDER BY s.sort_at DESC, s.message_id DESC
     LIMIT least($6, 2000)'
    USING query, accounts, before_at, before_id, since_at, max_rows,
      nullif(current_setting('app.removed_account_ids', true), '')::pg_catalog.uuid[];
END $$;

-- A tenant that is deleted is suspended for good, gives its slug back, and goes in portions as its accounts do; its row is the last.
-- For the release before it is suspended. No service may delete a tenant or a line of an audit trail: this function does, of the
-- tenant of the transaction, ten seconds after it was deleted at the earliest. By then every process knows.
ALTER TABLE tenants ADD COLUMN removed_at timestamptz;
COMMENT ON COLUMN tenants.removed_at IS 'since when it is deleted: all of it is being removed';
GRANT SELECT (removed_at) ON tenants TO emailclient_system;
CREATE POLICY removal ON tenants FOR ALL TO emailclient_owner
  USING (id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid) AND removed_at < now() - interval '10 seconds');
CREATE POLICY removal ON audit_log FOR ALL TO emailclient_owner
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid)
    AND EXISTS (SELECT 1 FROM tenants t WHERE t.id = audit_log.tenant_id));
CREATE FUNCTION remove_tenant_trail(max_rows integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  done pg_catalog.int8;
BEGIN
  DELETE FROM public.audit_log WHERE ctid = ANY (ARRAY(SELECT a.ctid FROM public.audit_log a LIMIT max_rows));
  GET DIAGNOSTICS done = ROW_COUNT;
  RETURN done;
END $$;
CREATE FUNCTION remove_tenant_row() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM public.tenants;
  RETURN FOUND;
END $$;
REVOKE ALL ON FUNCTION remove_tenant_trail, remove_tenant_row FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_tenant_trail, remove_tenant_row TO emailclient_app;
