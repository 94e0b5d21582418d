//! `emailctl keys`: the keys that stored passwords are sealed under.

use anyhow::bail;
use emailclient_core::domain::account::keys::{self, Rotation};
use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::seal::Keyring;
use emailclient_core::platform::start::StartError;

use crate::{actor, say, with_db};

/// Seals every stored password under the current key and tells how many there were.
///
/// # Errors
/// When some are left under another key; each reason is a line with the way out.
pub async fn rotate(source: &Source) -> anyhow::Result<()> {
    let config = Config::from_source(source)?;
    let keyring = Keyring::new(&config.encryption_key, &config.encryption_keys_old)
        .map_err(|e| StartError::setting("ENCRYPTION_KEY, ENCRYPTION_KEYS_OLD", e))?;
    with_db(source, async |db| report(&keys::rotate(db, &keyring, &actor()).await?, keyring.current_id()))
        .await
}

fn report(done: &Rotation, current: &str) -> anyhow::Result<()> {
    let all: i64 = done.sealed.values().sum();
    let under: Vec<String> = done.sealed.iter().map(|(key, n)| format!("{n} were under {key}")).collect();
    let under = if under.is_empty() { String::new() } else { format!(" ({})", under.join(", ")) };
    say(&format!("{all} passwords were sealed anew under {current}{under}"))?;
    if done.is_whole() {
        return say("no stored password needs an earlier key");
    }
    let mut faults: Vec<String> = done
        .unknown
        .iter()
        .map(|(key, n)| {
            format!(
                "{n} are under key {key}, which the settings lack; put that key into ENCRYPTION_KEYS_OLD, or let \
                 their users enter their passwords again"
            )
        })
        .collect();
    if let Some(first) = done.forged.first() {
        faults.push(format!(
            "{} do not open though their key is there ({first} for one); they were changed or moved in the \
             database: restore them, or let their users enter their passwords again",
            done.forged.len()
        ));
    }
    if done.held > 0 {
        faults
            .push(format!("{} accounts were held by another transaction all the time; repeat it", done.held));
    }
    bail!(faults.join("\n"))
}
