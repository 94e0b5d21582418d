//! The large providers: where their servers are, by which domains and mail hosts they are known, what their users must do
//! first. As their own help pages say in 2026; a row that turns out wrong is changed here and nowhere else.

use super::{Candidate, Confidence, Note, Source, Suggestion, Who};
use crate::imap::{Endpoint, Security};
use Note::{
    Administrator, AppPassword, AppPasswordForTwoFactor, AuthorisationCode, HeyNoImap, LocalPart,
    MailPassword, OAuthOnly, ProtonBridge, SwitchOn, TutaNoImap, ZohoOrganisations, ZohoOrganisationsEu,
};
use Security::{StartTls, Tls};

/// Host, port and protection.
type Place = (&'static str, u16, Security);

/// One provider. Without places its mail cannot be read by IMAP, which a note explains.
#[derive(Debug)]
pub(super) struct Provider {
    name: &'static str,
    /// Domains of its users' addresses.
    domains: &'static [&'static str],
    /// Ends of the names of the hosts that take mail for it, also for domains of its customers.
    mail_hosts: &'static [&'static str],
    imap: Option<Place>,
    smtp: Option<Place>,
    notes: &'static [Note],
}

impl Provider {
    /// Its servers, for this user.
    pub fn candidate(&self, source: Source, confidence: Confidence, who: &Who) -> Candidate {
        let suggestion = |place: Option<Place>| {
            let (host, port, security) = place?;
            let endpoint = Endpoint { host: host.to_owned(), port, security };
            Some(Suggestion { endpoint, username: who.email.clone() })
        };
        Candidate {
            source,
            confirmed_by: Vec::new(),
            confidence,
            provider: Some(self.name.to_owned()),
            imap: suggestion(self.imap),
            smtp: suggestion(self.smtp),
            notes: self.notes.to_vec(),
        }
    }
}

/// The provider whose users have addresses of this domain.
pub(super) fn of_domain(domain: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|p| p.domains.contains(&domain))
}

/// The provider that a host which takes mail belongs to, by the longest end of its name that is known.
pub(super) fn of_mail_host(host: &str) -> Option<&'static Provider> {
    let fits = |end: &&str| super::belongs(host, end);
    PROVIDERS
        .iter()
        .filter_map(|p| Some((p.mail_hosts.iter().copied().filter(fits).map(str::len).max()?, p)))
        .max_by_key(|(length, _)| *length)
        .map(|(_, provider)| provider)
}

macro_rules! providers {
    ($($name:literal: [$($domain:literal)*], [$($host:literal)*], $imap:expr, $smtp:expr, [$($note:expr),*];)*) => {
        &[$(Provider {
            name: $name, domains: &[$($domain),*], mail_hosts: &[$($host),*], imap: $imap, smtp: $smtp, notes: &[$($note),*],
        }),*]
    };
}

