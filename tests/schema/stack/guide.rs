//! What the guides say of the stack, and what the compose file does with it.

use serde_yaml_ng::Value;

use super::top;

fn text(name: &str) -> String {
    std::fs::read_to_string(top().join(name)).unwrap()
}

#[test]
fn the_authorities_of_the_operator_are_trusted_beside_the_stacks_own_and_mounted_where_they_are_named() {
    let mut compose: Value = serde_yaml_ng::from_str(&text("docker-compose.yml")).unwrap();
    compose.apply_merge().unwrap();
    compose.apply_merge().unwrap();
    for service in ["email-service", "worker", "emailctl"] {
        let of = &compose["services"][service];
        let trusted = of["environment"]["TLS_EXTRA_CA_FILE"].as_str().unwrap();
        assert_eq!(trusted, "/mail-tls/ca.pem,${TLS_EXTRA_CA_FILE:-}", "{service}");
        let mounted: Vec<&str> =
            of["volumes"].as_sequence().unwrap().iter().filter_map(Value::as_str).collect();
        // Without one, nothing is mounted where nobody looks.
        let place = "${TLS_EXTRA_CA_FILE:-/dev/null}:${TLS_EXTRA_CA_FILE:-/tmp/none}:ro";
        assert!(
            mounted.contains(&place) && mounted.contains(&"mail-tls:/mail-tls:ro"),
            "{service}: {mounted:?}"
        );
    }
}

#[test]
fn the_reference_of_the_service_has_its_own_troubleshooting_and_leads_to_the_long_one() {
    let reference = text("deployment/docker/email-service/README.md");
    let (_, section) = reference.split_once("\n## Troubleshooting\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| --- ")).count();
    assert_eq!(rows, 1 + 8, "a head and eight cases: {section}");
    assert!(section.contains("DEPLOYMENT.md#troubleshooting"));
    let long = text("DEPLOYMENT.md");
    let (_, long) = long.split_once("\n## Troubleshooting\n").unwrap();
    assert!(long.lines().filter(|line| line.starts_with("| ")).count() > 30, "the long one is still there");
}
