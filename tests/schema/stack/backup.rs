//! What an operator keeps, and what is made on the way: for nobody but its owner.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Host, top};

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_copy_of_all_mail_is_for_its_owner_alone_and_whole() {
    let host = Host::new(vec![]);
    host.note("containers", "0123456789ab\n");
    host.note("image", "emailclient/email-service:latest");
    for part in ["var/mail/vhosts", "var/lib/mail-users", "mail-tls"] {
        std::fs::create_dir_all(host.folder.0.join("root").join(part)).unwrap();
    }
    std::fs::write(host.folder.0.join("root/mail-tls/ca.key"), "the authority's key").unwrap();
    let copies = host.folder.file("copies");
    let variable = format!("BACKUPS={copies}");
    let make = ["sh", "-c", &format!("umask 022 && make -s mail-backup {variable}")];
    let done = host.run_at(&top(), &make, &[]);
    assert!(done.success(), "{done:?}");
    let made: Vec<_> = std::fs::read_dir(&copies).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!((mode(&made[0]), mode(&copies)), (0o600, 0o700), "{made:?}");
    assert!(made[0].extension().is_some_and(|e| e == "tgz"), "{made:?}");
    let listed = host.run_at(&top(), &["tar", "-tzf", made[0].to_str().unwrap()], &[]);
    assert!(listed.out.contains("mail-tls/ca.key"), "{listed:?}");
    // One that ends early is none.
    std::fs::remove_dir_all(host.folder.0.join("root/mail-tls")).unwrap();
    let broken = host.folder.file("broken.tgz");
    assert!(!host.run_at(&top(), &["deployment/stack/mailboxes.sh", &broken], &[]).success());
    assert!(!Path::new(&broken).exists() && !Path::new(&format!("{broken}.part")).exists());
}

/// The lines of cron in the guide, each of a minute, an hour and three stars.
fn nightly() -> Vec<String> {
    let guide = std::fs::read_to_string(top().join("DEPLOYMENT.md")).unwrap();
    guide.lines().filter(|line| line.contains(" * * * root ")).map(str::to_owned).collect()
}

#[test]
fn the_nightly_copies_of_the_guide_are_private_and_kept_equally_long() {
    let lines = nightly();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for (line, target) in lines.iter().zip(["db-backup", "mail-backup"]) {
        assert!(
            line.contains(" root umask 077 && ") && line.contains(&format!("make -s {target} ")),
            "{line}"
        );
        assert!(line.ends_with("-mtime +14 -delete"), "{line}");
        assert!(std::fs::read_to_string(top().join("Makefile")).unwrap().contains(&format!("\n{target}: ")));
    }
}

#[test]
fn the_settings_are_for_their_owner_alone_and_hold_nothing_that_has_no_meaning() {
    let host = Host::new(vec![]);
    let at = super::choice::checkout("");
    std::fs::remove_file(at.0.join(".env")).unwrap();
    let done = host.run_at(&at.0, &["sh", "-c", "umask 022 && make -s env-setup"], &[]);
    assert!(done.success(), "{done:?}");
    assert_eq!(mode(at.0.join(".env")), 0o600);
    let made = std::fs::read_to_string(at.0.join(".env")).unwrap();
    let set: Vec<&str> = made.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(set.is_empty(), "what the containers get otherwise: {set:?}");
}

#[test]
fn what_deletes_asks_and_prune_all_leaves_no_image_of_ours() {
    let host = Host::new(vec![]);
    let at = super::choice::checkout("TAG=1.2.3\n");
    // Without a terminal there is nobody to ask.
    for target in ["clean", "prune-images", "prune-volumes", "prune-all", "db-reset", "db-forget"] {
        let done = host.run_at(&at.0, &["setsid", "-w", "make", "-s", target], &[]);
        assert!(!done.success() && done.err.contains("nothing was done"), "{target}: {done:?}");
        let harmful = |call: &String| {
            ["down", "rm", "prune", "exec"].iter().any(|word| call.contains(&format!(" {word}")))
        };
        assert!(!host.calls().iter().any(harmful), "{target}");
    }
    host.note("images", "emailclient/email-service-dev:1.2.3\nemailclient/dovecot:1.2.3\n");
    let done = host.run_at(&at.0, &["make", "-s", "prune-all", "YES=1"], &[]);
    assert!(done.success(), "{done:?}");
    let calls = host.calls();
    let removed: Vec<&str> = calls.iter().filter_map(|call| call.strip_prefix("docker image rm ")).collect();
    assert_eq!(removed, ["emailclient/dovecot:1.2.3", "emailclient/email-service-dev:1.2.3"], "{calls:#?}");
}
