//! The key that access tokens are signed with, ES256, and its public half where Dovecot looks for it.
//!
//! Dovecot 2.3.19 reads `<keys>/<azp>/<alg>/<kid>` with `default` for what a token does not say, and keeps a key until it ends.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::Result;
use rcgen::KeyPair;

use crate::stack::Plan;

/// Makes a fresh pair. The private key is for whoever issues tokens, as the mail is the mail owner's.
pub(crate) fn create(plan: &Plan) -> Result<()> {
    let key = KeyPair::generate()?;
    let public = plan.oauth_keys().join("default/ES256");
    fs::create_dir_all(&public)?;
    fs::write(public.join("default"), key.public_key_pem())?;
    let private = plan.oauth_key();
    fs::write(&private, key.serialize_pem())?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600))?;
    chown(&private, Some(plan.mail_owner.uid), Some(plan.mail_owner.gid))?;
    Ok(())
}
