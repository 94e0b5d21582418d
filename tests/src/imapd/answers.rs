//! What a correct server says (RFC 3501, 4315, 4731, 5161, 5258, 5819, 6851, 7162, 8474), as far as the product asks.

use mail::uid::{Uid, UidSet};

use super::State;
use super::fetched::{fetched, items, number_after};
use super::gmail::carry;
use super::model::{Mailbox, Message};
use super::wire::Heard;

/// One connection.
#[derive(Default)]
pub(super) struct Session {
    selected: Option<Vec<u8>>,
    read_only: bool,
    /// UIDs in the order of sequence numbers, as this session was told.
    known: Vec<u32>,
    qresync: bool,
    /// It counts among those that are.
    pub logged_in: bool,
}

/// The part of a tagged line after the tag.
pub(super) type Outcome = Result<String, String>;

pub(super) fn ok() -> Outcome {
    Ok("OK done".to_owned())
}

pub(super) fn no(text: &str) -> Outcome {
    Err(format!("NO {text}"))
}

impl Session {
    /// Carries a command out: its untagged lines, news of the mailbox, the tagged line.
    pub fn answer(&mut self, state: &mut State, heard: &Heard) -> Vec<u8> {
        let mut out = Vec::new();
        let outcome = self.perform(state, heard, &mut out);
        if heard.text == "IDLE" {
            return b"+ idling\r\n".to_vec();
        }
        // Sequence numbers must not move under a command that uses them.
        out.extend(self.news(state));
        let line = outcome.unwrap_or_else(|refusal| refusal);
        out.extend(format!("{} {line}\r\n", heard.tag).into_bytes());
        out
    }

    /// What changed since this session was last told.
    pub fn news(&mut self, state: &mut State) -> Vec<u8> {
        let Some(mailbox) = self.open(state) else { return Vec::new() };
        let now: Vec<u32> = mailbox.messages.iter().map(|m| m.uid).collect();
        let mut out = String::new();
        let mut gone = UidSet::new();
        for at in (0..self.known.len()).rev() {
            if !now.contains(&self.known[at]) {
                gone.insert(Uid::new(self.known[at]).unwrap());
                self.known.remove(at);
                if !self.qresync {
                    out.push_str(&format!("* {} EXPUNGE\r\n", at + 1));
                }
            }
        }
        if self.qresync && !gone.is_empty() {
            out.push_str(&format!("* VANISHED {gone}\r\n"));
        }
        if now.len() > self.known.len() {
            out.push_str(&format!("* {} EXISTS\r\n", now.len()));
        }
        self.known = now;
        out.into_bytes()
    }

