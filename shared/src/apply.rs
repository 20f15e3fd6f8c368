//! The fourth step: the plan becomes rows, in one transaction. The writer holds the only pen.
//!
//! Invariants, whatever is delivered, cut or interrupted:
//! - A key is there once. Events are copied straight in; where a key is there already, PostgreSQL refuses, and the writer
//!   looks which ones and copies the rest. Entities are read under a row lock, decided in [`crate::plan::merge`], written.
//! - Locks are taken in one order by every writer: tables by name, rows by partition and key.
//! - A row that PostgreSQL refuses costs only itself ([`isolate`]), found inside the same transaction.
//! - No value is written by an outdated picture of a column: the picture is compared under a lock first ([`Session`]).

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
pub use ddl::{SystemTable, begin, begin_read_only, create_missing, missing_schema_ddl};
pub use freshness::{Freshness, TABLE as FRESHNESS};
pub use tombstone::{TABLE as TOMBSTONE, ensure_table as make_tombstones};

use crate::catalog::CatalogError;
use crate::database::sqlstate::{ErrorAction, classify, describe};
use crate::names::TableName;
use crate::outcome::ChangeOutcome;
use crate::plan::merge::InvalidStoredVersion;
use crate::plan::{KeyChanges, Plan, TableWrite};
use crate::rejection::Rejection;
use crate::spec::{MergeBy, WriteMode};
pub use transaction::WriteTransaction;

/// An attempt that met another writer in a deadlock gives its locks back and is made again, this often for each table; each
/// time PostgreSQL waits a second (`deadlock_timeout`) before it tells.
const DEADLOCKS_MAX: u32 = 5;

/// How long the writer waits, at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For one statement.
    pub statement: Duration,
    /// For a lock, in the writing transaction.
    pub lock: Duration,
}

/// What became of a batch's rows.
#[derive(Default, Debug)]
pub struct ApplyResult {
    /// What became of each change, by record.
    pub outcomes: Vec<(usize, ChangeOutcome)>,
    /// Data errors that only PostgreSQL could find.
    pub rejected: Vec<(usize, Rejection)>,
    /// Rows inserted and updated.
    pub rows: u64,
}

/// What the last batch of each table met: it is the best guess of what the next one will meet.
#[derive(Default, Debug)]
pub struct WriteHints(HashMap<TableName, TableHints>);

/// What was met when rows of a table were written, and is guessed about the next. A wrong guess costs time only.
#[derive(Clone, Copy, Default, Debug)]
struct TableHints {
    /// Some of them are there already, as new or newer: look before writing.
    expect_existing: bool,
    /// None of their keys is there.
    expect_new: bool,
}

/// Why a batch could not be applied. Nothing of it is in the database, unless the connection broke during COMMIT.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Tables do not look as planned any more.
    #[error("tables changed since the catalog was read: {}{cause}", .tables.iter().map(TableName::unquoted).collect::<Vec<_>>().join(", "))]
    Stale {
        /// Which, as far as is known.
        tables: Vec<TableName>,
        /// What PostgreSQL said, if it was PostgreSQL that noticed.
        cause: String,
    },
    /// PostgreSQL, or the connection to it.
    #[error("write failed: {}", describe(.0))]
    Database(#[source] tokio_postgres::Error),
    /// A version column that somebody else wrote.
    #[error(transparent)]
    Version(#[from] InvalidStoredVersion),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A change of the schema did not go through, time after time.
    #[error("schema change of table {table} failed: {reason}")]
    Schema {
        /// The table.
        table: String,
        /// What PostgreSQL said last.
        reason: String,
    },
}

impl From<tokio_postgres::Error> for ApplyError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl ApplyError {
    /// Whether operator action required before it can go on.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Database(error) => classify(error) == ErrorAction::Halt,
            Self::Version(_) | Self::Schema { .. } => true,
            Self::Catalog(CatalogError::DefaultPartition(_)) => true,
            Self::Stale { .. } | Self::Catalog(CatalogError::Database(_)) => false,
        }
    }
}

/// Writes a plan that lacks nothing, in one transaction.
///
/// # Errors
/// Everything but data errors; those are part of what is returned.
pub async fn apply(
    client: &Client,
    plan: &Plan,
    limits: Limits,
    experience: &mut WriteHints,
) -> Result<ApplyResult, ApplyError> {
    if plan.writes.is_empty() {
        return Ok(ApplyResult::default());
    }
    let session = WriteTransaction::begin(client, limits, &plan.writes).await?;
    match write_all(&session, plan, experience, DEADLOCKS_MAX).await {
        Ok(applied) => {
            session.commit().await?;
            Ok(applied)
        }
        Err(error) => {
            session.roll_back().await;
            Err(error)
        }
    }
}

/// Writes a plan's whole rows within a transaction on their tables, and gives up where that asks for care: then the
/// transaction must not be committed. There is nothing to fall back to, so that nothing has to be set up for it.
pub async fn write_optimistic(
    session: &WriteTransaction<'_>,
    plan: &Plan,
    experience: &mut WriteHints,
) -> Option<ApplyResult> {
    let mut applied = ApplyResult::default();
    for write in &plan.writes {
        let hints = experience.0.get(&write.table.name).copied().unwrap_or_default();
        let written = match write.write_mode {
            WriteMode::Merge(MergeBy::Row) => upsert::upsert_optimistic(session, write, hints).await.ok()?,
            WriteMode::Append | WriteMode::Merge(MergeBy::Column) => None,
        }?;
        experience.0.insert(write.table.name.clone(), written.observed);
        applied.rows += written.rows;
        applied.outcomes.extend(written.outcomes);
    }
    Some(applied)
}

/// Writes a plan's rows within a transaction that holds others already, all but those that PostgreSQL refuses. A deadlock is
/// an error: to give back the locks of these rows alone would not end it.
///
/// # Errors
/// Everything but data errors; the transaction must not be committed.
pub async fn write_slice(
    session: &WriteTransaction<'_>,
    plan: &Plan,
    experience: &mut WriteHints,
) -> Result<ApplyResult, ApplyError> {
    write_all(session, plan, experience, 0).await
}

async fn write_all(
    session: &WriteTransaction<'_>,
    plan: &Plan,
    experience: &mut WriteHints,
    deadlocks_max: u32,
) -> Result<ApplyResult, ApplyError> {
    let mut applied = ApplyResult::default();
    for write in &plan.writes {
        let outcome = isolate::write_isolating_bad_rows(session, write, deadlocks_max, experience, &mut applied).await;
        outcome.map_err(|error| as_stale(error, write))?;
    }
    Ok(applied)
}

/// An error that may come from an old picture of the table is one, until a fresh picture shows the same.
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

/// What became of the rows of one attempt.
#[derive(Default)]
struct AttemptResult {
    rows: u64,
    outcomes: Vec<(usize, ChangeOutcome)>,
    observed: TableHints,
}

/// An attempt that PostgreSQL refused, and the row that it seems to have refused.
struct RejectedAttempt {
    error: ApplyError,
    /// By its place among the rows of the attempt.
    row: Option<usize>,
}

impl<E: Into<ApplyError>> From<E> for RejectedAttempt {
    fn from(error: E) -> Self {
        Self { error: error.into(), row: None }
    }
}

/// The records of a row's changes.
fn records<'w>(write: &'w TableWrite, row: &KeyChanges) -> impl Iterator<Item = usize> + use<'w> {
    write.changes[row.changes.clone()].iter().map(|member| member.record)
}
