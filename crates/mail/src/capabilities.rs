//! What an IMAP server says it can do (CAPABILITY, RFC 9051 §7.2.2).
//!
//! A plain set of facts. Which of several ways the sync uses is decided by the planner; that an advertised
//! extension turned out broken is remembered by the driver, which clears the field here before planning.
//! A new extension: add a field with its RFC, and its line in [`Capabilities::parse`].

/// The extensions that change what we do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one independent fact per extension is exactly what this is"
)]
pub struct Capabilities {
    /// IMAP4rev1 (RFC 3501).
    pub imap4rev1: bool,
    /// IMAP4rev2 (RFC 9051).
    pub imap4rev2: bool,
    /// ENABLE (RFC 5161).
    pub enable: bool,
    /// CONDSTORE (RFC 7162); also implied by QRESYNC.
    pub condstore: bool,
    /// QRESYNC (RFC 7162).
    pub qresync: bool,
    /// IDLE (RFC 2177).
    pub idle: bool,
    /// NOTIFY (RFC 5465).
    pub notify: bool,
    /// MOVE (RFC 6851).
    pub move_: bool,
    /// UIDPLUS (RFC 4315): APPENDUID, COPYUID, UID EXPUNGE.
    pub uidplus: bool,
    /// LIST-EXTENDED (RFC 5258).
    pub list_extended: bool,
    /// LIST-STATUS (RFC 5819).
    pub list_status: bool,
    /// SPECIAL-USE (RFC 6154).
    pub special_use: bool,
    /// CREATE-SPECIAL-USE (RFC 6154).
    pub create_special_use: bool,
    /// ESEARCH (RFC 4731).
    pub esearch: bool,
    /// LITERAL+ (RFC 7888): non-synchronising literals of any size.
    pub literal_plus: bool,
    /// LITERAL- (RFC 7888): non-synchronising literals up to 4,096 bytes.
    pub literal_minus: bool,
    /// OBJECTID (RFC 8474): MAILBOXID, EMAILID, THREADID.
    pub objectid: bool,
    /// COMPRESS=DEFLATE (RFC 4978).
    pub compress_deflate: bool,
    /// SASL-IR (RFC 4959).
    pub sasl_ir: bool,
    /// UTF8=ACCEPT or UTF8=ONLY (RFC 6855).
    pub utf8_accept: bool,
    /// UNSELECT (RFC 3691).
    pub unselect: bool,
    /// ID (RFC 2971).
    pub id: bool,
    /// NAMESPACE (RFC 2342).
    pub namespace: bool,
    /// STARTTLS (RFC 3501).
    pub starttls: bool,
    /// LOGINDISABLED (RFC 3501): LOGIN must not be used on this connection.
    pub login_disabled: bool,
    /// Gmail's own extensions (X-GM-EXT-1).
    pub gmail: bool,
    /// APPENDLIMIT (RFC 7889).
    pub append_limit: AppendLimit,
    /// Mechanisms of AUTH=, in capitals, in the server's order, each once.
    pub auth: Vec<String>,
}

/// The largest message APPEND takes (RFC 7889).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendLimit {
    /// Nothing was said.
    #[default]
    Unknown,
    /// It differs per mailbox: ask STATUS.
    PerMailbox,
    /// This many bytes everywhere.
    Bytes(u64),
}

/// Mechanisms beyond this number are ignored: nobody offers more, and the list is kept per connection.
const MAX_AUTH: usize = 32;

