//! Dovecot: IMAP (plain port with STARTTLS, TLS port), LMTP, and the AUTH socket that Postfix asks.
//!
//! It takes passwords, and access tokens that are JWTs: it looks at the signature itself (`token_key.rs`) and asks nobody.
//!
//! Each user is a passwd-file of its own, because Dovecot looks for changes of one only once a second: a new user in
//! a common file would be unknown for that long. Their mail is Maildir++ under `mail/<user>/Maildir`.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::certificates::Certificates;
use crate::endpoints::{CONDSTORE_HOST, OAUTH_SCOPE, PLAIN_HOST, PREFIX_HOST, RIGHTS_HOST, SINGLE_HOST};
use crate::process::{Group, Spawner, accepts, find};
use crate::stack::Plan;

pub(crate) fn start(plan: &Plan, certificates: &Certificates, spawner: &Spawner) -> Result<()> {
    let log = plan.log("dovecot");
    let run = plan.dir.join("dovecot");
    fs::create_dir_all(&run)?;
    fs::create_dir_all(plan.mail_root())?;
    chown(plan.mail_root(), Some(plan.mail_owner.uid), Some(plan.mail_owner.gid))?;
    fs::create_dir_all(plan.users_dir())?;
    chown(plan.users_dir(), Some(plan.mail_owner.uid), Some(plan.mail_owner.gid))?;
    let program = find("dovecot", &["/usr/sbin"])?;
    let version = Command::new(&program).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout);
    fs::write(plan.dovecot_conf(), configuration(plan, certificates, &version))?;
    fs::write(tokens_conf(plan), tokens(plan))?;
    let mut server = Command::new(program);
    server.arg("-F").arg("-c").arg(plan.dovecot_conf()).current_dir("/");
    let pid = spawner.server(server, &log, "TERM", Group::Own)?;
    spawner.wait_ready(pid, &log, || [plan.imap, plan.imaps, plan.lmtp].iter().all(|port| accepts(*port)))
}

fn configuration(plan: &Plan, certificates: &Certificates, version: &str) -> String {
    let (own, public) = match version.starts_with("2.3.") {
        true => (settings_2_3(plan, certificates), "location = maildir:~/Public"),
        false => (settings_2_4(plan, certificates), "mail_driver = maildir\n      mail_path = ~/Public"),
    };
    let none_made: String = ROLES
        .iter()
        .map(|name| format!("      mailbox {name} {{\n        special_use =\n        auto = no\n      }}\n"))
        .collect();
    let mailboxes: String = ROLES
        .iter()
        .map(|name| format!("  mailbox {name} {{\n    special_use = \\{name}\n    auto = subscribe\n  }}\n"))
        .collect();
    format!(
        r"{own}
base_dir = {run}
state_dir = {run}
log_path = {log}
listen = 127.0.0.1 {CONDSTORE_HOST} {PLAIN_HOST} {RIGHTS_HOST} {PREFIX_HOST} {SINGLE_HOST}
ssl = yes
auth_mechanisms = plain login xoauth2 oauthbearer
auth_failure_delay = 0
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 1000
postmaster_address = postmaster@lab.test
namespace inbox {{
  inbox = yes
  separator = /
{mailboxes}}}
service imap-login {{
  process_min_avail = 1
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 1024
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
{SERVICES}{LESSER}local {PREFIX_HOST} {{
  protocol imap {{
    namespace inbox {{
      prefix = INBOX.
      separator = .
{none_made}    }}
    namespace public {{
      type = public
      prefix = Public.
      separator = .
      {public}
    }}
  }}
}}
local {SINGLE_HOST} {{
  protocol imap {{
    mail_max_userip_connections = 1
  }}
}}
",
        run = plan.dir.join("dovecot").display(),
        log = plan.log("dovecot").display(),
        imap = plan.imap,
        imaps = plan.imaps,
        lmtp = plan.lmtp,
    )
}

/// What Dovecot 2.3 wants to know of tokens stands in a file of its own.
fn tokens_conf(plan: &Plan) -> PathBuf {
    plan.dir.join("dovecot-oauth2.conf.ext")
}

fn tokens(plan: &Plan) -> String {
    format!(
        "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={}/\n\
         username_attribute = email\nscope = {OAUTH_SCOPE}\n",
        plan.oauth_keys().display()
    )
}

/// What Debian 12 and Ubuntu 24.04 have. A token's user must be one of the passwd-files too: the second look is at those alone,
/// and reached by nobody whom the first did not let in.
fn settings_2_3(plan: &Plan, certificates: &Certificates) -> String {
    format!(
        r"protocols = imap lmtp
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {tokens}
  result_success = continue-ok
  result_failure = return-fail
  result_internalfail = return-fail
}}
passdb {{
  driver = passwd-file
  mechanisms = xoauth2 oauthbearer
  skip = unauthenticated
  default_fields = nopassword=y
  args = scheme=PLAIN username_format=%u {users}/%u
  result_success = return-ok
  result_failure = return-fail
  result_internalfail = return-fail
}}
passdb {{
  driver = passwd-file
  mechanisms = plain login none
  args = scheme=PLAIN username_format=%u {users}/%u
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={mail}/%u
}}
mail_location = maildir:~/Maildir
service imap-login {{
  service_count = 0
}}
plugin {{
  acl = vfile
}}
local {RIGHTS_HOST} {{
  protocol imap {{
    mail_plugins = acl
  }}
}}",
        certificate = certificates.certificate.display(),
        key = certificates.key.display(),
        tokens = tokens_conf(plan).display(),
        users = plan.users_dir().display(),
        uid = plan.mail_owner.uid,
        gid = plan.mail_owner.gid,
        mail = plan.mail_root().display(),
    )
}

