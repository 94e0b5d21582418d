//! IDLE (RFC 2177): waiting for news of the open mailbox.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::ImapError;
use super::command::Session;
use super::parse::{Response, Untagged};

/// RFC 2177: servers may log a silent client out after 30 minutes.
pub const MAX_IDLE: Duration = Duration::from_secs(29 * 60);
/// What a server may say in half an hour of IDLE. News ends the wait, so this is mostly signs of life.
const ANSWER_BYTES: u64 = 2 << 20;

/// Signs of life before they count as regular.
const REGULAR: u32 = 3;
/// What comes faster is no regular sign of life.
const SHORTEST_GAP: Duration = Duration::from_secs(10);

/// Servers that say something now and then while nothing happens (Dovecot: "* OK Still here", every two minutes), and how
/// far apart that is. When such a one falls silent for twice as long, it is asked whether it is still there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pulse {
    beats: u32,
    longest: Duration,
}

impl Pulse {
    fn beat(&mut self, gap: Duration) {
        if gap >= SHORTEST_GAP {
            self.beats = self.beats.saturating_add(1);
            self.longest = self.longest.max(gap);
        }
    }

    fn limit(&self) -> Option<Duration> {
        (self.beats >= REGULAR).then_some(self.longest * 2)
    }
}

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleEnd {
    /// There is news: [`Session::take_unsolicited`].
    News,
    /// The time is over; idle again.
    TimedOut,
    /// The caller's signal came.
    Stopped,
}

/// What ended the wait, before IDLE itself was ended.
enum Wake {
    Read(Result<Response, ImapError>),
    End(IdleEnd),
}

impl Session {
    /// Waits in IDLE until the server tells news, `wait` is over (at most [`MAX_IDLE`]) or `stop` resolves, and
    /// leaves IDLE again: the session is ready for the next command. News that nobody has taken yet ends the wait
    /// at once. A change of UIDVALIDITY is not announced in IDLE; the next command gets BYE.
    ///
    /// # Errors
    /// [`ImapError::Refused`] when the server does not offer or refuses IDLE, any other [`ImapError`].
    pub async fn idle(
        &mut self,
        wait: Duration,
        stop: impl Future<Output = ()>,
    ) -> Result<IdleEnd, ImapError> {
        if !self.capabilities.idle {
            return Err(ImapError::refused("the server does not offer IDLE"));
        }
        if self.has_news() {
            return Ok(IdleEnd::News);
        }
        self.framer.keep_brief(true);
        let end = self.wait_for_news(wait, stop).await;
        // After an error nothing is read any more.
        self.framer.keep_brief(false);
        end
    }

    async fn wait_for_news(
        &mut self,
        wait: Duration,
        stop: impl Future<Output = ()>,
    ) -> Result<IdleEnd, ImapError> {
        let tag = self.begin(ANSWER_BYTES)?;
        self.framer.write(format!("{tag} IDLE\r\n").as_bytes()).await?;
        let end_at = Instant::now() + wait.min(MAX_IDLE);
        // Silence is what IDLE consists of: the deadline of an answer applies to the go-ahead and to DONE only.
        tokio::pin!(stop);
        let mut idling = false;
        let end = loop {
            let before = self.heard_at;
            let quiet_at = self.pulse.limit().map_or(end_at, |limit| end_at.min(before + limit));
            let wake = tokio::select! {
                response = self.next() => Wake::Read(response),
                () = &mut stop, if idling => Wake::End(IdleEnd::Stopped),
                () = sleep_until(quiet_at), if idling => Wake::End(IdleEnd::TimedOut),
            };
            match wake {
                Wake::End(end) => break end,
                Wake::Read(response) => match response? {
                    Response::Continue(_) => {
                        idling = true;
                        self.framer.rest(true);
                        self.framer.allow_until(end_at + self.reply);
                    }
                    Response::Tagged { tag: t, condition } if t.as_ref() == tag.as_bytes() => {
                        self.framer.rest(false);
                        self.blame(&condition, "IDLE");
                        self.finish(condition)?;
                        return Ok(IdleEnd::News);
                    }
                    Response::Tagged { .. } => {}
                    Response::Untagged(u) => {
                        if idling && matches!(u, Untagged::Condition(_)) {
                            self.pulse.beat(self.heard_at - before);
                        }
                        if let Some(e) = self.dispatch(Some(u)) {
                            return Err(e);
                        }
                    }
                },
            }
            if idling && self.has_news() {
                break IdleEnd::News;
            }
        };
        self.leave_idle(&tag).await?;
        Ok(if self.has_news() { IdleEnd::News } else { end })
    }

