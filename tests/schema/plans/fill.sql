-- Two tenants of the same size, so that a plan that forgets the tenant reads twice of everything. Run as superuser.
-- Triggers and foreign keys are off while it runs: 20,000 rows at a time would cost a minute, and plans need neither.
SET session_replication_role = replica;

-- Row `n` of a kind; ids grow with n, as UUIDv7 do with time. The last group is the tenant.
CREATE FUNCTION pg_temp.id(t int, kind int, n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT (lpad(to_hex(n), 8, '0') || '-' || lpad(to_hex(kind), 4, '0') || '-7000-8000-' || lpad(to_hex(t), 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.at(n int) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
$$ SELECT timestamptz '2024-01-01 00:00:00+00' + n * interval '10 minutes' $$;

INSERT INTO tenants (id, slug, name) SELECT pg_temp.id(t, 1, 1), 'tenant-' || t, 'T' FROM generate_series(1, 2) t;

INSERT INTO users (tenant_id, id, email, email_key, role, password_hash)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 2, n), n || '@lab.test', n || '@lab.test', 'owner', 'x'
FROM generate_series(1, 2) t, generate_series(1, 1500) n;
INSERT INTO sessions (tenant_id, id, user_id, expires_at)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 3, n), pg_temp.id(t, 2, n % 1500 + 1), now() + interval '1 day'
FROM generate_series(1, 2) t, generate_series(1, 3000) n;
INSERT INTO refresh_tokens (tenant_id, token_hash, session_id)
SELECT pg_temp.id(t, 1, 1), decode(md5(t || 'token' || n), 'hex'), pg_temp.id(t, 3, n)
FROM generate_series(1, 2) t, generate_series(1, 3000) n;

-- Account 1 has the mail, account 2 a twentieth of it; of the 2,000 a few are due.
INSERT INTO accounts (tenant_id, id, email, email_key, imap_host, imap_port, imap_security, imap_username,
                      smtp_host, smtp_port, smtp_security, smtp_username, state)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 4, n), n || '@a.test', n || '@a.test', 'h', 993, 'tls', 'u', 'h', 465, 'tls', 'u', 'connected'
FROM generate_series(1, 2) t, generate_series(1, 2000) n;
INSERT INTO account_leases (tenant_id, account_id, next_due_at)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 4, n), now() + CASE WHEN n % 500 = 0 THEN -n ELSE 86400 + n END * interval '1 second'
FROM generate_series(1, 2) t, generate_series(1, 2000) n;
INSERT INTO sync_runs (tenant_id, id, account_id, state, requested_at)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 17, n), pg_temp.id(t, 4, n % 1000 + 1), 'done', pg_temp.at(n)
FROM generate_series(1, 2) t, generate_series(1, 5000) n;

INSERT INTO mailboxes (tenant_id, id, account_id, wire_name, path, name, role, generation)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 5, a * 100 + n), pg_temp.id(t, 4, a), ('box ' || n)::bytea, 'box ' || n, 'box ' || n,
       (ARRAY['inbox', 'sent', 'drafts', 'junk', 'trash', 'archive'])[n], 1
FROM generate_series(1, 2) t, generate_series(1, 40) a, generate_series(1, 10) n;

-- One conversation of 2,000 messages, the others have three.
INSERT INTO threads (tenant_id, id, account_id, subject, last_message_at)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 6, n), pg_temp.id(t, 4, CASE WHEN n > 6666 THEN 2 ELSE 1 END), 's', pg_temp.at(n * 3 + 2)
FROM generate_series(1, 2) t, generate_series(0, 7000) n;
INSERT INTO blobs (tenant_id, account_id, hash, size_bytes, raw)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 4, CASE WHEN n > 20000 THEN 2 ELSE 1 END), decode(md5('blob' || n), 'hex'), 10, 'Subject: x'
FROM generate_series(1, 2) t, generate_series(1, 21000) n;
INSERT INTO messages (tenant_id, id, account_id, thread_id, blob_hash, size_bytes, message_id_header, subject, snippet, has_attachments,
                      received_at, sort_at, date_sort_at, indexed_at, gone_at)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 7, n), pg_temp.id(t, 4, CASE WHEN n > 20000 THEN 2 ELSE 1 END),
       pg_temp.id(t, 6, CASE WHEN n % 10 = 3 THEN 0 ELSE n / 3 END), decode(md5('blob' || n), 'hex'), 10, n || '@lab.test',
       'subject ' || n, repeat('snippet ', 20), n % 5 = 0, pg_temp.at(n), pg_temp.at(n), pg_temp.at(n) + (n * 7919 % 3600) * interval '1 second',
       CASE WHEN n % 1000 <> 1 THEN now() END, CASE WHEN n % 500 = 2 THEN now() - interval '1 hour' END
FROM generate_series(1, 2) t, generate_series(1, 21000) n;
INSERT INTO thread_keys (tenant_id, account_id, key, thread_id)
SELECT tenant_id, account_id, decode(md5(message_id_header), 'hex'), thread_id FROM messages;

-- Three in five in the INBOX, the others over seven mailboxes; a tenth also in the ninth. A quarter unread, one in twelve starred.
INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, flags, base_flags, internal_date, sort_at, date_sort_at)
SELECT m.tenant_id, pg_temp.id(t, 8, n), m.account_id,
       pg_temp.id(t, 5, CASE WHEN n > 20000 THEN 200 ELSE 100 END + CASE WHEN n % 10 < 6 THEN 1 ELSE 2 + n % 7 END),
       1, n, m.id, CASE WHEN n % 4 = 0 THEN 0 ELSE 1 END + CASE WHEN n % 12 = 7 THEN 4 ELSE 0 END,
       CASE WHEN n % 4 = 0 THEN 0 ELSE 1 END + CASE WHEN n % 12 = 7 THEN 4 ELSE 0 END, m.received_at, m.sort_at, m.date_sort_at
