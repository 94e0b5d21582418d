//! What a mailbox is for: told by the server (RFC 6154), else guessed from well-known names.

use serde::{Deserialize, Serialize};

/// A role that at most one mailbox of an account plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Where new mail arrives.
    Inbox,
    /// Copies of what was sent.
    Sent,
    /// Unfinished messages.
    Drafts,
    /// Unwanted mail.
    Junk,
    /// Deleted, not gone yet.
    Trash,
    /// Kept out of the way.
    Archive,
    /// Every message of the account (Gmail).
    All,
}

/// Names by which people and other clients create these mailboxes, in lower case, without accents' traps:
/// compared after lower-casing the decoded last part.
const KNOWN: [(Role, &[&str]); 6] = [
    (
        Role::Sent,
        &[
            "sent",
            "sent items",
            "sent messages",
            "sent mail",
            "sent-mail",
            "gesendet",
            "gesendete objekte",
            "gesendete elemente",
            "gesendete nachrichten",
            "envoyés",
            "éléments envoyés",
            "messages envoyés",
            "enviados",
            "elementos enviados",
            "mensajes enviados",
            "itens enviados",
            "inviati",
            "posta inviata",
            "posta inviati",
            "verzonden",
            "verzonden items",
            "verzonden berichten",
            "wysłane",
            "elementy wysłane",
            "skickat",
            "skickade objekt",
            "sendte elementer",
            "sendt post",
            "sendt",
            "lähetetyt",
            "odeslané",
            "odoslané",
            "elküldött elemek",
            "gönderilmiş öğeler",
            "gönderilenler",
            "отправленные",
            "надіслані",
            "已发送",
            "已发送邮件",
            "已傳送郵件",
            "寄件備份",
            "送信済み",
            "送信済みアイテム",
            "送信済みメール",
            "보낸 편지함",
            "보낸편지함",
            "البريد المرسل",
            "פריטים שנשלחו",
        ],
    ),
    (
        Role::Drafts,
        &[
            "drafts",
            "draft",
            "entwürfe",
            "entwurf",
            "brouillons",
            "brouillon",
            "borradores",
            "borrador",
            "rascunhos",
            "rascunho",
            "bozze",
            "bozza",
            "concepten",
            "kopie robocze",
            "szkice",
            "wersje robocze",
            "utkast",
            "kladder",
            "luonnokset",
            "koncepty",
            "rozpracované",
            "piszkozatok",
            "taslaklar",
            "черновики",
            "чернетки",
            "草稿",
            "草稿箱",
            "下書き",
            "임시 보관함",
            "임시보관함",
            "المسودات",
            "טיוטות",
        ],
    ),
    (
        Role::Junk,
        &[
            "junk",
            "spam",
            "junk e-mail",
            "junk email",
            "junk mail",
            "bulk mail",
            "bulk",
            "spamverdacht",
            "junk-e-mail",
            "unerwünscht",
            "courrier indésirable",
            "indésirables",
            "pourriel",
            "correo no deseado",
            "no deseado",
            "lixo eletrônico",
            "posta indesiderata",
            "indesiderata",
            "ongewenste e-mail",
            "ongewenst",
            "wiadomości-śmieci",
            "skräppost",
            "søppelpost",
            "uønsket mail",
            "uønsket e-post",
            "roskaposti",
            "nevyžádaná pošta",
            "nevyžiadaná pošta",
            "levélszemét",
            "önemsiz",
            "gereksiz e-posta",
            "спам",
            "垃圾邮件",
            "垃圾郵件",
            "迷惑メール",
            "스팸",
            "스팸메일함",
            "스팸 편지함",
        ],
    ),
    (
        Role::Trash,
        &[
            "trash",
            "deleted items",
            "deleted messages",
            "deleted",
            "bin",
            "papierkorb",
            "gelöschte objekte",
            "gelöschte elemente",
            "gelöscht",
            "corbeille",
            "éléments supprimés",
            "messages supprimés",
            "papelera",
            "elementos eliminados",
            "eliminados",
            "lixeira",
            "itens excluídos",
            "lixo",
            "cestino",
            "posta eliminata",
            "prullenbak",
            "verwijderde items",
            "kosz",
            "elementy usunięte",
            "papperskorg",
            "papperskorgen",
            "borttagna objekt",
            "papirkurv",
            "slettede elementer",
            "slettet post",
            "roskakori",
            "koš",
            "kôš",
            "lomtár",
            "kuka",
            "törölt elemek",
            "çöp kutusu",
            "silinmiş öğeler",
            "корзина",
            "удаленные",
            "удалённые",
            "кошик",
            "已删除",
            "已删除邮件",
            "垃圾桶",
            "刪除的郵件",
            "ゴミ箱",
            "ごみ箱",
            "削除済みアイテム",
            "휴지통",
            "지운 편지함",
            "المهملات",
            "אשפה",
        ],
    ),
    (
        Role::Archive,
        &[
            "archive",
            "archives",
            "archiv",
            "archivo",
            "archivos",
            "arquivo",
            "arquivo morto",
            "archivio",
            "archief",
            "archiwum",
            "arkiv",
            "arkisto",
            "archív",
            "archívum",
            "arşiv",
            "архив",
            "архів",
            "存档",
            "归档",
            "封存",
            "アーカイブ",
            "보관함",
        ],
    ),
    (
        Role::All,
        &["all mail", "alle nachrichten", "tous les messages", "todos", "todos os e-mails", "вся почта"],
    ),
];

