//! The shape of the code: which crate and which group may know which. Read from the sources: an import that runs back fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates of ours that each crate may know; `emailclient`, `devstack` and `tests` know what they run.
const CRATES: [(&str, &[&str]); 7] = [
    ("mail", &[]),
    ("wire", &["mail"]),
    ("core", &["mail", "wire"]),
    ("api", &["mail", "wire", "emailclient-core"]),
    ("worker", &["mail", "wire", "emailclient-core"]),
    ("scheduler", &["mail", "wire", "emailclient-core"]),
    ("ctl", &["mail", "wire", "emailclient-core"]),
];
/// The groups of `core`; each may know those before it in this list.
const GROUPS: [&str; 5] = ["platform", "queue", "access", "domain", "sync"];
/// Crates that only this one of ours may use.
const HOMES: [(&str, &str); 6] = [
    ("lettre", "wire"),
    ("hickory-resolver", "wire"),
    ("sqlx", "core"),
    ("axum", "api"),
    ("apalis-core", "worker"),
    ("async-imap", "wire"),
];
/// Words that open a connection to another host, and in which crates they may stand: `emailctl healthcheck` asks its own.
const DIALS: [(&str, &[&str]); 3] =
    [("TcpStream::connect", &["wire", "ctl"]), ("TcpSocket::new", &["wire"]), ("UdpSocket::bind", &["wire"])];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn files(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The code without comments and without what is compiled for tests only.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// First parts of the paths under `crate::` in the code.
fn imports(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        // Several in braces.
        let list = rest.strip_prefix('{').map_or(rest, |inner| inner.split(';').next().unwrap_or_default());
        let items: Vec<&str> = if rest.starts_with('{') { top_level(list) } else { vec![list] };
        for item in items {
            let word: String = item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.insert(word);
        }
    }
    found
}

/// The parts of `a, b::{c, d}, e` between the outer commas.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_i32, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts
}

/// The group of a file of `core`, and those it must not know but does.
fn breaches(group: &str, text: &str) -> Vec<String> {
    let rank = |name: &str| GROUPS.iter().position(|g| *g == name);
    let own = rank(group).unwrap();
    imports(text).into_iter().filter(|name| rank(name).is_some_and(|other| other > own)).collect()
}

/// Modules that know each other in a circle.
fn circles(knows: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let reaches = |from: &String| {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![from]);
        while let Some(next) = waiting.pop() {
            for other in knows.get(next).into_iter().flatten() {
                if seen.insert(other) {
                    waiting.push(other);
                }
            }
        }
        seen.contains(from)
    };
    knows.keys().filter(|m| reaches(m)).cloned().collect()
}

fn dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.split("[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap();
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    section.lines().map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn groups_of_the_core_know_only_those_below_them() {
    let src = root().join("crates/core/src");
    let mut wrong = Vec::new();
    for group in GROUPS {
        let mut all = vec![];
        files(&src.join(group), &mut all);
        let own = src.join(format!("{group}.rs"));
        all.push((own.clone(), fs::read_to_string(own).unwrap()));
        assert!(all.len() > 3, "{group} has {} files", all.len());
        for (path, text) in all {
            for other in breaches(group, &text) {
                wrong.push(format!("{} knows {other}", path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    // No file stands beside the groups.
    let beside: BTreeSet<String> = fs::read_dir(&src)
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "lib" && !GROUPS.contains(&name.as_str()))
        .collect();
    assert_eq!(beside, BTreeSet::new());
}

#[test]
fn crates_know_only_those_below_them_and_each_library_has_one_home() {
    for (name, may) in CRATES {
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let knows = dependencies(&manifest);
        assert!(!knows.is_empty(), "{name}");
        let ours =
            |d: &&String| *d == "mail" || *d == "wire" || d.starts_with("emailclient-") || *d == "devstack";
        let above: Vec<&String> = knows.iter().filter(ours).filter(|d| !may.contains(&d.as_str())).collect();
        assert_eq!(above, Vec::<&String>::new(), "{name}");
        for (library, home) in HOMES {
            assert!(!knows.contains(library) || name == home, "{library} is used by {name}");
        }
    }
}

#[test]
fn connections_to_other_hosts_are_opened_in_one_crate() {
    for (name, _) in CRATES {
        let mut all = Vec::new();
        files(&root().join("crates").join(name).join("src"), &mut all);
        for (path, text) in all {
            let code = code(&text);
            for (word, may) in DIALS {
                assert!(!code.contains(word) || may.contains(&name), "{word} stands in {}", path.display());
            }
        }
    }
}

#[test]
fn modules_of_the_api_know_each_other_in_no_circle() {
    let src = root().join("crates/api/src");
    let mut knows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut all = Vec::new();
    files(&src, &mut all);
    for (path, text) in all {
        let first = path.strip_prefix(&src).unwrap().iter().next().unwrap().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        if module != "lib" && module != "main" {
            let mut others = imports(&text);
            others.remove(&module);
            knows.entry(module).or_default().extend(others);
        }
    }
    assert!(knows.len() > 20, "{} modules", knows.len());
    assert_eq!(circles(&knows), BTreeSet::new());
}

#[test]
fn a_breach_is_seen() {
    assert_eq!(breaches("queue", "use crate::domain::account;"), ["domain"]);
    assert_eq!(breaches("platform", "fn f() { crate::queue::job::run() }"), ["queue"]);
    assert_eq!(breaches("queue", "use crate::{\n    platform::id,\n    sync::{run, due},\n};"), ["sync"]);
    assert_eq!(breaches("sync", "use crate::{platform::id, domain::event};"), Vec::<String>::new());
    let in_tests = "// use crate::sync::run;\n#[cfg(test)]\nmod tests {\n    use crate::sync::run;\n}";
    assert_eq!(breaches("queue", in_tests), Vec::<String>::new());
    let knows = |pairs: &[(&str, &str)]| {
        let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (a, b) in pairs {
            map.entry((*a).to_owned()).or_default().insert((*b).to_owned());
        }
        map
    };
    assert_eq!(circles(&knows(&[("a", "b"), ("b", "c")])), BTreeSet::new());
    assert_eq!(circles(&knows(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")])).len(), 3);
}
