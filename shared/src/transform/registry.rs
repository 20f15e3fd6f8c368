//! `millstream.transform`: the transforms of the database, with the outcome of the last run of each. Its rows are also the locks
//! of the runs, and name the transform that runs in a transaction.

use serde::Serialize;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::TransformError;
use super::file::TransformFile;
use super::run::RunReport;
use crate::apply::{Limits, SystemTable, ensure_system_table};

/// The table.
pub const TRANSFORM_TABLE: SystemTable =
    SystemTable { name: "millstream.transform", ddl: include_str!("registry/create.sql") };

/// The outcome of the last run.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum TransformStatus {
    /// It has not run yet.
    New,
    /// Its target is as of its last run.
    Succeeded,
    /// It failed; its target is as it was before.
    Failed,
    /// A table whose changes it reads does not exist yet.
    Waiting,
    /// A transform that it depends on did not succeed.
    Skipped,
}

impl TransformStatus {
    /// The status as it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Skipped => "skipped",
        }
    }

    fn from_text(text: &str) -> Self {
        match text {
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "waiting" => Self::Waiting,
            "skipped" => Self::Skipped,
            _ => Self::New,
        }
    }
}

/// A transform, as the database knows it.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct TransformState {
    /// Its name.
    pub name: String,
    /// The table that it fills, as `schema.table`.
    pub target: String,
    /// The outcome of its last run.
    pub status: TransformStatus,
    /// Why it failed, waits or was skipped.
    pub reason: Option<String>,
    /// The number of failures since it last succeeded.
    pub failures: i32,
    /// Seconds since the last attempt; `None` before the first.
    pub attempted_seconds_ago: Option<f64>,
    /// Seconds since the last run that succeeded.
    pub succeeded_seconds_ago: Option<f64>,
    /// The duration of that run, in seconds.
    pub seconds: Option<f64>,
    /// Whether that run read whole tables.
    pub full_run: Option<bool>,
    /// The rows that it inserted or updated.
    pub rows_written: Option<i64>,
    /// The rows that it deleted.
    pub rows_deleted: Option<i64>,
    /// Whether it has not been tried for several of its intervals.
    pub is_overdue: bool,
    /// The configured names of the sources in whose configuration it is.
    #[serde(skip)]
    pub sources: Vec<String>,
}

impl TransformState {
    /// The state of a transform that the database does not have yet.
    pub fn new(name: &str, target: &str) -> Self {
        Self {
            name: name.to_owned(),
            target: target.to_owned(),
            status: TransformStatus::New,
            reason: None,
            failures: 0,
            attempted_seconds_ago: None,
            succeeded_seconds_ago: None,
            seconds: None,
            full_run: None,
            rows_written: None,
            rows_deleted: None,
            is_overdue: false,
            sources: Vec::new(),
        }
    }
}

/// Creates the table if it does not exist.
pub(super) async fn ensure_table(client: &Client, limits: Limits) -> Result<(), TransformError> {
    if !TRANSFORM_TABLE.exists(client).await? {
        ensure_system_table(client, &TRANSFORM_TABLE, limits).await?;
    }
    Ok(())
}

/// Reads the states of all transforms of the database, by name; none if the table does not exist.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn read_states(client: &Client) -> Result<Vec<TransformState>, TransformError> {
    if !TRANSFORM_TABLE.exists(client).await? {
        return Ok(Vec::new());
    }
    Ok(client.query_typed(include_str!("registry/load.sql"), &[]).await?.iter().map(state).collect())
}

fn state(row: &Row) -> TransformState {
    TransformState {
        name: row.get("name"),
        target: row.get("target"),
        status: TransformStatus::from_text(row.get("status")),
        reason: row.get("reason"),
        failures: row.get("failures"),
        attempted_seconds_ago: row.get("attempted_seconds_ago"),
        succeeded_seconds_ago: row.get("succeeded_seconds_ago"),
        seconds: row.get("seconds"),
        full_run: row.get("full_run"),
        rows_written: row.get("rows_written"),
        rows_deleted: row.get("rows_deleted"),
        is_overdue: false,
        sources: row.get("sources"),
    }
}

/// Registers a transform: its row is what its runs lock.
pub(super) async fn register(
    client: &Client,
    transform: &TransformFile,
    sources: &[String],
) -> Result<(), TransformError> {
    let target = transform.target.unquoted();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&transform.name, Type::TEXT), (&target, Type::TEXT), (&sources, Type::TEXT_ARRAY)];
    client.execute_typed(include_str!("registry/register.sql"), &parameters).await?;
    Ok(())
}

/// Marks a transform as the one that runs in this transaction, which locks its row. Must be the first statement with a snapshot:
/// if another run has committed since then, PostgreSQL reports a serialization failure.
pub(super) async fn begin_run(
    client: &Client,
    transform: &TransformFile,
    sources: &[String],
) -> Result<u64, tokio_postgres::Error> {
    let (target, reads) = (transform.target.unquoted(), reads(transform));
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&transform.name, Type::TEXT),
        (&target, Type::TEXT),
        (&sources, Type::TEXT_ARRAY),
        (&reads, Type::TEXT_ARRAY),
    ];
    client.execute_typed(include_str!("registry/begin_run.sql"), &parameters).await
}

/// The tables whose changes a transform reads, as `schema.table`.
fn reads(transform: &TransformFile) -> Vec<String> {
    transform.changes.iter().map(crate::names::TableName::unquoted).collect()
}

/// Records the run that is about to commit.
pub(super) async fn finish_run(client: &Client, name: &str, report: &RunReport) -> Result<(), TransformError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
        (&name, Type::TEXT),
        (&report.seconds, Type::FLOAT8),
        (&report.full_run, Type::BOOL),
        (&i64::try_from(report.rows_written).unwrap_or(i64::MAX), Type::INT8),
        (&i64::try_from(report.rows_deleted).unwrap_or(i64::MAX), Type::INT8),
    ];
    client.execute_typed(include_str!("registry/finish_run.sql"), &parameters).await?;
    Ok(())
}

/// Records why a transform did not run, or failed.
pub(super) async fn record_outcome(
    client: &Client,
    name: &str,
    target: &str,
    sources: &[String],
    outcome: (TransformStatus, &str),
) -> Result<(), TransformError> {
    let (status, reason) = outcome;
    let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
        (&name, Type::TEXT),
        (&target, Type::TEXT),
        (&sources, Type::TEXT_ARRAY),
        (&status.as_str(), Type::TEXT),
        (&reason, Type::TEXT),
    ];
    client.execute_typed(include_str!("registry/record_outcome.sql"), &parameters).await?;
    Ok(())
}

/// Forgets a transform and its cursors, once no run of it is open.
pub(super) async fn delete(client: &Client, name: &str) -> Result<(), TransformError> {
    client.execute_typed(include_str!("registry/delete.sql"), &[(&name, Type::TEXT)]).await?;
    Ok(())
}
