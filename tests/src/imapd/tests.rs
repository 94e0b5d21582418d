use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Imapd, Reply, Times, without_lines};

const ALL: &str = "CONDSTORE QRESYNC ENABLE UIDPLUS MOVE ESEARCH LIST-EXTENDED LIST-STATUS IDLE";

struct Client(TcpStream);

impl Client {
    async fn new(server: &Imapd) -> Self {
        let mut client = Self(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap());
        client.until("ready\r\n").await;
        client
    }

    async fn until(&mut self, end: &str) -> String {
        let mut got = String::new();
        while !got.contains(end) {
            let mut byte = [0; 4096];
            let read = timeout(Duration::from_secs(10), self.0.read(&mut byte)).await;
            let read = read.unwrap_or_else(|_| panic!("{end:?} does not come: {got:?}")).unwrap();
            assert!(read > 0, "the line ended: {got:?}");
            got.push_str(std::str::from_utf8(&byte[..read]).unwrap());
        }
        got
    }

    /// The whole answer to a command with the tag `a`.
    async fn ask(&mut self, command: &str) -> String {
        self.0.write_all(format!("a {command}\r\n").as_bytes()).await.unwrap();
        let mut got = String::new();
        while !got.lines().any(|l| l.starts_with("a ")) || !got.ends_with("\r\n") {
            got.push_str(&self.until("\r\n").await);
        }
        got
    }

    async fn is_closed(&mut self) -> bool {
        timeout(Duration::from_secs(10), self.0.read(&mut [0; 1])).await.unwrap().unwrap() == 0
    }
}

async fn filled() -> Imapd {
    let server = Imapd::start(ALL).await;
    server.lock().mailbox("INBOX").fill(1, 3);
    server
}

#[tokio::test]
async fn mailboxes_are_listed_selected_and_searched() {
    let server = filled().await;
    server.lock().add("a \"b\"").phantom = true;
    let mut client = Client::new(&server).await;
    let listed =
        client.ask("LIST \"\" \"*\" RETURN (SUBSCRIBED STATUS (MESSAGES UIDNEXT UIDVALIDITY))").await;
    let wanted = "* LIST (\\Subscribed) \"/\" \"INBOX\"\r\n* STATUS \"INBOX\" (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 1000)\r\n\
                  * LIST (\\Subscribed) \"/\" \"a \\\"b\\\"\"\r\n* NO Mailbox doesn't exist\r\na OK done\r\n";
    assert_eq!(listed, wanted);
    assert!(client.ask("SELECT \"a \\\"b\\\"\"").await.starts_with("a NO"));
    let selected = client.ask("SELECT inbox (CONDSTORE)").await;
    assert!(selected.contains("* 3 EXISTS") && selected.contains("[HIGHESTMODSEQ 4]"), "{selected}");
    assert_eq!(
        client.ask("UID SEARCH RETURN (ALL) ALL").await,
        "* ESEARCH (TAG \"a\") UID ALL 1:3\r\na OK done\r\n"
    );
    assert_eq!(client.ask("UID SEARCH UID 2:*").await, "* SEARCH 2 3\r\na OK done\r\n");
    let by_id = client.ask("UID SEARCH HEADER Message-ID \"m2.494e424f58@example.test\"").await;
    assert_eq!(by_id, "* SEARCH 2\r\na OK done\r\n");
}

#[tokio::test]
async fn changes_of_others_are_told_by_sequence_number_and_by_uid() {
    let server = filled().await;
    let mut client = Client::new(&server).await;
    client.ask("SELECT INBOX").await;
    {
        let mut state = server.lock();
        let inbox = state.mailbox("INBOX");
        inbox.expunge([1, 3]);
        inbox.fill(4, 4);
        inbox.flag(2, "\\Seen", true);
    }
    assert_eq!(
        client.ask("UID FETCH 4 (UID)").await,
        "* 3 EXPUNGE\r\n* 1 EXPUNGE\r\n* 2 EXISTS\r\na OK done\r\n"
    );
    client.ask("ENABLE QRESYNC").await;
    let changes = client.ask("UID FETCH 1:* (UID FLAGS) (CHANGEDSINCE 4 VANISHED)").await;
    let wanted = "* VANISHED (EARLIER) 1,3\r\n* 1 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (8))\r\n\
                  * 2 FETCH (UID 4 FLAGS () MODSEQ (7))\r\na OK done\r\n";
    assert_eq!(changes, wanted);
    client.0.write_all(b"a IDLE\r\n").await.unwrap();
    client.until("+ idling\r\n").await;
    server.lock().mailbox("INBOX").expunge([2]);
    client.until("* VANISHED 2\r\n").await;
    client.0.write_all(b"DONE\r\n").await.unwrap();
    client.until("a OK done\r\n").await;
}