    fn open<'a>(&self, state: &'a mut State) -> Option<&'a mut Mailbox> {
        let name = self.selected.as_ref()?;
        state.mailboxes.iter_mut().find(|m| &m.name == name)
    }

    fn perform(&mut self, state: &mut State, heard: &Heard, out: &mut Vec<u8>) -> Outcome {
        let verb = heard.text.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        let word = |n: usize| heard.words.get(n).cloned().unwrap_or_default();
        match verb.as_str() {
            "CAPABILITY" => {
                out.extend(format!("* CAPABILITY IMAP4rev1 {}\r\n", state.capabilities).into_bytes());
            }
            "ENABLE" => {
                self.qresync = heard.text.contains("QRESYNC") && state.offers("QRESYNC");
                out.extend(if self.qresync { &b"* ENABLED QRESYNC\r\n"[..] } else { b"* ENABLED\r\n" });
            }
            "LOGOUT" => out.extend(b"* BYE bye\r\n"),
            "LOGIN" | "AUTHENTICATE" => {
                if state.gmail.as_ref().is_some_and(|store| state.logged_in >= store.connections) {
                    return no("[ALERT] Too many simultaneous connections. (Failure)");
                }
                if !std::mem::replace(&mut self.logged_in, true) {
                    state.logged_in += 1;
                    state.most_logged_in = state.most_logged_in.max(state.logged_in);
                }
            }
            "NOOP" | "CHECK" | "DONE" | "IDLE" | "ID" => {}
            "NAMESPACE" => out.extend(format!("* NAMESPACE {}\r\n", state.namespaces).into_bytes()),
            "LIST" | "LSUB" => list(state, heard, out),
            "STATUS" => {
                let name = word(1);
                let mailbox = open_to_us(state, &name)?;
                status(mailbox, &String::from_utf8_lossy(&word(2)), out);
            }
            "SELECT" | "EXAMINE" => return self.select(state, &word(1), verb == "EXAMINE", out),
            "UNSELECT" | "CLOSE" => self.selected = None,
            "CREATE" if find(state, &word(1)).is_some() => return no("[ALREADYEXISTS] it is there"),
            "CREATE" if !word(1).starts_with(state.made_under.as_bytes()) => {
                return no("[CANNOT] Mailbox name should probably be prefixed");
            }
            "CREATE" => drop(state.add(word(1))),
            "DELETE" | "RENAME" | "SUBSCRIBE" | "UNSUBSCRIBE" => {
                let (name, to) = (word(1), word(2));
                let Some(mailbox) = find(state, &name) else { return no("[NONEXISTENT] no such mailbox") };
                match verb.as_str() {
                    "RENAME" => mailbox.name = to,
                    "DELETE" => state.mailboxes.retain(|m| m.name != name),
                    verb => mailbox.subscribed = verb == "SUBSCRIBE",
                }
            }
            "APPEND" => return append(state, heard),
            "UID" => return self.by_uid(state, heard, out),
            _ => return Err("BAD unknown command".to_owned()),
        }
        ok()
    }

    fn select(&mut self, state: &mut State, name: &[u8], read_only: bool, out: &mut Vec<u8>) -> Outcome {
        self.selected = None;
        let condstore = state.offers("CONDSTORE") || state.offers("QRESYNC");
        let objectid = state.offers("OBJECTID");
        let mailbox = open_to_us(state, name)?;
        let mut text = format!(
            "* {} EXISTS\r\n* 0 RECENT\r\n* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n\
             * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] lasting\r\n\
             * OK [UIDVALIDITY {}] valid\r\n* OK [UIDNEXT {}] next\r\n",
            mailbox.messages.len(),
            mailbox.uidvalidity,
            mailbox.uidnext
        );
        if condstore {
            text.push_str(&format!("* OK [HIGHESTMODSEQ {}] highest\r\n", mailbox.modseq));
        }
        if objectid {
            text.push_str(&format!("* OK [MAILBOXID ({})] id\r\n", mailbox.objectid));
        }
        out.extend(text.into_bytes());
        self.selected = Some(mailbox.name.clone());
        self.known = mailbox.messages.iter().map(|m| m.uid).collect();
        self.read_only = read_only;
        Ok(if read_only { "OK [READ-ONLY] open" } else { "OK [READ-WRITE] open" }.to_owned())
    }

    fn by_uid(&mut self, state: &mut State, heard: &Heard, out: &mut Vec<u8>) -> Outcome {
        let word =
            |n: usize| String::from_utf8_lossy(heard.words.get(n).map_or(&b""[..], |w| w)).into_owned();
        let (moves, uidplus) = (state.offers("MOVE"), state.offers("UIDPLUS"));
        let verb = word(1).to_ascii_uppercase();
        if self.open(state).is_none() {
            return Err("BAD no mailbox is open".to_owned());
        }
        if verb == "SEARCH" {
            self.search(state, heard, out);
            return ok();
        }
        let set = self.resolve(&word(2));
        match verb.as_str() {
            "FETCH" => self.fetch(state, heard, &set, out),
            "STORE" | "EXPUNGE" | "MOVE" if self.read_only => return no("[READ-ONLY] it is"),
            "STORE" => return self.store(state, heard, &set, out),
            "COPY" | "MOVE" => {
                if verb == "MOVE" && !moves {
                    return Err("BAD unknown command".to_owned());
                }
                return self.transfer(state, (&verb, &set), heard.words.get(3), uidplus, out);
            }
            "EXPUNGE" if uidplus => {
                let Some(mailbox) = self.open(state) else { return ok() };
                let is_marked =
                    |m: &&Message| m.flags.iter().any(|f| f == "\\Deleted") && set.contains(&m.uid);
                let marked: Vec<Message> = mailbox.messages.iter().filter(is_marked).cloned().collect();
                let name = String::from_utf8_lossy(&mailbox.name).into_owned();
                for message in marked {
                    match message.ids {
                        Some(ids) => state.expunge_label(&name, ids),
                        None => state.mailbox(&name).expunge([message.uid]),
                    }
                }
            }
            _ => return Err("BAD unknown command".to_owned()),
        }
        ok()
    }

    /// The UIDs of a set that this session knows, ascending.
    fn resolve(&self, set: &str) -> Vec<u32> {
        let last = self.known.last().copied().unwrap_or(1);
        let number = |text: &str| if text == "*" { last } else { text.parse().unwrap_or(0) };
        let ranges: Vec<(u32, u32)> = set
            .split(',')
            .map(|part| {
                part.split_once(':').map_or((number(part), number(part)), |(a, b)| (number(a), number(b)))
            })
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        let wanted = |uid: &u32| ranges.iter().any(|(a, b)| (a..=b).contains(&uid));
        self.known.iter().copied().filter(wanted).collect()
    }

    fn search(&self, state: &mut State, heard: &Heard, out: &mut Vec<u8>) {
        let extended = heard.text.contains("RETURN (");
        let found: Vec<u32> = if let Some(at) = heard.words.iter().position(|w| w == b"HEADER") {
            let wanted = heard.words.get(at + 2).cloned().unwrap_or_default();
            let Some(mailbox) = self.open(state) else { return };
            let has = |m: &&Message| m.bytes.windows(wanted.len().max(1)).any(|w| w == wanted);
            mailbox.messages.iter().filter(has).map(|m| m.uid).collect()
        } else {
            match heard.words.iter().rev().nth(1).filter(|w| *w == b"UID") {
                Some(_) => self.resolve(&String::from_utf8_lossy(&heard.words[heard.words.len() - 1])),
                None => self.known.clone(),
            }
        };
        let set: UidSet = found.iter().filter_map(|uid| Uid::new(*uid)).collect();
        let all = if found.is_empty() { String::new() } else { format!(" ALL {set}") };
        let plain: String = found.iter().map(|uid| format!(" {uid}")).collect();
        out.extend(match extended {
            true => format!("* ESEARCH (TAG \"{}\") UID{all}\r\n", heard.tag).into_bytes(),
            false => format!("* SEARCH{plain}\r\n").into_bytes(),
        });
    }

    fn fetch(&self, state: &mut State, heard: &Heard, set: &[u32], out: &mut Vec<u8>) {
        let condstore = state.offers("CONDSTORE") || state.offers("QRESYNC");
        let Some(mailbox) = self.open(state) else { return };
        let since = number_after(&heard.text, "CHANGEDSINCE ");
        if let Some(since) = since.filter(|_| heard.text.contains(" VANISHED)")) {
            let gone: UidSet =
                mailbox.gone.iter().filter(|g| g.1 > since).filter_map(|g| Uid::new(g.0)).collect();
            if !gone.is_empty() {
                out.extend(format!("* VANISHED (EARLIER) {gone}\r\n").into_bytes());
            }
        }
        let mut items = items(&heard.text);
        if condstore && since.is_some() {
            items.push("MODSEQ".to_owned());
        }
        let bytes = items.iter().any(|item| item == "BODY.PEEK[]" || item == "BODY[]");
        let mut fetched_bytes = Vec::new();
        for uid in set {
            let Some(message) = mailbox.messages.iter().find(|m| m.uid == *uid) else { continue };
            if since.is_some_and(|since| message.modseq <= since) {
                continue;
            }
            let number = self.known.iter().position(|k| k == uid).unwrap_or(0) + 1;
            out.extend(format!("* {number} FETCH (").into_bytes());
            for (n, item) in items.iter().enumerate() {
                out.extend(if n == 0 { &b""[..] } else { b" " });
                out.extend(fetched(message, item));
            }
            out.extend(b")\r\n");
            fetched_bytes.extend(message.ids.filter(|_| bytes));
        }
        fetched_bytes.into_iter().for_each(|ids| state.count_bytes(ids));
    }

    fn store(&self, state: &mut State, heard: &Heard, set: &[u32], out: &mut Vec<u8>) -> Outcome {
        let Some(mailbox) = self.open(state) else { return ok() };
        let unless = number_after(&heard.text, "UNCHANGEDSINCE ");
        let last = heard.words.last().cloned().unwrap_or_default();
        let names = String::from_utf8_lossy(&last).trim_matches(['(', ')']).to_owned();
        let names: Vec<&str> = names.split(' ').filter(|n| !n.is_empty()).collect();
        let (mut modified, silent) = (UidSet::new(), heard.text.contains("FLAGS.SILENT"));
        let mut changed = Vec::new();
        for uid in set {
            if !mailbox.messages.iter().any(|m| m.uid == *uid) {
                continue;
            }
            if unless.is_some_and(|m| mailbox.message(*uid).modseq > m) {
                modified.insert(Uid::new(*uid).unwrap());
                continue;
            }
            if !heard.text.contains(" +FLAGS") && !heard.text.contains(" -FLAGS") {
                mailbox.message(*uid).flags.clear();
            }
            for name in &names {
                mailbox.flag(*uid, name, !heard.text.contains(" -FLAGS"));
            }
            let message = mailbox.message(*uid);
            changed.extend(message.ids.map(|ids| (ids, message.flags.clone())));
            if !silent {
                let number = self.known.iter().position(|k| k == uid).unwrap_or(0) + 1;
                let flags = mailbox.message(*uid).flags.join(" ");
                out.extend(format!("* {number} FETCH (UID {uid} FLAGS ({flags}))\r\n").into_bytes());
            }
        }
        for (ids, flags) in changed {
            let flags: Vec<&str> = flags.iter().map(String::as_str).filter(|f| *f != "\\Deleted").collect();
            state.flags(ids, &flags);
        }
        if modified.is_empty() { ok() } else { Ok(format!("OK [MODIFIED {modified}] some")) }
    }

    fn transfer(
        &self,
        state: &mut State,
        (verb, set): (&str, &[u32]),
        target: Option<&Vec<u8>>,
        uidplus: bool,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(mailbox) = self.open(state) else { return ok() };
        let originals: Vec<Message> =
            mailbox.messages.iter().filter(|m| set.contains(&m.uid)).cloned().collect();
        let from = String::from_utf8_lossy(&mailbox.name).into_owned();
        if state.gmail.is_some() {
            return carry(state, verb, (&from, target), &originals, out);
        }
        let Some(target) = target.and_then(|name| find(state, name)) else { return no("[TRYCREATE] none") };
        let mut arrived = Vec::new();
        for original in &originals {
            let uid = target.deliver(original.bytes.clone());
            let copy = target.message(uid);
            (copy.flags, copy.date) = (original.flags.clone(), original.date.clone());
            arrived.push(uid.to_string());
        }
        let from: Vec<String> = originals.iter().map(|m| m.uid.to_string()).collect();
        let code = format!("[COPYUID {} {} {}]", target.uidvalidity, from.join(","), arrived.join(","));
        let code = if uidplus && !originals.is_empty() { code } else { String::new() };
        if verb == "MOVE" {
            out.extend(format!("* OK {code} moved\r\n").into_bytes());
            if let Some(mailbox) = self.open(state) {
                mailbox.expunge(originals.iter().map(|m| m.uid));
            }
            return ok();
        }
        Ok(format!("OK {code} copied"))
    }
}