/// Name: domains, ends of mail hosts, IMAP, SMTP, notes.
const PROVIDERS: &[Provider] = providers! {
    "Gmail": ["gmail.com" "googlemail.com"], ["google.com" "googlemail.com"],
        Some(("imap.gmail.com", 993, Tls)), Some(("smtp.gmail.com", 465, Tls)), [AppPassword];
    "Outlook.com": ["outlook.com" "outlook.de" "outlook.fr" "outlook.es" "outlook.it" "hotmail.com" "hotmail.co.uk" "hotmail.de"
        "hotmail.fr" "hotmail.es" "hotmail.it" "live.com" "live.co.uk" "live.de" "live.fr" "live.nl" "msn.com"], ["olc.protection.outlook.com"],
        Some(("outlook.office365.com", 993, Tls)), Some(("smtp-mail.outlook.com", 587, StartTls)), [OAuthOnly];
    "Microsoft 365": ["onmicrosoft.com"], ["mail.protection.outlook.com" "mx.microsoft"],
        Some(("outlook.office365.com", 993, Tls)), Some(("smtp.office365.com", 587, StartTls)),
        [OAuthOnly, Administrator];
    "Yahoo": ["yahoo.com" "ymail.com" "rocketmail.com" "myyahoo.com" "yahoo.co.uk" "yahoo.de" "yahoo.fr" "yahoo.it" "yahoo.es"
        "yahoo.ca" "yahoo.in" "yahoo.co.in" "yahoo.com.au" "yahoo.com.br"], ["yahoodns.net"],
        Some(("imap.mail.yahoo.com", 993, Tls)), Some(("smtp.mail.yahoo.com", 465, Tls)), [AppPassword];
    "AOL": ["aol.com" "aol.de" "aol.fr" "aol.co.uk" "aim.com"], ["mx-aol.mail.gm0.yahoodns.net"],
        Some(("imap.aol.com", 993, Tls)), Some(("smtp.aol.com", 465, Tls)), [AppPassword];
    "iCloud": ["icloud.com" "me.com" "mac.com"], ["mail.icloud.com"],
        Some(("imap.mail.me.com", 993, Tls)), Some(("smtp.mail.me.com", 587, StartTls)),
        [AppPassword, LocalPart];
    "Fastmail": ["fastmail.com" "fastmail.fm" "fastmail.net" "fastmail.org" "messagingengine.com" "sent.com"], ["messagingengine.com"],
        Some(("imap.fastmail.com", 993, Tls)), Some(("smtp.fastmail.com", 465, Tls)), [AppPassword];
    "Zoho Mail": ["zoho.com" "zohomail.com"], ["zoho.com" "zohomail.com"],
        Some(("imap.zoho.com", 993, Tls)), Some(("smtp.zoho.com", 465, Tls)),
        [SwitchOn, ZohoOrganisations, AppPasswordForTwoFactor];
    "Zoho Mail (EU)": ["zoho.eu" "zohomail.eu"], ["zoho.eu" "zohomail.eu"],
        Some(("imap.zoho.eu", 993, Tls)), Some(("smtp.zoho.eu", 465, Tls)),
        [SwitchOn, ZohoOrganisationsEu, AppPasswordForTwoFactor];
    "GMX": ["gmx.de" "gmx.net" "gmx.at" "gmx.ch" "gmx.eu"], ["emig.gmx.net" "gmx.net"],
        Some(("imap.gmx.net", 993, Tls)), Some(("mail.gmx.net", 465, Tls)), [SwitchOn];
    "GMX (international)": ["gmx.com" "gmx.us" "gmx.co.uk" "gmx.fr" "gmx.es"], [],
        Some(("imap.gmx.com", 993, Tls)), Some(("mail.gmx.com", 465, Tls)), [SwitchOn];
    "WEB.DE": ["web.de"], ["web.de"],
        Some(("imap.web.de", 993, Tls)), Some(("smtp.web.de", 587, StartTls)), [SwitchOn];
    "mail.com": ["mail.com" "email.com" "usa.com"], ["mail.com"],
        Some(("imap.mail.com", 993, Tls)), Some(("smtp.mail.com", 465, Tls)), [SwitchOn];
    "Yandex": ["yandex.ru" "yandex.com" "yandex.by" "yandex.kz" "ya.ru"], ["mx.yandex.net" "mx.yandex.ru"],
        Some(("imap.yandex.com", 993, Tls)), Some(("smtp.yandex.com", 465, Tls)), [SwitchOn, AppPassword];
    "Mail.ru": ["mail.ru" "inbox.ru" "list.ru" "bk.ru" "internet.ru"], ["mxs.mail.ru" "emx.mail.ru"],
        Some(("imap.mail.ru", 993, Tls)), Some(("smtp.mail.ru", 465, Tls)), [AppPassword];
    "Proton Mail": ["proton.me" "protonmail.com" "protonmail.ch" "pm.me"], ["protonmail.ch"], None, None,
        [ProtonBridge];
    "Tuta": ["tuta.com" "tuta.io" "tutanota.com" "tutanota.de" "tutamail.com" "keemail.me"], ["tutanota.de"], None, None,
        [TutaNoImap];
    "HEY": ["hey.com"], ["hey.com"], None, None, [HeyNoImap];
    "Posteo": ["posteo.de" "posteo.net" "posteo.org" "posteo.eu" "posteo.ch" "posteo.at"], ["posteo.de"],
        Some(("posteo.de", 993, Tls)), Some(("posteo.de", 465, Tls)), [];
    "mailbox.org": ["mailbox.org"], ["mailbox.org"],
        Some(("imap.mailbox.org", 993, Tls)), Some(("smtp.mailbox.org", 465, Tls)), [];
    "T-Online": ["t-online.de" "magenta.de"], ["t-online.de"],
        Some(("secureimap.t-online.de", 993, Tls)), Some(("securesmtp.t-online.de", 465, Tls)),
        [MailPassword];
    "freenet": ["freenet.de"], ["freenet.de"],
        Some(("mx.freenet.de", 993, Tls)), Some(("mx.freenet.de", 587, StartTls)), [SwitchOn];
    "IONOS": [], ["kundenserver.de" "ionos.de"],
        Some(("imap.ionos.de", 993, Tls)), Some(("smtp.ionos.de", 465, Tls)), [];
    "IONOS (international)": [], ["ionos.com"],
        Some(("imap.ionos.com", 993, Tls)), Some(("smtp.ionos.com", 465, Tls)), [];
    "STRATO": [], ["rzone.de"],
        Some(("imap.strato.de", 993, Tls)), Some(("smtp.strato.de", 465, Tls)), [];
    "OVHcloud": [], ["mail.ovh.net"],
        Some(("ssl0.ovh.net", 993, Tls)), Some(("ssl0.ovh.net", 465, Tls)), [];
    "Gandi": [], ["mail.gandi.net"],
        Some(("mail.gandi.net", 993, Tls)), Some(("mail.gandi.net", 465, Tls)), [];
    "Infomaniak": ["ik.me" "etik.com"], ["infomaniak.ch"],
        Some(("mail.infomaniak.com", 993, Tls)), Some(("mail.infomaniak.com", 465, Tls)), [];
    "Migadu": [], ["migadu.com"],
        Some(("imap.migadu.com", 993, Tls)), Some(("smtp.migadu.com", 465, Tls)), [];
    "Private Email (Namecheap)": [], ["privateemail.com"],
        Some(("mail.privateemail.com", 993, Tls)), Some(("mail.privateemail.com", 465, Tls)), [];
    "Orange": ["orange.fr" "wanadoo.fr"], ["orange.fr"],
        Some(("imap.orange.fr", 993, Tls)), Some(("smtp.orange.fr", 465, Tls)), [];
    "Xfinity": ["comcast.net"], ["comcast.net"],
        Some(("imap.comcast.net", 993, Tls)), Some(("smtp.comcast.net", 587, StartTls)), [SwitchOn];
    "Seznam": ["seznam.cz" "email.cz" "post.cz"], ["seznam.cz"],
        Some(("imap.seznam.cz", 993, Tls)), Some(("smtp.seznam.cz", 465, Tls)), [];
    "Libero": ["libero.it"], ["libero.it"],
        Some(("imapmail.libero.it", 993, Tls)), Some(("smtp.libero.it", 465, Tls)), [];
    "QQ Mail": ["qq.com" "foxmail.com"], ["mx1.qq.com" "mx2.qq.com" "mx3.qq.com"],
        Some(("imap.qq.com", 993, Tls)), Some(("smtp.qq.com", 465, Tls)),
        [SwitchOn, AuthorisationCode];
    "NetEase 163": ["163.com"], ["mxmail.netease.com"],
        Some(("imap.163.com", 993, Tls)), Some(("smtp.163.com", 465, Tls)),
        [SwitchOn, AuthorisationCode];
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::dial::MAIL_PORTS;

    #[test]
    fn no_domain_and_no_mail_host_stands_twice_and_every_place_can_be_dialled() {
        let mut seen = HashSet::new();
        for p in PROVIDERS {
            for domain in p.domains {
                assert!(seen.insert(("domain", *domain)), "{domain}");
            }
            for host in p.mail_hosts {
                assert!(seen.insert(("host", *host)), "{host}");
            }
            assert_eq!(p.imap.is_some(), p.smtp.is_some(), "{}", p.name);
            assert!(p.imap.is_some() || !p.notes.is_empty(), "{} says nothing", p.name);
            for (host, port, security) in p.imap.iter().chain(&p.smtp) {
                assert!(
                    MAIL_PORTS.contains(port) && *security != Security::Plain && host.contains('.'),
                    "{}",
                    p.name
                );
            }
        }
    }

    #[test]
    fn a_mail_host_is_known_by_the_longest_end_of_its_name() {
        let name = |host: &str| of_mail_host(host).map(|p| p.name);
        assert_eq!(name("aspmx.l.google.com"), Some("Gmail"));
        assert_eq!(name("example-com.mail.protection.outlook.com"), Some("Microsoft 365"));
        assert_eq!(name("outlook-com.olc.protection.outlook.com"), Some("Outlook.com"));
        assert_eq!(name("mx-aol.mail.gm0.yahoodns.net"), Some("AOL"));
        assert_eq!(name("mta5.am0.yahoodns.net"), Some("Yahoo"));
        assert_eq!(name("in1-smtp.messagingengine.com"), Some("Fastmail"));
        assert_eq!(name("mx.notgoogle.com"), None);
    }
}
