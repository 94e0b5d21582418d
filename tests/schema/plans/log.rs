//! The plans PostgreSQL really ran, read from its log.
//!
//! `auto_explain` writes every plan of one database into the server's log, with the rows each node met, statements inside
//! functions and foreign key checks included. So the statements are the application's own, whoever words them.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde_json::Value;

/// Makes all later connections to the database write their plans; for a superuser.
pub const SETTINGS: [(&str, &str); 7] = [
    ("session_preload_libraries", "auto_explain"),
    ("auto_explain.log_min_duration", "0"),
    ("auto_explain.log_analyze", "on"),
    ("auto_explain.log_buffers", "on"),
    ("auto_explain.log_timing", "off"),
    ("auto_explain.log_nested_statements", "on"),
    ("auto_explain.log_format", "json"),
];

/// The server's log from some point on.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    read: u64,
}

/// One statement as it was carried out.
#[derive(Debug)]
pub struct Ran {
    /// Its text.
    pub sql: String,
    /// The root of its plan.
    pub plan: Value,
}

impl Log {
    /// From the end of what is there.
    pub fn at_its_end(path: PathBuf) -> Self {
        let read = std::fs::metadata(&path).unwrap().len();
        Self { path, read }
    }

    /// The statements since the last look.
    pub fn plans(&mut self) -> Vec<Ran> {
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        self.read += bytes.len() as u64;
        parse(&String::from_utf8_lossy(&bytes))
    }
}

/// An entry is `… LOG:  duration: 0.1 ms  plan:` and, indented by a tab, the JSON.
fn parse(text: &str) -> Vec<Ran> {
    let mut lines = text.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if !(line.contains(" LOG:  duration: ") && line.ends_with(" plan:")) {
            continue;
        }
        let mut json = String::new();
        while let Some(more) = lines.next_if(|l| l.starts_with('\t')) {
            json.push_str(more);
        }
        let entry: Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e} in {json}"));
        found
            .push(Ran { sql: entry["Query Text"].as_str().unwrap().to_owned(), plan: entry["Plan"].clone() });
    }
    found
}
