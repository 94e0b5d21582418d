//! The description at `/openapi.json` against the service that it describes.

use std::collections::BTreeSet;
use std::process::Command;

use emailclient_core::domain::event::EventKind;
use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::{mail, python};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

fn operations(api: &Value) -> Vec<(String, String, &Value)> {
    let paths = api["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let methods = METHODS.iter().filter(|method| item[**method].is_object());
            methods.map(move |method| ((*method).to_owned(), path.clone(), &item[*method]))
        })
        .collect()
}

fn parameter<'a>(operation: &'a Value, name: &str) -> Option<&'a Value> {
    operation["parameters"].as_array().into_iter().flatten().find(|p| p["name"] == name)
}

#[tokio::test]
async fn the_description_names_headers_refusals_and_limits() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let api = app.get(&tenant, "/openapi.json").await.expect(200);
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&api) {
        let what = format!("{method} {path}");
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{what}: its id is there twice"
        );
        let answers: BTreeSet<&str> =
            operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(!answers.iter().any(|status| status.contains('X')), "{what}: {answers:?}");
        let answers_all = |wanted: &[&str]| {
            assert!(
                wanted.iter().all(|status| answers.contains(status)),
                "{what}: {wanted:?} in {answers:?}"
            );
        };
        answers_all(&["400", "406", "500", "503"]);
        if operation["security"].is_array() {
            answers_all(&["401", "403", "429"]);
            assert_eq!(parameter(operation, "X-Tenant-ID").unwrap()["required"], true, "{what}");
            assert_eq!(parameter(operation, "Idempotency-Key").is_some(), method == "post", "{what}");
        }
        if path.contains('{') {
            answers_all(&["404"]);
        }
        if operation["requestBody"].is_object() {
            answers_all(&["408", "413", "415", "422"]);
        }
        for refused in answers.iter().filter(|s| s.starts_with(['4', '5']) && !path.starts_with("/health")) {
            let content = operation["responses"][*refused]["content"].as_object().unwrap();
            assert!(content.contains_key("application/problem+json"), "{what} {refused}");
        }
        if let Some(limit) = parameter(operation, "limit") {
            assert_eq!(
                (&limit["schema"]["minimum"], &limit["schema"]["maximum"]),
                (&json!(1), &json!(if path.ends_with("/changes") { 500 } else { 200 })),
                "{what}"
            );
        }
    }
    // Each kind of event as it is sent to webhooks, with an example.
    for kind in EventKind::ALL {
        let operation = &api["webhooks"][kind.as_str()]["post"];
        let example = &operation["requestBody"]["content"]["application/json"]["example"];
        let noun = kind.as_str().split('.').next().unwrap();
        assert_eq!(example["type"], kind.as_str(), "{kind}");
        assert!(example["data"][format!("{noun}_id")].is_string(), "{kind}: {example}");
    }
    let schemas = &api["components"]["schemas"];
    let text = api.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap())
    {
        assert!(schemas[reference].is_object(), "{reference} leads nowhere");
    }
    let input = [
        "Login",
        "Refresh",
        "AccountIn",
        "ServerIn",
        "AccountPatch",
        "NewDraft",
        "SendOrder",
        "ActionRequest",
        "MessagePatch",
        "NewMailbox",
        "AddressParts",
    ];
    for name in input {
        assert_eq!(schemas[name]["additionalProperties"], false, "{name}: {}", schemas[name]);
    }
    assert!(
        schemas["AccountView"]["additionalProperties"].is_null(),
        "fields may be added to what is answered"
    );
    let port = &schemas["ServerIn"]["properties"]["port"];
    assert_eq!((&port["minimum"], &port["maximum"]), (&json!(1), &json!(65535)));
    app.finish().await;

    let app = App::start_with(&[("DEFAULT_TENANT_ID", "acme-corp"), ("TENANT_ID_HEADER", "X-Org")]).await;
    let api: Value =
        app.http.get(format!("{}/openapi.json", app.base)).send().await.unwrap().json().await.unwrap();
    assert_eq!(parameter(&api["paths"]["/api/accounts"]["get"], "X-Org").unwrap()["required"], false);
    app.finish().await;
}

/// The settings of schemathesis, with the ids of what is there.
async fn settings(app: &App, tenant: &Tenant) -> String {
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", vec![mail::message("One", "1@x.test", "x")]);
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    let first = async |path: &str| {
        let page = app.get(tenant, &format!("/api/accounts/{account}/{path}")).await.expect(200);
        page["data"][0]["id"].as_str().unwrap().to_owned()
    };
    let (mailbox, message) = (first("mailboxes").await, first("messages").await);
    let draft = app.post(tenant, "/api/compose", &json!({"account_id": account})).await.expect(201);
    include_str!("schemathesis.toml")
        .replace("\"ACCOUNT\"", &json!(account).to_string())
        .replace("\"MAILBOX\"", &json!(mailbox).to_string())
        .replace("\"MESSAGE\"", &json!(message).to_string())
        .replace("\"DRAFT\"", &draft["id"].to_string())
}

/// Thousands of requests made up from the description: nothing is answered that it does not say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_answer_that_is_not_described() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let settings = settings(&app, &tenant).await;
    let (base, token, slug) = (app.base.clone(), tenant.token.clone(), tenant.slug.clone());
    let report = tokio::task::spawn_blocking(move || {
        let program = python::program("schemathesis", "4.32.5");
        let place = std::env::temp_dir().join(format!("schemathesis-{slug}"));
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("schemathesis.toml"), settings).unwrap();
        let mut run = Command::new(program);
        run.args(["run", &format!("{base}/openapi.json")]).current_dir(&place);
        run.args(["-H", &format!("Authorization: Bearer {token}"), "-H", &format!("X-Tenant-ID: {slug}")]);
        run.args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "4",
            "--workers",
            "2",
            "--seed",
            "1",
        ]);
        run.args(["--generation-database", "none", "--continue-on-failure", "--checks", CHECKS]);
        // It would end the session of all the others.
        run.args(["--exclude-path", "/auth/logout"]);
        // A stream, which has no end.
        run.args(["--exclude-path", "/api/events"]);
        let report = run.output().unwrap();
        std::fs::remove_dir_all(&place).unwrap();
        report
    });
    let report = report.await.unwrap();
    let said =
        String::from_utf8_lossy(&report.stdout).into_owned() + &String::from_utf8_lossy(&report.stderr);
    assert!(report.status.success(), "{said}");
    app.finish().await;
}

/// Those that a service can hold whose input means something: a host that does not exist fits its schema and is refused.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method,ignored_auth";