/// What Debian 13 has: the same under other names, and the version must be said first. Tokens ask no passdb since 2.4.0, so any
/// user of theirs has a mailbox.
fn settings_2_4(plan: &Plan, certificates: &Certificates) -> String {
    format!(
        r"dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols {{
  imap = yes
  lmtp = yes
}}
ssl_server_cert_file = {certificate}
ssl_server_key_file = {key}
auth_allow_cleartext = yes
oauth2 {{
  introspection_mode = local
  username_attribute = email
  scope = {OAUTH_SCOPE}
  oauth2_local_validation {{
    dict fs {{
      fs posix {{
        prefix = {keys}/
      }}
    }}
  }}
}}
passdb passwd-file {{
  passwd_file_path = {users}/%{{user}}
  default_password_scheme = PLAIN
}}
userdb static {{
  fields {{
    uid = {uid}
    gid = {gid}
    home = {mail}/%{{user}}
  }}
}}
mail_driver = maildir
mail_path = ~/Maildir
service imap-login {{
  restart_request_count = unlimited
}}
acl_driver = vfile
local {RIGHTS_HOST} {{
  protocol imap {{
    mail_plugins {{
      acl = yes
    }}
  }}
}}",
        keys = plan.oauth_keys().display(),
        certificate = certificates.certificate.display(),
        key = certificates.key.display(),
        users = plan.users_dir().display(),
        uid = plan.mail_owner.uid,
        gid = plan.mail_owner.gid,
        mail = plan.mail_root().display(),
    )
}

/// Mailboxes that each user has, but for one address.
const ROLES: [&str; 5] = ["Sent", "Drafts", "Trash", "Junk", "Archive"];

/// On these addresses the same server, with the same mail, admits to less than it can.
const LESSER: &str = "\
local 127.0.0.2 {
  protocol imap {
    imap_capability = IMAP4rev1 LITERAL+ IDLE UIDPLUS CONDSTORE NAMESPACE
  }
}
local 127.0.0.3 {
  protocol imap {
    imap_capability = IMAP4rev1
  }
}
";

/// Sockets that Postfix, `doveadm` run by others, and Dovecot's own parts with another user must reach.
///
/// Without the penalty socket a wrong password delays nobody; with it every client of this address would wait.
const SERVICES: &str = "\
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  unix_listener auth-client {
    mode = 0666
  }
  unix_listener auth-userdb {
    mode = 0666
  }
}
service stats {
  unix_listener stats-reader {
    mode = 0666
  }
  unix_listener stats-writer {
    mode = 0666
  }
}
";
