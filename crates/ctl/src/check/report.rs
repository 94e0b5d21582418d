//! What was found, as lines for people and as JSON for machines.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use emailclient_core::platform::config::Source;
use serde::Serialize;

use crate::command::Color;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The services start, and somebody should look at this.
    Warning,
    /// To be mended.
    Failed,
    /// Could not be looked at, because of a fault that another line names.
    Skipped,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen: the setting and its value, secrets masked.
    pub detail: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// All lines, in the order of the looks.
#[derive(Debug, Default)]
pub struct Report(Vec<Finding>);

#[derive(Serialize)]
struct Whole<'a> {
    status: Verdict,
    version: &'static str,
    checks: &'a [Finding],
}

impl Report {
    /// It is as it should be.
    pub fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.0.push(Finding { check, verdict: Verdict::Ok, detail: detail.into(), mend: None });
    }

    /// Somebody should look at it.
    pub fn warn(&mut self, check: &'static str, detail: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Finding {
            check,
            verdict: Verdict::Warning,
            detail: detail.into(),
            mend: Some(mend.into()),
        });
    }

    /// It is wrong. What follows the first `; ` of `words` says how to mend it, as all our messages do.
    pub fn fail(&mut self, check: &'static str, words: impl Into<String>) {
        let words = words.into();
        let (detail, mend) = match words.split_once("; ") {
            Some((detail, mend)) => (detail.to_owned(), Some(mend.to_owned())),
            None => (words, None),
        };
        self.0.push(Finding { check, verdict: Verdict::Failed, detail, mend });
    }

    /// It could not be looked at.
    pub fn skip(&mut self, check: &'static str, why: impl Into<String>) {
        self.0.push(Finding { check, verdict: Verdict::Skipped, detail: why.into(), mend: None });
    }

    /// The lines so far.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }

    /// The worst there is: `Failed`, `Warning` or `Ok`.
    #[must_use]
    pub fn status(&self) -> Verdict {
        let any = |verdict| self.0.iter().any(|f| f.verdict == verdict);
        if any(Verdict::Failed) {
            Verdict::Failed
        } else if any(Verdict::Warning) {
            Verdict::Warning
        } else {
            Verdict::Ok
        }
    }

    /// One JSON object: `status`, `version`, `checks`.
    ///
    /// # Errors
    /// Never in practice: all of it is text.
    pub fn json(&self) -> serde_json::Result<String> {
        let version = env!("CARGO_PKG_VERSION");
        serde_json::to_string_pretty(&Whole { status: self.status(), version, checks: &self.0 })
    }

    /// A line for each finding, the way out beneath it, and a sum.
    #[must_use]
    pub fn text(&self, coloured: bool) -> String {
        let mut out = String::new();
        let paint = |colour: &str, word: &str| {
            if coloured { format!("\x1b[{colour}m{word:<8}\x1b[0m") } else { format!("{word:<8}") }
        };
        for finding in &self.0 {
            let word = match finding.verdict {
                Verdict::Ok => paint("32", "ok"),
                Verdict::Warning => paint("33", "warning"),
                Verdict::Failed => paint("1;31", "FAILED"),
                Verdict::Skipped => paint("2", "skipped"),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{word} {:<20} {}", finding.check, printable(&finding.detail));
            if let Some(mend) = &finding.mend {
                let _ = writeln!(out, "{:29} → {}", "", printable(mend));
            }
        }
        let count = |verdict| self.0.iter().filter(|f| f.verdict == verdict).count();
        let (failed, warned) = (count(Verdict::Failed), count(Verdict::Warning));
        let _ = writeln!(out, "{} checks, {failed} failed, {warned} with a warning", self.0.len());
        out
    }
}

/// Words of servers may hold line breaks or escape sequences; on a terminal they must not.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether to colour what goes to standard output (<https://no-color.org>).
#[must_use]
pub fn coloured(color: Color, source: &Source) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => source.get("NO_COLOR").is_none() && std::io::stdout().is_terminal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_its_way_out_on_a_line_of_its_own_and_is_red_on_request() {
        let mut report = Report::default();
        report.ok("settings", "fine");
        report.fail("Redis", "REDIS_URL: gone\x1b[2J; start it");
        let plain = report.text(false);
        assert!(!plain.contains('\x1b'), "{plain}");
        assert!(plain.contains("FAILED   Redis") && plain.contains("→ start it"), "{plain}");
        assert!(plain.ends_with("2 checks, 1 failed, 0 with a warning\n"), "{plain}");
        assert!(report.text(true).contains("\x1b[1;31mFAILED"));
        assert_eq!(report.status(), Verdict::Failed);
    }
}
