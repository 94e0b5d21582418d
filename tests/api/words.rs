//! What a refusal says: in words of the contract, whatever is sent to whichever field.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::app::{App, Tenant, send};
use tests::mail;

/// What the code calls its types, and what no client should have to read.
const OF_THE_CODE: [&str; 24] = [
    "struct", "enum", "tuple", "variant", "newtype", "serde", "u8", "u16", "u32", "u64", "i8", "i16", "i32",
    "i64", "f32", "f64", "usize", "bool", "str", "String", "Vec", "Option", "Secret", "sequence",
];

struct Case {
    method: String,
    path: String,
    schema: Value,
}

fn resolved<'a>(api: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    loop {
        let several = ["oneOf", "anyOf", "allOf"].iter().find_map(|kind| schema[*kind].as_array());
        let inner = several.and_then(|all| all.iter().find(|s| s["type"] != "null" && s["type"] != "string"));
        schema = match (schema["$ref"].as_str(), inner) {
            (Some(name), _) => &api["components"]["schemas"][name.rsplit('/').next().unwrap()],
            (None, Some(inner)) => inner,
            (None, None) => return schema,
        };
    }
}

/// Bodies that are `good` but for one place: every field, and every field of objects in it, with values of other kinds.
fn spoilt(api: &Value, schema: &Value, depth: usize) -> Vec<Value> {
    let values = [
        json!(true),
        json!(-1),
        json!(1.5),
        json!(70_000),
        json!(1e30),
        json!("x"),
        json!([]),
        json!([[]]),
        json!([1, "a", null]),
        json!({}),
        json!({"surprise": []}),
        json!([{}]),
    ];
    let mut all = values.to_vec();
    let schema = resolved(api, schema);
    if depth == 0 {
        return all;
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        all.extend(spoilt(api, field, depth - 1).into_iter().map(|value| json!({ name: value })));
    }
    if schema["items"].is_object() {
        all.extend(spoilt(api, &schema["items"], depth - 1).into_iter().map(|value| json!([value])));
    }
    all
}

async fn cases(app: &App, tenant: &Tenant) -> (Value, Vec<Case>) {
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", vec![mail::message("One", "1@x.test", "x")]);
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    let first = async |path: String| {
        app.get(tenant, &path).await.expect(200)["data"][0]["id"].as_str().unwrap().to_owned()
    };
    let mailbox = first(format!("/api/accounts/{account}/mailboxes")).await;
    let message = first(format!("/api/accounts/{account}/messages")).await;
    let draft = app.post(tenant, "/api/compose", &json!({"account_id": account})).await.expect(201);
    let hook = app.post(tenant, "/api/webhooks", &json!({"url": "https://localhost:4/"})).await.expect(201);
    let oauth = json!({"provider": "google", "client_id": "c"});
    let oauth = app.post(tenant, "/api/oauth/apps", &oauth).await.expect(201);
    let api = app.get(tenant, "/openapi.json").await.expect(200);
    let mut cases = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() || path == "/auth/refresh" {
                continue;
            }
            let id = match path.split('/').nth(2).unwrap_or_default() {
                "accounts" => &account,
                "mailboxes" => &mailbox,
                "messages" => &message,
                "compose" => draft["id"].as_str().unwrap(),
                "webhooks" => hook["id"].as_str().unwrap(),
                "oauth" => oauth["id"].as_str().unwrap(),
                _ => "",
            };
            cases.push(Case {
                method: method.to_uppercase(),
                path: path.replace("{id}", id),
                schema: schema.clone(),
            });
        }
    }
    (api, cases)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_refusal_speaks_of_the_code_and_no_array_is_read_as_an_object() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (api, cases) = cases(&app, &tenant).await;
    assert!(cases.len() >= 12, "the description names the bodies");
    let types: BTreeSet<String> = api["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    let mut judged = 0;
    for case in cases {
        for body in spoilt(&api, &case.schema, 3) {
            let request = app.request(&tenant, &case.method, &case.path).header("If-Match", "*");
            let answer = send(request.json(&body)).await;
            let what = format!("{} {} {body}", case.method, case.path);
            if body.is_array() {
                let problem = answer.refused(422, "validation-error");
                assert_eq!(problem["errors"][0]["pointer"], "", "{what}: {problem}");
            }
            assert!(answer.status < 500, "{what}: {}", answer.text());
            if answer.status < 400 {
                continue;
            }
            judged += 1;
            let problem = answer.json();
            let details = problem["errors"].as_array().into_iter().flatten().map(|fault| &fault["detail"]);
            for detail in details.chain([&problem["detail"]]).map(|d| d.as_str().unwrap()) {
                let mut words = detail.split(|c: char| !c.is_alphanumeric() && c != '_');
                let odd = words.find(|word| {
                    OF_THE_CODE.contains(word)
                        || types.contains(*word)
                            && !["Problem", "Message", "Mailbox", "Draft", "Thread"].contains(word)
                        || word.contains("::")
                });
                assert!(odd.is_none() && !detail.contains("::"), "{what}: {odd:?} in {detail:?}");
            }
        }
    }
    assert!(judged > 300, "{judged}");
    app.finish().await;
}

#[tokio::test]
async fn a_log_in_is_no_array_and_has_nothing_twice_and_nothing_in_the_query() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let login = async |path: &str, kind: &str, body: String| {
        let request = app.http.post(format!("{}{path}", app.base)).header("X-Tenant-ID", &tenant.slug);
        send(request.header("Content-Type", kind).body(body)).await
    };
    let (email, password) = (&tenant.email, tests::app::PASSWORD);
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    login("/auth/login", json, json!({"email": email, "password": password}).to_string()).await.expect(200);
    for body in
        [json!([email, password]), json!([email, password, null]), json!([[email, password]]), json!([])]
    {
        login("/auth/login", json, body.to_string()).await.refused(422, "validation-error");
    }
    login("/auth/refresh", json, json!([tenant.refresh_token]).to_string())
        .await
        .refused(422, "validation-error");
    let good = format!("email={email}&password={}", password.replace(' ', "+"));
    login("/auth/login", form, good.clone()).await.expect(200);
    for twice in [
        format!("{good}&email=b@x.test"),
        format!("{good}&password=x"),
        format!("tenant=a&tenant=a&{good}"),
        format!("{good}&x=1&x=2"),
    ] {
        login("/auth/login", form, twice).await.refused(400, "malformed-json");
    }
    for query in ["?a=b", "?email=x", "?password=x&tenant=y", "?tenant=x", "?a"] {
        login(&format!("/auth/login{query}"), form, good.clone()).await.refused(400, "invalid-parameter");
    }
    app.finish().await;
}
