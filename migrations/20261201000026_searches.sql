-- The scheduler looks among all tenants for submissions of unknown fate whose search lost its job: how often each was searched
-- for tells whether it is over.
GRANT SELECT (probes) ON submissions TO emailclient_system;
