//! What our user asks for, through the REST API.

use serde_json::{Value, json};
use tests::app::Answer;
use uuid::Uuid;

use super::diary::Line;
use super::judge::{Asked, READ, STAR, TRASH};
use super::{BOXES, NAMES, Play};

/// Flags as the product's rows have them.
const SEEN_BIT: i32 = 1;
const FLAGGED_BIT: i32 = 4;

fn bits(flags: i32) -> u8 {
    let bit = |of: i32, is: u8| if flags & of == 0 { 0 } else { is };
    bit(FLAGGED_BIT, STAR) | bit(SEEN_BIT, READ)
}

impl Play {
    /// One to four things, of one message or of several at once.
    pub async fn user_acts(&mut self) {
        if self.dice.below(8) == 0 {
            return self.bulk().await;
        }
        let letters: Vec<u32> = self.letters.keys().copied().collect();
        let Some(n) = self.dice.pick(&letters).copied() else { return };
        for _ in 0..[1, 1, 1, 2, 3, 4][self.dice.below(6)] {
            self.ask_one(n).await;
        }
    }

    /// Where our user sees a message.
    async fn shown(&mut self, n: u32) -> Vec<usize> {
        let id = Uuid::parse_str(&self.letters[&n].id).unwrap();
        let found: Vec<Uuid> = sqlx::query_scalar(
            "SELECT mailbox_id FROM message_mailboxes WHERE message_id = $1 AND hidden_at IS NULL",
        )
        .bind(id)
        .fetch_all(&mut self.conn)
        .await
        .unwrap();
        found.iter().filter_map(|id| self.number_of(Some(&id.to_string()))).collect()
    }

    async fn ask_one(&mut self, n: u32) {
        let shown = self.shown(n).await;
        let Some(at) = self.dice.pick(&shown).copied() else { return };
        let from = if self.dice.below(2) == 0 { Some(at) } else { None };
        let to = self.dice.below(BOXES);
        let free = self.is_free(n, to, &shown);
        let trash = self.is_free(n, TRASH, &shown);
        let removal = self.dice.below(4) == 0;
        match self.dice.below(12) {
            0..6 => self.flag(n, from).await,
            6..8 if free => self.copy(n, to).await,
            8..10 if free => self.moves(n, from, to).await,
            10 if trash => self.delete(n, from).await,
            11 if removal => self.delete_for_good(n).await,
            _ => {}
        }
    }

    /// A place that our user does not know of would get a second one beside it.
    fn is_free(&self, n: u32, to: usize, shown: &[usize]) -> bool {
        shown.contains(&to) || !self.letters[&n].judge.is_fresh_in(to)
    }

    async fn flag(&mut self, n: u32, scope: Option<usize>) {
        let on = self.dice.below(2) == 0;
        let (bit, mut body) = match self.dice.below(3) {
            0 => (READ, json!({"unread": !on})),
            _ => (STAR, json!({"starred": on})),
        };
        if let Some(at) = scope {
            body["mailbox_id"] = json!(self.boxes[at]);
        }
        let (set, clear) = if on { (bit, 0) } else { (0, bit) };
        self.patch(n, body, Asked::Flags { set, clear, scope }).await;
    }

    async fn moves(&mut self, n: u32, from: Option<usize>, to: usize) {
        let mut body = json!({"move_to": self.boxes[to]});
        if let Some(at) = from {
            body["mailbox_id"] = json!(self.boxes[at]);
        }
        self.patch(n, body, Asked::Move { from, to }).await;
    }

    async fn patch(&mut self, n: u32, body: Value, asked: Asked) {
        let path = format!("/api/messages/{}", self.letters[&n].id);
        self.before(&[n], &[asked]).await;
        let answer = self.case.app.patch(&self.case.tenant, &path, &body).await;
        self.asked_for(&[n], &format!("{asked:?}"), &answer).await;
    }

    async fn copy(&mut self, n: u32, to: usize) {
        // From where, the product says.
        self.action(&[n], "copy", Some(to), &[Asked::Copy { from: to, to }]).await;
    }

    /// To Trash, and from there for good.
    async fn delete(&mut self, n: u32, from: Option<usize>) {
        self.action(&[n], "delete", from, &[Asked::Move { from, to: TRASH }, Asked::Remove { from }]).await;
    }

