//! Every pod is shut as tight as the namespace demands, and ends and starts without losing a request.

use serde_json::{Value, json};

use super::faults;
use super::render::{ENVIRONMENTS, OVERLAYS, find, list, objects, of_kind, root, workloads};

const CONTAINER: &str = "/spec/template/spec/containers/0";

#[test]
fn every_container_obeys_the_restricted_profile() {
    for environment in ENVIRONMENTS {
        let objects = objects(environment);
        let workloads = workloads(&objects);
        assert_eq!(workloads.len(), 4, "api, worker, scheduler and migrate");
        for workload in workloads {
            assert_eq!(faults::of_pods(workload), Vec::<String>::new(), "{}", workload["metadata"]["name"]);
        }
        let loose = ["Pod", "StatefulSet", "DaemonSet", "CronJob", "ReplicaSet", "Secret"];
        assert!(objects.iter().all(|o| !loose.contains(&o["kind"].as_str().unwrap())));
    }
    for overlay in OVERLAYS {
        let objects = objects(overlay);
        let [namespace] = of_kind(&objects, "Namespace")[..] else {
            panic!("{overlay} has not one namespace")
        };
        for mode in ["enforce", "audit", "warn"] {
            let label = format!("pod-security.kubernetes.io/{mode}");
            assert_eq!(namespace["metadata"]["labels"][label], "restricted");
        }
        for object in objects.iter().filter(|o| o["kind"] != "Namespace") {
            assert_eq!(object["metadata"]["namespace"], namespace["metadata"]["name"], "{object}");
        }
    }
}

#[test]
fn every_way_out_of_the_profile_is_found() {
    let api = find(&objects("overlays/production"), "Deployment", "emailclient-api");
    let pod = "/spec/template/spec";
    for (pointer, key, planted) in [
        (pod.to_owned(), "hostNetwork", json!(true)),
        (pod.to_owned(), "automountServiceAccountToken", json!(true)),
        (
            pod.to_owned(),
            "initContainers",
            json!([{ "name": "plain", "image": "emailclient/email-service:1" }]),
        ),
        (format!("{pod}/securityContext"), "runAsUser", json!(0)),
        (format!("{pod}/securityContext"), "runAsNonRoot", Value::Null),
        (format!("{pod}/securityContext"), "seccompProfile", json!({ "type": "Unconfined" })),
        (format!("{pod}/volumes/0"), "hostPath", json!({ "path": "/" })),
        (format!("{pod}/volumes/1"), "emptyDir", json!({})),
        (format!("{CONTAINER}/securityContext"), "allowPrivilegeEscalation", Value::Null),
        (format!("{CONTAINER}/securityContext"), "privileged", json!(true)),
        (format!("{CONTAINER}/securityContext"), "readOnlyRootFilesystem", json!(false)),
        (format!("{CONTAINER}/securityContext/capabilities"), "add", json!(["NET_ADMIN"])),
        (format!("{CONTAINER}/securityContext/capabilities"), "drop", json!(["NET_RAW"])),
        (format!("{CONTAINER}/resources/limits"), "memory", Value::Null),
        (format!("{CONTAINER}/ports/0"), "hostPort", json!(5000)),
        (format!("{CONTAINER}/volumeMounts/0"), "readOnly", json!(false)),
        (CONTAINER.to_owned(), "image", json!("emailclient/email-service")),
    ] {
        let mut broken = api.clone();
        broken.pointer_mut(&pointer).unwrap()[key] = planted.clone();
        assert_ne!(faults::of_pods(&broken), Vec::<String>::new(), "{pointer}/{key} = {planted}");
    }
}

#[test]
fn a_pod_is_given_the_time_its_service_takes_to_end() {
    // Said in the source and nowhere else; whoever changes them changes the manifests.
    for (file, constants) in [
        (
            "crates/api/src/server.rs",
            ["NOTICE: Duration = Duration::from_secs(1)", "DRAIN: Duration = Duration::from_secs(25)"],
        ),
        ("crates/worker/src/runtime.rs", ["DRAIN: Duration = Duration::from_secs(25)"; 2]),
    ] {
        let source = std::fs::read_to_string(root().join(file)).unwrap();
        for constant in constants {
            assert!(source.contains(constant), "{file} has no longer {constant}");
        }
    }
    for environment in ENVIRONMENTS {
        let objects = objects(environment);
        for (name, ending_seconds) in [("api", 1 + 25), ("worker", 25), ("scheduler", 16)] {
            let deployment = find(&objects, "Deployment", &format!("emailclient-{name}"));
            let grace =
                deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap();
            let sleep = deployment.pointer(&format!("{CONTAINER}/lifecycle/preStop/sleep/seconds"));
            let sleep = sleep.and_then(Value::as_i64).unwrap_or(0);
            assert!(grace >= sleep + ending_seconds + 5, "{name}: {grace} s are too short");
            assert_eq!(sleep > 0, name == "api", "only what has endpoints waits for their removal");
            let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
            assert_eq!(rolling["maxUnavailable"], 0, "{name} stops a pod before its successor is ready");
        }
    }
}

#[test]
fn a_failing_database_takes_pods_out_of_service_and_restarts_none() {
    for environment in ENVIRONMENTS {
        let objects = objects(environment);
        let container = |name: &str| find(&objects, "Deployment", name).pointer(CONTAINER).unwrap().clone();
        let api = container("emailclient-api");
        for (probe, path) in [
            ("startupProbe", "/health/live"),
            ("livenessProbe", "/health/live"),
            ("readinessProbe", "/health/ready"),
        ] {
            assert_eq!(api[probe]["httpGet"], json!({ "path": path, "port": "http" }), "{probe}");
        }
        for service in ["worker", "scheduler"] {
            let container = container(&format!("emailclient-{service}"));
            let command = json!(["emailctl", "healthcheck", "--service", service]);
            for probe in ["readinessProbe", "livenessProbe"] {
                assert_eq!(container[probe]["exec"]["command"], command, "{service}: {probe}");
            }
            // The sign of life grows old while the database is away, so its patience must outlast an outage.
            let number = |field: &str| container["livenessProbe"][field].as_u64().unwrap();
            assert!(number("periodSeconds") * number("failureThreshold") >= 600, "{service}");
            let heartbeat = list(&container["env"]).iter().find(|e| e["name"] == "HEARTBEAT_DIR").unwrap();
            assert_eq!(heartbeat["value"], "/tmp");
        }
    }
}
