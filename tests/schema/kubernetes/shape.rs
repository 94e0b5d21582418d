//! The strict shape of objects: fields that a release does not know are faults, as with
//! `kubectl apply --validate=strict`.
//!
//! The types come from Kubernetes' own description, made smaller by `extract.py` beside this file. That description
//! lists no values of enumerations, so those that we use are [`WORDS`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The values of enumerated fields, by the end of the type's name and the field.
const WORDS: [(&str, &str, &[&str]); 14] = [
    ("v1.Container", "imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("v1.ContainerPort", "protocol", &["TCP", "UDP", "SCTP"]),
    ("v1.ServicePort", "protocol", &["TCP", "UDP", "SCTP"]),
    ("v1.NetworkPolicyPort", "protocol", &["TCP", "UDP", "SCTP"]),
    ("v1.ServiceSpec", "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    ("v1.PodSpec", "restartPolicy", &["Always", "Never", "OnFailure"]),
    ("v1.SeccompProfile", "type", &["Localhost", "RuntimeDefault", "Unconfined"]),
    ("v1.DeploymentStrategy", "type", &["Recreate", "RollingUpdate"]),
    ("v1.TopologySpreadConstraint", "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
    ("v1.LabelSelectorRequirement", "operator", &["DoesNotExist", "Exists", "In", "NotIn"]),
    ("v1.HTTPIngressPath", "pathType", &["Exact", "ImplementationSpecific", "Prefix"]),
    ("v1.PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
    ("v2.MetricTarget", "type", &["AverageValue", "Utilization", "Value"]),
    ("v2.HPAScalingPolicy", "type", &["Percent", "Pods"]),
];

/// What the API server of one release of Kubernetes accepts.
#[derive(Debug, Deserialize)]
pub struct Release {
    #[serde(skip)]
    pub name: &'static str,
    kinds: BTreeMap<String, String>,
    types: BTreeMap<String, BTreeMap<String, String>>,
}

impl Release {
    pub fn read(name: &'static str, description: &str) -> Self {
        Self { name, ..serde_json::from_str(description).unwrap() }
    }

    /// What is wrong with an object, each with the path to it.
    pub fn faults(&self, object: &Value) -> Vec<String> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let kind = format!("{}/{}", text("apiVersion"), text("kind"));
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut found = vec![];
        if name.is_empty() {
            found.push(format!("{kind}: without a name"));
        }
        match self.kinds.get(&kind) {
            Some(of) => self.check(object, of, &format!("{kind} {name}"), &mut found),
            None => found.push(format!("{kind} is no kind that we deploy")),
        }
        found
    }

    fn check(&self, value: &Value, expression: &str, path: &str, found: &mut Vec<String>) {
        if let Some(item) = expression.strip_prefix('[').and_then(|e| e.strip_suffix(']')) {
            let Some(items) = value.as_array() else {
                return found.push(format!("{path}: a list is expected"));
            };
            for (at, element) in items.iter().enumerate() {
                self.check(element, item, &format!("{path}[{at}]"), found);
            }
        } else if let Some(item) = expression.strip_prefix('{').and_then(|e| e.strip_suffix('}')) {
            let Some(map) = value.as_object() else {
                return found.push(format!("{path}: a map is expected"));
            };
            for (key, element) in map {
                self.check(element, item, &format!("{path}.{key}"), found);
            }
        } else if let Some(fields) = self.types.get(expression) {
            self.check_fields(value, expression, fields, path, found);
        } else if !is_scalar(value, expression) {
            found.push(format!("{path}: {value} is no {expression}"));
        }
    }

    fn check_fields(
        &self,
        value: &Value,
        name: &str,
        fields: &BTreeMap<String, String>,
        path: &str,
        found: &mut Vec<String>,
    ) {
        let Some(map) = value.as_object() else {
            return found.push(format!("{path}: a {name} is expected"));
        };
        for (key, element) in map {
            let path = format!("{path}.{key}");
            match fields.get(key).or_else(|| fields.get(&format!("{key}!"))) {
                Some(of) => self.check(element, of, &path, found),
                None => found.push(format!("{path}: {name} has no such field")),
            }
            let words = WORDS.iter().find(|(of, field, _)| name.ends_with(of) && field == key);
            if let Some((_, _, words)) = words
                && !element.as_str().is_some_and(|word| words.contains(&word))
            {
                found.push(format!("{path}: {element} is none of {words:?}"));
            }
        }
        for required in fields.keys().filter_map(|f| f.strip_suffix('!')) {
            if !map.contains_key(required) {
                found.push(format!("{path}: {required} is missing"));
            }
        }
    }
}

fn is_scalar(value: &Value, expression: &str) -> bool {
    match expression {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "int-or-string" => value.is_i64() || value.is_string(),
        "quantity" => value.is_number() || value.as_str().is_some_and(is_quantity),
        "any" => true,
        unknown => panic!("the description of Kubernetes names a type {unknown} that it does not have"),
    }
}

/// A number and a suffix of the SI or the binary units, as in `k8s.io/apimachinery/pkg/api/resource`.
fn is_quantity(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[digits.len()..];
    let units = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    digits.parse::<f64>().is_ok() && units.contains(&suffix)
}
