-- The urgency of what a running job is asked for once more was kept as a negative priority.
ALTER TABLE jobs ADD COLUMN asked_priority smallint;
COMMENT ON COLUMN jobs.asked_priority IS 'how urgently it was asked for again while it ran; its priority once it is ready';
UPDATE jobs SET priority = abs(priority) WHERE priority < 0;
