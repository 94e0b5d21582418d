-- Whether the mailboxes of the account are labels of one store (Gmail's X-GM-EXT-1): learnt by its rounds.
ALTER TABLE account_leases ADD COLUMN labels boolean NOT NULL DEFAULT false;
