-- One account with thousands of messages of the same bytes in the mailbox `a`: as many that have long been there as ones
-- that have just come. The mailbox `b` is empty. Run as superuser.
INSERT INTO tenants (id, slug, name) VALUES ('00000000-0000-7000-8000-000000000001', 'equal', 'E');
INSERT INTO accounts (tenant_id, id, email, email_key, imap_host, imap_port, imap_security, imap_username,
                      smtp_host, smtp_port, smtp_security, smtp_username)
SELECT id, id, 'e', 'e', 'h', 993, 'tls', 'u', 'h', 465, 'tls', 'u' FROM tenants;
INSERT INTO mailboxes (tenant_id, id, account_id, wire_name, path, name, generation)
SELECT id, ('00000000-0000-7000-8000-00000000000' || box)::uuid, id, box::bytea, box, box, 1 FROM tenants, unnest(ARRAY['a', 'b']) AS b(box);
INSERT INTO blobs (tenant_id, account_id, hash, size_bytes, raw) SELECT id, id, sha256(''), 0, '' FROM tenants;
INSERT INTO threads (tenant_id, id, account_id, last_message_at) SELECT id, id, id, now() FROM tenants;
INSERT INTO messages (tenant_id, id, account_id, thread_id, blob_hash, size_bytes, received_at, sort_at, date_sort_at, indexed_at, created_at)
SELECT t.id, ('00000001-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, t.id, t.id, sha256(''), 0, now(), now(), now(), now(),
       CASE WHEN n <= 3000 THEN now() - interval '1 day' ELSE now() END
FROM tenants t, generate_series(1, 6000) n;
INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, internal_date, sort_at)
SELECT m.tenant_id, m.id, m.account_id, b.id, 1, row_number() OVER (ORDER BY m.id), m.id, now(), now()
FROM messages m JOIN mailboxes b ON b.path = 'a';
