//! All that waits is done, and then everything is looked at.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use tests::oracle;
use uuid::Uuid;

use super::judge::{BOXES, HERE, Judge, Places, READ, STAR, say};
use super::{Letter, NAMES, Play, SETTINGS};
use crate::case::numbered;

/// With fewer messages another client brings more.
const FEW: usize = 4;

impl Play {
    /// The line is well, nobody does anything any more. `whole`: everything agrees, and each change was told once.
    pub async fn rest(&mut self, whole: bool) {
        if self.paused {
            self.turn().await;
        }
        self.proxy.no_cuts();
        self.proxy.hang_up();
        if self.worker.take().is_some() {
            crate::killed::let_time_pass(&self.case).await;
            self.worker = Some(self.case.process(&SETTINGS));
        }
        crate::faults::settle(&self.case).await;
        let lines = self.diary().await;
        self.judge(&lines);
        let mut truth = self.look().await;
        self.case.settled().await;
        if whole || self.dice.below(3) == 0 {
            self.ledger.balances(&self.case.app).await;
        }
        self.count("rests");
        if self.bring_more(truth.len()).await {
            truth = self.truth().await;
        }
        self.learn(truth).await;
    }

    /// Where each message is on the server. What is only marked as deleted counts as gone.
    pub async fn truth(&mut self) -> BTreeMap<u32, Places> {
        let hashes: BTreeMap<String, u32> =
            (1..=self.made).map(|n| (hex::encode(Sha256::digest(numbered(n))), n)).collect();
        let mut found: BTreeMap<u32, Places> = BTreeMap::new();
        for placed in oracle::server(&self.case.app, &self.case.user).await.placed {
            let has = |flag: &str| placed.flags.iter().any(|f| f == flag);
            let Some(at) = self.names.iter().position(|name| *name == placed.mailbox) else { continue };
            if has("\\Deleted") {
                continue;
            }
            let bit = |flag: &str, bit: u8| if has(flag) { bit } else { 0 };
            let places = found.entry(hashes[&placed.hash]).or_default();
            assert_eq!(places[at], 0, "M{} is twice in {}", hashes[&placed.hash], NAMES[at]);
            places[at] = HERE | bit("\\Flagged", STAR) | bit("\\Seen", READ);
        }
        found
    }

    async fn look(&mut self) -> BTreeMap<u32, Places> {
        let truth = self.truth().await;
        for (n, letter) in &self.letters {
            let there = truth.get(n).copied().unwrap_or([0; BOXES]);
            let judge = &letter.judge;
            let nowhere = there == [0; BOXES];
            // What was asked of a message that is nowhere sleeps.
            assert!(nowhere || judge.open() == 0, "M{n} has edits that are not over");
            let gone = if nowhere { ", gone from the server," } else { "" };
            assert!(judge.allows(&there), "M{n}{gone} is in {}, and may be in {}", say(&there), judge.told());
        }
        let overrun = self.letters.values().filter(|l| l.judge.overrun).count();
        *self.counts.entry("messages judged").or_default() += self.letters.len() - overrun;
        *self.counts.entry("messages not judged").or_default() += overrun;
        truth
    }

    /// From here on each message is where the server has it now, under the id it had.
    pub async fn learn(&mut self, truth: BTreeMap<u32, Places>) {
        self.diary().await;
        let rows = sqlx::query("SELECT id::text AS id, subject FROM messages WHERE gone_at IS NULL")
            .fetch_all(&mut self.conn)
            .await
            .unwrap();
        let ids: BTreeMap<String, String> = rows.iter().map(|r| (r.get("subject"), r.get("id"))).collect();
        for row in &rows {
            let (id, subject): (String, String) = (row.get("id"), row.get("subject"));
            let other = &ids[&subject];
            if *other != id {
                let app = &self.case.app;
                let of = async |id: &str| oracle::history(app, Uuid::parse_str(id).unwrap()).await;
                panic!("{subject} has two ids: {id} {:#?} and {other} {:#?}", of(&id).await, of(other).await);
            }
        }
        let before = std::mem::take(&mut self.letters);
        for (n, letter) in before.iter().filter(|(n, _)| truth.contains_key(n)) {
            assert_eq!(letter.id, ids[&format!("M{n}")], "M{n} has another id");
        }
        self.steps.lines.clear();
        self.altered = [false; BOXES];
        for (n, places) in truth {
            let id = ids[&format!("M{n}")].clone();
            self.note(format!("at rest: M{n} {}", say(&places)));
            let judge = Judge::new(places, self.mode.has_move);
            self.letters.insert(n, Letter { id, judge, asks: Vec::new() });
        }
    }

    async fn bring_more(&mut self, live: usize) -> bool {
        if self.client.ended {
            self.client.again().await;
        }
        for _ in live..FEW {
            self.made += 1;
            let at = self.dice.below(BOXES - 1);
            // Dovecot sometimes ends the session over it (2.3.19): then there is one more message, or there is none.
            let done = self.client.try_append(&self.names[at], "", None, &numbered(self.made)).await;
            if !done.is_ok() {
                self.client.again().await;
            }
        }
        if live < FEW {
            self.case.sync().await;
        }
        live < FEW
    }
}