pub(super) fn find<'a>(state: &'a mut State, name: &[u8]) -> Option<&'a mut Mailbox> {
    let inbox = name.eq_ignore_ascii_case(b"INBOX");
    let same = |m: &&mut Mailbox| m.name == name || (inbox && m.name.eq_ignore_ascii_case(b"INBOX"));
    state.mailboxes.iter_mut().find(same)
}

/// A mailbox that can be selected, or what is said instead.
fn open_to_us<'a>(state: &'a mut State, name: &[u8]) -> Result<&'a mut Mailbox, String> {
    match find(state, name) {
        Some(m) if m.phantom => Err("NO [NOPERM] not yours".to_owned()),
        Some(m) if !is_noselect(m) => Ok(m),
        _ => Err("NO Mailbox doesn't exist".to_owned()),
    }
}

fn is_noselect(mailbox: &Mailbox) -> bool {
    mailbox.attributes.to_ascii_lowercase().contains("\\noselect")
}

/// Quoted, or a literal where that cannot be.
pub(super) fn named(name: &[u8]) -> Vec<u8> {
    if name.iter().any(|b| !b.is_ascii() || b.is_ascii_control()) {
        return [format!("{{{}}}\r\n", name.len()).as_bytes(), name].concat();
    }
    let mut out = vec![b'"'];
    for byte in name {
        out.extend(matches!(byte, b'"' | b'\\').then_some(b'\\'));
        out.push(*byte);
    }
    out.push(b'"');
    out
}

