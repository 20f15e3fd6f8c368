//! One run of a transform, in one REPEATABLE READ transaction: its query, its target and its cursors commit together or not at
//! all.
//!
//! The run first locks the tables that it reads and their logs, which takes no snapshot. The statement that takes the snapshot
//! also locks the transform's row and marks it as running: if another run has committed in between, PostgreSQL reports a
//! serialization failure, and the attempt begins again with a newer snapshot. So no two runs of a transform see each other's
//! work half done, and none reads a change twice.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::error::of_query;
use super::file::{TargetMode, TransformFile};
use super::target::{self, RESULT};
use super::{TransformError, registry};
use crate::apply::Limits;
use crate::backoff::backoff_delay;
use crate::feed::{self, FeedSql, FeedState};
use crate::names::TableName;
use crate::schema_work::WorkError;
use crate::statement_triggers::TriggerOperation;
use crate::task::Deadline;

/// How often a run is tried that other transactions interfere with: a target that others write, another run of the same.
const ATTEMPTS: u32 = 20;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How often a lock for the triggers of a log is tried.
const TRIGGER_ATTEMPTS: u32 = 30;

/// Bounds the wait for another run of the same transform, and for statements that hold a table exclusively.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Creating Millstream's own tables changes the catalog only.
const LIMITS: Limits = Limits { statement: Duration::from_secs(60), lock: Duration::from_secs(60) };

/// PostgreSQL counts a statement's time in milliseconds, so that it may end a little before its timeout.
const TIMEOUT_TOLERANCE: Duration = Duration::from_millis(100);

/// How a transform is run.
#[derive(Clone, Copy, Debug)]
pub struct TransformOptions {
    /// When the run must have ended: PostgreSQL cancels a statement that takes longer.
    pub deadline: Deadline,
    /// Whether it reads whole tables, whatever it has read before.
    pub is_full: bool,
}

/// What became of a run.
#[derive(Clone, PartialEq, Debug)]
pub enum RunOutcome {
    /// It has committed.
    Committed(RunReport),
    /// A table whose changes it reads does not exist yet.
    Waiting {
        /// What is missing.
        reason: String,
    },
}

/// A run that has committed.
#[derive(Clone, Copy, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct RunReport {
    /// Whether it has read whole tables.
    pub full_run: bool,
    /// The rows of the target that it inserted or updated.
    pub rows_written: u64,
    /// Those that it deleted.
    pub rows_deleted: u64,
    /// Its duration in seconds.
    pub seconds: f64,
}

