-- One more mailbox of an account with so many messages of 4 KB, each with words, a conversation and a place; every tenth is
-- in a second mailbox, too. Parameters: tenant, account, messages. Triggers and foreign keys are off meanwhile.
SET session_replication_role = replica;
INSERT INTO mailboxes (tenant_id, id, account_id, wire_name, path, name, generation, total)
SELECT '{tenant}', ('{prefix}-0005-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '{account}', ('box ' || n)::bytea, 'box ' || n, 'box ' || n, 1,
  CASE n WHEN 1 THEN {messages} ELSE {messages} / 10 END
FROM generate_series(1, 2) n;
INSERT INTO threads (tenant_id, id, account_id, subject, last_message_at)
SELECT '{tenant}', ('{prefix}-0006-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '{account}', 's', now() - n * interval '1 minute'
FROM generate_series(0, {messages} / 3) n;
INSERT INTO thread_keys (tenant_id, account_id, key, thread_id)
SELECT '{tenant}', '{account}', decode(md5('{prefix}key' || n), 'hex'), ('{prefix}-0006-7000-8000-' || lpad((n / 3)::text, 12, '0'))::uuid
FROM generate_series(1, {messages}) n;
INSERT INTO blobs (tenant_id, account_id, hash, size_bytes, raw)
SELECT '{tenant}', '{account}', decode(md5('{prefix}blob' || n), 'hex'), 4096,
  decode((SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 256) i), 'hex')
FROM generate_series(1, {messages}) n;
INSERT INTO messages (tenant_id, id, account_id, thread_id, blob_hash, size_bytes, message_id_header, subject, snippet,
                      received_at, sort_at, date_sort_at, indexed_at)
SELECT '{tenant}', ('{prefix}-0007-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '{account}',
  ('{prefix}-0006-7000-8000-' || lpad((n / 3)::text, 12, '0'))::uuid, decode(md5('{prefix}blob' || n), 'hex'), 4096, n || '@lab.test',
  'subject ' || n, repeat('snippet ', 20), now() - n * interval '1 minute', now() - n * interval '1 minute', now() - n * interval '1 minute', now()
FROM generate_series(1, {messages}) n;
INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, internal_date, sort_at, date_sort_at)
SELECT '{tenant}', ('{prefix}-' || lpad(b::text, 4, '0') || '-7000-8001-' || lpad(n::text, 12, '0'))::uuid, '{account}',
  ('{prefix}-0005-7000-8000-' || lpad(b::text, 12, '0'))::uuid, 1, n, ('{prefix}-0007-7000-8000-' || lpad(n::text, 12, '0'))::uuid,
  now() - n * interval '1 minute', now() - n * interval '1 minute', now() - n * interval '1 minute'
FROM generate_series(1, {messages}) n, generate_series(1, 2) b WHERE b = 1 OR n % 10 = 0;
INSERT INTO message_search (tenant_id, message_id, account_id, sort_at, tsv)
SELECT '{tenant}', ('{prefix}-0007-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '{account}', now() - n * interval '1 minute',
  array_to_tsvector(ARRAY['everywhere', 'word' || n] || (SELECT array_agg('w' || (n * 7 + i * 13) % 5000) FROM generate_series(1, 60) i))
FROM generate_series(1, {messages}) n;
SET session_replication_role = DEFAULT;
ANALYZE;
