//! English.

use wire::discover::Note;
use wire::trouble::Trouble;

use super::{Returned, Said, Shut, Words, Wrong};

/// What is said.
pub const WORDS: Words = Words {
    code: "en",
    error_title: "Error",
    nameless: "Email",
    connect: "Connect your mailbox",
    connect_lead: |name| format!("{name} will be able to read and send your email."),
    renew: "Reconnect your mailbox",
    renew_lead: |name, email| format!("{name} needs access to {email} again. Your email stays where it is."),
    address: "Email address",
    address_hint: "We use it to find the settings of your provider.",
    go_on: "Continue",
    cancel: "Cancel",
    another_address: "Use another address",
    sign_in: |provider| format!("Sign in with {provider}"),
    sign_in_lead: |provider, email| {
        format!("{provider} asks you to allow access to {email}. You come back here afterwards.")
    },
    sign_in_button: |provider| format!("Continue to {provider}"),
    password_instead: "Use a password instead",
    your_provider: "Your provider",
    at_your_provider: "your provider",
    password_title: "Enter your password",
    password_lead: |email| format!("For {email}"),
    password: "Password",
    app_password: "App password",
    connect_button: "Connect",
    password_use: "It is kept encrypted, and goes to these servers only:",
    servers_yourself: "Enter the servers yourself",
    servers_title: "Enter your mail servers",
    servers_unknown: |email| {
        format!("We did not find the settings for {email}. Your provider or administrator can tell you.")
    },
    servers_lead: |email| format!("For {email}. Your provider or administrator can tell you."),
    or_sign_in: "Does your organisation sign you in here?",
    username: "User name",
    username_hint: "Usually your email address.",
    incoming: "Reading mail (IMAP)",
    outgoing: "Sending mail (SMTP)",
    host: "Server",
    port: "Port",
    encryption: "Encryption",
    tls: "TLS",
    starttls: "STARTTLS",
    other_login: "Sending needs another login",
    smtp_username: "User name for sending",
    smtp_password: "Password for sending",
    no_way: "This mailbox cannot be connected",
    no_way_lead: |provider, email| format!("{email} is a mailbox at {provider}."),
    failed: "That did not work",
    look_again: "Please look at this again",
    reading: "Reading mail",
    sending: "Sending mail",
    step_done: "works",
    step_failed: "failed",
    said: |text| format!("The answer was: “{text}”"),
    exists: "This address is connected already, with other servers or another user name.",
    mismatch: |one, other| {
        format!("This is about {other}, and not about {one}. Begin with the right mailbox.")
    },
    slow: |seconds| match seconds {
        0..=1 => "There were too many attempts. Wait a second, then try again.".to_owned(),
        2..=90 => format!("There were too many attempts. Wait {seconds} seconds, then try again."),
        _ => {
            format!("There were too many attempts. Wait {} minutes, then try again.", seconds.div_ceil(60))
        }
    },
    unavailable: "Something went wrong here. Try again in a moment.",
    back_to: |name| format!("Back to {name}"),
    good_to_know: "Good to know",
    trouble,
    note,
    wrong,
    returned,
    shut,
};

fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::HostNotAllowed => "This server may not be used here.",
        Trouble::PortNotAllowed => {
            "This port may not be used here. Usual ones are 993 for reading and 465 for sending."
        }
        Trouble::HostNotFound => "There is no server of this name. Check the spelling.",
        Trouble::Unreachable => "The server cannot be reached. Check its name and port, or try again later.",
        Trouble::Certificate => {
            "The server could not prove who it is: its certificate was not accepted. Check the name, or tell whoever runs the server."
        }
        Trouble::Handshake => "No encrypted connection came about. Check port and encryption.",
        Trouble::Timeout => {
            "The server did not answer in time. Check port and encryption, or try again later."
        }
        Trouble::Closed => "The server hung up. Check port and encryption, or try again later.",
        Trouble::Throttled => "The server asks for patience. Wait a few minutes, then try again.",
        Trouble::ConnectionsInUse => "Too many connections to this mailbox are open. Try again in a moment.",
        Trouble::CredentialsUnusable => "The password cannot be used. Enter it again.",
        Trouble::ConsentWithdrawn => "The consent was withdrawn or has expired. Sign in again.",
        Trouble::AppRefused => "The provider does not accept this service. Tell whoever sent you here.",
        Trouble::NoToken => "The provider gives no access at the moment. Try again later.",
        Trouble::AuthFailed => "The server does not accept the user name and password.",
        Trouble::NoSuchMailbox => "The server has no such mailbox.",
        Trouble::Refused => "The server refused.",
        Trouble::Protocol => "The server's answer was not understood. Check port and encryption.",
    }
}

