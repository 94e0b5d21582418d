//! The objects fit each other: names that are referred to exist, selectors find their pods, and the most pods there can
//! be do not ask PostgreSQL for more connections than it gives.

use serde_json::{Value, json};

use super::network::selects;
use super::render::{ENVIRONMENTS, find, list, objects, of_kind, workloads};

fn pods_of(objects: &[Value], component: &str) -> Value {
    let workloads = workloads(objects);
    let labels = |w: &&Value| w["spec"]["template"]["metadata"]["labels"].clone();
    workloads.iter().map(labels).find(|l| l["app.kubernetes.io/component"] == component).unwrap()
}

#[test]
fn every_selector_finds_its_own_pods_and_no_others() {
    for environment in ENVIRONMENTS {
        let objects = objects(environment);
        let mut selectors = vec![];
        for deployment in of_kind(&objects, "Deployment") {
            selectors.push((deployment, deployment["spec"]["selector"].clone()));
            for spread in list(&deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]) {
                selectors.push((deployment, spread["labelSelector"].clone()));
            }
        }
        for budget in of_kind(&objects, "PodDisruptionBudget") {
            selectors.push((budget, budget["spec"]["selector"].clone()));
        }
        for service in of_kind(&objects, "Service") {
            selectors.push((service, json!({ "matchLabels": service["spec"]["selector"] })));
        }
        assert_eq!(selectors.len(), 3 * 3 + 3 + 1);
        for (object, selector) in selectors {
            let own = object["metadata"]["labels"]["app.kubernetes.io/component"].as_str().unwrap();
            for component in ["api", "worker", "scheduler", "migrate"] {
                let found = selects(&selector, &pods_of(&objects, component));
                assert_eq!(found, component == own, "{} and {component}", object["metadata"]["name"]);
            }
        }
    }
}

#[test]
fn every_name_that_is_referred_to_exists() {
    for environment in ENVIRONMENTS {
        let objects = objects(environment);
        for workload in workloads(&objects) {
            let pod = &workload["spec"]["template"]["spec"];
            find(&objects, "ServiceAccount", pod["serviceAccountName"].as_str().unwrap());
            for from in list(&pod["containers"][0]["envFrom"]) {
                find(&objects, "ConfigMap", from["configMapRef"]["name"].as_str().unwrap());
            }
            let volumes: Vec<&Value> = list(&pod["volumes"]).iter().map(|v| &v["name"]).collect();
            let mounts: Vec<&Value> =
                list(&pod["containers"][0]["volumeMounts"]).iter().map(|m| &m["name"]).collect();
            assert_eq!(mounts, volumes);
        }
        let service = find(&objects, "Service", "emailclient-api");
        let api = find(&objects, "Deployment", "emailclient-api");
        let port = &api["spec"]["template"]["spec"]["containers"][0]["ports"][0];
        assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
        for ingress in of_kind(&objects, "Ingress") {
            let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
            assert_eq!(backend["name"], service["metadata"]["name"]);
            assert_eq!(backend["port"]["name"], service["spec"]["ports"][0]["name"]);
        }
        for scaler in of_kind(&objects, "HorizontalPodAutoscaler") {
            let target =
                find(&objects, "Deployment", scaler["spec"]["scaleTargetRef"]["name"].as_str().unwrap());
            assert!(target["spec"]["replicas"].is_null(), "an apply would undo the autoscaler's work");
            assert!(
                scaler["spec"]["minReplicas"].as_u64().unwrap()
                    <= scaler["spec"]["maxReplicas"].as_u64().unwrap()
            );
        }
    }
}

/// README.md applies these first and waits for the job: `-l 'app.kubernetes.io/component in (shared, migrate)'`.
#[test]
fn the_migration_can_be_applied_before_the_services() {
    for environment in ENVIRONMENTS {
        let first: Vec<Value> = objects(environment)
            .into_iter()
            .filter(|o| {
                let component = &o["metadata"]["labels"]["app.kubernetes.io/component"];
                component == "shared" || component == "migrate"
            })
            .collect();
        assert!(of_kind(&first, "Deployment").is_empty());
        let pod = &find(&first, "Job", "emailclient-migrate")["spec"]["template"]["spec"];
        find(&first, "ServiceAccount", pod["serviceAccountName"].as_str().unwrap());
        find(
            &first,
            "ConfigMap",
            pod["containers"][0]["envFrom"][0]["configMapRef"]["name"].as_str().unwrap(),
        );
        find(&first, "NetworkPolicy", "datastores");
        find(&first, "NetworkPolicy", "dns");
    }
}

