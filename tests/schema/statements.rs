//! The SQL in the code against the schema: every statement that stands there as text is prepared on a migrated database, so
//! that a table, a column or a type that is not there fails here and not in a handler that few tests reach.
//!
//! Macros that check while compiling (`sqlx::query!`) were weighed: they need a database or a kept cache at every build, on the
//! path that all crates wait for. What is put together of pieces is prepared by the tests that run it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqlSafeStr as _};
use tests::database::Database;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The string literal at the start of `text`, without its quotes and escapes; `None`: there is none.
fn literal(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut read = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(read),
            '\\' => match chars.next()? {
                'n' => read.push('\n'),
                // A line that goes on in the next.
                '\n' => {
                    let rest = chars.as_str().trim_start();
                    chars = rest.chars();
                }
                plain => read.push(plain),
            },
            plain => read.push(plain),
        }
    }
}

/// The argument of each `sqlx::query…(` in the code: the statement, if it stands there or in a constant of the file.
fn statements(text: &str) -> Vec<(usize, Option<String>)> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut constants = BTreeMap::new();
    for (at, _) in text.match_indices("const ") {
        let rest = &text[at + 6..];
        let Some((name, value)) = rest.split_once(": &str =") else { continue };
        if !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
            constants.insert(name.to_owned(), literal(value.trim_start()));
        }
    }
    let mut found = Vec::new();
    for (at, word) in text.match_indices("sqlx::query") {
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + word.len()..];
        let Some(open) = rest.find('(') else { continue };
        let called = &rest[..open];
        // A call, with or without its types.
        if !(called.is_empty() || called.starts_with('_') || called.starts_with("::<"))
            || called.contains('\n')
        {
            continue;
        }
        let argument = rest[open + 1..].trim_start();
        let name: String = argument.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        let whole = argument[name.len()..].starts_with([')', ',']);
        let statement =
            literal(argument).or_else(|| constants.get(&name).filter(|_| whole).cloned().flatten());
        found.push((line, statement));
    }
    found
}

#[tokio::test]
async fn every_statement_in_the_code_fits_the_schema() {
    let database = Database::create().await;
    let mut conn = sqlx::PgConnection::connect(&database.url("emailclient_app")).await.unwrap();
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/core/src"), &mut files);
    let (mut prepared, mut pieces, mut wrong) = (0, 0, Vec::new());
    for path in files {
        for (line, statement) in statements(&fs::read_to_string(&path).unwrap()) {
            let Some(statement) = statement else {
                pieces += 1;
                continue;
            };
            prepared += 1;
            if let Err(error) = conn.prepare(AssertSqlSafe(statement.clone()).into_sql_str()).await {
                wrong.push(format!("{}:{line}: {error}\n{statement}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(
        prepared > 250 && pieces < prepared / 4,
        "{prepared} statements were prepared, {pieces} are put together"
    );
    drop(conn);
    database.drop_it().await;
}

/// A column that is not in the row, or has another type, is an error that the caller hears of; `Row::get` panics over it.
#[test]
fn no_column_is_read_in_a_way_that_panics() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/core/src"), &mut files);
    let mut rows = 0;
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let reads_rows = text.contains("Row as _") || text.contains("PgRow");
        rows += usize::from(reads_rows);
        let panics = |line: &&str| [".get(\"", ".get::<"].iter().any(|call| line.contains(call));
        let found = text.lines().find(panics).filter(|_| reads_rows);
        assert_eq!(found, None, "{}", path.display());
    }
    assert!(rows > 20, "only {rows} files read rows");
}

#[tokio::test]
async fn a_statement_that_does_not_fit_is_found() {
    let text = r#"
        const ALL: &str = "SELECT nothing_like_it \
            FROM messages";
        fn f() {
            sqlx::query(ALL).bind(1);
            sqlx::query_scalar::<_, i64>("SELECT count(*) FROM no_such_table");
            sqlx::query_as(
                "SELECT id FROM messages WHERE tenant_id = $1 AND subject = $2::int",
            );
            sqlx::query("SELECT 'a\"b'");
            sqlx::query(AssertSqlSafe(format!("SELECT {x}")));
        }
    "#;
    let found = statements(text);
    let read: Vec<Option<&str>> = found.iter().map(|(_, s)| s.as_deref()).collect();
    assert_eq!(
        read,
        [
            Some("SELECT nothing_like_it FROM messages"),
            Some("SELECT count(*) FROM no_such_table"),
            Some("SELECT id FROM messages WHERE tenant_id = $1 AND subject = $2::int"),
            Some("SELECT 'a\"b'"),
            None,
        ]
    );
    let database = Database::create().await;
    let mut conn = sqlx::PgConnection::connect(&database.url("emailclient_app")).await.unwrap();
    let mut refused = 0;
    for statement in read.into_iter().flatten() {
        refused +=
            usize::from(conn.prepare(AssertSqlSafe(statement.to_owned()).into_sql_str()).await.is_err());
    }
    assert_eq!(refused, 3);
    drop(conn);
    database.drop_it().await;
}