fn list(state: &State, heard: &Heard, out: &mut Vec<u8>) {
    let delimiter = match state.delimiter {
        Some(c) => named(c.to_string().as_bytes()),
        None => b"NIL".to_vec(),
    };
    let verb = heard.text.split(' ').next().unwrap_or_default();
    let of_subscribed = verb == "LSUB" || heard.text.contains("(SUBSCRIBED) \"\"");
    let extended = heard.text.contains("RETURN (");
    let items = heard.text.split_once("STATUS (").map(|(_, items)| items.to_owned());
    for mailbox in state.mailboxes.iter().filter(|m| !of_subscribed || m.subscribed) {
        let subscribed = if extended && mailbox.subscribed { " \\Subscribed" } else { "" };
        let attributes = format!("{}{subscribed}", mailbox.attributes);
        out.extend(format!("* {verb} ({}) ", attributes.trim()).into_bytes());
        out.extend_from_slice(&delimiter);
        out.push(b' ');
        out.extend(named(&mailbox.name));
        out.extend(b"\r\n");
        match &items {
            Some(_) if mailbox.phantom => out.extend(b"* NO Mailbox doesn't exist\r\n"),
            Some(items) if !is_noselect(mailbox) => status(mailbox, items, out),
            _ => {}
        }
    }
}