#[test]
fn the_most_pods_there_can_be_fit_into_two_hundred_connections() {
    for overlay in super::render::OVERLAYS {
        let objects = objects(overlay);
        let settings = of_kind(&objects, "ConfigMap")[0]["data"]["DATABASE_MAX_CONNECTIONS"].as_str();
        let application: u64 = settings.unwrap().parse().unwrap();
        // crates/core/src/platform/db.rs: the pool of the system role is a quarter, at least four; a worker also listens.
        let of_a_process = application + application.div_ceil(4).max(4) + 1;
        let mut pods = 0;
        for deployment in of_kind(&objects, "Deployment") {
            let scalers = of_kind(&objects, "HorizontalPodAutoscaler");
            let scaler = scalers
                .iter()
                .find(|s| s["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]);
            let most = scaler
                .map_or(&deployment["spec"]["replicas"], |s| &s["spec"]["maxReplicas"])
                .as_u64()
                .unwrap();
            pods += most + deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"].as_u64().unwrap();
        }
        // Three are the superuser's, two the migration's.
        let connections = pods * of_a_process + 3 + 2;
        assert!(connections <= 200, "{overlay}: {pods} pods may open {connections} connections");
    }
}

/// The wave that Argo CD applies an object in; it waits for each to be well.
fn wave(object: &Value) -> i64 {
    let wave = object["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"].as_str();
    wave.map_or(0, |wave| wave.parse().unwrap())
}

#[test]
fn the_migration_comes_before_the_services_and_after_what_it_needs() {
    for environment in ENVIRONMENTS {
        let objects = objects(environment);
        let migration = find(&objects, "Job", "emailclient-migrate");
        assert_eq!(migration["metadata"]["annotations"]["argocd.argoproj.io/hook"], "Sync");
        for object in &objects {
            let kind = object["kind"].as_str().unwrap();
            let (before, after) = (wave(object) < wave(&migration), wave(object) > wave(&migration));
            match kind {
                "Namespace" | "ServiceAccount" | "ConfigMap" | "NetworkPolicy" => {
                    assert!(before, "{environment}: {kind}")
                }
                "Job" => {}
                _ => assert!(after, "{environment}: {kind}"),
            }
        }
    }
}

#[test]
fn every_pod_may_pull_from_a_registry_with_a_log_in() {
    for environment in ENVIRONMENTS {
        let account = find(&objects(environment), "ServiceAccount", "emailclient");
        assert_eq!(account["imagePullSecrets"], json!([{ "name": "emailclient-registry" }]), "{environment}");
    }
}

/// `32m` and its like, in bytes.
fn megabytes(text: &str) -> u64 {
    text.trim_end_matches('m').parse::<u64>().unwrap() * 1024 * 1024
}

#[test]
fn every_proxy_takes_the_largest_body_that_the_api_takes_and_they_agree() {
    let guide = std::fs::read_to_string(super::render::root().join("DEPLOYMENT.md")).unwrap();
    let mut limits: Vec<String> = guide
        .lines()
        .filter_map(|line| line.trim().strip_prefix("client_max_body_size ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    assert_eq!(limits.len(), 1, "the guide has one nginx");
    let host = "api.example.com";
    assert!(guide.contains(&format!("server_name {host};")));
    for (environment, host) in
        [("overlays/production", host), ("overlays/staging", "api.staging.example.com")]
    {
        let ingress = find(&objects(environment), "Ingress", "emailclient-api");
        let limit = &ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"];
        limits.push(limit.as_str().unwrap().to_owned());
        assert_eq!(ingress["spec"]["rules"][0]["host"], host);
        assert_eq!(ingress["spec"]["tls"][0]["hosts"], json!([host]));
    }
    assert!(limits.iter().all(|limit| limit == &limits[0]), "{limits:?}");
    let largest = u64::try_from(emailclient_core::domain::draft::attachment::MAX_ATTACHMENTS_BYTES).unwrap();
    // The rest is the form around the files.
    assert!(megabytes(&limits[0]) > largest + 1024 * 1024, "{limits:?}, and {largest} bytes of files");
}
