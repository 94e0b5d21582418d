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
const GROUPS: [&str; 9] =
    ["platform", "queue", "access", "domain", "view", "connect", "sync", "events", "jobs"];
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

/// What of `wire` makes a session with a mail server, and the one module that may name it.
const SESSIONS: [&str; 4] = ["connect", "diagnose", "Dialler", "SmtpServer"];
const SESSIONS_HOME: &str = "crates/core/src/connect";

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

/// The path of the module that a file below `src` is.
fn module(src: &Path, file: &Path) -> Vec<String> {
    let below = file.strip_prefix(src).unwrap().with_extension("");
    below.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
}

/// The first two parts of the paths of this crate that a module names, by `crate::` or by `super::`.
fn imports<'a>(module: &'a [String], text: &str) -> BTreeSet<Vec<String>> {
    let code = code(text);
    let mut found = BTreeSet::new();
    for (at, root) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let (before, mut rest) = (&code[..at], &code[at + root.len()..]);
        if before.ends_with("super::") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let above = |base: &'a [String]| &base[..base.len().saturating_sub(1)];
        let mut base = if root == "super::" { above(module) } else { &[] };
        while let Some(next) = rest.strip_prefix("super::") {
            (base, rest) = (above(base), next);
        }
        for path in paths(rest) {
            let path = path.split("::").map(str::to_owned);
            found.insert(base.iter().cloned().chain(path).take(2).collect());
        }
    }
    found
}

