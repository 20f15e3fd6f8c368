//! The fourth step: writes the plan to the database in one transaction. Only the writer writes rows.
//!
//! Invariants, whatever is redelivered, split or interrupted:
//! - A key exists once. Events are copied without a read unless duplicates are expected. If a key already exists,
//!   PostgreSQL rejects the copy, and the writer finds the existing keys and copies the rest. Entities are read under a
//!   row lock, resolved in [`crate::plan::merge`] and written.
//! - Every writer takes its locks in the same order: tables by name, rows by partition and key.
//! - A row that PostgreSQL rejects does not affect other rows ([`isolate`]). It is found inside the same transaction.
//! - No value is written with a stale definition of a column: the definition is first compared under a lock
//!   ([`WriteTransaction`]).

mod append;
mod compare;
mod copy;
mod ddl;
mod freshness;
mod isolate;
mod locked_merge;
mod row_params;
mod sql;
mod tombstone;
mod transaction;
mod upsert;

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Client;

pub use compare::{RowDifference, diff_rows, list_keys};
pub use ddl::{
    SystemTable, TotalTrigger, begin, begin_read_only, choose_partition_names, create_missing, ensure_system_table,
    lock_schema_changes, lock_system_schema, missing_lock_ddl, missing_schema_ddl, total_triggers,
};
pub use freshness::{FRESHNESS_TABLE, Freshness};
pub use tombstone::{TOMBSTONE_TABLE, ensure_tombstone_table};

use crate::catalog::CatalogError;
use crate::database::sqlstate::{ErrorAction, classify, describe};
use crate::names::TableName;
use crate::outcome::ChangeOutcome;
use crate::plan::merge::InvalidStoredVersion;
use crate::plan::{KeyChanges, Plan, TableWrite};
use crate::rejection::Rejection;
use crate::spec::{MergeBy, WriteMode};
pub use transaction::WriteTransaction;

/// How many times, for each table, an attempt that deadlocks with another writer releases its locks and is retried.
/// PostgreSQL waits one second (`deadlock_timeout`) before it reports a deadlock.
const DEADLOCKS_MAX: u32 = 5;

/// The writer's timeouts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For one statement.
    pub statement: Duration,
    /// For a lock in the writing transaction.
    pub lock: Duration,
}

/// The outcome of a batch's rows.
#[derive(Default, Debug)]
pub struct ApplyResult {
    /// The outcome of each change, by record.
    pub outcomes: Vec<(usize, ChangeOutcome)>,
    /// Data errors that only PostgreSQL can detect.
    pub rejected: Vec<(usize, Rejection)>,
    /// Rows inserted and updated.
    pub rows: u64,
}

/// What the last batch of each table observed: the best guess for the next batch.
#[derive(Default, Debug)]
pub struct WriteHints(HashMap<TableName, TableHints>);

/// What a write to a table observed, used as a guess for the next write. A wrong guess costs only time.
#[derive(Clone, Copy, Default, Debug)]
struct TableHints {
    /// Some keys already exist with the same or a newer version: read before writing.
    expect_existing: bool,
    /// No key exists yet.
    expect_new: bool,
}

/// Why a batch could not be applied. Nothing of it is in the database, unless the connection failed during COMMIT.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Tables no longer match the plan.
    #[error("tables changed since the catalog was read: {}{cause}", .tables.iter().map(TableName::unquoted).collect::<Vec<_>>().join(", "))]
    Stale {
        /// The tables, as far as they are known.
        tables: Vec<TableName>,
        /// PostgreSQL's message, if PostgreSQL detected it.
        cause: String,
    },
    /// An error of PostgreSQL or of the connection.
    #[error("write failed: {}", describe(.0))]
    Database(#[source] tokio_postgres::Error),
    /// A version column whose value Millstream did not write.
    #[error(transparent)]
    Version(#[from] InvalidStoredVersion),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A schema change failed repeatedly.
    #[error("schema change of table {table} failed: {reason}")]
    Schema {
        /// The table.
        table: String,
        /// PostgreSQL's last error.
        reason: String,
    },
}

impl From<tokio_postgres::Error> for ApplyError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl ApplyError {
    /// Whether an operator must act before the batch can be applied.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Database(error) => classify(error) == ErrorAction::Halt,
            Self::Version(_) | Self::Schema { .. } => true,
            Self::Catalog(CatalogError::DefaultPartition(_)) => true,
            Self::Stale { .. } | Self::Catalog(CatalogError::Database(_)) => false,
        }
    }
}

