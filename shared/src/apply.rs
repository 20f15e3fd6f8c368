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

mod activity;
mod append;
mod board_access;
mod compare;
mod copy;
mod ddl;
mod freshness;
mod isolate;
mod lock_holders;
mod locked_merge;
mod remedy;
mod row_params;
mod sql;
mod tombstone;
mod transaction;
mod upsert;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

pub use activity::{ActivityLog, EVENT_TABLE, MINUTE_TABLE, insert_events};
pub use board_access::{BoardObjects, grant_to_board, missing_board_grants};
pub use compare::{RowDifference, diff_rows, list_keys};
pub use ddl::{
    SchemaChanges, SystemTable, begin, begin_read_only, begin_snapshot, choose_partition_names, create_missing,
    ensure_system_table, lock_schema_changes, lock_system_schema, missing_lock_ddl, missing_schema_ddl,
    relation_exists,
};
pub use freshness::{FRESHNESS_TABLE, Freshness};
use lock_holders::DelayedBy;
pub use lock_holders::{LockHolder, LockTimeout};
pub use tombstone::{TOMBSTONE_TABLE, ensure_tombstone_table};

use crate::catalog::CatalogError;
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, describe, is_lock_timeout};
use crate::names::TableName;
use crate::outcome::ChangeOutcome;
use crate::plan::merge::InvalidStoredVersion;
use crate::plan::{KeyChanges, Plan, TableWrite};
use crate::rejection::Rejection;
use crate::spec::{MergeBy, WriteMode};
use crate::unwritable::UnwritableTable;
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
    /// An error of one of Millstream's own tables, or of a schema.
    #[error("access to {table} failed: {}", describe(.error))]
    System {
        /// The table, or the schema.
        table: String,
        /// PostgreSQL's error, or the connection's.
        #[source]
        error: tokio_postgres::Error,
    },
    /// PostgreSQL did not let a COPY begin. The connection cannot be used any more: the driver ends the copy once more, and the
    /// answer to that would be taken for the answer to the next statement.
    #[error("a copy did not begin: {}", describe(.0))]
    CopyNotBegun(#[source] tokio_postgres::Error),
    /// A lock was not obtained in time.
    #[error("{0}")]
    Locked(LockTimeout),
    /// Tables that cannot be written as they are defined.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unwritable(Vec<Arc<UnwritableTable>>),
    /// A version column whose value Millstream did not write.
    #[error(transparent)]
    Version(#[from] InvalidStoredVersion),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
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
            // Neither a row nor a table is at fault: what does not pass concerns everything.
            Self::Database(error) | Self::CopyNotBegun(error) => {
                classify(DatabaseStep::Session, error) == ErrorAction::Halt
            }
            Self::System { error, .. } => classify(DatabaseStep::SystemTable, error) != ErrorAction::Retry,
            Self::Version(_) | Self::Unwritable(_) => true,
            Self::Catalog(error) => error.needs_operator(),
            Self::Stale { .. } | Self::Locked(_) => false,
        }
    }

    /// PostgreSQL's error, or the connection's.
    pub fn database_error(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Database(error) | Self::CopyNotBegun(error) | Self::System { error, .. } => Some(error),
            Self::Stale { .. } | Self::Locked(_) | Self::Unwritable(_) | Self::Version(_) | Self::Catalog(_) => None,
        }
    }

    /// Names the table of an error in one of Millstream's own tables.
    fn in_system_table(self, table: &str) -> Self {
        let Self::Database(error) = self else { return self };
        Self::System { table: table.to_owned(), error }
    }
}

/// The tables of a batch whose definitions were read again after an error: if the error recurs, it is real.
pub type RefreshedTables = BTreeSet<TableName>;

