//! `emailctl mailbox`: the lines of a passwd-file, as Dovecot reads them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use emailclient_core::platform::id::new_uuid;

use super::program::{Ended, Folder, Settings};

fn mailbox(file: &str, arguments: &[&str], input: &str) -> Ended {
    let arguments = [&["mailbox"], arguments].concat();
    Settings::none().with("DOVECOT_PASSWD_FILE", file).emailctl(&arguments, input)
}

/// Whether the stack's Dovecot lets this user in.
fn dovecot_lets_in(user: &str, password: &str) -> bool {
    let out = devstack::Shared::get().doveadm(&["auth", "test", user, password]).unwrap();
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(text.contains("auth succeeded") || text.contains("auth failed"), "{text}");
    out.status.success() && text.contains("auth succeeded")
}

#[tokio::test]
async fn dovecot_lets_in_whom_emailctl_added_and_follows_each_change() {
    let user = format!("op{}@lab.test", new_uuid().simple());
    let file = devstack::Shared::get().users_dir.join(&user);
    // The stack's Dovecot reads one file a user, as its own system user.
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let group = Command::new("chgrp").arg("dovecot").arg(&file).status().unwrap();
    assert!(group.success(), "the group dovecot is not there, or this is not root");
    let group = fs::metadata(&file).unwrap().gid();
    let path = file.to_str().unwrap();

    let created = mailbox(path, &["create", &user.to_uppercase()], "");
    assert_eq!(created.code, Some(0), "{created:?}");
    let drawn = created.out.trim_end();
    assert!(drawn.len() == 32 && created.out.ends_with('\n'), "{created:?}");
    assert!(dovecot_lets_in(&user, drawn));
    assert!(!dovecot_lets_in(&user, "another password"));
    // Within the second of the first change: Dovecot compares seconds.
    let changed = mailbox(path, &["password", &user, "--password-file", "-"], "a better password\nrest\n");
    assert_eq!((changed.code, changed.out.as_str()), (Some(0), ""), "{changed:?}");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert!(dovecot_lets_in(&user, "a better password"));
    assert!(!dovecot_lets_in(&user, drawn), "the old password still opens");
    let kept = fs::metadata(&file).unwrap();
    assert_eq!((kept.mode() & 0o777, kept.gid()), (0o640, group));
    fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn a_mailbox_is_listed_until_it_is_deleted_and_other_lines_stay() {
    let folder = Folder::new();
    let file = folder.file("users");
    let old = "# made by hand\n\nBob@x.test:{PLAIN}pw:1000:1000::/home/bob::quota=1\n";
    fs::write(&file, old).unwrap();
    let password = folder.file("password");
    fs::write(&password, "correct horse battery\n").unwrap();
    assert_eq!(mailbox(&file, &["create", "alice@x.test", "--password-file", &password], "").code, Some(0));
    assert_eq!(mailbox(&file, &["list"], "").out, "bob@x.test\nalice@x.test\n");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(old), "{text}");
    let line = text.lines().last().unwrap();
    assert!(line.starts_with("alice@x.test:{ARGON2ID}$argon2id$v=19$") && line.ends_with("::::::"), "{line}");
    assert!(!text.contains("correct horse"), "{text}");
    assert_eq!(mailbox(&file, &["password", "bob@x.test"], "").code, Some(0));
    assert!(
        fs::read_to_string(&file).unwrap().contains(":1000:1000::/home/bob::quota=1\n"),
        "fields were lost"
    );
    assert_eq!(mailbox(&file, &["delete", "Alice@x.test"], "").code, Some(0));
    assert_eq!(mailbox(&file, &["list"], "").out, "bob@x.test\n");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn what_cannot_be_done_leaves_the_file_as_it_was() {
    let folder = Folder::new();
    let file = folder.file("users");
    assert_eq!(mailbox(&file, &["create", "alice@x.test"], "").code, Some(0));
    let before = fs::read(&file).unwrap();
    let given = ["--password-file", "-"];
    let cases: [(&[&str], &str, &str); 8] = [
        (&["create", "ALICE@x.test"], "", "already"),
        (&["create", "a:b@x.test"], "", "is no address"),
        (&["create", "a\nb@x.test"], "", "is no address"),
        (&["create", "../a@x.test"], "", "is no address"),
        (&["create", "carol@x.test"], "short\n", "8 characters"),
        (&["create", "carol@x.test"], "", "8 characters"),
        (&["password", "nobody@x.test"], "long enough\n", "no mailbox"),
        (&["delete", "nobody@x.test"], "", "no mailbox"),
    ];
    for (arguments, input, said) in cases {
        let arguments = if arguments[0] == "delete" {
            arguments.to_vec()
        } else {
            [arguments, given.as_slice()].concat()
        };
        let input = if said.contains("address") || said == "already" { "long enough\n" } else { input };
        let ended = mailbox(&file, &arguments, input);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(said), "{arguments:?}: {ended:?}");
        assert_eq!(fs::read(&file).unwrap(), before, "{arguments:?}");
    }
    let unset = Settings::none().emailctl(&["mailbox", "list"], "");
    assert_eq!(unset.code, Some(78), "{unset:?}");
    assert!(unset.err.contains("DOVECOT_PASSWD_FILE: missing"), "{unset:?}");
    let elsewhere = mailbox("/nonexistent/users", &["create", "a@x.test"], "");
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");
    assert!(elsewhere.err.contains("/nonexistent"), "{elsewhere:?}");
    let stray: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(stray.iter().all(|name| name == "users" || name == ".users.lock"), "{stray:?}");
}

#[tokio::test]
async fn writers_at_the_same_time_lose_nothing() {
    let folder = Folder::new();
    let file = folder.file("users");
    let threads: Vec<_> = (0..12)
        .map(|n| {
            let file = file.clone();
            std::thread::spawn(move || mailbox(&file, &["create", &format!("user{n}@x.test")], ""))
        })
        .collect();
    for thread in threads {
        let ended = thread.join().unwrap();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    assert_eq!(mailbox(&file, &["list"], "").out.lines().count(), 12);
}
