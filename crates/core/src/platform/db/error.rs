//! What the caller of a query must tell apart.

/// A failure of the database, named by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// A unique constraint refused the row; its name.
    #[error("a row with this key exists already ({0})")]
    Duplicate(String),
    /// A foreign key refused the row; its name.
    #[error("the row refers to one that does not exist ({0})")]
    MissingReference(String),
    /// The database is away, full or too slow; the same call may succeed later.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction holds a row that this one needs; the same work may succeed in a moment.
    #[error("a row is locked by others")]
    Busy(#[source] sqlx::Error),
    /// What this transaction waited for was deleted meanwhile; the same work finds out when it begins anew.
    #[error("it was deleted meanwhile")]
    Deleted,
    /// The row belongs to an account out of reach: see [`super::Reach`].
    #[error("the row is out of reach")]
    OutOfReach(#[source] sqlx::Error),
    /// A transaction that owes the audit trail a line was committed without it: a defect of ours.
    #[error("nothing was written: the line {0} is missing in the audit trail")]
    Unaudited(&'static str),
    /// Anything else: a defect of ours.
    #[error("the database refused a statement")]
    Other(#[source] sqlx::Error),
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::error::ErrorKind;
        match &error {
            sqlx::Error::Database(db) => {
                let name = db.constraint().unwrap_or_default().to_owned();
                // Classes 08, 53, 57, and transactions that were ended for standing idle or taking too long (25P03, 25P04),
                // pass by themselves (PostgreSQL, appendix A).
                let code = db.code().unwrap_or_default();
                let passes = ["08", "53", "57"].iter().any(|class| code.starts_with(class))
                    || ["25P03", "25P04"].contains(&&*code);
                // Lock not available, serialization failure, deadlock.
                let busy = ["55P03", "40001", "40P01"].contains(&&*code);
                match db.kind() {
                    ErrorKind::UniqueViolation => Self::Duplicate(name),
                    ErrorKind::ForeignKeyViolation => Self::MissingReference(name),
                    // Row-level security refuses a write with the code of a missing privilege; a table's own has another text.
                    _ if &*code == "42501" && db.message().contains("row-level security") => {
                        Self::OutOfReach(error)
                    }
                    _ if busy => Self::Busy(error),
                    _ if passes => Self::Unavailable(error),
                    _ => Self::Other(error),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            _ => Self::Other(error),
        }
    }
}
