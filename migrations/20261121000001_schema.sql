-- The data model. Two rules hold for every table with a tenant_id, and the catalogue test asks the
-- system catalogue for both: row-level security is enabled and forced with a policy that names
-- app.tenant_id, and every key, unique index and foreign key begins with tenant_id.
-- Roles are made by `emailctl migrate` before this file runs, since they belong to the cluster.

CREATE TABLE tenants (
  id          uuid PRIMARY KEY,
  slug        text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9-]{1,62}$'),
  name        text NOT NULL,
  per_minute  integer CHECK (per_minute >= 0),
  per_hour    integer CHECK (per_hour >= 0),
  suspended_at timestamptz,
  created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN tenants.per_minute IS 'requests a minute; NULL: the deployment''s default; 0: unlimited';

CREATE TABLE users (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id          uuid NOT NULL,
  email       text NOT NULL,
  email_key   text NOT NULL,
  name        text NOT NULL DEFAULT '',
  role        text NOT NULL CHECK (role IN ('owner','admin','member')),
  password_hash text NOT NULL,
  disabled_at timestamptz,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, email_key)
);

CREATE TABLE sessions (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  user_id     uuid NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL,
  revoked_at  timestamptz,
  revoked_why text,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, user_id) REFERENCES users(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX sessions_user ON sessions(tenant_id, user_id);

CREATE TABLE refresh_tokens (
  tenant_id   uuid NOT NULL,
  token_hash  bytea NOT NULL,
  session_id  uuid NOT NULL,
  issued_at   timestamptz NOT NULL DEFAULT now(),
  used_at     timestamptz,
  PRIMARY KEY (tenant_id, token_hash),
  FOREIGN KEY (tenant_id, session_id) REFERENCES sessions(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX refresh_tokens_session ON refresh_tokens(tenant_id, session_id);

CREATE TABLE accounts (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id          uuid NOT NULL,
  email       text NOT NULL,
  email_key   text NOT NULL,
  name        text NOT NULL DEFAULT '',
  imap_host text NOT NULL, imap_port integer NOT NULL, imap_security text NOT NULL CHECK (imap_security IN ('tls','starttls','none')),
  imap_username text NOT NULL, imap_password bytea, imap_password_key text,
  smtp_host text NOT NULL, smtp_port integer NOT NULL, smtp_security text NOT NULL CHECK (smtp_security IN ('tls','starttls','none')),
  smtp_username text NOT NULL, smtp_password bytea, smtp_password_key text,
  identities  jsonb NOT NULL DEFAULT '[]',
  version     bigint NOT NULL DEFAULT 1,
  state       text NOT NULL DEFAULT 'connecting' CHECK (state IN ('connecting','syncing','connected','unreachable','throttled','needs_reauth','paused')),
  cause_code text, cause_text text, cause_upstream jsonb, cause_since timestamptz, cause_next_try_at timestamptz,
  last_synced_at timestamptz,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, email_key)
);
COMMENT ON COLUMN accounts.version IS 'grows with every change a client can write; the ETag';

CREATE TABLE account_leases (
  tenant_id   uuid NOT NULL,
  account_id  uuid NOT NULL,
  owner       uuid,
  epoch       bigint NOT NULL DEFAULT 0,
  expires_at  timestamptz,
  next_due_at timestamptz NOT NULL DEFAULT now(),
  failures    integer NOT NULL DEFAULT 0,
  watch_owner uuid,
  watch_expires_at timestamptz,
  PRIMARY KEY (tenant_id, account_id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX account_leases_due ON account_leases(next_due_at);
COMMENT ON TABLE account_leases IS 'one writer per account: epoch grows with every take-over and fences every write of the earlier owner';

CREATE TABLE sync_runs (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  account_id  uuid NOT NULL,
  state       text NOT NULL CHECK (state IN ('queued','running','done','failed')),
  requested_at timestamptz NOT NULL DEFAULT now(),
  started_at  timestamptz,
  finished_at timestamptz,
  error       text,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX sync_runs_one_queued ON sync_runs(tenant_id, account_id) WHERE state = 'queued';
CREATE UNIQUE INDEX sync_runs_one_running ON sync_runs(tenant_id, account_id) WHERE state = 'running';
CREATE INDEX sync_runs_account ON sync_runs(tenant_id, account_id, requested_at DESC);

CREATE TABLE mailboxes (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  account_id  uuid NOT NULL,
  wire_name   bytea NOT NULL,
  path        text NOT NULL,
  name        text NOT NULL,
  delimiter   text,
  role        text CHECK (role IN ('inbox','sent','drafts','junk','trash','archive','all')),
  mailboxid   text,
  selectable  boolean NOT NULL DEFAULT true,
  subscribed  boolean NOT NULL DEFAULT true,
  generation  integer NOT NULL DEFAULT 0,
  uidvalidity bigint,
  uidnext     bigint,
  head_uid    bigint NOT NULL DEFAULT 0,
  tail_uid    bigint NOT NULL DEFAULT 0,
  modseq      bigint,
  base_modseq bigint,
  exists_seen bigint NOT NULL DEFAULT 0,
  total       integer NOT NULL DEFAULT 0,
  unread      integer NOT NULL DEFAULT 0,
  state       text NOT NULL DEFAULT 'new' CHECK (state IN ('new','backfill','synced','failed')),
  cause_code text, cause_text text, cause_since timestamptz,
  last_synced_at timestamptz,
  last_full_at timestamptz,
  last_audit_at timestamptz,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, account_id, wire_name),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
COMMENT ON COLUMN mailboxes.tail_uid IS 'messages with tail_uid <= uid <= head_uid are vouched for; 1 once the backfill is done, 0 before it began';
COMMENT ON COLUMN mailboxes.total IS 'visible placements; kept by trigger';

CREATE TABLE blobs (
  tenant_id   uuid NOT NULL,
  account_id  uuid NOT NULL,
  hash        bytea NOT NULL,
  size_bytes  bigint NOT NULL,
  raw         bytea COMPRESSION lz4 NOT NULL,
  PRIMARY KEY (tenant_id, account_id, hash),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE threads (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  account_id  uuid NOT NULL,
  subject     text,
  last_message_at timestamptz NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX threads_recent ON threads(tenant_id, account_id, last_message_at DESC, id DESC);

CREATE TABLE thread_keys (
  tenant_id   uuid NOT NULL,
  account_id  uuid NOT NULL,
  key         bytea NOT NULL,
  thread_id   uuid NOT NULL,
  PRIMARY KEY (tenant_id, account_id, key),
  FOREIGN KEY (tenant_id, thread_id) REFERENCES threads(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX thread_keys_thread ON thread_keys(tenant_id, thread_id);
COMMENT ON COLUMN thread_keys.key IS 'first 16 bytes of SHA-256 of a Message-ID; a reference of any length costs the same';

CREATE TABLE messages (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  account_id  uuid NOT NULL,
  thread_id   uuid NOT NULL,
  blob_hash   bytea NOT NULL,
  size_bytes  bigint NOT NULL,
  email_id    text,
  message_id_header text,
  in_reply_to text[] NOT NULL DEFAULT '{}',
  refs        text[] NOT NULL DEFAULT '{}',
  subject     text,
  from_addresses jsonb NOT NULL DEFAULT '[]',
  to_addresses   jsonb NOT NULL DEFAULT '[]',
  cc_addresses   jsonb NOT NULL DEFAULT '[]',
  bcc_addresses  jsonb NOT NULL DEFAULT '[]',
  reply_to_addresses jsonb NOT NULL DEFAULT '[]',
  date        timestamptz,
  received_at timestamptz NOT NULL,
  sort_at     timestamptz NOT NULL,
  date_sort_at timestamptz NOT NULL,
  snippet     text NOT NULL DEFAULT '',
  attachments jsonb NOT NULL DEFAULT '[]',
  has_attachments boolean NOT NULL DEFAULT false,
  degraded    boolean NOT NULL DEFAULT false,
  indexed_at  timestamptz,
  gone_at     timestamptz,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, thread_id) REFERENCES threads(tenant_id, id),
  FOREIGN KEY (tenant_id, account_id, blob_hash) REFERENCES blobs(tenant_id, account_id, hash)
);
CREATE INDEX messages_recent ON messages(tenant_id, account_id, sort_at DESC, id DESC) WHERE gone_at IS NULL;
CREATE INDEX messages_tenant_recent ON messages(tenant_id, sort_at DESC, id DESC) WHERE gone_at IS NULL;
CREATE INDEX messages_by_date ON messages(tenant_id, account_id, date_sort_at DESC, id DESC) WHERE gone_at IS NULL;
CREATE INDEX messages_thread ON messages(tenant_id, thread_id, sort_at);
CREATE INDEX messages_blob ON messages(tenant_id, account_id, blob_hash);
CREATE INDEX messages_header ON messages(tenant_id, account_id, message_id_header);
CREATE INDEX messages_unindexed ON messages(tenant_id, account_id, sort_at DESC) WHERE indexed_at IS NULL;
CREATE INDEX messages_gone ON messages(gone_at) WHERE gone_at IS NOT NULL;
COMMENT ON COLUMN messages.sort_at IS 'received_at within a sane range; ties are broken by id';
COMMENT ON COLUMN messages.gone_at IS 'since when no visible placement is left; kept by trigger';

CREATE TABLE message_mailboxes (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  account_id  uuid NOT NULL,
  mailbox_id  uuid NOT NULL,
  generation  integer NOT NULL,
  uid         bigint,
  message_id  uuid NOT NULL,
  flags       smallint NOT NULL DEFAULT 0,
  base_flags  smallint NOT NULL DEFAULT 0,
  keywords    text[] NOT NULL DEFAULT '{}',
  base_keywords text[] NOT NULL DEFAULT '{}',
  modseq      bigint NOT NULL DEFAULT 0,
  internal_date timestamptz NOT NULL,
  sort_at     timestamptz NOT NULL,
  hidden_at   timestamptz,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, mailbox_id, generation, uid),
  FOREIGN KEY (tenant_id, mailbox_id) REFERENCES mailboxes(tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, message_id) REFERENCES messages(tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX message_mailboxes_recent ON message_mailboxes(tenant_id, mailbox_id, sort_at DESC, message_id DESC) WHERE hidden_at IS NULL;
CREATE INDEX message_mailboxes_unread ON message_mailboxes(tenant_id, mailbox_id, sort_at DESC, message_id DESC) WHERE hidden_at IS NULL AND flags & 1 = 0;
CREATE INDEX message_mailboxes_message ON message_mailboxes(tenant_id, message_id);
CREATE INDEX message_mailboxes_dirty ON message_mailboxes(tenant_id, account_id) WHERE flags <> base_flags OR keywords <> base_keywords;
COMMENT ON TABLE message_mailboxes IS 'a placement: one message in one mailbox under one UID';
COMMENT ON COLUMN message_mailboxes.flags IS 'bits: 1 Seen, 2 Answered, 4 Flagged, 8 Deleted, 16 Draft; our view, base_flags is what the server last confirmed';
COMMENT ON COLUMN message_mailboxes.uid IS 'NULL: placed here by our own move or copy, the server has not said the UID yet';
COMMENT ON COLUMN message_mailboxes.hidden_at IS 'moved away or deleted by our user; the server has not confirmed yet';

CREATE TABLE message_search (
  tenant_id   uuid NOT NULL,
  message_id  uuid NOT NULL,
  account_id  uuid NOT NULL,
  sort_at     timestamptz NOT NULL,
  tsv         tsvector NOT NULL,
  PRIMARY KEY (tenant_id, message_id),
  FOREIGN KEY (tenant_id, message_id) REFERENCES messages(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX message_search_tsv ON message_search USING gin(tsv);
CREATE INDEX message_search_recent ON message_search(tenant_id, sort_at DESC, message_id DESC);

CREATE TABLE pending_changes (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  account_id  uuid NOT NULL,
  kind        text NOT NULL CHECK (kind IN ('move','copy','expunge','create_mailbox','rename_mailbox','delete_mailbox','subscribe','unsubscribe')),
  placement_id uuid,
  mailbox_id  uuid,
  target_mailbox_id uuid,
  target_placement_id uuid,
  data        jsonb NOT NULL DEFAULT '{}',
  attempts    integer NOT NULL DEFAULT 0,
  last_error  text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, placement_id) REFERENCES message_mailboxes(tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, target_placement_id) REFERENCES message_mailboxes(tenant_id, id) ON DELETE SET NULL (target_placement_id),
  FOREIGN KEY (tenant_id, mailbox_id) REFERENCES mailboxes(tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, target_mailbox_id) REFERENCES mailboxes(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX pending_changes_account ON pending_changes(tenant_id, account_id, id);
COMMENT ON TABLE pending_changes IS 'what our user decided and the mail server has not confirmed; a row goes when it has. Flags need no row: flags <> base_flags says it';

CREATE TABLE drafts (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  account_id  uuid NOT NULL,
  version     bigint NOT NULL DEFAULT 1,
  content     jsonb NOT NULL,
  submission_id uuid,
  created_by  uuid,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX drafts_recent ON drafts(tenant_id, updated_at DESC, id DESC) WHERE submission_id IS NULL;

CREATE TABLE draft_attachments (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  draft_id    uuid NOT NULL,
  position    integer NOT NULL,
  filename    text NOT NULL,
  content_type text NOT NULL,
  size_bytes  bigint NOT NULL,
  inline      boolean NOT NULL DEFAULT false,
  content_id  text,
  content     bytea COMPRESSION lz4 NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, draft_id) REFERENCES drafts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX draft_attachments_draft ON draft_attachments(tenant_id, draft_id, position);

CREATE TABLE submissions (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  draft_id    uuid,
  account_id  uuid NOT NULL,
  state       text NOT NULL CHECK (state IN ('queued','sending','sent','failed','unknown','cancelled')),
  phase       text NOT NULL DEFAULT 'connect' CHECK (phase IN ('connect','envelope','data','dot','done')),
  message_id_header text NOT NULL,
  envelope_from text NOT NULL,
  mime        bytea COMPRESSION lz4 NOT NULL,
  send_after  timestamptz NOT NULL,
  give_up_at  timestamptz NOT NULL,
  attempt     integer NOT NULL DEFAULT 0,
  deaths      integer NOT NULL DEFAULT 0,
  lease_owner uuid,
  lease_until timestamptz,
  sent_copy   text NOT NULL DEFAULT 'none' CHECK (sent_copy IN ('none','pending','done','skipped','failed')),
  sent_copy_attempts integer NOT NULL DEFAULT 0,
  probes      integer NOT NULL DEFAULT 0,
  queue_id    text,
  failure     text,
  created_by  uuid,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, account_id) REFERENCES accounts(tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX submissions_recent ON submissions(tenant_id, created_at DESC, id DESC);
CREATE INDEX submissions_draft ON submissions(tenant_id, draft_id);
CREATE INDEX submissions_header ON submissions(tenant_id, account_id, message_id_header);
CREATE INDEX submissions_open ON submissions(state, send_after) WHERE state IN ('queued','sending','unknown');
ALTER TABLE drafts ADD FOREIGN KEY (tenant_id, submission_id) REFERENCES submissions(tenant_id, id) ON DELETE SET NULL (submission_id);

CREATE TABLE submission_recipients (
  tenant_id   uuid NOT NULL,
  submission_id uuid NOT NULL,
  position    integer NOT NULL,
  address     text NOT NULL,
  state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending','accepted','deferred','refused','delivered','bounced')),
  code        integer,
  text        text,
  PRIMARY KEY (tenant_id, submission_id, position),
  FOREIGN KEY (tenant_id, submission_id) REFERENCES submissions(tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE submission_attempts (
  tenant_id   uuid NOT NULL,
  submission_id uuid NOT NULL,
  number      integer NOT NULL,
  worker      uuid NOT NULL,
  phase       text NOT NULL DEFAULT 'connect',
  code        integer,
  text        text,
  started_at  timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  PRIMARY KEY (tenant_id, submission_id, number),
  FOREIGN KEY (tenant_id, submission_id) REFERENCES submissions(tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE events (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  seq         bigint GENERATED ALWAYS AS IDENTITY,
  kind        text NOT NULL,
  account_id  uuid,
  object_id   uuid,
  data        jsonb NOT NULL DEFAULT '{}',
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, seq)
);
CREATE INDEX events_account ON events(tenant_id, account_id, seq);

CREATE TABLE audit_log (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id          uuid NOT NULL,
  at          timestamptz NOT NULL DEFAULT now(),
  actor       text NOT NULL,
  action      text NOT NULL,
  target      text,
  address     text,
  result      text NOT NULL,
  request_id  text,
  PRIMARY KEY (tenant_id, id)
);

CREATE TABLE idempotency_keys (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  caller      text NOT NULL,
  route       text NOT NULL,
  key         text NOT NULL,
  body_hash   bytea NOT NULL,
  status      smallint NOT NULL,
  headers     jsonb NOT NULL,
  body        bytea NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, caller, route, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys(created_at);

CREATE TABLE jobs (
  tenant_id   uuid NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id          uuid NOT NULL,
  kind        text NOT NULL,
  payload     jsonb NOT NULL,
  priority    smallint NOT NULL DEFAULT 0,
  run_at      timestamptz NOT NULL DEFAULT now(),
  state       text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready','running','done','dead')),
  attempt     integer NOT NULL DEFAULT 0,
  max_attempts integer NOT NULL,
  lease_owner uuid,
  lease_until timestamptz,
  dedupe_key  text,
  rerun       boolean NOT NULL DEFAULT false,
  last_error  text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 70);
CREATE INDEX jobs_ready ON jobs(priority DESC, run_at) WHERE state = 'ready';
CREATE INDEX jobs_lease ON jobs(lease_until) WHERE state = 'running';
CREATE INDEX jobs_finished ON jobs(finished_at) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_dedupe ON jobs(tenant_id, kind, dedupe_key) WHERE dedupe_key IS NOT NULL AND state IN ('ready','running');
COMMENT ON COLUMN jobs.rerun IS 'asked for again while it ran: the acknowledgement makes it ready once more instead of done';

CREATE TABLE scheduler_lease (
  name        text PRIMARY KEY,
  owner       uuid NOT NULL,
  expires_at  timestamptz NOT NULL
);