    async fn leave_idle(&mut self, tag: &str) -> Result<(), ImapError> {
        self.framer.rest(false);
        self.framer.allow_until(Instant::now() + self.reply);
        self.framer.write(b"DONE\r\n").await?;
        loop {
            match self.next().await? {
                Response::Tagged { tag: t, condition } if t.as_ref() == tag.as_bytes() => {
                    return self.finish(condition).map(drop);
                }
                Response::Tagged { .. } | Response::Continue(_) => {}
                Response::Untagged(u) => {
                    if let Some(e) = self.dispatch(Some(u)) {
                        return Err(e);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::super::ImapError;
    use super::super::script::{commands, session};
    use super::IdleEnd;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn news_ends_the_wait_and_the_session_goes_on() {
        let (mut s, seen) =
            session("IDLE", &["+ idling\r\n* OK still here\r\n* 4 EXISTS\r\n", "$ OK\r\n", "$ OK\r\n"]).await;
        assert_eq!(s.idle(LONG, pending()).await, Ok(IdleEnd::News));
        assert_eq!(s.idle(LONG, pending()).await, Ok(IdleEnd::News), "nobody took it yet");
        assert_eq!(s.take_unsolicited().exists, Some(4));
        s.noop().await.unwrap();
        assert_eq!(commands(&seen), ["IDLE", "DONE", "NOOP"]);
    }

    #[tokio::test]
    async fn time_and_the_signal_end_the_wait_too() {
        let (mut s, _) = session(
            "IDLE",
            &["+\r\n", "$ OK\r\n", "+ idling\r\n", "* 5 EXISTS\r\n$ OK\r\n", "+ x\r\n", "$ OK\r\n"],
        )
        .await;
        assert_eq!(s.idle(Duration::from_millis(20), pending()).await, Ok(IdleEnd::TimedOut));
        let soon = tokio::time::sleep(Duration::from_millis(20));
        assert_eq!(s.idle(LONG, soon).await, Ok(IdleEnd::News), "what came with DONE counts");
        s.take_unsolicited();
        assert_eq!(s.idle(LONG, async {}).await, Ok(IdleEnd::Stopped));
    }

    #[tokio::test]
    async fn a_server_that_speaks_regularly_and_falls_silent_is_asked_whether_it_is_there() {
        let mut taught = super::Pulse::default();
        for gap in [120, 0, 121, 119] {
            assert_eq!(taught.limit(), None);
            taught.beat(Duration::from_secs(gap));
        }
        assert_eq!(taught.limit(), Some(Duration::from_secs(242)));
        let (mut s, seen) = session("IDLE", &["+ idling\r\n", "$ OK\r\n", "+ idling\r\n"]).await;
        s.pulse = super::Pulse { beats: 3, longest: Duration::from_millis(10) };
        assert_eq!(s.idle(LONG, pending()).await, Ok(IdleEnd::TimedOut), "it is");
        assert_eq!(commands(&seen), ["IDLE", "DONE"]);
        s.reply = Duration::from_millis(30);
        assert_eq!(s.idle(LONG, pending()).await, Err(ImapError::Closed { bye: None }), "it is not");
    }

    #[tokio::test]
    async fn silence_longer_than_an_answer_may_take_is_fine_while_idle() {
        let (mut s, _) = session("IDLE", &["+ idling\r\n", "$ OK\r\n"]).await;
        s.reply = Duration::from_millis(30);
        assert_eq!(s.idle(Duration::from_millis(120), pending()).await, Ok(IdleEnd::TimedOut));
    }

    #[tokio::test]
    async fn a_line_of_more_than_64_kib_ends_the_connection_whatever_it_says_and_however_it_is_cut() {
        let numbers = |bytes: usize| {
            (1..)
                .map(|n: u32| format!("{n},"))
                .scan(0, |all, n| {
                    *all += n.len();
                    (*all < bytes).then_some(n)
                })
                .collect::<String>()
        };
        let long = numbers(70 << 10);
        for said in [
            format!("* VANISHED {long}"),
            format!("* SEARCH {long}"),
            format!("* ESEARCH UID ALL {long}"),
            format!("* OK {}", "x".repeat(70 << 10)),
            format!("* VANISHED {long}9\r\n"),
            format!("* LIST () \"/\" {{70000}}\r\n{}\r\n", "x".repeat(70_000)),
            format!("* LIST (){}", "\"/\" {30000}\r\n".to_owned() + &"x".repeat(30_000)).repeat(1)
                + &format!(" {{30000}}\r\n{}", "x".repeat(30_000))
                + &format!(" {{30000}}\r\n{}\r\n", "x".repeat(30_000)),
        ] {
            let (mut s, _) = session("IDLE QRESYNC", &[&format!("+ idling\r\n{said}"), "$ OK\r\n"]).await;
            let ended = s.idle(LONG, pending()).await;
            assert!(matches!(ended, Err(ImapError::Protocol(_))), "{:.30}: {ended:?}", said);
            assert!(!s.is_usable());
        }
        // Below that nothing is wrong, and what is asked for may be long.
        let news = format!("+ idling\r\n* VANISHED {}9\r\n", numbers(60 << 10));
        let answer = format!("* SEARCH {}\r\n$ OK\r\n", numbers(200 << 10).replace(',', " "));
        let (mut s, _) = session("IDLE QRESYNC", &[&news, "$ OK\r\n", &answer]).await;
        assert_eq!(s.idle(LONG, pending()).await, Ok(IdleEnd::News));
        assert!(s.uid_search_all().await.unwrap().len() > 10_000);
    }

    #[tokio::test]
    async fn refusal_bye_and_silence_are_errors() {
        let (mut s, _) = session("IDLE", &["$ NO not here\r\n", "$ OK\r\n"]).await;
        assert!(matches!(s.idle(LONG, pending()).await, Err(ImapError::Refused { .. })));
        assert!(s.is_usable());
        let (mut s, _) = session("IDLE", &["+ idling\r\n* BYE idle too long\r\n"]).await;
        assert!(matches!(s.idle(LONG, pending()).await, Err(ImapError::Closed { bye: Some(_) })));
        let (mut s, _) = session("IDLE", &["", ""]).await;
        s.reply = Duration::from_millis(30);
        assert_eq!(s.idle(LONG, pending()).await, Err(ImapError::Timeout));
    }
}