fn status(mailbox: &Mailbox, items: &str, out: &mut Vec<u8>) {
    let unseen = mailbox.messages.iter().filter(|m| !m.flags.iter().any(|f| f == "\\Seen")).count();
    let value = |item: &str| -> Option<String> {
        Some(match item {
            "MESSAGES" => mailbox.messages.len().to_string(),
            "UIDNEXT" => mailbox.uidnext.to_string(),
            "UIDVALIDITY" => mailbox.uidvalidity.to_string(),
            "HIGHESTMODSEQ" => mailbox.modseq.to_string(),
            "UNSEEN" => unseen.to_string(),
            "MAILBOXID" => format!("({})", mailbox.objectid),
            _ => return None,
        })
    };
    let told: Vec<String> = items
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|item| Some(format!("{item} {}", value(item)?)))
        .collect();
    out.extend(b"* STATUS ");
    out.extend(named(&mailbox.name));
    out.extend(format!(" ({})\r\n", told.join(" ")).into_bytes());
}

fn append(state: &mut State, heard: &Heard) -> Outcome {
    let (name, bytes) = (heard.words.get(1).cloned().unwrap_or_default(), heard.words.last().cloned());
    let uidplus = state.offers("UIDPLUS");
    let gmail = state.gmail.is_some();
    let Some(mailbox) = find(state, &name) else { return no("[TRYCREATE] none") };
    if gmail {
        let name = String::from_utf8_lossy(&mailbox.name).into_owned();
        state.arrive(&[&name], bytes.unwrap_or_default(), None);
        return ok();
    }
    let uid = mailbox.deliver(bytes.unwrap_or_default());
    let flags = heard.words.iter().find(|w| w.starts_with(b"(")).cloned().unwrap_or_default();
    let flags = String::from_utf8_lossy(&flags).trim_matches(['(', ')']).to_owned();
    mailbox.message(uid).flags = flags.split(' ').filter(|f| !f.is_empty()).map(str::to_owned).collect();
    let code = format!("[APPENDUID {} {uid}] ", mailbox.uidvalidity);
    Ok(format!("OK {}stored", if uidplus { code } else { String::new() }))
}