/// The paths that begin where `text` does, lists in braces taken apart.
fn paths(text: &str) -> Vec<String> {
    if let Some(inner) = text.strip_prefix('{') {
        let mut depth = 1;
        let end = inner.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let list = &inner[..end.unwrap_or(inner.len())];
        return top_level(list).into_iter().flat_map(|item| paths(item.trim())).collect();
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    match rest.strip_prefix("::") {
        Some(below) => paths(below).into_iter().map(|path| format!("{word}::{path}")).collect(),
        None => vec![word.to_owned()],
    }
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

/// The groups of `core` that a module must not know but does.
fn breaches(module: &[String], text: &str) -> BTreeSet<String> {
    let rank = |name: &String| GROUPS.iter().position(|g| g == name);
    let own = rank(&module[0]).unwrap();
    let known = imports(module, text).into_iter().filter_map(|path| path.into_iter().next());
    known.filter(|name| rank(name).is_some_and(|other| other > own)).collect()
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
            for other in breaches(&module(&src, &path), &text) {
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

/// What of [`SESSIONS`] the code names, by whatever path it takes it from `wire`; a protocol that is imported as a whole could
/// name all of it.
fn sessions(text: &str) -> Vec<String> {
    let code = code(text);
    let named = code.split("wire::").skip(1).flat_map(paths);
    let is_way = |path: &String| match path.split_once("::") {
        Some(("imap" | "smtp", below)) => below == "self" || SESSIONS.contains(&below),
        None => path == "imap" || path == "smtp",
        Some(_) => false,
    };
    named.filter(is_way).collect()
}

#[test]
fn sessions_with_mail_servers_are_made_in_one_module() {
    let mut homes = 0;
    for (name, _) in CRATES.iter().filter(|(name, _)| *name != "wire") {
        let mut all = Vec::new();
        files(&root().join("crates").join(name).join("src"), &mut all);
        for (path, text) in all {
            let found = sessions(&text);
            if path.strip_prefix(root()).unwrap().starts_with(SESSIONS_HOME) {
                homes += usize::from(!found.is_empty());
            } else {
                assert_eq!(found, Vec::<String>::new(), "{}", path.display());
            }
        }
    }
    assert_eq!(homes, 2, "files in {SESSIONS_HOME} that make sessions: one a protocol");
}

/// Which modules right below `src` (or below the group of this name) know which others there.
fn acquaintances(src: &Path, group: Option<&str>) -> BTreeMap<String, BTreeSet<String>> {
    let mut knows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut all = Vec::new();
    files(&group.map_or(src.to_path_buf(), |group| src.join(group)), &mut all);
    let depth = usize::from(group.is_some());
    for (path, text) in all {
        let module = module(src, &path);
        if ["lib", "main"].contains(&module[0].as_str()) {
            continue;
        }
        let others = imports(&module, &text).into_iter().filter(|path| group.is_none_or(|g| path[0] == g));
        let mut others: BTreeSet<String> = others.filter_map(|path| path.get(depth).cloned()).collect();
        others.remove(&module[depth]);
        knows.entry(module[depth].clone()).or_default().extend(others);
    }
    knows
}

#[test]
fn modules_know_each_other_in_no_circle() {
    let api = acquaintances(&root().join("crates/api/src"), None);
    assert!(api.len() > 20, "{} modules", api.len());
    assert_eq!(circles(&api), BTreeSet::new());
    // Messages, threads, mailboxes and edits are one thing seen from four sides.
    for group in GROUPS.into_iter().filter(|group| *group != "domain") {
        let knows = acquaintances(&root().join("crates/core/src"), Some(group));
        assert!(knows.len() > 2, "{group}: {} modules", knows.len());
        assert_eq!(circles(&knows), BTreeSet::new(), "{group}");
    }
}

/// Routes that begin transactions themselves: before there is a caller, in pieces for a caller that was let in, or for a person whom
/// a caller has sent away.
const BEGIN_THEMSELVES: [&str; 8] = [
    "auth/login.rs",
    "auth/refresh.rs",
    "connect/logo.rs",
    "connect/person.rs",
    "messages/source.rs",
    "oauth/arrival.rs",
    "oauth/callback.rs",
    "oauth/device.rs",
];

#[test]
fn routes_reach_rows_through_their_caller() {
    let routes = root().join("crates/api/src/routes");
    let mut all = Vec::new();
    files(&routes, &mut all);
    let mut found = BTreeSet::new();
    for (path, text) in all {
        let code = code(&text);
        if ["db.tenant(", "db.within(", "db.snapshot(", "db.relaxed(", "db.system("]
            .iter()
            .any(|b| code.contains(b))
        {
            found.insert(path.strip_prefix(&routes).unwrap().display().to_string());
        }
    }
    assert_eq!(found, BEGIN_THEMSELVES.map(str::to_owned).into());
}

#[test]
fn a_breach_is_seen() {
    let seen = |module: &str, text: &str| {
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        breaches(&module, text).into_iter().collect::<Vec<_>>()
    };
    let none = Vec::<String>::new();
    assert_eq!(seen("queue", "use crate::domain::account;"), ["domain"]);
    assert_eq!(seen("platform", "fn f() { crate::queue::job::run() }"), ["queue"]);
    assert_eq!(seen("queue", "use crate::{\n    platform::id,\n    sync::{run, due},\n};"), ["sync"]);
    assert_eq!(seen("sync", "use crate::{platform::id, domain::event};"), none);
    assert_eq!(seen("queue", "use super::domain::account;"), ["domain"]);
    assert_eq!(seen("queue::job", "use super::super::{platform::id, domain::event};"), ["domain"]);
    assert_eq!(seen("queue::job", "fn f() { super::super::sync::due::lead() }"), ["sync"]);
    assert_eq!(seen("queue::job::queue", "use super::super::domain;"), none);
    assert_eq!(sessions("use wire::imap::{Session, connect};"), ["imap::connect"]);
    assert_eq!(sessions("use wire::smtp::{self, SmtpError};"), ["smtp::self"]);
    assert_eq!(sessions("use wire::imap;\nuse wire::secret::Secret;"), ["imap"]);
    assert_eq!(sessions("use wire::{secret::Secret, smtp};"), ["smtp"]);
    assert_eq!(sessions("use wire::{imap::{Session, connect}, tls};"), ["imap::connect"]);
    assert_eq!(sessions("let c = wire::smtp::connect(&d, &s).await?;"), ["smtp::connect"]);
    assert_eq!(sessions("use wire::imap as i;"), ["imap"]);
    assert_eq!(
        sessions("use wire::imap::{\n    ImapError,\n    Session,\n};\nuse wire::diagnose as walk;"),
        [""; 0]
    );
    assert_eq!(sessions("wire::smtp::reply_text(reply)"), [""; 0]);
    let in_tests = "// use crate::sync::run;\n#[cfg(test)]\nmod tests {\n    use crate::sync::run;\n}";
    assert_eq!(seen("queue", in_tests), none);
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