#[tokio::test]
async fn messages_are_fetched_stored_copied_moved_appended_and_expunged() {
    let server = filled().await;
    server.lock().add("Other");
    let mut client = Client::new(&server).await;
    client.ask("SELECT INBOX").await;
    let body =
        client.ask("UID FETCH 2 (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[])").await;
    let bytes = String::from_utf8(server.lock().mailbox("INBOX").message(2).bytes.clone()).unwrap();
    let size = bytes.len();
    let wanted = format!(
        "* 2 FETCH (UID 2 RFC822.SIZE {size} BODY[HEADER.FIELDS (SUBJECT)] {{15}}\r\nSubject: M2\r\n\r\n BODY[] {{{size}}}\r\n{bytes})\r\na OK done\r\n"
    );
    assert_eq!(body, wanted);
    let stored = client.ask("UID STORE 1:2 +FLAGS (\\Deleted $x)").await;
    assert!(stored.contains("* 1 FETCH (UID 1 FLAGS ($x \\Deleted))"), "{stored}");
    let stale = client.ask("UID STORE 1:3 (UNCHANGEDSINCE 4) -FLAGS ($x)").await;
    assert!(stale.ends_with("a OK [MODIFIED 1:2] some\r\n"), "{stale}");
    assert_eq!(client.ask("UID COPY 3 Nowhere").await, "a NO [TRYCREATE] none\r\n");
    assert_eq!(client.ask("UID COPY 2:3 Other").await, "a OK [COPYUID 1001 2,3 1,2] copied\r\n");
    assert_eq!(
        client.ask("UID EXPUNGE 2:3").await,
        "* VANISHED 2\r\na OK done\r\n".replace("VANISHED 2", "2 EXPUNGE")
    );
    let moved = client.ask("UID MOVE 3 Other").await;
    assert_eq!(moved, "* OK [COPYUID 1001 3 3] moved\r\n* 2 EXPUNGE\r\na OK done\r\n");
    client.0.write_all(b"a APPEND Other (\\Seen) {5}\r\n").await.unwrap();
    client.until("+ go\r\n").await;
    client.0.write_all(b"hello\r\n").await.unwrap();
    client.until("a OK [APPENDUID 1001 4] stored\r\n").await;
    let mut state = server.lock();
    let last = state.mailbox("Other").message(4);
    assert_eq!((last.bytes.as_slice(), last.flags.as_slice()), (&b"hello"[..], &["\\Seen".to_owned()][..]));
}

#[tokio::test]
async fn rules_go_before_sense_as_often_as_they_say() {
    let server = filled().await;
    let mut client = Client::new(&server).await;
    server.instead("SELECT", Times::Nth(2), "{tag} NO not {tag}\r\n");
    server.spoil("SELECT", Times::Each, |sane| without_lines(sane, "UIDVALIDITY"));
    assert!(!client.ask("SELECT INBOX").await.contains("UIDVALIDITY"));
    assert_eq!(client.ask("SELECT INBOX").await, "a NO not a\r\n");
    assert!(!client.ask("SELECT INBOX").await.contains("UIDVALIDITY"));
    assert_eq!((server.used(), server.lock().count("SELECT")), (3, 3));
    assert_eq!(server.sane(), 3);
    assert!(client.ask("SELECT INBOX").await.contains("UIDVALIDITY"));
    server.instead("*+FLAGS", Times::First(1), "{tag} OK never done\r\n");
    client.ask("UID STORE 1 +FLAGS (\\Seen)").await;
    assert!(server.lock().mailbox("INBOX").message(1).flags.is_empty(), "it was not carried out");
    server.instead("APPEND", Times::Each, "{tag} NO [OVERQUOTA] full\r\n");
    assert_eq!(client.ask("APPEND INBOX {5}").await, "a NO [OVERQUOTA] full\r\n", "without a go-ahead");
    server.instead("NOOP", Times::Each, Reply::hang("* OK wait\r\n"));
    client.0.write_all(b"a NOOP\r\n").await.unwrap();
    client.until("wait\r\n").await;
    assert!(timeout(Duration::from_millis(200), client.0.read(&mut [0; 1])).await.is_err());
    let mut other = Client::new(&server).await;
    server.sane();
    server.instead("NOOP", Times::Each, Reply::close("* BYE over\r\n"));
    other.0.write_all(b"a NOOP\r\n").await.unwrap();
    other.until("over\r\n").await;
    assert!(other.is_closed().await);
}
