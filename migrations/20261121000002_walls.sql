-- Row-level security, grants, and the triggers that keep derived columns true.

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['users','sessions','refresh_tokens','accounts','account_leases','sync_runs','mailboxes','blobs',
    'threads','thread_keys','messages','message_mailboxes','message_search','pending_changes','drafts','draft_attachments',
    'submissions','submission_recipients','submission_attempts','events','audit_log','idempotency_keys','jobs']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I FOR ALL TO emailclient_app
      USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
      WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))$p$, t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO emailclient_app', t);
  END LOOP;
END $$;
-- What was audited stays as it was written.
REVOKE UPDATE, DELETE ON audit_log FROM emailclient_app;

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants FOR ALL TO emailclient_app
  USING (id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON tenants TO emailclient_app;

-- The system role finds work across tenants; it reads queue columns and no contents.
CREATE POLICY system ON tenants FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (id, slug, suspended_at, per_minute, per_hour) ON tenants TO emailclient_system;
CREATE POLICY system ON jobs FOR ALL TO emailclient_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON jobs TO emailclient_system;
CREATE POLICY system ON account_leases FOR ALL TO emailclient_system USING (true) WITH CHECK (true);
GRANT SELECT ON account_leases TO emailclient_system;
GRANT UPDATE (watch_owner, watch_expires_at) ON account_leases TO emailclient_system;
CREATE POLICY system ON accounts FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, id, state) ON accounts TO emailclient_system;
CREATE POLICY system ON sync_runs FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, id, account_id, state, requested_at, started_at) ON sync_runs TO emailclient_system;
CREATE POLICY system ON submissions FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, id, state, phase, send_after, lease_until, sent_copy, updated_at) ON submissions TO emailclient_system;
CREATE POLICY system ON messages FOR SELECT TO emailclient_system USING (true);
GRANT SELECT (tenant_id, id, account_id, indexed_at, gone_at) ON messages TO emailclient_system;
CREATE POLICY system_read ON idempotency_keys FOR SELECT TO emailclient_system USING (true);
CREATE POLICY system_sweep ON idempotency_keys FOR DELETE TO emailclient_system USING (created_at < now() - interval '24 hours');
GRANT SELECT (tenant_id, created_at), DELETE ON idempotency_keys TO emailclient_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON scheduler_lease TO emailclient_system;
GRANT SELECT ON _sqlx_migrations TO emailclient_app, emailclient_system;

-- Full text. `@@` is not leakproof, so under row-level security the planner may not use the GIN index. This function
-- filters by the tenant itself and returns ids only; its owner may read this one table and nothing else.
CREATE POLICY search ON message_search FOR SELECT TO emailclient_search
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT ON message_search TO emailclient_search;
CREATE FUNCTION search_messages(query tsquery, accounts uuid[], before_at timestamptz, before_id uuid, since_at timestamptz, max_rows integer)
RETURNS TABLE (message_id uuid, sort_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
AS $$
  SELECT s.message_id, s.sort_at FROM public.message_search s
  WHERE s.tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid)
    AND s.tsv @@ query
    AND (accounts IS NULL OR s.account_id = ANY (accounts))
    AND (before_at IS NULL OR (s.sort_at, s.message_id) < (before_at, before_id))
    AND (since_at IS NULL OR s.sort_at >= since_at)
  ORDER BY s.sort_at DESC, s.message_id DESC
  LIMIT least(max_rows, 2000)
$$;
-- ALTER … OWNER asks that the new owner may create in the schema, for this one moment.
GRANT CREATE ON SCHEMA public TO emailclient_search;
ALTER FUNCTION search_messages OWNER TO emailclient_search;
REVOKE CREATE ON SCHEMA public FROM emailclient_search;
REVOKE ALL ON FUNCTION search_messages FROM PUBLIC;
GRANT EXECUTE ON FUNCTION search_messages TO emailclient_app;

-- Counts and gone_at follow the placements, whoever writes them.
CREATE FUNCTION placements_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE mailboxes m SET total = m.total + d.total, unread = m.unread + d.unread
      FROM (SELECT tenant_id, mailbox_id, count(*)::int AS total, (count(*) FILTER (WHERE flags & 1 = 0))::int AS unread
            FROM new_rows WHERE hidden_at IS NULL GROUP BY 1, 2) d
      WHERE m.tenant_id = d.tenant_id AND m.id = d.mailbox_id;
    UPDATE messages g SET gone_at = NULL
      FROM new_rows n WHERE n.hidden_at IS NULL AND g.tenant_id = n.tenant_id AND g.id = n.message_id AND g.gone_at IS NOT NULL;
  ELSIF TG_OP = 'DELETE' THEN
    UPDATE mailboxes m SET total = m.total - d.total, unread = m.unread - d.unread
      FROM (SELECT tenant_id, mailbox_id, count(*)::int AS total, (count(*) FILTER (WHERE flags & 1 = 0))::int AS unread
            FROM old_rows WHERE hidden_at IS NULL GROUP BY 1, 2) d
      WHERE m.tenant_id = d.tenant_id AND m.id = d.mailbox_id;
    UPDATE messages g SET gone_at = clock_timestamp()
      FROM (SELECT DISTINCT tenant_id, message_id FROM old_rows) o
      WHERE g.tenant_id = o.tenant_id AND g.id = o.message_id AND g.gone_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = g.tenant_id AND p.message_id = g.id AND p.hidden_at IS NULL);
  ELSE
    UPDATE mailboxes m SET total = m.total + d.total, unread = m.unread + d.unread
      FROM (SELECT tenant_id, mailbox_id, sum(total)::int AS total, sum(unread)::int AS unread FROM (
              SELECT tenant_id, mailbox_id, 1 AS total, CASE WHEN flags & 1 = 0 THEN 1 ELSE 0 END AS unread FROM new_rows WHERE hidden_at IS NULL
              UNION ALL
              SELECT tenant_id, mailbox_id, -1, CASE WHEN flags & 1 = 0 THEN -1 ELSE 0 END FROM old_rows WHERE hidden_at IS NULL) u
            GROUP BY 1, 2 HAVING sum(total) <> 0 OR sum(unread) <> 0) d
      WHERE m.tenant_id = d.tenant_id AND m.id = d.mailbox_id;
    UPDATE messages g SET gone_at = CASE WHEN v.visible THEN NULL ELSE clock_timestamp() END
      FROM (SELECT c.tenant_id, c.message_id, EXISTS (SELECT 1 FROM message_mailboxes p
                WHERE p.tenant_id = c.tenant_id AND p.message_id = c.message_id AND p.hidden_at IS NULL) AS visible
            FROM (SELECT n.tenant_id, n.message_id FROM new_rows n JOIN old_rows o USING (tenant_id, id)
                    WHERE (n.hidden_at IS NULL) <> (o.hidden_at IS NULL) OR n.message_id <> o.message_id
                  UNION SELECT o.tenant_id, o.message_id FROM new_rows n JOIN old_rows o USING (tenant_id, id)
                    WHERE n.message_id <> o.message_id) c) v
      WHERE g.tenant_id = v.tenant_id AND g.id = v.message_id AND v.visible = (g.gone_at IS NOT NULL);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER placements_inserted AFTER INSERT ON message_mailboxes REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION placements_changed();
CREATE TRIGGER placements_deleted AFTER DELETE ON message_mailboxes REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION placements_changed();
CREATE TRIGGER placements_updated AFTER UPDATE ON message_mailboxes REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION placements_changed();
