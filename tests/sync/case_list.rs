//! The case lists in the module docs of the planner and of the driver name tests; the tests of this folder stand in one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the two tables stand: one for what is decided without a server, one for what needs one.
const LISTS: [&str; 2] = ["crates/mail/src/sync.rs", "crates/core/src/sync/driver.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Rows of the table under `# Cases`: what stands between the bars.
fn rows(text: &str) -> Vec<Vec<String>> {
    let mut lines = text.lines().map_while(|l| l.strip_prefix("//!")).map(str::trim);
    assert!(lines.any(|l| l == "# Cases"), "there is no list of cases");
    let table = lines.skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|')).skip(2);
    table.map(|l| l.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect()).collect()
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Functions of `text` that are tests.
fn tests_of(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        let name = line.split_once("fn ").and_then(|(before, rest)| {
            let before = before.trim();
            (before.is_empty() || before == "async").then(|| rest.split('(').next().unwrap_or_default())
        });
        match name {
            Some(name) if is_test => {
                found.insert(name);
                is_test = false;
            }
            Some(_) => is_test = false,
            None => is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
        }
    }
    found
}

#[test]
fn every_case_has_its_test_and_every_test_its_case() {
    let mut all = Vec::new();
    sources(&root().join("crates"), &mut all);
    sources(&root().join("tests"), &mut all);
    let tests: BTreeSet<&str> = all.iter().flat_map(|(_, text)| tests_of(text)).collect();
    let mut named = BTreeSet::new();
    for list in LISTS {
        let text = fs::read_to_string(root().join(list)).unwrap();
        let rows = rows(&text);
        assert!(rows.len() > 10, "{list}: {} rows", rows.len());
        for row in &rows {
            assert_eq!(row.len(), 3, "{list}: {row:?}");
            let mut of_row = quoted(&row[2]).peekable();
            assert!(of_row.peek().is_some(), "{list}: a case without a test: {row:?}");
            for name in of_row {
                assert!(tests.contains(name), "{list} names a test that does not exist: {name}");
                named.insert(name.to_owned());
            }
        }
    }
    let here = root().join("tests/sync");
    let missing: Vec<&str> = all
        .iter()
        .filter(|(path, _)| path.starts_with(&here) && !path.ends_with("case_list.rs"))
        .flat_map(|(_, text)| tests_of(text))
        .filter(|name| !named.contains(*name))
        .collect();
    assert!(missing.is_empty(), "tests that no list of cases names: {missing:#?}");
}