FROM generate_series(1, 2) t CROSS JOIN generate_series(1, 21000) n JOIN messages m ON m.id = pg_temp.id(t, 7, n) WHERE m.gone_at IS NULL;
INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, flags, base_flags, internal_date, sort_at, date_sort_at)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 9, n), pg_temp.id(t, 4, 1), pg_temp.id(t, 5, 109), 1, n, pg_temp.id(t, 7, n), 1, 1, pg_temp.at(n), pg_temp.at(n), pg_temp.at(n)
FROM generate_series(1, 2) t, generate_series(10, 20000, 10) n;

-- Every message has its own word and one of fifty that many share.
INSERT INTO message_search (tenant_id, message_id, account_id, sort_at, tsv)
SELECT tenant_id, id, account_id, sort_at,
       array_to_tsvector(ARRAY['everywhere', 'common' || ascii(substr(md5(subject), 1, 1)), replace(subject, 'subject ', 'word')])
FROM messages;
INSERT INTO edits (tenant_id, account_id, message_id, kind, flags_add)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 4, 1), pg_temp.id(t, 7, n), 'flags', 4
FROM generate_series(1, 2) t, generate_series(1, 20000, 200) n WHERE EXISTS (SELECT 1 FROM messages m WHERE m.id = pg_temp.id(t, 7, n));

-- Two in three drafts were sent; of what was sent, one in a hundred failed and one in a hundred was cancelled.
INSERT INTO submissions (tenant_id, id, draft_id, account_id, state, phase, message_id_header, envelope_from, mime, send_after, give_up_at, created_at)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 12, n), pg_temp.id(t, 11, n), pg_temp.id(t, 4, n % 4 + 1),
       CASE n % 100 WHEN 1 THEN 'failed' WHEN 2 THEN 'cancelled' WHEN 3 THEN 'queued' ELSE 'sent' END, 'done', n || '@s.test', 'a@b', 'x',
       now() + interval '1 hour', now() + interval '1 day', pg_temp.at(n)
FROM generate_series(1, 2) t, generate_series(1, 6000) n;
INSERT INTO submission_recipients (tenant_id, submission_id, position, address)
SELECT tenant_id, id, p, p || '@b' FROM submissions, generate_series(0, 1) p;
INSERT INTO submission_attempts (tenant_id, submission_id, number, worker) SELECT tenant_id, id, 1, id FROM submissions;
INSERT INTO drafts (tenant_id, id, account_id, content, submission_id, updated_at)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 11, n), pg_temp.id(t, 4, n % 4 + 1), '{}', CASE WHEN n <= 6000 THEN pg_temp.id(t, 12, n) END,
       pg_temp.at(n * 7919 % 9000)
FROM generate_series(1, 2) t, generate_series(1, 9000) n;
INSERT INTO draft_attachments (tenant_id, id, draft_id, position, filename, content_type, size_bytes, content)
SELECT tenant_id, id, id, 0, 'f', 't/t', 1, 'x' FROM drafts;

INSERT INTO events (tenant_id, position, kind, account_id, object_id)
SELECT pg_temp.id(t, 1, 1), n, 'message.created', pg_temp.id(t, 4, n % 4 + 1), pg_temp.id(t, 1, 1)
FROM generate_series(1, 2) t, generate_series(1, 20000) n;
INSERT INTO tenant_streams (tenant_id, position, durable) SELECT pg_temp.id(t, 1, 1), 20000, 20000 FROM generate_series(1, 2) t;
INSERT INTO webhooks (tenant_id, id, url, secret, secret_key, position, seen, state, settled)
  SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 13, n), 'https://hook.example/', 's', 'k', 20000, 20000 - (n = 1)::int, 'enabled', '{}'
  FROM generate_series(1, 2) t, generate_series(1, 50) n;
INSERT INTO webhook_deliveries (tenant_id, id, webhook_id, position, replay, account_id, kind, event_at, state, updated_at)
  SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 14, w * 1000 + n), pg_temp.id(t, 13, w), n, false, pg_temp.id(t, 4, 1), 'message.updated', now(),
    CASE WHEN n % 10 = 0 THEN 'waiting' ELSE 'failed' END, now()
  FROM generate_series(1, 2) t, generate_series(1, 10) w, generate_series(1, 1000) n;
INSERT INTO idempotency_keys (tenant_id, caller, route, key, body_hash, status, headers, body)
SELECT pg_temp.id(t, 1, 1), 'user', '/x', n::text, 'h', 200, '{}', 'x' FROM generate_series(1, 2) t, generate_series(1, 5000) n;
INSERT INTO jobs (tenant_id, id, kind, payload, priority, run_at, state, max_attempts, dedupe_key, finished_at, lease_until)
SELECT pg_temp.id(t, 1, 1), pg_temp.id(t, 13, n), 'index_text', jsonb_build_object('job', 'index_text', 'account_id', pg_temp.id(t, 4, n % 2000 + 1)),
       10 + n % 5, now() - (n % 1000) * interval '1 second', s.state, 20, n::text,
       CASE WHEN s.state = 'done' THEN now() - interval '1 minute' END, CASE WHEN s.state = 'running' THEN now() + interval '1 hour' END
FROM generate_series(1, 2) t, generate_series(1, 20000) n,
     LATERAL (SELECT CASE WHEN n % 10 = 0 THEN 'ready' WHEN n % 100 = 1 THEN 'running' ELSE 'done' END AS state) s;
