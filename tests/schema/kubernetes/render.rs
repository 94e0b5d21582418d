//! kustomize, by way of kubectl: both Debian 12's 1.20 and current ones give the same objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde::Deserialize as _;
use serde_json::Value;

/// The folders below `deployment/kubernetes` that render; the first is what the others share.
pub const ENVIRONMENTS: [&str; 3] = ["base", "overlays/staging", "overlays/production"];

/// Those that are applied as they are.
pub const OVERLAYS: [&str; 2] = ["overlays/staging", "overlays/production"];

static RENDERED: LazyLock<BTreeMap<&str, Vec<Value>>> =
    LazyLock::new(|| ENVIRONMENTS.into_iter().map(|e| (e, kustomize(e))).collect());

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All objects of an environment.
pub fn objects(environment: &str) -> Vec<Value> {
    RENDERED[environment].clone()
}

/// The object of that kind and name.
pub fn find(objects: &[Value], kind: &str, name: &str) -> Value {
    let found = objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}")).clone()
}

/// The objects of that kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

/// Deployments and jobs: what has a pod template.
pub fn workloads(objects: &[Value]) -> Vec<&Value> {
    objects.iter().filter(|o| o["spec"]["template"].is_object()).collect()
}

/// The elements of a list; none when there is no list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn kustomize(environment: &str) -> Vec<Value> {
    let folder = root().join("deployment/kubernetes").join(environment);
    let output =
        Command::new("kubectl").arg("kustomize").arg(&folder).output().unwrap_or_else(|e| {
            panic!("kubectl cannot be run ({e}): `make deps` installs kubernetes-client")
        });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl kustomize {environment}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    serde_yaml_ng::Deserializer::from_str(&text).map(|object| Value::deserialize(object).unwrap()).collect()
}
