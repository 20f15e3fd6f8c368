//! Totals: sums over the rows of a table, by group, exact at every moment and cheap to read.
//!
//! A total is a batch and deltas. Statement-level triggers add one delta per group and statement, in the transaction of the
//! rows, whichever session writes them. Writers never update a row of a total, so they never wait for each other. [`fold`] moves
//! deltas into the batch; [`recompute`] sums all rows and adds the *difference* as deltas, which heals any error and says how large
//! it was. Nothing is overwritten or switched: in every snapshot, batch + deltas is the sum over the pieces.
//!
//! The pieces are the table's partitions, those that are detached but not yet dropped (they keep their triggers), and the
//! frozen sums of dropped ones ([`freeze`]). Dropping an expired partition is not a deletion: totals outlive rows.
//!
//! Locks, always in this order: a writer locks rows of the table, then adds deltas; [`fold`] locks its state table; a
//! recompute locks its own table, then the frozen sums (SHARE), the table and detached partitions (ACCESS SHARE), and only then
//! takes its snapshot; a freeze locks the frozen sums of all totals of the table by name, then the partition.
//!
//! Input: the configuration's [`TotalConfig`]s and a database. [`build`] brings the database in line with them.

pub mod build;
mod definition;
pub mod dry_run;
pub mod fold;
pub mod freeze;
pub mod health;
mod live;
mod probe;
pub mod recompute;
mod registry;
mod sql;
pub mod task;

use tokio_postgres::Client;

use crate::apply::ApplyError;
use crate::database::DatabaseError;
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, describe};
use crate::names::TableName;
use crate::schema_work::{WorkError, is_interference};
use crate::statement_triggers::{self, TriggerError};
pub use definition::Definition;
pub use live::LiveTotals;
pub use probe::{Probe, probe};
pub use registry::{TotalState, TotalVersion, load_versions};
pub use sql::TotalSql;

/// What the board reads of the state of the totals.
pub const BOARD_RELATIONS: [&str; 2] = [registry::TOTAL_TABLE.name, "millstream.total_broken"];

/// Why work on a total failed.
#[derive(Debug, thiserror::Error)]
pub enum TotalError {
    /// An expression of the configuration is not suitable.
    #[error("{position}: {reason}")]
    Expression {
        /// Its position in the configuration.
        position: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The database has something that prevents the total.
    #[error("total {total}: {reason}")]
    Conflict {
        /// The total.
        total: String,
        /// What it is, and what to do.
        reason: String,
    },
    /// A lock could not be obtained, or a concurrent change interfered, after repeated attempts.
    #[error("total {total}: {reason}; the next run retries it")]
    Busy {
        /// The total.
        total: String,
        /// What was being done.
        reason: String,
    },
    /// The time of the run was over before its rows were summed.
    #[error(
        "total {total}: not summed in the time of this run; run `millstream totals recompute {total}` from a machine without \
         a time limit"
    )]
    TimeIsUp {
        /// The total.
        total: String,
    },
    /// A statement, or the connection, failed.
    #[error("statement of a total failed: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// The connection to the database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A table of Millstream's own could not be created.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl TotalError {
    /// Whether an operator must act before a retry can succeed.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Expression { .. } | Self::Conflict { .. } | Self::TimeIsUp { .. } => true,
            Self::Busy { .. } => false,
            Self::Statement(error) => classify(DatabaseStep::ChangeSchema, error) != ErrorAction::Retry,
            Self::Database(error) => error.needs_operator(),
            Self::Apply(error) => error.needs_operator(),
        }
    }
}

impl TotalError {
    /// Whether the connection failed, so that nothing else can be done with it.
    pub fn is_of_connection(&self) -> bool {
        matches!(self, Self::Database(_)) || self.database_error().is_some_and(|error| error.as_db_error().is_none())
    }

    /// PostgreSQL's error, or the connection's.
    fn database_error(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Statement(error) => Some(error),
            Self::Apply(error) => error.database_error(),
            Self::Expression { .. }
            | Self::Conflict { .. }
            | Self::Busy { .. }
            | Self::TimeIsUp { .. }
            | Self::Database(_) => None,
        }
    }
}

impl WorkError for TotalError {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Apply(ApplyError::Locked(_)))
            || self.database_error().is_some_and(is_interference)
    }
}

/// Creates the missing triggers of a total and enables disabled ones; returns how many there were.
async fn repair_triggers(
    client: &Client,
    sql: &TotalSql<'_>,
    table: &TableName,
    attempts: u32,
) -> Result<usize, TotalError> {
    let repaired = statement_triggers::repair(client, &sql.triggers(), table, attempts).await;
    repaired.map_err(|error| of_triggers(sql.name(), error))
}

/// An error of a total's triggers, with its name.
fn of_triggers(total: &str, error: TriggerError) -> TotalError {
    let (total, reason) = (total.to_owned(), error.to_string());
    match error {
        TriggerError::Foreign { .. } => TotalError::Conflict { total, reason },
        TriggerError::Busy(_) => TotalError::Busy { total, reason },
        TriggerError::Statement(error) => error.into(),
        TriggerError::Apply(error) => error.into(),
    }
}
