//! PostgreSQL: reachable, the right schema, the wall between tenants, the job table, stored passwords, the clock.

use std::time::Duration;

use emailclient_core::domain::account::keys;
use emailclient_core::platform::ahead::{self, Longest};
use emailclient_core::platform::clock::Clock;
use emailclient_core::platform::config::Config;
use emailclient_core::platform::db::inspect::{Look, Unreachable};
use emailclient_core::platform::db::migrate::{self, Refusal};
use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::platform::seal::Keyring;
use emailclient_core::platform::start;
use wire::secret::Secret;

use super::report::Report;

/// A worker that is there takes a due job within a second; one that is busy for this long needs company.
const JOBS_MAY_WAIT: Duration = Duration::from_secs(60);
/// Time for the stored passwords, at about 0.3 ms a tenant.
const KEYS_BUDGET: Duration = Duration::from_secs(10);
/// Beyond the first a person should look at the clocks; beyond the second tokens and dates are wrong.
const CLOCK_WARN_MS: u64 = 1_000;
const CLOCK_FAIL_MS: u64 = 30_000;

/// Looks at all of it. `owner` is the address for `emailctl migrate`, if there is one.
pub async fn look(
    config: &Config,
    owner: Option<&Secret>,
    keyring: Option<&Keyring>,
    clock: &dyn Clock,
    report: &mut Report,
) {
    let mut whole = true;
    for (setting, role, url) in start::roles(config) {
        whole &= as_role(setting, role, url, Longest::of(config), clock, report).await;
    }
    if let Some(url) = owner
        && let Some(look) = open("DATABASE_OWNER_URL", url, report).await
    {
        look.close().await;
    }
    match keyring {
        Some(keyring) if whole => stored_passwords(config, keyring, report).await,
        _ => report.skip("stored passwords", "the keys or the database are not usable"),
    }
}

async fn open(setting: &'static str, url: &Secret, report: &mut Report) -> Option<Look> {
    if url.is_empty() {
        report.skip("PostgreSQL", format!("{setting} is not usable"));
        return None;
    }
    match Look::open(url).await {
        Ok(look) => {
            report.ok("PostgreSQL", format!("{setting}: {}", url.masked_address()));
            Some(look)
        }
        Err(error @ Unreachable::Address(_)) => {
            report.fail("PostgreSQL", format!("{setting}: {} {error}", url.masked_address()));
            None
        }
        Err(error) => {
            report.fail("PostgreSQL", format!("{setting}: {error}"));
            None
        }
    }
}

/// What the connection of one role shows; `false` when it cannot be worked with.
async fn as_role(
    setting: &'static str,
    role: &'static str,
    url: &Secret,
    longest: Longest,
    clock: &dyn Clock,
    report: &mut Report,
) -> bool {
    let system = role == "emailclient_system";
    let Some(mut look) = open(setting, url, report).await else {
        let of_role: &[&str] = if system { &["job table", "due times", "writes"] } else { &["clock"] };
        for check in ["schema", "wall"].iter().chain(of_role) {
            report.skip(check, format!("no connection by {setting}"));
        }
        return false;
    };
    let good = schema(setting, &mut look, report).await;
    wall(setting, role, &mut look, report).await;
    if system {
        jobs(good, &mut look, report).await;
        due_times(good, longest, &mut look, report).await;
        writes(good, &mut look, report).await;
    } else {
        tables(&mut look, report).await;
        time(&mut look, clock, report).await;
    }
    look.close().await;
    good
}

async fn schema(setting: &str, look: &mut Look, report: &mut Report) -> bool {
    match look.schema().await {
        Ok(()) => {
            report.ok("schema", format!("{setting}: version {}, as this program", migrate::expected()));
            true
        }
        Err(refusal) => {
            report.fail("schema", words(setting, refusal));
            false
        }
    }
}

async fn wall(setting: &str, role: &'static str, look: &mut Look, report: &mut Report) {
    match look.role(role).await {
        Ok(()) => report.ok(
            "wall",
            format!("{setting}: {role} is no superuser, cannot bypass row-level security, owns nothing"),
        ),
        Err(refusal) => report.fail("wall", words(setting, refusal)),
    }
}

/// `setting: what; way out`, as [`Report::fail`] reads it.
fn words(setting: &str, refusal: Refusal) -> String {
    let text = match refusal {
        Refusal::Db(error) => return format!("{setting}: {}", all_causes(error)),
        refusal => refusal.to_string(),
    };
    // The way out of a refusal stands behind its last colon.
    let (what, way_out) = text.rsplit_once(": ").unwrap_or((&text, "run `emailctl migrate`"));
    format!("{setting}: {what}; {way_out}")
}

