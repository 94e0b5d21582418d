-- A principal may be let at some accounts of its tenant only. Its transactions take the role emailclient_limited, which sees
-- what the application sees, less what belongs to other accounts. The application's own statements are planned as before:
-- the policies below are not theirs.
--
-- A policy needs its table for itself, and all tables are held until the end. So none is waited for: where somebody has one,
-- everything is let go and tried again a second later.
SET LOCAL lock_timeout = '200ms';
DO $$
DECLARE
  t record;
BEGIN
  FOR t IN SELECT c.oid, c.relname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
           WHERE c.relnamespace = 'public'::regnamespace AND p.polname = 'tenant'
  LOOP
    EXECUTE format('ALTER POLICY tenant ON %I TO emailclient_app, emailclient_limited', t.relname);
  END LOOP;
  -- What the application may do, no more and no less.
  FOR t IN SELECT DISTINCT c.relname, a.privilege_type AS what
           FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
           WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = 'emailclient_app'::regrole
  LOOP
    EXECUTE format('GRANT %s ON %I TO emailclient_limited', t.what, t.relname);
  END LOOP;
  FOR t IN SELECT DISTINCT c.relname, a.privilege_type AS what, g.attname
           FROM pg_class c JOIN pg_attribute g ON g.attrelid = c.oid CROSS JOIN LATERAL aclexplode(g.attacl) a
           WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = 'emailclient_app'::regrole
  LOOP
    EXECUTE format('GRANT %s (%I) ON %I TO emailclient_limited', t.what, t.attname, t.relname);
  END LOOP;
  -- An unset list is NULL, and = ANY (NULL) lets nothing through.
  FOR t IN SELECT c.relname, CASE c.relname WHEN 'accounts' THEN 'id' ELSE 'account_id' END AS of
           FROM pg_class c JOIN pg_attribute g ON g.attrelid = c.oid AND NOT g.attisdropped
             AND g.attname = CASE c.relname WHEN 'accounts' THEN 'id' ELSE 'account_id' END
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
  LOOP
    EXECUTE format($p$CREATE POLICY reach ON %I AS RESTRICTIVE FOR ALL TO emailclient_limited
      USING (%2$I = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))
      WITH CHECK (%2$I = ANY ((SELECT nullif(current_setting('app.account_ids', true), '')::uuid[])::uuid[]))$p$,
      t.relname, t.of);
  END LOOP;
  -- Rows without an account of their own are reached as far as what they belong to.
  FOR t IN SELECT * FROM (VALUES
      ('draft_attachments', 'drafts', 'draft_id'), ('submission_recipients', 'submissions', 'submission_id'),
      ('submission_attempts', 'submissions', 'submission_id'), ('ingest_batches', 'mailboxes', 'mailbox_id'),
      ('ingest_attempts', 'mailboxes', 'mailbox_id')) AS v(relname, parent, of)
  LOOP
    EXECUTE format($p$CREATE POLICY reach ON %1$I AS RESTRICTIVE FOR ALL TO emailclient_limited
      USING (EXISTS (SELECT 1 FROM %2$I p WHERE p.tenant_id = %1$I.tenant_id AND p.id = %1$I.%3$I))
      WITH CHECK (EXISTS (SELECT 1 FROM %2$I p WHERE p.tenant_id = %1$I.tenant_id AND p.id = %1$I.%3$I))$p$,
      t.relname, t.parent, t.of);
  END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION search_messages TO emailclient_limited;
GRANT SELECT ON _sqlx_migrations TO emailclient_limited;

-- Refusals of one caller beyond ten a minute are counted: this line stands for so many.
ALTER TABLE audit_log ADD COLUMN times integer NOT NULL DEFAULT 1;
