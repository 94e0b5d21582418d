use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Security {
    Tls,
    None,
}

#[derive(Debug, Deserialize)]
struct Server {
    host: String,
    port: u16,
    security: Security,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    email: String,
    name: Option<String>,
    imap: Server,
    id: Option<uuid::Uuid>,
    owner: uuid::Uuid,
    #[serde(default)]
    tags: Vec<String>,
}

fn faults(value: &Value) -> Vec<(String, String)> {
    let found = read::<New>(value, false).unwrap_err();
    found.into_iter().map(|f| (f.pointer, f.code)).collect()
}

#[test]
fn a_good_value_is_read() {
    let id = uuid::Uuid::nil();
    let new: New = read(
        &json!({ "email": "a", "imap": { "host": "h", "port": 143, "security": "none" }, "owner": id, "name": null, "tags": ["x"] }),
        false,
    )
    .unwrap();
    assert_eq!((new.email.as_str(), new.imap.host.as_str(), new.imap.port, new.name), ("a", "h", 143, None));
    assert_eq!((new.imap.security, new.id, new.owner, new.tags.len()), (Security::None, None, id, 1));
}

#[test]
fn all_faults_are_found_at_once() {
    let bad = json!({ "imap": { "port": "993", "security": "x", "extra": 1 }, "name": 7, "owner": "no", "tags": ["a", 1], "role": "owner" });
    let expected = [
        ("/email", "missing"),
        ("/imap/extra", "unknown-field"),
        ("/imap/host", "missing"),
        ("/imap/port", "wrong-type"),
        ("/imap/security", "invalid"),
        ("/name", "wrong-type"),
        ("/owner", "invalid"),
        ("/role", "unknown-field"),
        ("/tags/1", "wrong-type"),
    ];
    assert_eq!(faults(&bad), expected.map(|(p, c)| (p.to_owned(), c.to_owned())));
}

#[test]
fn null_ranges_and_whole_bodies_of_the_wrong_kind_are_faults() {
    let got = faults(&json!({ "email": null, "imap": null, "owner": 5 }));
    assert_eq!(
        got,
        [("/email", "null"), ("/imap", "null"), ("/owner", "wrong-type")]
            .map(|(p, c)| (p.to_owned(), c.to_owned()))
    );
    assert_eq!(faults(&json!([])).first().unwrap().0, "");
    let port = json!({ "email": "", "owner": uuid::Uuid::nil(), "imap": { "host": "", "port": 70000, "security": "tls" } });
    assert_eq!(faults(&port), [("/imap/port".to_owned(), "invalid".to_owned())]);
}

#[test]
fn query_text_becomes_numbers_and_booleans() {
    #[derive(Debug, Deserialize)]
    struct Q {
        limit: Option<u32>,
        unread: Option<bool>,
        id: Option<uuid::Uuid>,
    }
    let q: Q = read(&json!({ "limit": "5", "unread": "true" }), true).unwrap();
    assert_eq!((q.limit, q.unread, q.id), (Some(5), Some(true), None));
    let bad = read::<Q>(&json!({ "limit": "-5", "unread": "yes", "id": "x", "more": "" }), true).unwrap_err();
    assert_eq!(
        bad.iter().map(|f| f.pointer.as_str()).collect::<Vec<_>>(),
        ["/id", "/limit", "/more", "/unread"]
    );
}

#[test]
fn an_array_is_no_object_at_any_depth_and_an_object_no_array() {
    #[derive(Debug, Deserialize)]
    struct Outer {
        #[expect(dead_code, reason = "only whether it is read counts")]
        inner: Option<Inner>,
        #[expect(dead_code, reason = "only whether it is read counts")]
        list: Option<Vec<Inner>>,
        #[expect(dead_code, reason = "only whether it is read counts")]
        map: Option<BTreeMap<String, Inner>>,
    }
    #[derive(Debug, Deserialize)]
    struct Inner {
        #[expect(dead_code, reason = "only whether it is read counts")]
        host: Option<String>,
    }
    for (value, pointer) in [
        (json!([]), ""),
        (json!([null, null, null]), ""),
        (json!([["h"], [], {}]), ""),
        (json!({ "inner": ["h"] }), "/inner"),
        (json!({ "inner": [] }), "/inner"),
        (json!({ "list": [{}, ["h"]] }), "/list/1"),
        (json!({ "list": { "0": {} } }), "/list"),
        (json!({ "map": [["a", {}]] }), "/map"),
        (json!({ "map": { "a": [] } }), "/map/a"),
    ] {
        let faults = read::<Outer>(&value, false).unwrap_err();
        let found: Vec<_> = faults.iter().map(|f| (f.pointer.as_str(), f.code.as_str())).collect();
        assert_eq!(found, [(pointer, "wrong-type")], "{value}");
    }
}

#[test]
fn no_fault_speaks_of_the_types_in_the_code() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only whether it is read counts")]
    struct Order {
        text: Option<String>,
        small: Option<u16>,
        large: Option<i64>,
        ratio: Option<f64>,
        flag: Option<bool>,
        kind: Option<Security>,
        id: Option<uuid::Uuid>,
        at: Option<chrono::DateTime<chrono::Utc>>,
        list: Option<Vec<u32>>,
        nested: Option<Box<Order>>,
        map: Option<BTreeMap<String, i8>>,
    }
    let values = [
        json!(true),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(70_000),
        json!("x"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({ "a": [] }),
        json!({ "a": 1000 }),
    ];
    let names = ["text", "small", "large", "ratio", "flag", "kind", "id", "at", "list", "nested", "map"];
    for value in values
        .iter()
        .filter(|v| !v.is_object())
        .cloned()
        .chain(names.iter().flat_map(|name| values.iter().map(move |value| json!({ *name: value }))))
    {
        for fault in read::<Order>(&value, false).err().into_iter().flatten() {
            let words: Vec<&str> = fault.detail.split(|c: char| !c.is_alphanumeric()).collect();
            let ours = [
                "struct", "enum", "tuple", "variant", "Order", "Security", "u16", "i64", "f64", "u32", "i8",
                "seq", "map", "sequence",
            ];
            assert!(!words.iter().any(|word| ours.contains(word)), "{value}: {}", fault.detail);
            assert!(fault.detail.contains("expected") || words.len() > 1, "{value}: {}", fault.detail);
        }
    }
    let port = read::<Order>(&json!({ "small": 70_000 }), false).unwrap_err();
    assert_eq!(port[0].detail, "a whole number from 0 to 65535 is expected");
}
