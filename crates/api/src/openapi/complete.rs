//! What every operation of a kind has in common, added to the description that is made from the handlers.
//!
//! The layers around the handlers refuse too, and read headers: no handler knows of those. What only one operation answers
//! stands at its handler. `4XX` there means "the usual ones" and is replaced by their list.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Map, Value, json};

/// Methods of an item of `paths`, as OpenAPI spells them.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The description in full. `tenant_header` names the tenant; with `tenant_needed` no request goes without it.
#[must_use]
pub fn complete(mut api: Value, tenant_header: &str, tenant_needed: bool) -> Value {
    let tenant = Tenant { header: tenant_header, needed: tenant_needed };
    for (path, item) in objects(&mut api, "/paths") {
        for method in METHODS {
            if let Some(operation) = item.get_mut(method).and_then(Value::as_object_mut) {
                describe(method, path, operation, &tenant);
            }
        }
    }
    close_inputs(&mut api);
    api
}

struct Tenant<'a> {
    header: &'a str,
    needed: bool,
}

fn objects<'a>(value: &'a mut Value, at: &str) -> impl Iterator<Item = (&'a String, &'a mut Value)> {
    value.pointer_mut(at).and_then(Value::as_object_mut).into_iter().flatten()
}

fn describe(method: &str, path: &str, operation: &mut Map<String, Value>, tenant: &Tenant<'_>) {
    let with_token = operation.contains_key("security");
    let with_body = operation.contains_key("requestBody");
    let has = |operation: &Map<String, Value>, status: &str| {
        operation.get("responses").is_some_and(|all| all.get(status).is_some())
    };
    let mut parameters = Vec::new();
    if with_token || path == "/auth/login" {
        parameters.push(header(
            tenant.header,
            with_token && tenant.needed,
            "Slug or id of the tenant.",
            json!({ "type": "string", "minLength": 2, "maxLength": 63, "pattern": "^[0-9A-Za-z-]+$" }),
        ));
    }
    if with_token && method == "post" {
        parameters.push(header(
            "Idempotency-Key",
            false,
            "Makes it safe to repeat the request for 24 hours.",
            json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$" }),
        ));
    }
    if has(operation, "304") {
        let text = "The tag of the copy that the client has.";
        parameters.push(header("If-None-Match", false, text, json!({ "type": "string" })));
    }
    if has(operation, "206") {
        let text = "One range of bytes; anything else is answered with the whole.";
        parameters.push(header("Range", false, text, json!({ "type": "string" })));
    }
    let guarded = named(operation, "If-Match");
    if let Some(all) = list(operation, "parameters") {
        all.extend(parameters);
    }

    let mut usual = BTreeSet::from([400, 406, 500, 503]);
    if with_token || path.starts_with("/auth/") {
        usual.extend([401, 403, 429]);
    }
    if path.contains('{') || names_object(operation) {
        usual.insert(404);
    }
    if with_body {
        usual.extend([408, 413, 415, 422]);
    }
    if with_token && method == "post" {
        usual.extend([409, 422]);
    }
    if guarded {
        usual.insert(412);
    }
    if has(operation, "206") {
        usual.insert(416);
    }
    answer(operation, &usual);
}

/// Whether a parameter is an id, of what may not be there.
fn names_object(operation: &Map<String, Value>) -> bool {
    let all = operation.get("parameters").and_then(Value::as_array);
    let is_id = |p: &Value| p.pointer("/schema/format").is_some_and(|format| format == "uuid");
    all.is_some_and(|all| all.iter().any(is_id))
}

fn header(name: &str, required: bool, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "header", "required": required, "description": description, "schema": schema })
}

fn list<'a>(operation: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Vec<Value>> {
    operation.entry(name).or_insert_with(|| json!([])).as_array_mut()
}

fn named(operation: &Map<String, Value>, parameter: &str) -> bool {
    let all = operation.get("parameters").and_then(Value::as_array);
    all.is_some_and(|all| all.iter().any(|p| p.get("name").is_some_and(|name| name == parameter)))
}

/// Adds refusals. One that stands at the handler keeps its words.
fn answer(operation: &mut Map<String, Value>, usual: &BTreeSet<u16>) {
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else { return };
    responses.remove("4XX");
    for status in usual {
        let reason =
            StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
        responses.entry(status.to_string()).or_insert_with(|| {
            let problem = json!({ "$ref": "#/components/schemas/Problem" });
            json!({ "description": reason, "content": { "application/problem+json": { "schema": problem } } })
        });
    }
}

/// Says of every object that a client may send that it has no other fields than those.
fn close_inputs(api: &mut Value) {
    let mut open: Vec<Value> = Vec::new();
    for (_, item) in objects(api, "/paths") {
        for method in METHODS {
            if let Some(body) = item.pointer_mut(&format!("/{method}/requestBody/content")) {
                close(body, &mut open);
            }
        }
    }
    let mut closed = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some(name) = name.as_str().map(str::to_owned) else { continue };
        if closed.insert(name.clone())
            && let Some(schema) = api.pointer_mut(&format!("/components/schemas/{name}"))
        {
            close(schema, &mut open);
        }
    }
}

/// Closes the objects of a schema, and collects the names of those that it refers to.
fn close(schema: &mut Value, referred: &mut Vec<Value>) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| close(item, referred)),
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) {
                referred.push(json!(name));
            }
            if map.get("properties").is_some_and(Value::is_object) {
                map.entry("additionalProperties").or_insert(json!(false));
            }
            map.values_mut().for_each(|inner| close(inner, referred));
        }
        _ => {}
    }
}
