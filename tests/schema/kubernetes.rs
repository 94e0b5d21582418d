//! The manifests in `deployment/kubernetes`, as kustomize renders them for each environment.
//!
//! [`render`] runs kustomize, [`shape`] holds an object against what the API server of a release accepts, [`faults`]
//! knows the restricted profile and the walls of the network. The tests of each rule stand in a file of their own and
//! plant a mistake, which must be found. Nothing here needs a cluster or the network.

mod faults;
mod fit;
mod network;
mod pods;
mod render;
mod settings;
mod shape;

use serde_json::{Value, json};

use render::ENVIRONMENTS;
use shape::Release;

/// The oldest release that runs these manifests (the lifecycle action `sleep`), and the newest one known.
fn releases() -> [Release; 2] {
    [
        Release::read("1.30", include_str!("kubernetes/v1.30.json")),
        Release::read("1.37", include_str!("kubernetes/v1.37.json")),
    ]
}

#[test]
fn every_object_of_every_environment_is_one_that_the_api_server_accepts() {
    for release in releases() {
        for environment in ENVIRONMENTS {
            let objects = render::objects(environment);
            assert!(objects.len() >= 17, "{environment} has only {} objects", objects.len());
            for object in &objects {
                let found = release.faults(object);
                assert!(found.is_empty(), "{environment}, Kubernetes {}: {found:#?}", release.name);
            }
        }
    }
}

#[test]
fn what_the_api_server_would_refuse_is_found() {
    let api = render::find(&render::objects("overlays/production"), "Deployment", "emailclient-api");
    for (pointer, key, planted) in [
        ("/spec", "replica", json!(3)),
        ("/spec/template/spec", "terminationGracePeriodSeconds", json!("40")),
        ("/spec/template/spec", "containers", json!({})),
        ("/spec/template/spec/containers/0", "imagePullPolicy", json!("Sometimes")),
        ("/spec/template/spec/containers/0", "livenessProb", json!({})),
        ("/spec/template/spec/containers/0/ports/0", "containerPort", json!("5000")),
        ("/spec/template/spec/containers/0/resources/limits", "memory", json!("1 GB")),
        ("/spec/template/spec/containers/0/securityContext", "readOnlyRootFilesystem", json!("true")),
        ("/metadata/labels", "app", json!(1)),
        ("", "apiVersion", json!("apps/v1beta1")),
    ] {
        let mut broken = api.clone();
        broken.pointer_mut(pointer).unwrap()[key] = planted.clone();
        for release in releases() {
            assert!(!release.faults(&broken).is_empty(), "{pointer}/{key} = {planted} was not found");
        }
    }
    for (pointer, key) in [("/spec", "selector"), ("/spec/template/spec/containers/0", "name")] {
        let mut broken = api.clone();
        broken.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap().remove(key).unwrap();
        assert!(!releases()[0].faults(&broken).is_empty(), "{pointer}/{key} is missing and was not missed");
    }
}
