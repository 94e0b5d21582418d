-- The audit trail is read newest first: all of it, or what one did, what was done, what was done to one thing.
CREATE INDEX audit_log_recent ON audit_log(tenant_id, at DESC, id DESC);
CREATE INDEX audit_log_actor ON audit_log(tenant_id, actor, at DESC, id DESC);
CREATE INDEX audit_log_action ON audit_log(tenant_id, action, at DESC, id DESC);
CREATE INDEX audit_log_target ON audit_log(tenant_id, target, at DESC, id DESC);
