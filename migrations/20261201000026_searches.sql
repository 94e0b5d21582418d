-- The scheduler looks among all tenants for copies in Sent and for searches that lost their job: how often each was searched
-- for tells whether that is over.
GRANT SELECT (probes) ON submissions TO emailclient_system;
CREATE INDEX submissions_uncopied ON submissions(updated_at) WHERE sent_copy = 'pending';
CREATE INDEX submissions_unknown ON submissions(updated_at) WHERE state = 'unknown';
