-- Our users' edits become a list per message, laid over what the server has. The services are stopped for this release: what
-- waits is turned into edits here, and the release before would neither see nor send them.

CREATE TABLE edits (
  tenant_id   uuid NOT NULL,
  id          bigint GENERATED ALWAYS AS IDENTITY,
  account_id  uuid NOT NULL,
  message_id  uuid NOT NULL,
  kind        text NOT NULL CHECK (kind IN ('flags','copy','move','remove')),
  mailbox_id  uuid,
  target_mailbox_id uuid,
  flags_add   smallint NOT NULL DEFAULT 0,
  flags_remove smallint NOT NULL DEFAULT 0,
  keywords_add text[] NOT NULL DEFAULT '{}',
  keywords_remove text[] NOT NULL DEFAULT '{}',
  state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open','sent','in_doubt','copied','done_unseen')),
  done_in     uuid[] NOT NULL DEFAULT '{}',
  sent_from   uuid,
  sent_at     timestamptz,
  carried_flags smallint NOT NULL DEFAULT 0,
  carried_keywords text[] NOT NULL DEFAULT '{}',
  refusals    integer NOT NULL DEFAULT 0,
  refused_at  timestamptz,
  last_error  text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  CHECK ((kind IN ('copy','move')) = (target_mailbox_id IS NOT NULL)),
  CHECK (kind <> 'copy' OR mailbox_id IS NOT NULL),
  FOREIGN KEY (tenant_id, message_id) REFERENCES messages(tenant_id, id),
  FOREIGN KEY (tenant_id, mailbox_id) REFERENCES mailboxes(tenant_id, id),
  FOREIGN KEY (tenant_id, target_mailbox_id) REFERENCES mailboxes(tenant_id, id)
);
CREATE INDEX edits_message ON edits(tenant_id, message_id, id);
CREATE INDEX edits_account ON edits(tenant_id, account_id, id);
CREATE INDEX edits_mailbox ON edits(tenant_id, mailbox_id) WHERE mailbox_id IS NOT NULL;
CREATE INDEX edits_target ON edits(tenant_id, target_mailbox_id) WHERE target_mailbox_id IS NOT NULL;
COMMENT ON TABLE edits IS 'what our users asked of messages and the server has not confirmed, in order; nothing that goes takes one along, whoever removes a message or mailbox ends them first';
COMMENT ON COLUMN edits.mailbox_id IS 'the mailbox that is meant; NULL: all the message is in';
COMMENT ON COLUMN edits.sent_at IS 'since when it is sent, in doubt, copied or done_unseen';
COMMENT ON COLUMN edits.carried_flags IS 'of a transfer that was sent: the flags that went along';
ALTER TABLE edits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON edits FOR ALL TO emailclient_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid))
  WITH CHECK (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON edits TO emailclient_app;

-- A placement is two facts in one row: `base_flags`, `uid` and their like are the server's, as it was read; `flags` and
-- `hidden_at` are what clients are shown, which follows from the former and the edits.
ALTER TABLE message_mailboxes ADD COLUMN marked boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN message_mailboxes.marked IS 'our user deleted it on a server without UIDPLUS, which keeps it as \Deleted until somebody expunges it';
COMMENT ON COLUMN message_mailboxes.flags IS 'bits: 1 Seen, 2 Answered, 4 Flagged, 8 Deleted, 16 Draft; what clients are shown, base_flags is what the server has';
COMMENT ON COLUMN message_mailboxes.uid IS 'NULL: an edit puts the message here, the server does not have it there yet';
COMMENT ON COLUMN message_mailboxes.hidden_at IS 'an edit takes the message away from here, the server still has it';
-- When the mailbox was last read to its end, as it was at this moment.
ALTER TABLE mailboxes ADD COLUMN read_at timestamptz, ADD COLUMN arrivals_read_at timestamptz;
COMMENT ON COLUMN mailboxes.read_at IS 'what had come to the mailbox and gone from it by this moment has been read; decides what became of transfers in doubt';
COMMENT ON COLUMN mailboxes.arrivals_read_at IS 'the same for what had come';
-- Our own command took it out of its mailbox, and it did not arrive.
ALTER TABLE messages ADD COLUMN kept_until timestamptz;
COMMENT ON COLUMN messages.kept_until IS 'a message that a server took and did not put where it said is not removed before';

-- What waits. The owner is under row-level security too, and has no tenant here.
ALTER TABLE message_mailboxes NO FORCE ROW LEVEL SECURITY;
ALTER TABLE pending_changes NO FORCE ROW LEVEL SECURITY;
ALTER TABLE messages NO FORCE ROW LEVEL SECURITY;
ALTER TABLE mailboxes NO FORCE ROW LEVEL SECURITY;
ALTER TABLE edits NO FORCE ROW LEVEL SECURITY;
-- Transfers, in the order they were asked for. A copy that was under way may have been made.
INSERT INTO edits (tenant_id, account_id, message_id, kind, mailbox_id, target_mailbox_id, state, sent_from, sent_at,
                   carried_flags, carried_keywords, created_at)
SELECT c.tenant_id, c.account_id, p.message_id, CASE c.kind WHEN 'expunge' THEN 'remove' ELSE c.kind END, p.mailbox_id,
       c.target_mailbox_id, CASE WHEN c.data ? 'copying' THEN 'in_doubt' ELSE 'open' END,
       CASE WHEN c.data ? 'copying' THEN p.mailbox_id END, CASE WHEN c.data ? 'copying' THEN now() END,
       p.base_flags, p.base_keywords, c.created_at
FROM pending_changes c JOIN message_mailboxes p ON p.tenant_id = c.tenant_id AND p.id = c.placement_id
WHERE c.kind = 'expunge' OR (c.kind IN ('move', 'copy') AND c.target_mailbox_id IS NOT NULL)
ORDER BY c.id;
-- Moves that were done, and whose message has not been read in its target yet.
INSERT INTO edits (tenant_id, account_id, message_id, kind, mailbox_id, target_mailbox_id, state, sent_from, sent_at,
                   carried_flags, carried_keywords, created_at)
SELECT p.tenant_id, p.account_id, p.message_id, 'copy', p.mailbox_id, p.mailbox_id, 'done_unseen', NULL, now(),
       p.base_flags, p.base_keywords, p.created_at
FROM message_mailboxes p
WHERE p.uid IS NULL AND NOT EXISTS (
  SELECT 1 FROM pending_changes c WHERE c.tenant_id = p.tenant_id AND c.target_placement_id = p.id)
ORDER BY p.id;
-- Flags, in the mailbox where they were changed. Where a message leaves, they were changed at its new place as well.
INSERT INTO edits (tenant_id, account_id, message_id, kind, mailbox_id, flags_add, flags_remove, keywords_add, keywords_remove)
SELECT p.tenant_id, p.account_id, p.message_id, 'flags', p.mailbox_id, p.flags & ~p.base_flags, p.base_flags & ~p.flags,
       ARRAY(SELECT k FROM unnest(p.keywords) AS u(k) WHERE lower(k) NOT IN (SELECT lower(b) FROM unnest(p.base_keywords) AS v(b))),
       ARRAY(SELECT b FROM unnest(p.base_keywords) AS v(b) WHERE lower(b) NOT IN (SELECT lower(k) FROM unnest(p.keywords) AS u(k)))
FROM message_mailboxes p
WHERE p.hidden_at IS NULL
  AND (CASE WHEN p.flags <> p.base_flags OR p.keywords <> p.base_keywords THEN 1 ELSE 0 END) = 1
ORDER BY p.id;
-- What was deleted on a server that only marks it.
ALTER TABLE message_mailboxes DISABLE TRIGGER USER;
UPDATE message_mailboxes p SET marked = true
WHERE p.hidden_at IS NOT NULL AND p.uid IS NOT NULL AND p.base_flags & 8 = 8 AND NOT EXISTS (
  SELECT 1 FROM pending_changes c WHERE c.tenant_id = p.tenant_id AND c.placement_id = p.id);
ALTER TABLE message_mailboxes ENABLE TRIGGER USER;
DELETE FROM pending_changes WHERE kind IN ('move', 'copy', 'expunge');
ALTER TABLE edits FORCE ROW LEVEL SECURITY;
ALTER TABLE mailboxes FORCE ROW LEVEL SECURITY;
ALTER TABLE messages FORCE ROW LEVEL SECURITY;
ALTER TABLE pending_changes FORCE ROW LEVEL SECURITY;
ALTER TABLE message_mailboxes FORCE ROW LEVEL SECURITY;

-- What is left there changes the tree of mailboxes.
ALTER TABLE pending_changes DROP COLUMN placement_id, DROP COLUMN target_placement_id, DROP COLUMN target_mailbox_id,
  DROP CONSTRAINT pending_changes_kind_check;
ALTER TABLE pending_changes ADD CONSTRAINT pending_changes_kind_check
  CHECK (kind IN ('create_mailbox','rename_mailbox','delete_mailbox','subscribe','unsubscribe'));
COMMENT ON TABLE pending_changes IS 'what our user did to the tree of mailboxes and the mail server has not confirmed; a row goes when it has';
DROP INDEX message_mailboxes_edited;
DROP STATISTICS message_mailboxes_is_edited;
DROP INDEX message_mailboxes_seatless;

-- Edits refuse to let their message go, so those of an account that is deleted go before it.
CREATE OR REPLACE FUNCTION account_goes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM edits WHERE tenant_id = OLD.tenant_id AND account_id = OLD.id;
  DELETE FROM messages WHERE tenant_id = OLD.tenant_id AND account_id = OLD.id;
  RETURN OLD;
END $$;

-- Asked of every round: which tables are young.
CREATE OR REPLACE FUNCTION analyze_young_tables() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET default_statistics_target = 25
AS $$
DECLARE
  young record;
  done integer := 0;
BEGIN
  FOR young IN
    SELECT c.oid::regclass AS name FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.reltuples < 200000
      AND c.relname IN ('blobs', 'edits', 'events', 'message_mailboxes', 'message_search', 'messages', 'thread_keys', 'threads')
      AND pg_stat_get_mod_since_analyze(c.oid) > 200 + 2 * greatest(c.reltuples, 0)
  LOOP
    EXECUTE format('ANALYZE (SKIP_LOCKED) %s', young.name);
    done := done + 1;
  END LOOP;
  RETURN done;
END $$;
