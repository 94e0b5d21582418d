//! What can be asked of `emailctl`.

use clap::{Parser, Subcommand, ValueEnum};
use emailclient_core::user::Role;

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
    Migrate,
    /// Check settings, database, roles, schema and Redis; says what is wrong and how to mend it.
    Check,
    /// Exit 0 when the API answers that it is ready.
    Healthcheck {
        /// Where the API listens.
        #[arg(long, default_value = "127.0.0.1:5000")]
        address: String,
    },
    /// Tenants.
    #[command(subcommand)]
    Tenant(Tenant),
    /// Users.
    #[command(subcommand)]
    User(User),
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
        #[arg(long, value_enum, default_value = "owner")]
        role: RoleName,
        /// The password; without it a line is read from standard input, which keeps it out of the process list.
        #[arg(long)]
        password: Option<String>,
    },
}

/// Roles by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// Everything.
    Owner,
    /// Everything but the tenant itself.
    Admin,
    /// Mail only.
    Member,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Owner => Self::Owner,
            RoleName::Admin => Self::Admin,
            RoleName::Member => Self::Member,
        }
    }
}