/// Writes a plan that has no missing schema objects, in one transaction. Records of tables that PostgreSQL does not write are
/// rejected.
///
/// # Errors
/// Returns every error except data errors, which are part of the result. [`ApplyError::Unwritable`] names tables that cannot
/// even be locked, or whose records must wait.
pub async fn apply(
    client: &Client,
    plan: &Plan,
    limits: Limits,
    write_hints: &mut WriteHints,
    refreshed: &RefreshedTables,
) -> Result<ApplyResult, ApplyError> {
    if plan.writes.is_empty() {
        return Ok(ApplyResult::default());
    }
    let transaction = match WriteTransaction::begin(client, limits, &plan.writes).await {
        Ok(transaction) => transaction,
        Err(error) => return Err(transaction::explain_lock_failure(client, &plan.writes, error).await),
    };
    match write_all(&transaction, plan, write_hints, DEADLOCKS_MAX, refreshed).await {
        Ok(applied) => {
            transaction.commit().await?;
            Ok(applied)
        }
        Err(FailedWrite { error, write }) => {
            transaction.roll_back().await;
            Err(with_lock_holders(client, vec![write.table.name.clone()], write_statement(write), error).await)
        }
    }
}

/// Describes what a statement waited for, if it did not get a lock in time. Its transaction must be rolled back.
async fn with_lock_holders(
    client: &Client,
    tables: Vec<TableName>,
    statement: String,
    error: ApplyError,
) -> ApplyError {
    let ApplyError::Database(database) = error else { return error };
    if !is_lock_timeout(&database) {
        return ApplyError::Database(database);
    }
    ApplyError::Locked(LockTimeout::new(client, tables, statement, DelayedBy::Writers, &database).await)
}

/// Describes why the catalog could not be read: who holds a lock on one of the tables. Ends the transaction.
pub async fn explain_catalog_failure(client: &Client, tables: &[TableName], error: CatalogError) -> ApplyError {
    client.batch_execute("ROLLBACK").await.unwrap_or_default();
    if !error.is_lock_timeout() {
        return error.into();
    }
    let (tables, statement) = (tables.to_vec(), ddl::READING.to_owned());
    ApplyError::Locked(LockTimeout::new(client, tables, statement, DelayedBy::Writers, &error.into_source()).await)
}

/// The beginning of the statement that writes the rows.
fn write_statement(write: &TableWrite) -> String {
    let table = &write.table.name;
    match write.write_mode {
        WriteMode::Append => format!("COPY {table} FROM STDIN"),
        WriteMode::Merge(MergeBy::Row) => format!("INSERT INTO {table} ON CONFLICT DO UPDATE"),
        WriteMode::Merge(MergeBy::Column) => format!("UPDATE {table}"),
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
    refreshed: &RefreshedTables,
) -> Result<ApplyResult, ApplyError> {
    write_all(transaction, plan, write_hints, 0, refreshed).await.map_err(|failed| failed.error)
}

/// An error that concerns the whole batch, and the write in which it occurred.
struct FailedWrite<'w> {
    error: ApplyError,
    write: &'w TableWrite,
}

async fn write_all<'p>(
    transaction: &WriteTransaction<'_>,
    plan: &'p Plan,
    write_hints: &mut WriteHints,
    deadlocks_max: u32,
    refreshed: &RefreshedTables,
) -> Result<ApplyResult, FailedWrite<'p>> {
    let mut applied = ApplyResult::default();
    for write in &plan.writes {
        let attempts = isolate::Attempts { deadlocks_max, catalog_is_fresh: refreshed.contains(&write.table.name) };
        let result = isolate::write_isolating_bad_rows(transaction, write, attempts, write_hints, &mut applied).await;
        result.map_err(|error| FailedWrite { error: as_stale(error, write), write })?;
    }
    Ok(applied)
}

/// Treats an error that a stale catalog may have caused as [`ApplyError::Stale`].
fn as_stale(error: ApplyError, write: &TableWrite) -> ApplyError {
    let (step, database) = match &error {
        ApplyError::Database(database) => (DatabaseStep::WriteRows, database),
        ApplyError::System { error, .. } => (DatabaseStep::SystemTable, error),
        ApplyError::Stale { .. }
        | ApplyError::CopyNotBegun(_)
        | ApplyError::Locked(_)
        | ApplyError::Unwritable(_)
        | ApplyError::Version(_)
        | ApplyError::Catalog(_) => return error,
    };
    if classify(step, database) != ErrorAction::RefreshCatalog {
        return error;
    }
    ApplyError::Stale { tables: vec![write.table.name.clone()], cause: format!(": {}", describe(database)) }
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
