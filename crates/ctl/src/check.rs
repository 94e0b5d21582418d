//! Is this deployment fit to start, and is it well? Each line says what was looked at and, when it is wrong, which
//! setting is to blame, its value with secrets masked, and how to mend it.
//!
//! [`database`] asks PostgreSQL, [`surroundings`] the rest; [`report`] writes it down. A fault never hides another: what
//! depends on something broken is marked as skipped, all else is looked at. The next check: a function there, a line in
//! [`look`], a row in `docs/emailctl.md`.

pub mod database;
pub mod report;
pub mod surroundings;

use std::io::Write as _;
use std::process::ExitCode;

use emailclient_core::platform::clock::{Clock, SystemClock};
use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::seal::Keyring;

use self::report::{Report, Verdict};
use crate::command::Color;

/// Looks at everything and prints what was found; status 1 when something failed.
///
/// # Errors
/// When standard output is closed.
pub async fn run(source: &Source, json: bool, color: Color) -> anyhow::Result<ExitCode> {
    let report = look(source, &SystemClock).await;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", report.json()?)?;
    } else {
        write!(out, "{}", report.text(report::coloured(color, source)))?;
    }
    Ok(if report.status() == Verdict::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Looks at everything, judging the database's clock by `clock`.
pub async fn look(source: &Source, clock: &dyn Clock) -> Report {
    let mut report = Report::default();
    let config = Config::read(source);
    // Only `emailctl migrate` needs it, so it may be absent; when it is there, it should work.
    let owner = source.optional_secret("DATABASE_OWNER_URL");
    match source.finish() {
        Ok(()) => report.ok("settings", "every required one is there, every secret strong enough"),
        Err(faults) => {
            for fault in faults.0 {
                report.fail("settings", fault);
            }
        }
    }
    let keyring = keyring(&config, &mut report);
    database::look(&config, owner.as_ref(), keyring.as_ref(), clock, &mut report).await;
    surroundings::redis(&config.redis_url, &mut report).await;
    surroundings::mail_hosts(&config, &mut report).await;
    surroundings::certificates(&config, &mut report);
    surroundings::folders(&config, &mut report);
    report
}

fn keyring(config: &Config, report: &mut Report) -> Option<Keyring> {
    if config.encryption_key.is_empty() {
        report.skip("encryption keys", "ENCRYPTION_KEY is not usable");
        return None;
    }
    match Keyring::new(&config.encryption_key, &config.encryption_keys_old) {
        Ok(keyring) => {
            let old = config.encryption_keys_old.len();
            let detail =
                format!("new passwords are sealed under {}; {old} earlier keys", keyring.current_id());
            report.ok("encryption keys", detail);
            Some(keyring)
        }
        Err(error) => {
            report.fail(
                "encryption keys",
                format!(
                    "ENCRYPTION_KEY, ENCRYPTION_KEYS_OLD: {error}; make one with `openssl rand -base64 32`"
                ),
            );
            None
        }
    }
}