    async fn delete_for_good(&mut self, n: u32) {
        let path = format!("/api/messages/{}?permanent=true", self.letters[&n].id);
        self.before(&[n], &[Asked::Remove { from: None }]).await;
        let answer = self.case.app.delete(&self.case.tenant, &path).await;
        self.asked_for(&[n], "delete for good", &answer).await;
    }

    /// One action on several messages.
    async fn bulk(&mut self) {
        let all: Vec<u32> = self.letters.keys().copied().collect();
        let some: Vec<u32> = all.into_iter().filter(|_| self.dice.below(2) == 0).collect();
        let scope = if self.dice.below(2) == 0 { Some(self.dice.below(BOXES)) } else { None };
        let to = self.dice.below(BOXES);
        let free = some.iter().all(|n| self.is_free(*n, to, &[]));
        let flags = |set, clear| [Asked::Flags { set, clear, scope }];
        match self.dice.below(6) {
            _ if some.is_empty() => {}
            0 => self.action(&some, "star", scope, &flags(STAR, 0)).await,
            1 => self.action(&some, "unstar", scope, &flags(0, STAR)).await,
            2 => self.action(&some, "mark_read", scope, &flags(READ, 0)).await,
            3 => self.action(&some, "mark_unread", scope, &flags(0, READ)).await,
            4 if free => self.action(&some, "move", Some(to), &[Asked::Move { from: None, to }]).await,
            5 if free => self.action(&some, "copy", Some(to), &[Asked::Copy { from: to, to }]).await,
            _ => {}
        }
    }

    async fn action(&mut self, which: &[u32], action: &str, mailbox: Option<usize>, asks: &[Asked]) {
        let ids: Vec<&String> = which.iter().map(|n| &self.letters[n].id).collect();
        let mut body = json!({"ids": ids, "action": action});
        if let Some(at) = mailbox {
            body["mailbox_id"] = json!(self.boxes[at]);
        }
        self.before(which, asks).await;
        let answer = self.case.app.post(&self.case.tenant, "/api/messages/actions", &body).await;
        let place = mailbox.map_or("", |at| NAMES[at]);
        self.asked_for(which, &format!("{action} {place}"), &answer).await;
    }

    async fn before(&mut self, which: &[u32], asks: &[Asked]) {
        let lines = self.diary().await;
        self.judge(&lines);
        for n in which {
            self.letters.get_mut(n).unwrap().asks = asks.to_vec();
        }
    }

    /// What they act on may have gone a moment ago, or met a worker at the same rows.
    async fn asked_for(&mut self, which: &[u32], what: &str, answer: &Answer) {
        let status = answer.status;
        let passes = status < 300 || matches!(status, 404 | 409 | 422 | 503);
        assert!(passes, "{which:?} {what}: {status} {}", answer.text());
        self.note(format!("our user: {which:?} {what}: {status}"));
        self.count(if status < 300 { "our user's" } else { "our user's that were refused" });
        let lines = self.diary().await;
        self.judge(&lines);
        for n in which {
            self.letters.get_mut(n).unwrap().asks.clear();
        }
    }

    /// Which of the things asked for the product has noted here.
    pub(super) fn asked(&self, n: u32, line: &Line) -> Asked {
        let (at, to) = (self.number_of(line.mailbox.as_ref()), self.number_of(line.target.as_ref()));
        let asks = self.letters.get(&n).map_or(&[][..], |l| &l.asks);
        let fits = |asked: &&Asked| match **asked {
            Asked::Flags { set, clear, scope } => {
                let (has, lacks) = (bits(line.flags.0), bits(line.flags.1));
                line.kind == "flags" && scope == at && has & set == set && lacks & clear == clear
            }
            Asked::Copy { to: target, .. } => line.kind == "copy" && to == Some(target),
            Asked::Move { from, to: target } => line.kind == "move" && from == at && to == Some(target),
            Asked::Remove { from } => line.kind == "remove" && from == at,
        };
        match (asks.iter().find(fits), at) {
            (Some(Asked::Copy { to, .. }), Some(from)) => Asked::Copy { from, to: *to },
            (Some(asked), _) => *asked,
            (None, _) => panic!("M{n}: of {asks:?} the product made {line:?}"),
        }
    }
}
