//! German.

use wire::discover::Note;
use wire::trouble::Trouble;

use super::{Returned, Said, Shut, Words, Wrong};

/// What is said.
pub const WORDS: Words = Words {
    code: "de",
    error_title: "Fehler",
    nameless: "E-Mail",
    connect: "Postfach verbinden",
    connect_lead: |name| format!("{name} kann danach Ihre E-Mails lesen und in Ihrem Namen senden."),
    renew: "Postfach neu verbinden",
    renew_lead: |name, email| {
        format!("{name} braucht wieder Zugriff auf {email}. Ihre E-Mails bleiben, wo sie sind.")
    },
    address: "E-Mail-Adresse",
    address_hint: "An ihr erkennen wir die Einstellungen Ihres Anbieters.",
    go_on: "Weiter",
    cancel: "Abbrechen",
    another_address: "Andere Adresse verwenden",
    sign_in: |provider| format!("Bei {provider} anmelden"),
    sign_in_lead: |provider, email| {
        format!("{provider} fragt Sie, ob Sie den Zugriff auf {email} erlauben. Danach geht es hier weiter.")
    },
    sign_in_button: |provider| format!("Weiter zu {provider}"),
    password_instead: "Stattdessen ein Passwort verwenden",
    your_provider: "Ihr Anbieter",
    at_your_provider: "Ihrem Anbieter",
    password_title: "Passwort eingeben",
    password_lead: |email| format!("Für {email}"),
    password: "Passwort",
    app_password: "App-Passwort",
    connect_button: "Verbinden",
    password_use: "Es wird verschlüsselt aufbewahrt und geht nur an diese Server:",
    servers_yourself: "Server selbst eingeben",
    servers_title: "Mailserver eingeben",
    servers_unknown: |email| {
        format!(
            "Wir haben die Einstellungen für {email} nicht gefunden. Ihr Anbieter oder Administrator kennt sie."
        )
    },
    servers_lead: |email| format!("Für {email}. Ihr Anbieter oder Administrator kennt sie."),
    or_sign_in: "Melden Sie sich bei Ihrer Organisation so an?",
    username: "Benutzername",
    username_hint: "Meist ist das Ihre E-Mail-Adresse.",
    incoming: "E-Mails lesen (IMAP)",
    outgoing: "E-Mails senden (SMTP)",
    host: "Server",
    port: "Port",
    encryption: "Verschlüsselung",
    tls: "TLS",
    starttls: "STARTTLS",
    other_login: "Das Senden braucht andere Zugangsdaten",
    smtp_username: "Benutzername zum Senden",
    smtp_password: "Passwort zum Senden",
    no_way: "Dieses Postfach lässt sich nicht verbinden",
    no_way_lead: |provider, email| format!("{email} ist ein Postfach bei {provider}."),
    failed: "Das hat nicht geklappt",
    look_again: "Bitte sehen Sie noch einmal nach",
    reading: "E-Mails lesen",
    sending: "E-Mails senden",
    step_done: "klappt",
    step_failed: "fehlgeschlagen",
    said: |text| format!("Die Antwort war: „{text}“"),
    exists: "Diese Adresse ist schon verbunden, mit anderen Servern oder einem anderen Benutzernamen.",
    mismatch: |one, other| {
        format!("Hier geht es um {other} und nicht um {one}. Beginnen Sie mit dem richtigen Postfach.")
    },
    slow: |seconds| match seconds {
        0..=1 => {
            "Das waren zu viele Versuche. Warten Sie eine Sekunde und versuchen Sie es dann noch einmal."
                .to_owned()
        }
        2..=90 => format!(
            "Das waren zu viele Versuche. Warten Sie {seconds} Sekunden und versuchen Sie es dann noch einmal."
        ),
        _ => format!(
            "Das waren zu viele Versuche. Warten Sie {} Minuten und versuchen Sie es dann noch einmal.",
            seconds.div_ceil(60)
        ),
    },
    unavailable: "Hier ist etwas schiefgegangen. Versuchen Sie es gleich noch einmal.",
    back_to: |name| format!("Zurück zu {name}"),
    good_to_know: "Gut zu wissen",
    trouble,
    note,
    wrong,
    returned,
    shut,
};

fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::HostNotAllowed => "Dieser Server darf hier nicht verwendet werden.",
        Trouble::PortNotAllowed => {
            "Dieser Port darf hier nicht verwendet werden. Üblich sind 993 zum Lesen und 465 zum Senden."
        }
        Trouble::HostNotFound => "Einen Server mit diesem Namen gibt es nicht. Prüfen Sie die Schreibweise.",
        Trouble::Unreachable => {
            "Der Server ist nicht erreichbar. Prüfen Sie Namen und Port, oder versuchen Sie es später noch einmal."
        }
        Trouble::Certificate => {
            "Der Server konnte nicht beweisen, wer er ist: Sein Zertifikat wurde nicht anerkannt. Prüfen Sie den Namen, oder sagen Sie es dem Betreiber des Servers."
        }
        Trouble::Handshake => {
            "Es kam keine verschlüsselte Verbindung zustande. Prüfen Sie Port und Verschlüsselung."
        }
        Trouble::Timeout => {
            "Der Server hat nicht rechtzeitig geantwortet. Prüfen Sie Port und Verschlüsselung, oder versuchen Sie es später noch einmal."
        }
        Trouble::Closed => {
            "Der Server hat aufgelegt. Prüfen Sie Port und Verschlüsselung, oder versuchen Sie es später noch einmal."
        }
        Trouble::Throttled => {
            "Der Server bittet um Geduld. Warten Sie einige Minuten und versuchen Sie es dann noch einmal."
        }
        Trouble::ConnectionsInUse => {
            "Zu diesem Postfach sind zu viele Verbindungen offen. Versuchen Sie es gleich noch einmal."
        }
        Trouble::CredentialsUnusable => "Das Passwort ist nicht verwendbar. Geben Sie es noch einmal ein.",
        Trouble::ConsentWithdrawn => {
            "Die Erlaubnis wurde zurückgenommen oder ist abgelaufen. Melden Sie sich noch einmal an."
        }
        Trouble::AppRefused => {
            "Der Anbieter erkennt diesen Dienst nicht an. Sagen Sie es dem, der Sie hierher geschickt hat."
        }
        Trouble::NoToken => "Der Anbieter gibt zurzeit keinen Zugang. Versuchen Sie es später noch einmal.",
        Trouble::AuthFailed => "Der Server nimmt Benutzernamen und Passwort nicht an.",
        Trouble::NoSuchMailbox => "Der Server hat kein solches Postfach.",
        Trouble::Refused => "Der Server hat abgelehnt.",
        Trouble::Protocol => {
            "Die Antwort des Servers war unverständlich. Prüfen Sie Port und Verschlüsselung."
        }
    }
}

fn note(note: Note) -> &'static str {
    match note {
        Note::AppPassword => {
            "Ihr übliches Passwort wird nicht angenommen. Erstellen Sie in den Sicherheitseinstellungen Ihres Anbieters ein App-Passwort und geben Sie dieses ein."
        }
        Note::AppPasswordForTwoFactor => {
            "Wenn Sie sich in zwei Schritten anmelden, erstellen Sie in den Einstellungen Ihres Anbieters ein App-Passwort und geben Sie dieses ein."
        }
        Note::SwitchOn => {
            "Schalten Sie zuerst in den Einstellungen Ihres Anbieters den Zugriff über IMAP ein."
        }
        Note::OAuthOnly => "Dieser Anbieter nimmt hier keine Passwörter an, auch keine App-Passwörter.",
        Note::OAuthPreferred => "Dieser Anbieter lehnt Passwörter hier vielleicht ab.",
        Note::Administrator => "Vielleicht muss Ihr Administrator IMAP und SMTP für Ihr Postfach erlauben.",
        Note::LocalPart => "Wird die Adresse als Benutzername abgelehnt, verwenden Sie den Teil vor dem @.",
        Note::ZohoOrganisations => {
            "Organisationen verwenden die Server imappro.zoho.com und smtppro.zoho.com."
        }
        Note::ZohoOrganisationsEu => {
            "Organisationen verwenden die Server imappro.zoho.eu und smtppro.zoho.eu."
        }
        Note::ProtonBridge => {
            "Proton Mail lässt sich nur über seine Bridge lesen, ein Programm auf Ihrem eigenen Rechner, das von hier aus nicht erreichbar ist."
        }
        Note::TutaNoImap => "Tuta gewährt anderen Programmen keinen Zugriff auf seine Postfächer.",
        Note::HeyNoImap => "HEY gewährt anderen Programmen keinen Zugriff auf seine Postfächer.",
        Note::MailPassword => {
            "Geben Sie das Passwort für E-Mail-Programme ein. Sie legen es im Kundencenter fest; es ist nicht das, mit dem Sie sich anmelden."
        }
        Note::AuthorisationCode => {
            "Geben Sie anstelle Ihres Passworts den Autorisierungscode aus den Einstellungen Ihres Anbieters ein."
        }
    }
}