impl Role {
    /// The name in the API and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Sent => "sent",
            Self::Drafts => "drafts",
            Self::Junk => "junk",
            Self::Trash => "trash",
            Self::Archive => "archive",
            Self::All => "all",
        }
    }

    /// The reverse of [`Role::as_str`], in any case; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Inbox, Self::Sent, Self::Drafts, Self::Junk, Self::Trash, Self::Archive, Self::All]
            .into_iter()
            .find(|r| r.as_str().eq_ignore_ascii_case(text))
    }

    /// From the attributes of a LIST response (`\Sent`, in any case). The first that names a role wins.
    pub fn from_attributes<'a>(attributes: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        attributes.into_iter().find_map(|a| {
            let name = a.strip_prefix('\\')?;
            [
                ("Inbox", Self::Inbox),
                ("Sent", Self::Sent),
                ("Drafts", Self::Drafts),
                ("Junk", Self::Junk),
                ("Spam", Self::Junk),
                ("Trash", Self::Trash),
                ("Archive", Self::Archive),
                ("All", Self::All),
                ("AllMail", Self::All),
            ]
            .into_iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, r)| r)
        })
    }

    /// A guess from the decoded last part of the name. Ask only where the server names no role for any
    /// mailbox that would compete, and only for a mailbox at the top or directly below INBOX: a user's
    /// `Projects/Archive` is no archive.
    #[must_use]
    pub fn from_name(last_part: &str) -> Option<Self> {
        let name = last_part.trim().to_lowercase();
        if name == "inbox" {
            return Some(Self::Inbox);
        }
        KNOWN.iter().find(|(_, names)| names.contains(&name.as_str())).map(|(r, _)| *r)
    }

    /// The attribute for CREATE (USE …) and LIST; `None` for the inbox, which has no such attribute.
    #[must_use]
    pub const fn attribute(self) -> Option<&'static str> {
        match self {
            Self::Inbox => None,
            Self::Sent => Some("\\Sent"),
            Self::Drafts => Some("\\Drafts"),
            Self::Junk => Some("\\Junk"),
            Self::Trash => Some("\\Trash"),
            Self::Archive => Some("\\Archive"),
            Self::All => Some("\\All"),
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The role of every mailbox of an account at once: `(decoded path, delimiter, attributes)` in, roles out in
/// the same order. The server's word goes first; names fill only the roles it left open; each role is given
/// once, to the first in the list. `own_prefix` is where the user's own names begin (RFC 2342), readable, such as `INBOX.`.
#[must_use]
pub fn assign(mailboxes: &[(&str, Option<char>, &[&str])], own_prefix: &str) -> Vec<Option<Role>> {
    let mut taken = Vec::new();
    let mut roles: Vec<Option<Role>> = Vec::with_capacity(mailboxes.len());
    for (path, _, attributes) in mailboxes {
        let told = if path.eq_ignore_ascii_case("inbox") {
            Some(Role::Inbox)
        } else {
            Role::from_attributes(attributes.iter().copied()).filter(|r| *r != Role::Inbox)
        };
        roles.push(told.filter(|r| claim(&mut taken, *r)));
    }
    for ((path, delimiter, _), role) in mailboxes.iter().zip(roles.iter_mut()) {
        if role.is_none() {
            let (parent, last) = super::split_last(path, *delimiter);
            let at_root =
                |p: &str| own_prefix.strip_suffix(|c| Some(c) == *delimiter).is_some_and(|root| root == p);
            let near =
                parent.is_none_or(|p| p.eq_ignore_ascii_case("inbox") || p.starts_with('[') || at_root(p));
            let guess = Role::from_name(last).filter(|r| near && *r != Role::Inbox);
            *role = guess.filter(|r| claim(&mut taken, *r));
        }
    }
    roles
}

fn claim(taken: &mut Vec<Role>, role: Role) -> bool {
    let free = !taken.contains(&role);
    if free {
        taken.push(role);
    }
    free
}

#[cfg(test)]
mod tests {
    use super::{Role, assign};

    #[test]
    fn the_servers_word_goes_before_names() {
        let list: [(&str, Option<char>, &[&str]); 4] = [
            ("INBOX", Some('/'), &[]),
            ("Sent", Some('/'), &[]),
            ("Gesendet", Some('/'), &["\\HasNoChildren", "\\sent"]),
            ("INBOX/Trash", Some('/'), &[]),
        ];
        assert_eq!(assign(&list, ""), [Some(Role::Inbox), None, Some(Role::Sent), Some(Role::Trash)]);
    }

    #[test]
    fn a_deep_mailbox_is_not_guessed_at() {
        let list: [(&str, Option<char>, &[&str]); 2] =
            [("Projects/Archive", Some('/'), &[]), ("[Gmail]/All Mail", Some('/'), &[])];
        assert_eq!(assign(&list, ""), [None, Some(Role::All)]);
        assert_eq!(assign(&list, "Projects/"), [Some(Role::Archive), Some(Role::All)]);
    }

    #[test]
    fn names_of_many_languages_are_known() {
        for (name, role) in [
            ("Entwürfe", Role::Drafts),
            ("ENTWÜRFE", Role::Drafts),
            ("Éléments envoyés", Role::Sent),
            ("Корзина", Role::Trash),
            ("迷惑メール", Role::Junk),
            ("Archív", Role::Archive),
            ("inbox", Role::Inbox),
        ] {
            assert_eq!(Role::from_name(name), Some(role), "{name}");
        }
        assert_eq!(Role::from_name("Rechnungen"), None);
    }

    #[test]
    fn roles_have_one_spelling() {
        for role in [Role::Inbox, Role::Sent, Role::Drafts, Role::Junk, Role::Trash, Role::Archive, Role::All]
        {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        assert_eq!(Role::parse("outbox"), None);
    }
}
