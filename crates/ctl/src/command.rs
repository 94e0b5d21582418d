//! What can be asked of `emailctl`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use emailclient_core::access::principal::Role;

/// Administration of the email client backend. Settings come from the environment (see .env.example).
#[derive(Debug, Parser)]
#[command(name = "emailctl", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the database roles and bring the schema up to date (needs DATABASE_OWNER_URL). Safe to repeat.
    Migrate {
        /// Another database of the same server than that of DATABASE_OWNER_URL, such as one that a dump was just read into.
        #[arg(long)]
        database: Option<String>,
        /// Make the roles and leave the schema as it is.
        #[arg(long)]
        roles_only: bool,
    },
    /// Look at settings, PostgreSQL, schema, wall, jobs, Redis, keys, mail hosts, folders and clock; says what is wrong
    /// and how to mend it. Exits 1 when something is.
    Check {
        /// One JSON object instead of lines.
        #[arg(long)]
        json: bool,
        /// Colours; `auto` means on a terminal, unless NO_COLOR is set.
        #[arg(long, value_enum, default_value = "auto")]
        color: Color,
    },
    /// Exit 0 when the service is well: the API answers that it is ready, worker and scheduler went round lately.
    Healthcheck {
        /// Which service.
        #[arg(long, value_enum, default_value = "api")]
        service: Service,
        /// Where the API listens; without it, this machine's port of API_LISTEN.
        #[arg(long)]
        address: Option<String>,
    },
    /// Tenants.
    #[command(subcommand)]
    Tenant(Tenant),
    /// Users. What changes of one holds for its access tokens within 5 seconds, too.
    #[command(subcommand)]
    User(User),
    /// The keys that stored passwords are sealed under.
    #[command(subcommand)]
    Keys(Keys),
    /// The event log of a tenant.
    #[command(subcommand)]
    Events(Events),
    /// Mailboxes of our own Dovecot: the lines of its passwd-file.
    Mailbox(MailboxArgs),
}

/// Commands about events.
#[derive(Debug, Subcommand)]
pub enum Events {
    /// Print the last events, a line of JSON each: ids and states, no contents of mail.
    Tail {
        /// The tenant's slug.
        #[arg(long)]
        tenant: String,
        /// Events of this account only.
        #[arg(long)]
        account: Option<uuid::Uuid>,
        /// How many of the last ones.
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u32,
        /// Go on printing events as they come, until interrupted.
        #[arg(short, long)]
        follow: bool,
    },
}

/// Commands about encryption keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Seal every stored password under ENCRYPTION_KEY that is still under a key of ENCRYPTION_KEYS_OLD. Services may run,
    /// if all know both keys. Safe to interrupt and to repeat; exits 1 when some could not be sealed anew.
    Rotate,
}

/// Which file, and what to do with it.
#[derive(Debug, Args)]
pub struct MailboxArgs {
    /// The passwd-file; without it, the setting DOVECOT_PASSWD_FILE.
    #[arg(long, global = true)]
    pub passwd_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub what: Mailbox,
}

/// Commands about mailboxes.
#[derive(Debug, Subcommand)]
pub enum Mailbox {
    /// Let an address log in. Prints the password when it was drawn, and nothing else.
    Create {
        /// name@domain
        address: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: NewPassword,
    },
    /// Print the addresses, one a line.
    List,
    /// Let an address log in no more. Its mail stays where Dovecot keeps it.
    Delete {
        /// name@domain
        address: String,
    },
    /// Give an address another password. Prints it when it was drawn, and nothing else.
    Password {
        /// name@domain
        address: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: NewPassword,
    },
}

/// Where a password comes from.
#[derive(Debug, Args)]
pub struct NewPassword {
    /// A file whose first line is the password, `-` for standard input; without it, a password is drawn.
    #[arg(long)]
    pub password_file: Option<PathBuf>,
}

/// When to colour.
#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The services.
#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Service {
    /// `emailclient-api`.
    Api,
    /// `emailclient-worker`.
    Worker,
    /// `emailclient-scheduler`.
    Scheduler,
}

/// Commands about tenants.
#[derive(Debug, Subcommand)]
pub enum Tenant {
    /// Make a tenant and print its id.
    Create {
        /// Its name in requests (`X-Tenant-ID`).
        #[arg(long)]
        slug: String,
        /// Its display name.
        #[arg(long)]
        name: Option<String>,
    },
    /// Set a tenant's own request limits; 0 lifts one, leaving it out takes the deployment's.
    Limits {
        /// Which tenant.
        slug: String,
        /// Requests a minute.
        #[arg(long)]
        per_minute: Option<u32>,
        /// Requests an hour.
        #[arg(long)]
        per_hour: Option<u32>,
    },
    /// Refuse the tenant's requests and stop its synchronisation; nothing is removed.
    Suspend {
        /// Which tenant.
        slug: String,
    },
    /// Undo `suspend`.
    Resume {
        /// Which tenant.
        slug: String,
    },
    /// Delete a tenant with all that it has, for good: it is refused at once, and a job removes it. Asks for the slug once more.
    Delete {
        /// Which tenant.
        slug: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Print what is deleted and not removed yet, one a line: tenant, `tenant` or the account, messages removed, of how many, since when.
    Removals,
}

/// Commands about users.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Make a user and print the id.
    Create {
        /// The tenant's slug.
        #[arg(long)]
        tenant: String,
        /// Address to log in with.
        #[arg(long)]
        email: String,
        /// Display name.
        #[arg(long)]
        name: Option<String>,
        /// What the user may do.
        #[arg(long, value_enum, default_value = "member")]
        role: RoleName,
        /// The password; without it a line is read from standard input, which keeps it out of the process list.
        #[arg(long)]
        password: Option<String>,
    },
    /// Print the users of a tenant, one a line: address, role, `active` or `disabled`, id, name.
    List {
        /// The tenant's slug.
        #[arg(long)]
        tenant: String,
    },
    /// Let a user in no more, and end its sessions. Nothing is removed.
    Disable(Who),
    /// Undo `disable`. The user has to log in anew.
    Enable(Who),
    /// Give a user another password, and end its sessions.
    Password {
        /// Who.
        #[command(flatten)]
        who: Who,
        /// The password; without it a line is read from standard input, which keeps it out of the process list.
        #[arg(long)]
        password: Option<String>,
    },
    /// Give a user another role.
    Role {
        /// Who.
        #[command(flatten)]
        who: Who,
        /// What the user may do.
        #[arg(long, value_enum)]
        role: RoleName,
    },
    /// Log-in sessions of a user.
    #[command(subcommand)]
    Sessions(Sessions),
}

/// A user by tenant and address.
#[derive(Debug, Args)]
pub struct Who {
    /// The tenant's slug.
    #[arg(long)]
    pub tenant: String,
    /// The user's address.
    #[arg(long)]
    pub email: String,
}

/// Commands about sessions.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// Print those that are not over, one a line: id, log-in, last refresh, end.
    List(Who),
    /// End one, or all.
    End {
        /// Whose.
        #[command(flatten)]
        who: Who,
        /// Only this one, by its id.
        #[arg(long)]
        session: Option<uuid::Uuid>,
    },
}

/// Roles by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// Everything.
    Owner,
    /// Mail and accounts.
    Admin,
    /// Mail only.
    Member,
    /// Reading mail only.
    Viewer,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Owner => Self::Owner,
            RoleName::Admin => Self::Admin,
            RoleName::Member => Self::Member,
            RoleName::Viewer => Self::Viewer,
        }
    }
}
