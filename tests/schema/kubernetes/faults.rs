//! What is wrong with a pod under the `restricted` profile of the Pod Security Standards and our own stricter habits.
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>

use serde_json::{Value, json};

use super::render::list;

/// Kinds of volumes that the profile allows and that no other host can write.
const VOLUMES: [&str; 4] = ["configMap", "emptyDir", "projected", "secret"];
/// What a container may write to.
const WRITABLE: [&str; 3] = ["/tmp", "/app/logs", "/app/data"];

/// What is wrong with the pods of a workload, each with its place.
pub fn of_pods(workload: &Value) -> Vec<String> {
    let pod = &workload["spec"]["template"]["spec"];
    let mut found = vec![];
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    for host in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
        must(pod[host].is_null(), host);
    }
    must(pod["automountServiceAccountToken"] == false, "a token of the Kubernetes API");
    must(pod["enableServiceLinks"] == false, "service links");
    let context = &pod["securityContext"];
    must(context["runAsNonRoot"] == true, "runAsNonRoot");
    must(context["runAsUser"] == 1000 && context["runAsGroup"] == 1000, "the user");
    must(context["seccompProfile"] == json!({ "type": "RuntimeDefault" }), "seccompProfile");
    for field in ["sysctls", "seLinuxOptions", "appArmorProfile", "supplementalGroups", "windowsOptions"] {
        must(context[field].is_null(), field);
    }
    for volume in list(&pod["volumes"]) {
        let mut kinds = volume.as_object().unwrap().keys().filter(|k| *k != "name");
        must(kinds.all(|k| VOLUMES.contains(&k.as_str())), &format!("volume {volume}"));
        let sized = volume["emptyDir"].is_null() || volume["emptyDir"]["sizeLimit"].is_string();
        must(sized, &format!("volume without a size: {volume}"));
    }
    must(!list(&pod["containers"]).is_empty(), "containers");
    must(pod["ephemeralContainers"].is_null(), "ephemeralContainers");
    for container in list(&pod["containers"]).iter().chain(list(&pod["initContainers"])) {
        found.extend(of_container(container));
    }
    found
}

fn of_container(container: &Value) -> Vec<String> {
    let mut found = vec![];
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{}: {what}", container["name"]));
        }
    };
    let context = &container["securityContext"];
    must(context["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation");
    must(context["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem");
    must(context["capabilities"] == json!({ "drop": ["ALL"] }), "capabilities");
    // What the pod says holds unless the container says otherwise, so it says nothing.
    for field in ["privileged", "procMount", "runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"] {
        must(context[field].is_null(), field);
    }
    for field in ["seLinuxOptions", "appArmorProfile", "windowsOptions"] {
        must(context[field].is_null(), field);
    }
    for port in list(&container["ports"]) {
        must(port["hostPort"].is_null() && port["hostIP"].is_null(), "hostPort");
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        must(container[probe]["httpGet"]["host"].is_null(), "a probe of another host");
        must(container[probe]["tcpSocket"].is_null(), "a probe that asks nothing");
    }
    for (path, what) in [("requests", "a request"), ("limits", "a limit")] {
        for resource in ["cpu", "memory", "ephemeral-storage"] {
            must(container["resources"][path][resource].is_string(), &format!("{what} of {resource}"));
        }
    }
    let mounts = list(&container["volumeMounts"]);
    let written: Vec<&str> =
        mounts.iter().filter(|m| m["readOnly"] != true).filter_map(|m| m["mountPath"].as_str()).collect();
    must(written == WRITABLE, &format!("writable folders {written:?}"));
    let image = container["image"].as_str().unwrap_or_default();
    // The registry before the name is the operator's, and its port looks like a tag.
    let (name, tag) = image.split_once('@').or_else(|| image.rsplit_once(':')).unwrap_or((image, ""));
    let ours = name == "emailclient/email-service" || name.ends_with("/emailclient/email-service");
    must(ours && !["", "latest"].contains(&tag), &format!("image {image}"));
    found
}
