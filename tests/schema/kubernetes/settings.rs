//! The settings in the manifests are those of the services, readable, and secrets are only referred to.

use std::collections::{BTreeMap, BTreeSet};

use clap::Parser as _;
use emailclient_core::platform::config::{Config, Keys, Source};
use serde_json::Value;

use super::render::{ENVIRONMENTS, find, list, objects, of_kind, root, workloads};

/// Settings that are secrets. A literal value of one of them anywhere in the manifests is a mistake.
const SECRETS: [&str; 7] = [
    "DATABASE_URL",
    "DATABASE_SYSTEM_URL",
    "DATABASE_OWNER_URL",
    "REDIS_URL",
    "JWT_SECRET",
    "ENCRYPTION_KEY",
    "ENCRYPTION_KEYS_OLD",
];

fn documented() -> BTreeSet<String> {
    let example = std::fs::read_to_string(root().join(".env.example")).unwrap();
    let names = example.lines().filter_map(|line| line.trim_start_matches(['#', ' ']).split_once('='));
    let names = names.map(|(name, _)| name.to_owned());
    names.filter(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_uppercase() || c == '_')).collect()
}

/// The setting that a variable of the environment gives: `X_FILE` gives `X`, unless it is a setting itself.
fn setting(variable: &str, documented: &BTreeSet<String>) -> Option<String> {
    let name = match variable.strip_suffix("_FILE") {
        Some(secret) if !documented.contains(variable) && SECRETS.contains(&secret) => secret,
        _ => variable,
    };
    documented.contains(name).then(|| name.to_owned())
}

/// The environment of a workload's container. What stands in a file or comes from a Secret is a value as good as any.
fn environment(objects: &[Value], workload: &Value) -> BTreeMap<String, String> {
    let pod = &workload["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let mut found = BTreeMap::new();
    for from in list(&container["envFrom"]) {
        let map = find(objects, "ConfigMap", from["configMapRef"]["name"].as_str().unwrap());
        for (name, value) in map["data"].as_object().unwrap() {
            found.insert(name.clone(), value.as_str().unwrap().to_owned());
        }
    }
    let sources = list(&pod["volumes"]).iter().flat_map(|v| list(&v["projected"]["sources"]));
    let files: Vec<&str> =
        sources.flat_map(|s| list(&s["secret"]["items"])).filter_map(|item| item["path"].as_str()).collect();
    for variable in list(&container["env"]) {
        let name = variable["name"].as_str().unwrap();
        let value = variable["value"].as_str();
        match (value, name.strip_suffix("_FILE").filter(|secret| SECRETS.contains(secret))) {
            (Some(path), Some(secret)) => {
                let file = path.strip_prefix("/run/secrets/emailclient/").unwrap();
                assert!(files.contains(&file), "{path} is in no volume");
                found.insert(secret.to_owned(), "VGhlIHF1aWNrIGJyb3duIGZveCBqdW1wcyBvdmVyIDE=".to_owned());
            }
            (Some(value), None) => {
                assert!(!SECRETS.contains(&name), "{name} stands in the manifests");
                found.insert(name.to_owned(), value.to_owned());
            }
            (None, _) => assert_eq!(variable["valueFrom"]["secretKeyRef"]["optional"], true, "{name}"),
        }
    }
    found
}

#[test]
fn every_setting_in_the_manifests_is_in_the_example_file_and_reads() {
    let documented = documented();
    assert!(SECRETS.iter().all(|s| documented.contains(*s)), "{documented:?}");
    for place in ENVIRONMENTS {
        let objects = objects(place);
        for map in of_kind(&objects, "ConfigMap") {
            for (name, value) in map["data"].as_object().unwrap() {
                assert_eq!(setting(name, &documented).as_ref(), Some(name), "{place}: {name} is no setting");
                assert!(!SECRETS.contains(&name.as_str()), "{place}: {name} = {value} is a secret");
            }
        }
        for workload in workloads(&objects) {
            for variable in list(&workload["spec"]["template"]["spec"]["containers"][0]["env"]) {
                let name = variable["name"].as_str().unwrap();
                assert!(setting(name, &documented).is_some(), "{place}: {name} is no setting");
            }
            let given = environment(&objects, workload);
            if workload["kind"] == "Deployment" {
                let scheduler = workload["metadata"]["labels"]["app.kubernetes.io/component"] == "scheduler";
                let keys = if scheduler { Keys::Spared } else { Keys::Needed };
                for key in ["JWT_SECRET", "ENCRYPTION_KEY"] {
                    assert_eq!(given.contains_key(key), keys == Keys::Needed, "{place}: {key}");
                }
                let read = Config::from_source_for(&Source::new(given.clone()), keys);
                assert!(read.is_ok(), "{place}: {}", read.err().unwrap());
            } else {
                let needs = ["DATABASE_OWNER_URL", "DATABASE_URL", "DATABASE_SYSTEM_URL"];
                assert!(needs.iter().all(|n| given.contains_key(*n)), "{given:?}");
            }
            let owner = given.contains_key("DATABASE_OWNER_URL");
            assert_eq!(owner, workload["kind"] == "Job", "only the migration sees the owner's address");
        }
    }
    for unknown in ["LOG_LEVL", "LOG_LEVEL_FILE", "database_url"] {
        assert_eq!(setting(unknown, &documented), None);
    }
}

#[test]
fn every_command_in_the_manifests_is_one_of_ours() {
    let mut commands = vec![];
    for place in ENVIRONMENTS {
        for workload in workloads(&objects(place)) {
            let container = &workload["spec"]["template"]["spec"]["containers"][0];
            commands.push(container["command"].clone());
            assert!(container["args"].is_null());
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                commands.extend(container[probe]["exec"].get("command").cloned());
            }
        }
    }
    assert_eq!(commands.len(), 3 * (4 + 4), "{commands:?}");
    for command in commands {
        let words: Vec<&str> = list(&command).iter().filter_map(Value::as_str).collect();
        match words[..] {
            ["emailclient-api" | "emailclient-worker" | "emailclient-scheduler"] => {}
            ["emailctl", ..] => drop(emailctl::command::Cli::try_parse_from(&words).unwrap()),
            _ => panic!("{words:?} is not in the image"),
        }
    }
}