fn note(note: Note) -> &'static str {
    match note {
        Note::AppPassword => {
            "Your usual password is not accepted. Make an app password in the security settings of your provider, and enter that."
        }
        Note::AppPasswordForTwoFactor => {
            "If you sign in in two steps, make an app password in your provider's settings, and enter that."
        }
        Note::SwitchOn => "Switch on access by IMAP in your provider's settings first.",
        Note::OAuthOnly => "This provider accepts no passwords here, and no app passwords either.",
        Note::OAuthPreferred => "This provider may refuse passwords here.",
        Note::Administrator => "Your administrator may have to permit IMAP and SMTP for your mailbox.",
        Note::LocalPart => "If the address is refused as user name, use the part before the @.",
        Note::ZohoOrganisations => "Organisations use the servers imappro.zoho.com and smtppro.zoho.com.",
        Note::ZohoOrganisationsEu => "Organisations use the servers imappro.zoho.eu and smtppro.zoho.eu.",
        Note::ProtonBridge => {
            "Proton Mail can be read only through its Bridge, a program on your own computer, which cannot be reached from here."
        }
        Note::TutaNoImap => "Tuta gives other programs no access to its mailboxes.",
        Note::HeyNoImap => "HEY gives other programs no access to its mailboxes.",
        Note::MailPassword => {
            "Enter the password for mail programs. You set it in the customer centre; it is not the one you log in with."
        }
        Note::AuthorisationCode => {
            "Enter the authorisation code from your provider's settings in place of your password."
        }
    }
}

fn wrong(wrong: Wrong) -> &'static str {
    match wrong {
        Wrong::Missing => "Please fill this in.",
        Wrong::TooLong => "This is too long.",
        Wrong::Address => "Enter an email address, like name@example.com.",
        Wrong::Port => "Enter a number from 1 to 65535.",
        Wrong::Invalid => "This cannot be used. Check the spelling.",
        Wrong::Server(row) => trouble(row),
    }
}

fn returned(returned: Returned) -> &'static str {
    match returned {
        Returned::Denied => {
            "Access was not allowed. If you did not decide that yourself, your administrator has to permit it."
        }
        Returned::TooLate => "The sign-in took too long, or was opened twice. Try again.",
        Returned::NoLastingAccess => {
            "The provider gave access for a moment only. Tell whoever sent you here: the app lacks the right to offline access."
        }
        Returned::WhoIsIt => "The provider does not say reliably whose mailbox it is. Nothing was connected.",
        Returned::AnotherMailbox => {
            "You signed in to another mailbox. Sign in to the one that is to be reconnected."
        }
        Returned::App => "The provider does not accept this service. Tell whoever sent you here.",
        Returned::Provider => "The provider refused.",
        Returned::Later => "The provider does not answer at the moment. Try again later.",
        Returned::Gone => "What you were to connect was removed meanwhile.",
        Returned::Server(Trouble::AuthFailed) => {
            "You signed in, but the mail server does not accept it. IMAP or SMTP may be switched off for your mailbox."
        }
        Returned::Server(row) => trouble(row),
        Returned::Ours => WORDS.unavailable,
    }
}

fn shut(shut: Shut) -> Said {
    match shut {
        Shut::Unknown => (
            "This link is not valid",
            "Go back to where you came from and begin again. Copy the link as a whole.",
        ),
        Shut::Used => {
            ("This link was used already", "You can close this page, or go back to where you came from.")
        }
        Shut::Expired => (
            "This link has expired",
            "It was good for half an hour. Go back to where you came from and begin again.",
        ),
        Shut::Suspended => ("Not possible at the moment", "Mailboxes cannot be connected at present."),
        Shut::NotAllowed => {
            ("This link is not valid any more", "Who made it may connect no mailboxes any more.")
        }
        Shut::NoWayBack => {
            ("This link is not valid any more", "The address to go back to is not registered any more.")
        }
        Shut::Slow => {
            ("One moment, please", "There were too many requests. Wait a little, then load the page again.")
        }
        Shut::Form => {
            ("This form cannot be used", "It is not from this page, or too old. Open the link again.")
        }
        Shut::Ours => ("Something went wrong here", "Nothing is lost. Load the page again in a moment."),
    }
}
