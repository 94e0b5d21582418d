//! Postfix: SMTP, submission (AUTH through Dovecot, STARTTLS offered), submissions (TLS from the first byte).
//!
//! Mail for `lab.test` goes to Dovecot by LMTP; all other mail to the relay given, else it is refused.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::certificates::Certificates;
use crate::process::{Group, Spawner, accepts, account, find};
use crate::stack::Plan;

/// 50 MB: what the product promises to carry, so the server beside it must.
const MESSAGE_SIZE_LIMIT_BYTES: u32 = 52_428_800;

pub(crate) fn start(plan: &Plan, certificates: &Certificates, spawner: &Spawner) -> Result<()> {
    let log = plan.log("postfix");
    let (conf, root) = (plan.postfix_conf_dir(), plan.dir.join("postfix"));
    for dir in ["etc", "data", "spool"] {
        fs::create_dir_all(root.join(dir))?;
    }
    chown(root.join("data"), Some(account(&["postfix"])?.uid), None)?;
    fs::write(conf.join("main.cf"), main_cf(plan, certificates))?;
    fs::write(conf.join("master.cf"), master_cf(plan))?;
    let mut check = Command::new(find("postfix", &["/usr/sbin"])?);
    check.arg("-c").arg(&conf).arg("check").current_dir("/");
    spawner.finish(check, &log)?;
    // Without `-w` master(8) stays in the foreground; `postfix start-fg` does the same with three shells in between.
    let mut master = Command::new(find("master", &["/usr/lib/postfix/sbin", "/usr/libexec/postfix"])?);
    master.arg("-c").arg(&conf).current_dir("/");
    let pid = spawner.server(master, &log, "TERM", Group::ItMakesItsOwn)?;
    spawner
        .wait_ready(pid, &log, || [plan.smtp, plan.submission, plan.submissions].iter().all(|p| accepts(*p)))
}

/// The `default_transport` for mail that is not for `lab.test`.
pub(crate) fn transport(relay: Option<&str>) -> String {
    match relay.and_then(|relay| relay.rsplit_once(':')) {
        Some((host, port)) => format!("smtp:[{host}]:{port}"),
        None => "error:5.7.1 outside mail is off".to_owned(),
    }
}

fn main_cf(plan: &Plan, certificates: &Certificates) -> String {
    let root = plan.dir.join("postfix");
    let daemons = ["/usr/lib/postfix/sbin", "/usr/libexec/postfix"];
    let daemons =
        daemons.iter().find(|dir| Path::new(dir).is_dir()).copied().unwrap_or("/usr/lib/postfix/sbin");
    format!(
        r"compatibility_level = 3.6
queue_directory = {root}/spool
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {log}
maillog_file_prefixes = {dir}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = localhost.lab.test
mydestination =
virtual_mailbox_domains = lab.test
virtual_transport = lmtp:inet:127.0.0.1:{lmtp}
default_transport = {outside}
smtp_dns_support_level = disabled
alias_maps =
local_recipient_maps =
smtpd_sasl_type = dovecot
smtpd_sasl_path = {dir}/dovecot/auth-client
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = may
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
in_flow_delay = 0
minimal_backoff_time = 2s
maximal_backoff_time = 10s
queue_run_delay = 2s
message_size_limit = {MESSAGE_SIZE_LIMIT_BYTES}
mailbox_size_limit = 0
virtual_mailbox_limit = 0
smtputf8_enable = yes
",
        root = root.display(),
        dir = plan.dir.display(),
        log = plan.log("postfix").display(),
        lmtp = plan.lmtp,
        outside = transport(plan.relay.as_deref()),
        certificate = certificates.certificate.display(),
        key = certificates.key.display(),
    )
}

fn master_cf(plan: &Plan) -> String {
    let authenticated =
        "-o smtpd_sasl_auth_enable=yes -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject";
    format!(
        "127.0.0.1:{} inet n - n - 300 smtpd\n127.0.0.1:{} inet n - n - 300 smtpd\n  {authenticated}\n\
         127.0.0.1:{} inet n - n - 300 smtpd\n  -o smtpd_tls_wrappermode=yes {authenticated}\n{SERVICES}",
        plan.smtp, plan.submission, plan.submissions
    )
}

const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";
