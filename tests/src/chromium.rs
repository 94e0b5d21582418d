//! A headless Chromium, driven by the Chrome DevTools Protocol over a pair of pipes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use emailclient_core::platform::id::new_uuid;
use serde_json::{Value, json};

/// How long the browser may take for one command.
const PATIENCE: Duration = Duration::from_secs(60);
/// A browser of its own: no network but loopback, no first-run dialogues, nothing fetched in the background.
const ARGUMENTS: [&str; 14] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-breakpad",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
];

/// A browser with one open page.
pub struct Chromium {
    process: Child,
    commands: ChildStdin,
    answers: Receiver<Value>,
    profile: PathBuf,
    session: Option<String>,
    number: u64,
    /// What the page complained of: errors of scripts, loads that were refused.
    pub complaints: Vec<String>,
    /// Every address that was asked for, since the network is watched.
    pub requests: Vec<String>,
    /// How many pages were loaded.
    pub loads: usize,
}

impl Chromium {
    /// Starts the browser and opens an empty page.
    ///
    /// # Panics
    /// When Debian's package `chromium` is not installed, or does not start.
    #[must_use]
    pub fn start() -> Self {
        let program = "/usr/bin/chromium";
        assert!(std::path::Path::new(program).exists(), "{program} is missing: make deps installs it");
        let profile = std::env::temp_dir().join(format!("chromium-{}", new_uuid().simple()));
        std::fs::create_dir(&profile).unwrap();
        // The protocol's pipes are the descriptors 3 and 4; the shell puts ours there.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", program])
            .args(ARGUMENTS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .env("HOME", &profile)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let mut read = BufReader::new(process.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while read.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                let Ok(answer) = serde_json::from_slice(&message) else { return };
                if sender.send(answer).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            process,
            commands,
            answers,
            profile,
            session: None,
            number: 0,
            complaints: Vec::new(),
            requests: Vec::new(),
            loads: 0,
        };
        let page = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, &json!({}));
        }
        browser
    }

    /// Runs one command and returns its result; what the page says meanwhile is collected.
    ///
    /// # Panics
    /// When the browser refuses or does not answer within a minute.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.answers.recv_timeout(left).unwrap_or_else(|e| panic!("{method}: {e}"));
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.hear(&answer);
        }
    }

    /// Hears what the browser says until this holds.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub fn hear_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.answers.recv_timeout(left).unwrap_or_else(|e| panic!("{what}: {e}"));
            self.hear(&event);
        }
    }

    fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.complaints.push(parameters["exceptionDetails"].to_string()),
            "Log.entryAdded" if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"].to_string());
            }
            "Audits.issueAdded" => self.complaints.push(parameters["issue"].to_string()),
            "Network.requestWillBeSent" => {
                self.requests.push(parameters["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            "Page.loadEventFired" => self.loads += 1,
            _ => {}
        }
    }

    /// Evaluates an expression in the page, a promise to its end.
    ///
    /// # Panics
    /// With what the page threw.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", &asked);
        assert!(result["exceptionDetails"].is_null(), "{}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