fn all_causes(error: DbError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

async fn tables(look: &mut Look, report: &mut Report) {
    match look.wall().await {
        Ok((0, _)) => report.fail("wall", "no table of tenants is there; run `emailctl migrate`"),
        Ok((all, open)) if open.is_empty() => {
            report.ok("wall", format!("row-level security is forced on all {all} tables of tenants"));
        }
        Ok((_, open)) => report.fail(
            "wall",
            format!(
                "row-level security is not forced, or has no policy, on {}; somebody changed the schema by hand: \
                 undo it, and look at who could read these tables meanwhile",
                open.join(", ")
            ),
        ),
        Err(error) => report.fail("wall", format!("the catalogue cannot be read: {}", all_causes(error))),
    }
}

async fn jobs(schema_is_good: bool, look: &mut Look, report: &mut Report) {
    if !schema_is_good {
        return report.skip("job table", "the schema is another one");
    }
    match look.jobs().await {
        Err(error) => report.fail(
            "job table",
            format!("cannot be read: {}; run `emailctl migrate`, which grants it", all_causes(error)),
        ),
        Ok(jobs) => {
            let seconds = jobs.oldest_due.as_secs();
            let detail = format!(
                "{} due (the oldest for {seconds} s), {} running, {} given up",
                jobs.due, jobs.running, jobs.dead
            );
            if jobs.oldest_due > JOBS_MAY_WAIT {
                report.warn(
                    "job table",
                    detail,
                    "is a worker running (`emailctl healthcheck --service worker`)? If so, start more of them or raise \
                     WORKER_CONCURRENCY",
                );
            } else {
                report.ok("job table", detail);
            }
        }
    }
}

async fn writes(schema_is_good: bool, look: &mut Look, report: &mut Report) {
    if !schema_is_good {
        return report.skip("writes", "the schema is another one");
    }
    match look.takes_writes().await {
        Ok(()) => report.ok("writes", "the database takes them"),
        Err(error) => report.fail(
            "writes",
            format!(
                "the database takes none: {}; is the disk of PostgreSQL full, or is it a standby?",
                all_causes(error)
            ),
        ),
    }
}

async fn due_times(schema_is_good: bool, longest: Longest, look: &mut Look, report: &mut Report) {
    if !schema_is_good {
        return report.skip("due times", "the schema is another one");
    }
    match ahead::count(look, longest).await {
        Err(error) => report.fail(
            "due times",
            format!("cannot be read: {}; run `emailctl migrate`, which grants it", all_causes(error)),
        ),
        Ok(0) => report.ok("due times", "none lies further ahead than it can"),
        Ok(ahead) => report.warn(
            "due times",
            format!("{ahead} leases or due times lie too far ahead, so the clock was set back"),
            "a scheduler draws them in within seconds; is one running (`emailctl healthcheck --service scheduler`)? Keep \
             the clocks right by NTP",
        ),
    }
}

async fn time(look: &mut Look, clock: &dyn Clock, report: &mut Report) {
    let ahead = match look.clock_ahead_ms(clock).await {
        Ok(ahead) => ahead,
        Err(error) => {
            return report
                .fail("clock", format!("the database does not tell the time: {}", all_causes(error)));
        }
    };
    let way = if ahead < 0 { "behind" } else { "ahead of" };
    let off = ahead.unsigned_abs();
    let detail = format!("this machine is {off} ms {way} the database");
    let mend = "synchronise both by NTP (chrony, systemd-timesyncd)";
    if off > CLOCK_FAIL_MS {
        report.fail("clock", format!("{detail}; {mend}"));
    } else if off > CLOCK_WARN_MS {
        report.warn("clock", detail, mend);
    } else {
        report.ok("clock", detail);
    }
}

async fn stored_passwords(config: &Config, keyring: &Keyring, report: &mut Report) {
    let surveyed = async {
        let db = Db::new(config)?;
        let surveyed = keys::survey(&db, keyring, KEYS_BUDGET).await;
        db.close().await;
        surveyed
    };
    let survey = match surveyed.await {
        Ok(survey) => survey,
        Err(error) => {
            return report.fail("stored passwords", format!("cannot be read: {}", all_causes(error)));
        }
    };
    for (key, passwords) in &survey.unknown {
        report.fail(
            "stored passwords",
            format!(
                "{passwords} were sealed under key {key}, which the settings lack; put that key into \
                 ENCRYPTION_KEYS_OLD, or let their users enter their passwords again"
            ),
        );
    }
    if let Some(first) = survey.forged.first() {
        report.fail(
            "stored passwords",
            format!(
                "{} do not open though their key is there ({first} for one); they were changed or moved in \
                 the database: restore them, or let their users enter their passwords again",
                survey.forged.len()
            ),
        );
    }
    if survey.left_out > 0 {
        report.warn(
            "stored passwords",
            format!(
                "no time was left for {} of {} tenants",
                survey.left_out,
                survey.left_out + survey.tenants
            ),
            "run this check near the database",
        );
    }
    if survey.unknown.is_empty() && survey.forged.is_empty() {
        let all: i64 = survey.known.values().sum();
        let keys: Vec<&str> = survey.known.keys().map(String::as_str).collect();
        let under = if keys.is_empty() { String::new() } else { format!(" under {}", keys.join(", ")) };
        let detail = format!("{all} in {} tenants{under}; a sample of each opens", survey.tenants);
        let earlier: i64 =
            survey.known.iter().filter(|(key, _)| *key != keyring.current_id()).map(|(_, n)| n).sum();
        if earlier > 0 {
            report.warn(
                "stored passwords",
                format!("{detail}; {earlier} of them under an earlier key"),
                "run `emailctl keys rotate`; until then ENCRYPTION_KEYS_OLD is needed",
            );
        } else if survey.left_out == 0 && !config.encryption_keys_old.is_empty() {
            report.ok("stored passwords", format!("{detail}; none needs ENCRYPTION_KEYS_OLD"));
        } else {
            report.ok("stored passwords", detail);
        }
    }
}