impl Capabilities {
    /// Reads the atoms of a CAPABILITY response. Unknown ones are skipped, order and case do not matter.
    pub fn parse<'a>(atoms: impl IntoIterator<Item = &'a str>) -> Self {
        let mut caps = Self::default();
        for atom in atoms {
            caps.note(&atom.trim().to_ascii_uppercase());
        }
        // RFC 7162 §3.2.3: QRESYNC contains CONDSTORE, and some servers name only the former.
        caps.condstore |= caps.qresync;
        if caps.imap4rev2 && !caps.imap4rev1 {
            caps.imply_rev2();
        }
        caps
    }

    /// A server of the new protocol alone need not name what it contains (RFC 9051 appendix E).
    fn imply_rev2(&mut self) {
        self.enable = true;
        self.idle = true;
        self.move_ = true;
        self.uidplus = true;
        self.list_extended = true;
        self.list_status = true;
        self.special_use = true;
        self.esearch = true;
        self.literal_minus |= !self.literal_plus;
        self.sasl_ir = true;
        self.unselect = true;
        self.namespace = true;
    }

    fn note(&mut self, atom: &str) {
        if let Some(mechanism) = atom.strip_prefix("AUTH=") {
            let fresh = !mechanism.is_empty() && !self.auth.iter().any(|m| m == mechanism);
            if fresh && self.auth.len() < MAX_AUTH {
                self.auth.push(mechanism.to_owned());
            }
            return;
        }
        if let Some(limit) = atom.strip_prefix("APPENDLIMIT=") {
            if let Ok(n) = limit.parse() {
                self.append_limit = AppendLimit::Bytes(n);
            }
            return;
        }
        match atom {
            "IMAP4REV1" => self.imap4rev1 = true,
            "IMAP4REV2" => self.imap4rev2 = true,
            "ENABLE" => self.enable = true,
            "CONDSTORE" => self.condstore = true,
            "QRESYNC" => self.qresync = true,
            "IDLE" => self.idle = true,
            "NOTIFY" => self.notify = true,
            "MOVE" => self.move_ = true,
            "UIDPLUS" => self.uidplus = true,
            "LIST-EXTENDED" => self.list_extended = true,
            "LIST-STATUS" => self.list_status = true,
            "SPECIAL-USE" => self.special_use = true,
            "CREATE-SPECIAL-USE" => self.create_special_use = true,
            "ESEARCH" => self.esearch = true,
            "LITERAL+" => self.literal_plus = true,
            "LITERAL-" => self.literal_minus = true,
            "OBJECTID" => self.objectid = true,
            "COMPRESS=DEFLATE" => self.compress_deflate = true,
            "SASL-IR" => self.sasl_ir = true,
            "UTF8=ACCEPT" | "UTF8=ONLY" => self.utf8_accept = true,
            "UNSELECT" => self.unselect = true,
            "ID" => self.id = true,
            "NAMESPACE" => self.namespace = true,
            "STARTTLS" => self.starttls = true,
            "LOGINDISABLED" => self.login_disabled = true,
            "X-GM-EXT-1" => self.gmail = true,
            "APPENDLIMIT" => self.append_limit = AppendLimit::PerMailbox,
            _ => {}
        }
    }

    /// Forgets an extension that is advertised and not honoured, and those that build on it. `false`: it was not offered,
    /// or there is no way to do without it.
    pub fn forgo(&mut self, extension: &str) -> bool {
        let field = match extension {
            "CONDSTORE" => {
                self.qresync = false;
                &mut self.condstore
            }
            "QRESYNC" => &mut self.qresync,
            "ENABLE" => &mut self.enable,
            "IDLE" => &mut self.idle,
            "NOTIFY" => &mut self.notify,
            "MOVE" => &mut self.move_,
            "LIST-EXTENDED" => {
                self.list_status = false;
                &mut self.list_extended
            }
            "LIST-STATUS" => &mut self.list_status,
            "ESEARCH" => &mut self.esearch,
            "UNSELECT" => &mut self.unselect,
            "NAMESPACE" => &mut self.namespace,
            _ => return false,
        };
        std::mem::take(field)
    }

    /// Whether QRESYNC can be switched on: it needs ENABLE (RFC 7162 §3.2.3).
    #[must_use]
    pub const fn can_qresync(&self) -> bool {
        self.qresync && self.enable
    }

    /// Whether the SASL mechanism is offered, in any case.
    #[must_use]
    pub fn has_auth(&self, mechanism: &str) -> bool {
        self.auth.iter().any(|m| m.eq_ignore_ascii_case(mechanism))
    }

    /// Whether a literal of this many bytes may be sent without waiting for the server's go-ahead.
    #[must_use]
    pub const fn may_send_literal_at_once(&self, bytes: usize) -> bool {
        self.literal_plus || (self.literal_minus && bytes <= 4096)
    }
}

#[cfg(test)]
mod tests {
    use super::{AppendLimit, Capabilities};

    fn caps(line: &str) -> Capabilities {
        Capabilities::parse(line.split(' '))
    }

    #[test]
    fn a_dovecot_line_is_understood() {
        let c = caps(
            "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT ESEARCH MOVE UIDPLUS UNSELECT CONDSTORE \
             QRESYNC LIST-EXTENDED LIST-STATUS SPECIAL-USE LITERAL+ NOTIFY COMPRESS=DEFLATE AUTH=PLAIN auth=LOGIN",
        );
        assert!(
            c.can_qresync() && c.condstore && c.move_ && c.uidplus && c.list_status && c.compress_deflate
        );
        assert!(c.has_auth("plain") && c.has_auth("LOGIN") && !c.has_auth("XOAUTH2"));
        assert!(c.may_send_literal_at_once(1 << 30));
        assert!(!c.objectid && !c.gmail);
    }

    #[test]
    fn qresync_brings_condstore_but_not_enable() {
        let c = caps("IMAP4rev1 QRESYNC");
        assert!(c.condstore && !c.can_qresync());
    }

    #[test]
    fn a_rev2_only_server_has_what_the_protocol_contains() {
        let c = caps("IMAP4rev2 AUTH=PLAIN");
        assert!(c.idle && c.move_ && c.esearch && !c.qresync);
        assert!(c.may_send_literal_at_once(4096) && !c.may_send_literal_at_once(4097));
        assert!(!caps("IMAP4rev1 IMAP4rev2").idle);
    }

    #[test]
    fn what_is_forgone_takes_with_it_what_needs_it() {
        let mut c = caps("IMAP4rev1 ENABLE CONDSTORE QRESYNC LIST-EXTENDED LIST-STATUS IDLE");
        assert!(c.forgo("CONDSTORE") && !c.qresync && !c.condstore);
        assert!(c.forgo("LIST-EXTENDED") && !c.list_status);
        assert!(c.forgo("IDLE") && !c.forgo("IDLE") && !c.forgo("NOTIFY") && !c.forgo("X"));
    }

    #[test]
    fn append_limits_are_read() {
        assert_eq!(caps("APPENDLIMIT=35651584").append_limit, AppendLimit::Bytes(35_651_584));
        assert_eq!(caps("APPENDLIMIT").append_limit, AppendLimit::PerMailbox);
        assert_eq!(caps("APPENDLIMIT=x").append_limit, AppendLimit::Unknown);
    }

    #[test]
    fn a_flood_of_mechanisms_is_cut() {
        let line: Vec<String> = (0..10_000).map(|i| format!("AUTH=X{i}")).collect();
        assert_eq!(Capabilities::parse(line.iter().map(String::as_str)).auth.len(), 32);
    }
}
