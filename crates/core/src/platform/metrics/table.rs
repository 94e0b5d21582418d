//! Every metric of ours, in one place: its name with its unit, what it is, and how it is cut.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Grows, and begins at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts what is at most as large as each of these.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// For people who read `/metrics`.
    pub help: &'static str,
    /// Its labels. None has values that grow.
    pub labels: &'static [&'static str],
}

impl Metric {
    pub(super) fn describe(&self) {
        match self.kind {
            Kind::Counter => describe_counter!(self.name, self.help),
            Kind::Gauge => describe_gauge!(self.name, self.help),
            Kind::Histogram(_) => describe_histogram!(self.name, self.help),
        }
    }
}

/// An answer that somebody waits for.
const QUICK: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// An exchange with another host.
const FAR: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Work that may take its time.
const LONG: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
/// From something that happens until it is known.
const DELAY: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, 86400.0];

macro_rules! rows {
    ($(#[$doc:meta])* $list:ident: $($id:ident = $name:expr, $kind:expr, [$($label:literal),*], $help:literal;)+) => {
        $(#[doc = $help] pub const $id: Metric =
            Metric { name: $name, kind: $kind, help: $help, labels: &[$($label),*] };)+
        $(#[$doc])* const $list: &[Metric] = &[$($id),+];
    };
}

rows! {
    /// Of the API.
    HTTP:
    HTTP_REQUESTS = "emailclient_http_requests_total", Kind::Counter, ["method", "route", "status"],
        "Requests answered, by method, pattern of the path and class of the status.";
    HTTP_DURATION = "emailclient_http_request_duration_seconds", Kind::Histogram(QUICK), ["method", "route"],
        "Time from a request's headers to those of its answer.";
    HTTP_IN_FLIGHT = "emailclient_http_requests_in_flight", Kind::Gauge, [],
        "Requests whose answer has not begun.";
    HTTP_RATE_LIMITED = "emailclient_http_rate_limited_total", Kind::Counter, ["limit"],
        "Requests refused with 429.";
    HTTP_RECEIVED = "emailclient_http_received_bytes_total", Kind::Counter, [],
        "Bytes that clients sent, headers included.";
    HTTP_SENT = "emailclient_http_sent_bytes_total", Kind::Counter, [],
        "Bytes that clients took, headers included.";
    LIMITER_FALLBACKS = "emailclient_rate_limiter_fallbacks_total", Kind::Counter, [],
        "Requests counted in this process because Redis did not answer.";
    STREAMS = "emailclient_event_streams", Kind::Gauge, [],
        "Open streams of events.";
}

rows! {
    /// Of synchronisation, and of all talk with mail servers.
    SYNC:
    ROUNDS = "emailclient_sync_rounds_total", Kind::Counter, ["outcome", "cause"],
        "Rounds of synchronisation that ended.";
    ROUND_DURATION = "emailclient_sync_round_duration_seconds", Kind::Histogram(LONG), ["outcome"],
        "Time that a round took.";
    STORED = "emailclient_sync_messages_stored_total", Kind::Counter, ["kind"],
        "Messages stored: new mail, or old mail of a first synchronisation (backfill).";
    STORED_BYTES = "emailclient_sync_stored_bytes_total", Kind::Counter, [],
        "Bytes of messages stored.";
    ARRIVAL_DELAY = "emailclient_sync_arrival_delay_seconds", Kind::Histogram(DELAY), [],
        "Time from the server's date of arrival of new mail to our commit; the server's clock is believed.";
    AUDIT_REPAIRS = "emailclient_sync_audit_repairs_total", Kind::Counter, [],
        "Differences that an audit found and mended. Stays at 0 where all is well.";
    WATCHES = "emailclient_watch_connections", Kind::Gauge, [],
        "Connections that wait for news of a mailbox.";
    RECONNECTS = "emailclient_watch_reconnects_total", Kind::Counter, ["class"],
        "Watches that ended and begin anew, by why.";
    IMAP_COMMANDS = wire::measured::IMAP_COMMANDS, Kind::Counter, ["verb", "outcome"],
        "IMAP commands.";
    IMAP_DURATION = wire::measured::IMAP_DURATION, Kind::Histogram(FAR), ["verb"],
        "Time from an IMAP command to the end of its answer.";
    CONNECTS = wire::measured::CONNECTS, Kind::Counter, ["protocol", "outcome"],
        "Connections to mail servers that were tried, with log-in.";
    CONNECTIONS = wire::measured::CONNECTIONS, Kind::Gauge, ["protocol"],
        "Connections to mail servers that are open.";
    PACED = wire::measured::PACED, Kind::Counter, [],
        "Connections that had to wait for their turn at a host.";
    OAUTH_RENEWALS = "emailclient_oauth_renewals_total", Kind::Counter, ["outcome"],
        "Access tokens asked for.";
}

rows! {
    /// Of jobs, sending and webhooks.
    WORK:
    JOB_RUNS = "emailclient_job_runs_total", Kind::Counter, ["kind", "outcome"],
        "Jobs that ended.";
    JOB_DURATION = "emailclient_job_duration_seconds", Kind::Histogram(LONG), ["kind"],
        "Time that a job took.";
    LEASES_LOST = "emailclient_lease_losses_total", Kind::Counter, [],
        "Jobs in hand whose lease went to another worker.";
    ATTEMPTS = "emailclient_submission_attempts_total", Kind::Counter, ["state", "class"],
        "Attempts to hand a message over, by what the submission is then and by the class of the answer.";
    SENT_DELAY = "emailclient_submission_delay_seconds", Kind::Histogram(DELAY), [],
        "Time from when a submission was due until its server accepted it.";
    SENT_COPIES_FAILED = "emailclient_sent_copies_failed_total", Kind::Counter, [],
        "Copies in Sent that were given up.";
    WEBHOOK_ATTEMPTS = "emailclient_webhook_attempts_total", Kind::Counter, ["outcome"],
        "Requests to webhooks.";
    WEBHOOK_DELAY = "emailclient_webhook_delay_seconds", Kind::Histogram(DELAY), [],
        "Time from an event to its delivery at a webhook at the first attempt.";
}

rows! {
    /// Of the whole, as the scheduler that leads finds it in the database every fifteen seconds.
    FLEET:
    ACCOUNTS = "emailclient_accounts", Kind::Gauge, ["state"],
        "Accounts by state.";
    SYNC_LAG = "emailclient_sync_lag_seconds", Kind::Gauge, [],
        "How long the account waits that was due first.";
    JOBS = "emailclient_jobs", Kind::Gauge, ["kind", "state"],
        "Jobs that are ready to run, and that run.";
    JOBS_OLDEST = "emailclient_jobs_oldest_ready_seconds", Kind::Gauge, ["kind"],
        "How long the job waits that could run first.";
    SUBMISSIONS = "emailclient_submissions", Kind::Gauge, ["state"],
        "Submissions that are not over, and those of unknown outcome.";
    WEBHOOKS = "emailclient_webhooks", Kind::Gauge, ["state"],
        "Webhooks by state.";
    LEADING = "emailclient_scheduler_leading", Kind::Gauge, [],
        "1 at the scheduler that leads.";
}

rows! {
    /// Of each process.
    PROCESS:
    DB_CONNECTIONS = "emailclient_db_connections", Kind::Gauge, ["pool", "state"],
        "Connections to PostgreSQL.";
    DB_WAITING = "emailclient_db_waiting", Kind::Gauge, [],
        "Transactions that wait for a connection.";
    DB_WAIT = "emailclient_db_begin_duration_seconds", Kind::Histogram(QUICK), [],
        "Time until a transaction has begun.";
    DB_FAILURES = "emailclient_db_begin_failures_total", Kind::Counter, [],
        "Transactions that could not begin.";
    REDIS_ERRORS = "emailclient_redis_errors_total", Kind::Counter, [],
        "Commands to Redis that failed.";
    TASKS = "emailclient_tokio_tasks", Kind::Gauge, [],
        "Tasks of the runtime.";
    TASKS_WAITING = "emailclient_tokio_queued_tasks", Kind::Gauge, [],
        "Tasks that wait for a thread.";
}

/// All of them.
pub const ALL: &[&[Metric]] = &[HTTP, SYNC, WORK, FLEET, PROCESS];
