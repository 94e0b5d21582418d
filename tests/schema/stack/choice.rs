//! Which stack a target takes, and by which Compose: what the operator says holds for every one of them alike.

use super::{Host, top};
use crate::operator::program::Folder;

/// A checkout of the scripts alone, with this `.env`.
pub fn checkout(env: &str) -> Folder {
    let folder = Folder::new();
    let copy = |what: &str| {
        let to = folder.0.join(what);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let done = std::process::Command::new("cp").arg("-r").arg(top().join(what)).arg(to).status().unwrap();
        assert!(done.success(), "{what}");
    };
    for what in
        ["Makefile", "deployment/stack", "docker-compose.yml", "docker-compose.override.yml", ".env.example"]
    {
        copy(what);
    }
    std::fs::write(folder.0.join(".env"), env).unwrap();
    folder
}

/// The calls of Compose that a target makes in this checkout.
fn calls(host: &Host, at: &Folder, target: &str, variables: &[(&str, &str)]) -> Vec<String> {
    host.calls();
    let done = host.run_at(&at.0, &["make", "-s", target], variables);
    assert!(done.success(), "{target}: {done:?}");
    host.calls().into_iter().filter(|call| call.starts_with("docker-compose ")).collect()
}

#[test]
fn every_target_takes_the_files_and_the_project_that_the_operator_names() {
    let host = Host::new(vec![]);
    let named = "# COMPOSE_FILE=no.yml\nCOMPOSE_FILE=\"docker-compose.yml:docker-compose.site.yml\"\nCOMPOSE_PROJECT_NAME=site\n";
    let targets = ["stop", "restart", "down", "ps", "logs", "db-migrate", "build"];
    for (env, variables) in [
        (named, vec![]),
        (
            "COMPOSE_FILE=of-env.yml\n",
            vec![("COMPOSE_FILE", "docker-compose.yml:b.yml"), ("COMPOSE_PROJECT_NAME", "x")],
        ),
    ] {
        let at = checkout(env);
        // The base images are none of this.
        std::fs::create_dir(at.0.join("deployment/offline")).unwrap();
        std::os::unix::fs::symlink("/usr/bin/true", at.0.join("deployment/offline/base-images.sh")).unwrap();
        for target in targets {
            for call in calls(&host, &at, target, &variables) {
                assert!(!call.contains(" -f docker-compose"), "{target} takes files of its own: {call}");
                let said = variables.is_empty()
                    || call.contains("[COMPOSE_FILE=docker-compose.yml:b.yml COMPOSE_PROJECT_NAME=x]");
                assert!(said, "{target}: {call}");
            }
        }
    }
}

#[test]
fn where_nobody_names_files_the_stack_that_is_up_is_taken() {
    let host = Host::new(vec![]);
    let at = checkout("TAG=1.2.3\n");
    host.note("containers", "0123456789ab\n");
    for (image, files) in [
        ("emailclient/email-service:1.2.3", " -f docker-compose.yml "),
        ("emailclient/email-service-dev:1.2.3", " -f docker-compose.yml -f docker-compose.override.yml "),
    ] {
        host.note("image", image);
        for target in ["stop", "db-migrate"] {
            let made = calls(&host, &at, target, &[]);
            let last = made
                .last()
                .unwrap()
                .replace("docker-compose -f", "docker-compose  -f")
                .replace("docker-compose  ", "docker-compose ");
            let last = last.replacen("docker-compose", "", 1);
            assert!(last.starts_with(files), "{target} of {image}: {made:?}");
        }
    }
}

#[test]
fn one_compose_is_called_by_all_and_the_plugin_is_taken_where_it_is() {
    let host = Host::new(vec![]);
    let at = checkout("");
    host.note("image", "emailclient/email-service:latest");
    let asked = |host: &Host, target: &str| {
        host.calls();
        let done = host.run_at(&at.0, &["make", "-s", target], &[]);
        assert!(done.success(), "{target}: {done:?}");
        host.calls()
            .iter()
            .filter(|call| call.starts_with("docker compose ") && !call.contains("version"))
            .count()
    };
    for target in ["stop", "db-migrate", "ps"] {
        assert_eq!(asked(&host, target), 0, "{target}");
    }
    host.note("plugin", "");
    for target in ["stop", "db-migrate", "ps"] {
        assert!(asked(&host, target) > 0, "{target}");
    }
}

