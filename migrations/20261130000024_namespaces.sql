-- What a server told of its namespaces, and of how few connections it allows. Read and written with the account's lease.
ALTER TABLE accounts ADD COLUMN shared_mailboxes boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN accounts.shared_mailboxes IS 'whether mailboxes of other users and shared ones (RFC 2342) are read as well';

ALTER TABLE account_leases
  ADD COLUMN namespaces jsonb,
  ADD COLUMN namespaces_at timestamptz,
  ADD COLUMN one_connection_until timestamptz,
  ADD COLUMN connection_wanted_until timestamptz,
  ADD COLUMN wait_until timestamptz;
COMMENT ON COLUMN account_leases.namespaces IS 'answer to NAMESPACE; NULL: never asked';
COMMENT ON COLUMN account_leases.namespaces_at IS 'when it was asked; NULL: it is to be asked';
COMMENT ON COLUMN account_leases.one_connection_until IS 'the server refused a second connection: until then the watch ends its own before another is made';
COMMENT ON COLUMN account_leases.wait_until IS 'until when the account waits because its server failed; whoever has it tried earlier puts this off no further';
COMMENT ON COLUMN account_leases.connection_wanted_until IS 'somebody connects, or works, who needs the connection of the watch';
