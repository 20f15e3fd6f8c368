//! The change log of a table: which keys each committed transaction has written or removed, for transforms to read what is new
//! ([`crate::transform`]).
//!
//! Statement-level triggers on the table and its partitions add one entry per statement, in the transaction of the rows,
//! whichever session writes them: the top transaction's ID and the keys. A reader keeps the snapshot of its last committed run.
//! What is new are the entries that this snapshot did not see and the present one sees, whatever the order in which
//! transactions began and committed ([`functions`]).
//!
//! The log never tells less than the truth. What the triggers cannot see (a missing or disabled trigger, a table restored from a
//! dump, entries that are not kept any more, TRUNCATE, an expression that fails) begins a new incarnation of the log or is logged
//! as a reset: the reader gets the whole table. The writer never depends on the log: nothing has to be created ahead for it, and
//! an entry that cannot be made is logged as a reset.
//!
//! Input: a table's name and a database. [`ensure`] brings the log in line with the table, [`retention`] removes old entries,
//! [`problems`] finds what would be written past the log.

mod definition;
mod ensure;
mod functions;
mod log;
pub mod problems;
mod registry;
pub mod retention;

use crate::apply::ApplyError;
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, describe, ends_connection};
use crate::names::TableName;
use crate::schema_work::{WorkError, is_interference};
use crate::statement_triggers::TriggerError;
pub use definition::{FeedDefinition, LoggedColumn};
pub use ensure::{FeedState, ensure, ensure_tables, log_reset, remove_unused};
pub use log::FeedSql;
pub use registry::{FEED_TABLE, Feed, load_feeds};

/// Why work on a change log failed.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The table cannot have a change log.
    #[error("table {} cannot have a change log: {reason}", .table.unquoted())]
    Table {
        /// The table.
        table: TableName,
        /// Why not, and what to do.
        reason: String,
    },
    /// A lock could not be obtained, or a concurrent change interfered, after repeated attempts.
    #[error("change log of {}: {reason}; the next run retries it", .table.unquoted())]
    Busy {
        /// The table.
        table: TableName,
        /// What was being done.
        reason: String,
    },
    /// A statement, or the connection, failed.
    #[error("statement of a change log failed: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// A table of Millstream's own could not be created.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl FeedError {
    /// Whether an operator must act before a retry can succeed.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Table { .. } => true,
            Self::Busy { .. } => false,
            Self::Statement(error) => classify(DatabaseStep::ChangeSchema, error) != ErrorAction::Retry,
            Self::Apply(error) => error.needs_operator(),
        }
    }

    /// Whether the connection failed, so that nothing else can be done with it.
    pub fn is_of_connection(&self) -> bool {
        let error = match self {
            Self::Statement(error) => Some(error),
            Self::Apply(error) => error.database_error(),
            Self::Table { .. } | Self::Busy { .. } => None,
        };
        error.is_some_and(ends_connection)
    }
}

impl WorkError for FeedError {
    fn is_busy(&self) -> bool {
        match self {
            Self::Table { .. } => false,
            Self::Busy { .. } => true,
            Self::Statement(error) => is_interference(error),
            Self::Apply(error) => error.is_busy(),
        }
    }
}

/// An error of a log's triggers, with its table.
fn of_triggers(table: &TableName, error: TriggerError) -> FeedError {
    let (table, reason) = (table.clone(), error.to_string());
    match error {
        TriggerError::Foreign { .. } => FeedError::Table { table, reason },
        TriggerError::Busy(_) => FeedError::Busy { table, reason },
        TriggerError::Statement(error) => error.into(),
        TriggerError::Apply(error) => error.into(),
    }
}