#[test]
fn settings_are_read_as_compose_reads_them() {
    let host = Host::new(vec![]);
    let at =
        checkout("A=1\n#A=2\nexport B='two words'\nC = spaced \nD=\nE=first\nE=last\nA_B=no\nG=\"q\"\r\n");
    let of = |name: &str, variables: &[(&str, &str)]| {
        let done = host.run_at(&at.0, &["deployment/stack/compose.sh", "--setting", name, "none"], variables);
        assert!(done.success(), "{done:?}");
        done.out.trim_end_matches('\n').to_owned()
    };
    for (name, value) in [
        ("A", "1"),
        ("B", "two words"),
        ("C", "spaced"),
        ("D", "none"),
        ("E", "last"),
        ("F", "none"),
        ("G", "q"),
    ] {
        assert_eq!(of(name, &[]), value, "{name}");
    }
    assert_eq!(of("A", &[("A", "of the environment")]), "of the environment");
    assert_eq!(of("A", &[("A", "")]), "none", "an empty one is as good as none, and wins");
    assert_eq!(of("A", &[("STACK_ENV_FILE", "/nonexistent")]), "none");
}

#[test]
fn secrets_are_made_where_compose_looks_for_them() {
    let host = Host::new(vec![]);
    let at = checkout("SECRETS_DIR=./elsewhere/secrets\n");
    let done = host.run_at(&at.0, &["deployment/stack/secrets.sh"], &[]);
    assert!(done.success(), "{done:?}");
    assert!(
        at.0.join("elsewhere/secrets/encryption_key").exists() && !at.0.join("deployment/secrets").exists()
    );
}

#[test]
fn a_stack_of_production_is_not_started_as_one_of_development() {
    let host = Host::new(vec![]);
    let at = checkout("COMPOSE_FILE=docker-compose.yml\n");
    let done = host.run_at(&at.0, &["deployment/stack/up.sh", "dev"], &[]);
    assert!(!done.success() && done.err.contains("docker-compose.override.yml"), "{done:?}");
    assert_eq!(host.calls().len(), 0);
}

#[test]
fn the_test_of_the_stack_is_deaf_to_the_operators_settings() {
    let host = Host::new(vec![]);
    let at = checkout("MAIL_DOMAINS=example.com\nCOMPOSE_FILE=docker-compose.site.yml\nTAG=9\n");
    let program = "import sys; sys.path.insert(0, 'deployment/stack'); sys.dont_write_bytecode = True\n\
                   import engine, shutil\ns = engine.Stack(); s.compose('ps'); print(s.env.get('MAIL_DOMAINS'), s.env.get('TAG'), s.env.get('ENCRYPTION_KEYS_OLD')); shutil.rmtree(s.secrets)";
    let operator = [
        ("MAIL_DOMAINS", "example.org"),
        ("TAG", "9"),
        ("ENCRYPTION_KEYS_OLD", "k"),
        ("COMPOSE_PROJECT_NAME", "site"),
    ];
    let done = host.run_at(&at.0, &["python3", "-c", program], &operator);
    assert_eq!(done.out.trim(), "lab.test None None", "{done:?}");
    let calls = host.calls();
    let call = calls.iter().find(|call| call.starts_with("docker-compose")).unwrap();
    assert!(call.contains("COMPOSE_FILE=docker-compose.yml COMPOSE_PROJECT_NAME=emailclient-test"), "{call}");
    assert!(call.contains("--env-file") && call.contains("own.env"), "{call}");
}

#[test]
fn a_stack_of_development_says_that_it_compiles_and_shows_how_far_it_is() {
    let host = Host::new(vec![]);
    let at = checkout("");
    std::fs::create_dir(at.0.join("deployment/offline")).unwrap();
    std::os::unix::fs::symlink("/usr/bin/true", at.0.join("deployment/offline/base-images.sh")).unwrap();
    host.note("containers", "0123456789ab\n");
    host.note("image", "emailclient/email-service-dev:latest");
    let done = host.run_at(&at.0, &["make", "-s", "dev"], &[]);
    assert!(done.success(), "{done:?}");
    let (compiles, progress) = (done.out.find("compiled"), done.out.find("Compiling emailclient-core"));
    assert!(compiles.is_some() && compiles < progress, "{done:?}");
    let calls = host.calls();
    assert!(calls.iter().any(|call| call.contains("-f docker-compose.override.yml up -d")), "{calls:#?}");
    let logs = calls.iter().find(|call| call.starts_with("docker logs ")).unwrap();
    assert!(logs.contains(" --since 2"), "what was said at an earlier start is not of now: {logs}");
}
