//! `docker-compose.yml`: every setting reaches the services, and every container is shut. Needs no engine; what runs in
//! the containers is tested by `make test-stack`.

use std::collections::BTreeSet;

use serde_yaml_ng::Value;

/// Containers that do their work and end; they need no health check and are not started again.
const ONE_SHOT: [&str; 2] = ["migrate", "emailctl"];

fn root_file(name: &str) -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../").to_owned() + name).unwrap()
}

fn compose() -> Value {
    let mut value: Value = serde_yaml_ng::from_str(&root_file("docker-compose.yml")).unwrap();
    // Once for what the services take in, once more for what that takes in.
    value.apply_merge().unwrap();
    value.apply_merge().unwrap();
    value
}

fn services(compose: &Value) -> Vec<(&str, &Value)> {
    compose["services"].as_mapping().unwrap().iter().map(|(k, v)| (k.as_str().unwrap(), v)).collect()
}

fn keys(mapping: &Value) -> BTreeSet<&str> {
    mapping.as_mapping().map(|m| m.keys().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn words(list: &Value) -> BTreeSet<&str> {
    list.as_sequence().map(|l| l.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn documented() -> BTreeSet<String> {
    let example = root_file(".env.example");
    let names = example.lines().filter_map(|line| line.trim_start_matches(['#', ' ']).split_once('='));
    let names = names.map(|(name, _)| name.to_owned());
    names.filter(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_uppercase() || c == '_')).collect()
}

/// What is wrong with the walls around a container.
fn openings(name: &str, service: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |right: bool, what: &str| {
        if !right {
            found.push(format!("{name}: {what}"));
        }
    };
    must(service["read_only"] == true, "its root can be written");
    must(words(&service["cap_drop"]) == ["ALL"].into(), "it keeps capabilities");
    must(words(&service["security_opt"]).contains("no-new-privileges:true"), "it may gain privileges");
    must(service["mem_limit"].is_string(), "its memory has no limit");
    must(service["pids_limit"].is_u64(), "its processes have no limit");
    must(service["logging"]["options"]["max-size"].is_string(), "its log is not rotated");
    must(
        service["privileged"].is_null() && service["network_mode"].is_null(),
        "it is not in its own network",
    );
    let added = match name {
        "postfix" => ["CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"].into(),
        "dovecot" => ["CHOWN", "KILL", "SETGID", "SETUID", "SYS_CHROOT"].into(),
        _ => BTreeSet::new(),
    };
    must(words(&service["cap_add"]) == added, "other capabilities than it needs");
    let watched = service["healthcheck"]["test"].is_sequence() && service["restart"] == "unless-stopped";
    must(watched || ONE_SHOT.contains(&name), "nobody watches whether it is well");
    let datastore = ["postgres", "redis"].contains(&name);
    let loopback = words(&service["ports"]).iter().all(|port| port.starts_with("127.0.0.1:"));
    must(!datastore || loopback, "it is published beyond loopback");
    found
}

#[test]
fn every_setting_reaches_the_services_and_no_secret_is_written_down() {
    let compose = compose();
    let mut given = BTreeSet::new();
    for (name, service) in services(&compose) {
        let environment = &service["environment"];
        for key in keys(environment) {
            given.insert(key.strip_suffix("_FILE").unwrap_or(key).to_owned());
            given.insert(key.to_owned());
        }
        for secret in [
            "DATABASE_URL",
            "DATABASE_SYSTEM_URL",
            "DATABASE_OWNER_URL",
            "REDIS_URL",
            "JWT_SECRET",
            "ENCRYPTION_KEY",
            "POSTGRES_PASSWORD",
        ] {
            assert!(
                environment[secret].is_null(),
                "{name} has {secret} in its environment, which `inspect` shows"
            );
        }
    }
    let missing: Vec<_> = documented().into_iter().filter(|setting| !given.contains(setting)).collect();
    assert!(missing.is_empty(), "not in docker-compose.yml: {missing:?}");
}

#[test]
fn every_container_is_shut() {
    let compose = compose();
    let found: Vec<_> =
        services(&compose).into_iter().flat_map(|(name, service)| openings(name, service)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn an_open_container_is_found() {
    let compose = compose();
    for (service, key, planted) in [
        ("redis", "read_only", "false"),
        ("worker", "cap_drop", "[NET_RAW]"),
        ("worker", "cap_add", "[SYS_ADMIN]"),
        ("dovecot", "security_opt", "[]"),
        ("scheduler", "mem_limit", "null"),
        ("postgres", "pids_limit", "null"),
        ("postgres", "ports", "['5433:5432']"),
        ("email-service", "healthcheck", "{disable: true}"),
        ("postfix", "privileged", "true"),
        ("migrate", "logging", "null"),
    ] {
        let mut open = compose["services"][service].clone();
        open[key] = serde_yaml_ng::from_str(planted).unwrap();
        assert_eq!(openings(service, &open).len(), 1, "{service} with {key}: {planted}");
    }
}

#[test]
fn the_stack_has_the_promised_volumes_and_network() {
    let compose = compose();
    assert_eq!(keys(&compose["volumes"]).len(), 8);
    let (net, store, post) = ("emailclient-net", "emailclient-store", "emailclient-post");
    // Each says its own: one without would be given, sooner or later, what the engine has next, which may be the first's.
    for (network, subnet) in [(net, "172.25.0.0/16"), (store, "172.26.0.0/24"), (post, "172.26.1.0/24")] {
        assert_eq!(compose["networks"][network]["ipam"]["config"][0]["subnet"], subnet);
    }
    assert_eq!(keys(&compose["networks"]).len(), 3);
    // By name the first is the one whose gateway the published ports have.
    assert!(net < post && net < store);
    for (name, service) in services(&compose) {
        let on: BTreeSet<&str> = match name {
            "postgres" | "redis" | "migrate" | "scheduler" => [store].into(),
            "email-service" | "worker" | "emailctl" => [net, store].into(),
            "postfix" | "dovecot" => [net, post].into(),
            "mailpit" => [net].into(),
            other => panic!("{other}: which networks does it need?"),
        };
        let listed = match &service["networks"] {
            Value::Mapping(networks) => networks.keys().filter_map(Value::as_str).collect(),
            _ => words(&service["networks"]),
        };
        assert_eq!(listed, on, "{name}");
    }
    assert_eq!(compose["networks"][post]["internal"], true);
    let delivery = compose["services"]["dovecot"]["networks"][post]["aliases"][0].as_str().unwrap();
    for server in ["postfix", "dovecot"] {
        assert_eq!(compose["services"][server]["environment"]["DELIVERY_HOST"], delivery, "{server}");
    }
    for four in ["postgres", "redis", "postfix", "dovecot"] {
        let condition = &compose["services"]["email-service"]["depends_on"][four]["condition"];
        assert_eq!(condition, "service_healthy", "{four}");
    }
}

#[test]
fn nobody_is_given_a_key_that_it_does_not_need() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let needs = match name {
            "email-service" | "worker" | "emailctl" => true,
            "migrate" | "scheduler" | "postgres" | "redis" | "postfix" | "dovecot" | "mailpit" => false,
            other => panic!("{other}: does it sign or open anything?"),
        };
        for (secret, setting) in [("jwt_secret", "JWT_SECRET"), ("encryption_key", "ENCRYPTION_KEY")] {
            let has = service.get("secrets").is_some_and(|s| words(s).contains(secret));
            assert_eq!(has, needs, "{name}: {secret}");
            let told = service["environment"].get(format!("{setting}_FILE")).is_some();
            assert_eq!(told, needs, "{name}: {setting}_FILE");
        }
        let old = service["environment"].get("ENCRYPTION_KEYS_OLD").is_some();
        assert_eq!(old, needs, "{name}: ENCRYPTION_KEYS_OLD");
        let owner = service.get("secrets").is_some_and(|s| words(s).contains("database_owner_url"));
        assert_eq!(owner, name == "migrate", "{name}: database_owner_url");
    }
}