/// Runs a transform. `sources` are the configured names of the sources in whose configuration it is.
///
/// # Errors
/// Returns an error if the query or its result is wrong, the time is over, other transactions interfere for too long, or the
/// connection fails. The target is as it was then.
pub async fn run(
    client: &Client,
    transform: &TransformFile,
    sources: &[String],
    options: TransformOptions,
) -> Result<RunOutcome, TransformError> {
    ensure_tables(client).await?;
    let mut attempt = 0;
    loop {
        registry::register(client, transform, sources).await?;
        for table in &transform.changes {
            if let FeedState::Waiting { reason } = feed::ensure(client, table, TRIGGER_ATTEMPTS).await? {
                return Ok(RunOutcome::Waiting { reason });
            }
        }
        let (started, timeout) = (Instant::now(), time_left(transform, options));
        let result = run_once(client, transform, sources, options).await;
        let result = result.map_err(|error| at_timeout(error, transform, started.elapsed(), timeout));
        attempt += 1;
        match result {
            Ok(report) => return Ok(RunOutcome::Committed(report)),
            Err(error) if error.is_of_connection() => return Err(error),
            Err(error) => {
                client.batch_execute("ROLLBACK").await.unwrap_or_default();
                let delay = backoff_delay(attempt, BACKOFF_FIRST, BACKOFF_MAX);
                if !error.is_busy() || attempt >= ATTEMPTS || options.deadline.time_left() <= delay {
                    return Err(final_error(error));
                }
                tracing::debug!(transform = transform.name, %error, "the run begins again");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Creates Millstream's own tables if they do not exist.
pub(super) async fn ensure_tables(client: &Client) -> Result<(), TransformError> {
    registry::ensure_table(client, LIMITS).await?;
    feed::ensure_tables(client).await?;
    Ok(())
}

/// An error that was met at each attempt, as what it means.
fn final_error(error: TransformError) -> TransformError {
    if let TransformError::Statement(statement) = &error
        && crate::schema_work::is_interference(statement)
    {
        let cause = crate::database::sqlstate::describe(statement);
        return TransformError::Busy { reason: format!("other transactions interfere with each attempt: {cause}") };
    }
    error
}

async fn run_once(
    client: &Client,
    transform: &TransformFile,
    sources: &[String],
    options: TransformOptions,
) -> Result<RunReport, TransformError> {
    let started = Instant::now();
    client.batch_execute(&begin(transform, time_left(transform, options))).await?;
    let marked = registry::begin_run(client, transform, sources).await?;
    if marked == 0 || !logs_are_ready(client, transform).await? {
        return Err(TransformError::Busy { reason: format!("another session changes what {} reads", transform.name) });
    }
    let full_run = is_full_run(client, transform, options.is_full).await?;
    run_query(client, transform).await?;
    let timeout = time_left(transform, options).as_millis().max(1);
    client.batch_execute(&format!("SET LOCAL statement_timeout = {timeout}")).await?;
    let written = target::write(client, transform, mode(transform, full_run)).await?;
    for table in &transform.changes {
        store_cursor(client, &transform.name, table).await?;
    }
    let report = RunReport {
        full_run,
        rows_written: written.written,
        rows_deleted: written.deleted,
        seconds: started.elapsed().as_secs_f64(),
    };
    registry::finish_run(client, &transform.name, &report).await?;
    client.batch_execute("COMMIT").await?;
    Ok(report)
}

/// The time of the next statement.
fn time_left(transform: &TransformFile, options: TransformOptions) -> Duration {
    transform.timeout.min(options.deadline.time_left())
}

/// Begins the transaction. LOCK TABLE takes no snapshot, any query does. The lock of a log keeps retention from removing entries
/// that this snapshot still sees.
fn begin(transform: &TransformFile, statement_timeout: Duration) -> String {
    let mut begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; \
         SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; \
         SET LOCAL IntervalStyle = 'postgres'; SET LOCAL standard_conforming_strings = on; SET LOCAL row_security = off;",
        LOCK_TIMEOUT.min(statement_timeout).as_millis().max(1),
        statement_timeout.as_millis().max(1),
    );
    for table in &transform.changes {
        let log = FeedSql::new(table).log();
        begin.push_str(&format!("LOCK TABLE {table} IN ACCESS SHARE MODE; LOCK TABLE {log} IN ACCESS SHARE MODE;"));
    }
    begin
}

/// The names of the tables whose changes a transform reads: schemas and tables.
fn read_tables(transform: &TransformFile) -> (Vec<&str>, Vec<&str>) {
    transform.changes.iter().map(|table| (table.schema.as_str(), table.table.as_str())).unzip()
}

/// Whether the logs that the transform reads are complete in this snapshot.
async fn logs_are_ready(client: &Client, transform: &TransformFile) -> Result<bool, TransformError> {
    let (schemas, tables) = read_tables(transform);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schemas, Type::TEXT_ARRAY), (&tables, Type::TEXT_ARRAY)];
    let rows = client.query_typed(include_str!("run/ready_logs.sql"), &parameters).await?;
    Ok(rows.len() == transform.changes.len())
}

/// Whether whole tables are read: all of them, as soon as one of them must be. So a query never mixes both.
async fn is_full_run(client: &Client, transform: &TransformFile, is_full: bool) -> Result<bool, TransformError> {
    let name = &transform.name;
    let mut is_full = is_full || transform.changes.is_empty();
    let reattached = include_str!("run/reattached.sql");
    is_full |= !client.query_typed(reattached, &[(name, Type::TEXT)]).await?.is_empty();
    for table in &transform.changes {
        if !is_full {
            let rows = client.query_typed(&format!("SELECT millstream.is_full_run(NULL::{table})"), &[]).await?;
            is_full = rows.first().is_none_or(|row| row.get(0));
        }
    }
    if is_full {
        client.execute_typed(include_str!("run/forget_cursors.sql"), &[(name, Type::TEXT)]).await?;
    }
    Ok(is_full)
}

/// What happens to rows that the query does not return.
fn mode(transform: &TransformFile, full_run: bool) -> TargetMode {
    let reads_changes = !transform.changes.is_empty();
    if full_run && reads_changes && transform.mode == TargetMode::Upsert { transform.full_run } else { transform.mode }
}

/// Runs the query into the temporary table. The file's text comes last in each statement and is one of PostgreSQL's messages,
/// which can hold only one statement.
async fn run_query(client: &Client, transform: &TransformFile) -> Result<(), TransformError> {
    let text = &transform.text;
    check_query(client, transform).await?;
    let prefix = format!("CREATE TEMPORARY TABLE {RESULT} ON COMMIT DROP AS\n");
    let ran = client.execute_typed(&format!("{prefix}{text}"), &[]).await;
    ran.map_err(|error| of_query(transform, prefix.chars().count(), error))?;
    client.batch_execute(&format!("ANALYZE {RESULT}")).await?;
    Ok(())
}

/// Lets PostgreSQL analyse the query without running it: as it is, and as that of a cursor, which may not write.
pub(super) async fn check_query(client: &Client, transform: &TransformFile) -> Result<(), TransformError> {
    let text = &transform.text;
    for prefix in ["", "DECLARE millstream_check NO SCROLL CURSOR FOR\n"] {
        let checked = client.prepare_typed(&format!("{prefix}{text}"), &[]).await;
        checked.map_err(|error| of_query(transform, prefix.chars().count(), error))?;
    }
    Ok(())
}

/// The timeout's own error in place of that of the statement which PostgreSQL cancelled for it.
fn at_timeout(
    error: TransformError,
    transform: &TransformFile,
    elapsed: Duration,
    timeout: Duration,
) -> TransformError {
    let cancelled = tokio_postgres::error::SqlState::QUERY_CANCELED;
    let is_cancelled = matches!(&error, TransformError::Statement(statement) if statement.code() == Some(&cancelled));
    if !is_cancelled || elapsed + TIMEOUT_TOLERANCE < timeout {
        return error;
    }
    let is_deadline = timeout < transform.timeout;
    let remedy = match is_deadline {
        true => "run it from a machine without a time limit: `millstream transform run NAME`",
        false => "make it faster, or set a longer `-- timeout:` in its header",
    };
    TransformError::TimeIsUp { position: transform.query_position(), seconds: timeout.as_secs(), is_deadline, remedy }
}

/// Stores what this run has read of a table: its snapshot, and the partitions that are detached, whose changes nobody reads until
/// they are attached again.
async fn store_cursor(client: &Client, name: &str, table: &TableName) -> Result<(), TransformError> {
    let triggers = FeedSql::new(table).triggers();
    let function = format!("{}()", triggers.function(TriggerOperation::Insert));
    let (schema, relation, qualified) = (table.schema.as_str(), table.table.as_str(), table.to_string());
    let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
        (&name, Type::TEXT),
        (&schema, Type::TEXT),
        (&relation, Type::TEXT),
        (&function, Type::TEXT),
        (&qualified, Type::TEXT),
    ];
    client.execute_typed(include_str!("run/store_cursor.sql"), &parameters).await?;
    Ok(())
}