/// Writes a plan that has no missing schema objects, in one transaction.
///
/// # Errors
/// Returns every error except data errors, which are part of the result.
pub async fn apply(
    client: &Client,
    plan: &Plan,
    limits: Limits,
    write_hints: &mut WriteHints,
) -> Result<ApplyResult, ApplyError> {
    if plan.writes.is_empty() {
        return Ok(ApplyResult::default());
    }
    let transaction = WriteTransaction::begin(client, limits, &plan.writes).await?;
    match write_all(&transaction, plan, write_hints, DEADLOCKS_MAX).await {
        Ok(applied) => {
            transaction.commit().await?;
            Ok(applied)
        }
        Err(error) => {
            transaction.roll_back().await;
            Err(error)
        }
    }
}

/// Writes a plan's whole rows within a transaction on their tables. Returns `None` if the optimistic write does not
/// succeed; the transaction must then not be committed. No savepoint is set, because there is no fallback within the
/// transaction.
pub async fn write_optimistic(
    transaction: &WriteTransaction<'_>,
    plan: &Plan,
    write_hints: &mut WriteHints,
) -> Option<ApplyResult> {
    let mut applied = ApplyResult::default();
    for write in &plan.writes {
        let hints = write_hints.0.get(&write.table.name).copied().unwrap_or_default();
        let result = match write.write_mode {
            WriteMode::Merge(MergeBy::Row) => upsert::upsert_optimistic(transaction, write, hints).await.ok()?,
            WriteMode::Append | WriteMode::Merge(MergeBy::Column) => None,
        }?;
        write_hints.0.insert(write.table.name.clone(), result.observed);
        applied.rows += result.rows;
        applied.outcomes.extend(result.outcomes);
    }
    Some(applied)
}

/// Writes a plan's rows within a transaction that already holds others, except the rows that PostgreSQL rejects. A
/// deadlock is an error: releasing only the locks of these rows would not resolve it.
///
/// # Errors
/// Returns every error except data errors; the transaction must then not be committed.
pub async fn write_slice(
    transaction: &WriteTransaction<'_>,
    plan: &Plan,
    write_hints: &mut WriteHints,
) -> Result<ApplyResult, ApplyError> {
    write_all(transaction, plan, write_hints, 0).await
}

async fn write_all(
    transaction: &WriteTransaction<'_>,
    plan: &Plan,
    write_hints: &mut WriteHints,
    deadlocks_max: u32,
) -> Result<ApplyResult, ApplyError> {
    let mut applied = ApplyResult::default();
    for write in &plan.writes {
        let result =
            isolate::write_isolating_bad_rows(transaction, write, deadlocks_max, write_hints, &mut applied).await;
        result.map_err(|error| as_stale(error, write))?;
    }
    Ok(applied)
}

/// Treats an error that a stale catalog may have caused as [`ApplyError::Stale`]. If it recurs with a fresh catalog, it
/// is real.
fn as_stale(error: ApplyError, write: &TableWrite) -> ApplyError {
    if let ApplyError::Database(database) = &error
        && classify(database) == ErrorAction::RefreshCatalog
    {
        return ApplyError::Stale {
            tables: vec![write.table.name.clone()],
            cause: format!(": {}", describe(database)),
        };
    }
    error
}

/// The outcome of the rows of one attempt.
#[derive(Default)]
struct AttemptResult {
    rows: u64,
    outcomes: Vec<(usize, ChangeOutcome)>,
    observed: TableHints,
}

/// An attempt that PostgreSQL rejected, and the row that probably caused it.
struct RejectedAttempt {
    error: ApplyError,
    /// Its index among the rows of the attempt.
    row: Option<usize>,
}

impl<E: Into<ApplyError>> From<E> for RejectedAttempt {
    fn from(error: E) -> Self {
        Self { error: error.into(), row: None }
    }
}

/// The records of the changes of one key.
fn records<'w>(write: &'w TableWrite, row: &KeyChanges) -> impl Iterator<Item = usize> + use<'w> {
    write.changes[row.changes.clone()].iter().map(|change| change.record)
}