fn wrong(wrong: Wrong) -> &'static str {
    match wrong {
        Wrong::Missing => "Bitte füllen Sie dieses Feld aus.",
        Wrong::TooLong => "Das ist zu lang.",
        Wrong::Address => "Geben Sie eine E-Mail-Adresse ein, etwa name@example.com.",
        Wrong::Port => "Geben Sie eine Zahl von 1 bis 65535 ein.",
        Wrong::Invalid => "Das ist so nicht verwendbar. Prüfen Sie die Schreibweise.",
        Wrong::Server(row) => trouble(row),
    }
}

fn returned(returned: Returned) -> &'static str {
    match returned {
        Returned::Denied => {
            "Der Zugriff wurde nicht erlaubt. Haben Sie das nicht selbst entschieden, muss Ihr Administrator ihn erlauben."
        }
        Returned::TooLate => {
            "Die Anmeldung hat zu lange gedauert oder wurde zweimal geöffnet. Versuchen Sie es noch einmal."
        }
        Returned::NoLastingAccess => {
            "Der Anbieter hat den Zugriff nur für einen Augenblick gegeben. Sagen Sie es dem, der Sie hierher geschickt hat: Der App fehlt das Recht auf dauerhaften Zugriff."
        }
        Returned::WhoIsIt => {
            "Der Anbieter sagt nicht verlässlich, wessen Postfach es ist. Es wurde nichts verbunden."
        }
        Returned::AnotherMailbox => {
            "Sie haben sich bei einem anderen Postfach angemeldet. Melden Sie sich bei dem an, das neu verbunden werden soll."
        }
        Returned::App => {
            "Der Anbieter erkennt diesen Dienst nicht an. Sagen Sie es dem, der Sie hierher geschickt hat."
        }
        Returned::Provider => "Der Anbieter hat abgelehnt.",
        Returned::Later => "Der Anbieter antwortet zurzeit nicht. Versuchen Sie es später noch einmal.",
        Returned::Gone => "Was Sie verbinden sollten, wurde inzwischen entfernt.",
        Returned::Server(Trouble::AuthFailed) => {
            "Sie sind angemeldet, aber der Mailserver erkennt das nicht an. Vielleicht sind IMAP oder SMTP für Ihr Postfach ausgeschaltet."
        }
        Returned::Server(row) => trouble(row),
        Returned::Ours => WORDS.unavailable,
    }
}

fn shut(shut: Shut) -> Said {
    match shut {
        Shut::Unknown => (
            "Dieser Link ist nicht gültig",
            "Gehen Sie dorthin zurück, wo Sie hergekommen sind, und beginnen Sie von vorn. Kopieren Sie den Link als Ganzes.",
        ),
        Shut::Used => (
            "Dieser Link wurde schon verwendet",
            "Sie können diese Seite schließen oder dorthin zurückgehen, wo Sie hergekommen sind.",
        ),
        Shut::Expired => (
            "Dieser Link ist abgelaufen",
            "Er galt eine halbe Stunde. Gehen Sie dorthin zurück, wo Sie hergekommen sind, und beginnen Sie von vorn.",
        ),
        Shut::Suspended => ("Zurzeit nicht möglich", "Postfächer lassen sich gerade nicht verbinden."),
        Shut::NotAllowed => (
            "Dieser Link ist nicht mehr gültig",
            "Wer ihn erstellt hat, darf keine Postfächer mehr verbinden.",
        ),
        Shut::NoWayBack => (
            "Dieser Link ist nicht mehr gültig",
            "Die Adresse, zu der es zurückgehen soll, ist nicht mehr registriert.",
        ),
        Shut::Slow => (
            "Einen Augenblick bitte",
            "Das waren zu viele Anfragen. Warten Sie ein wenig und laden Sie die Seite dann neu.",
        ),
        Shut::Form => (
            "Dieses Formular ist nicht verwendbar",
            "Es stammt nicht von dieser Seite oder ist zu alt. Öffnen Sie den Link noch einmal.",
        ),
        Shut::Ours => (
            "Hier ist etwas schiefgegangen",
            "Es ist nichts verloren. Laden Sie die Seite gleich noch einmal.",
        ),
    }
}
