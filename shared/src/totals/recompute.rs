//! Recomputing: sums all rows again and adds the difference as deltas.
//!
//! Both sides are read in one snapshot, so that writers go on meanwhile, and nothing is overwritten. What is inserted is how
//! far off the total was. A crash leaves nothing behind.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::registry::{TotalState, TotalVersion};
use super::sql::TotalSql;
use super::{TotalError, repair_triggers};
use crate::names::TableName;
use crate::schema_work::{WorkError, in_transaction};
use crate::statement_triggers;

/// How often a lock for a trigger is tried.
const TRIGGER_ATTEMPTS: u32 = 30;
/// A partition that is detached between two of the steps makes the run start again.
const ATTEMPTS: u32 = 5;
/// How many groups a report names.
const GROUPS_REPORTED: usize = 20;
/// Bounds the wait for another recompute, and for statements that hold the table exclusively.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// What a recompute found.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct RecomputeReport {
    /// The total.
    pub total: String,
    /// The number of groups whose figures were wrong; 0 for the first sums of a new total.
    pub off_by: u64,
    /// Some of those groups, with what was added to them.
    pub groups: Vec<GroupDifference>,
    /// The number of triggers that were missing or disabled.
    pub triggers_repaired: usize,
    /// Whether the figures were only compared.
    pub dry_run: bool,
    /// The duration in seconds.
    pub seconds: f64,
}

/// A group whose figures were wrong.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct GroupDifference {
    /// The values of its columns, in the order of the configuration.
    pub group: Vec<Option<String>>,
    /// The number of rows and the finite sums by which the figures were too low, in the order of the configuration.
    pub figures: Vec<String>,
}

/// How a recompute runs.
#[derive(Clone, Copy)]
struct Mode {
    /// Only compares.
    dry_run: bool,
    /// Bounds each statement.
    timeout: Duration,
}

/// Recomputes a version of a total; a dry run only compares. `timeout` bounds the statement that sums the rows.
///
/// # Errors
/// Returns an error if a statement or the connection fails, or an expression of the total fails for a row.
pub async fn recompute(
    client: &Client,
    version: &TotalVersion,
    dry_run: bool,
    timeout: Duration,
) -> Result<RecomputeReport, TotalError> {
    let started = Instant::now();
    let Some(sql) = version.sql() else { return Err(unknown_definition(version)) };
    let mode = Mode { dry_run, timeout };
    let triggers_repaired =
        if dry_run { 0 } else { repair_triggers(client, &sql, &version.table, TRIGGER_ATTEMPTS).await? };
    let mut attempt = 0;
    let difference = loop {
        attempt += 1;
        match recompute_once(client, version, &sql, mode, started).await {
            Ok(difference) => break difference,
            Err(error) if error.is_busy() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let first = version.state == TotalState::Building;
    let groups = difference.iter().take(if first { 0 } else { GROUPS_REPORTED }).cloned().collect();
    let off_by = if first { 0 } else { difference.len() as u64 };
    Ok(RecomputeReport { total: version.name.clone(), off_by, groups, triggers_repaired, dry_run, seconds })
}

pub(super) fn unknown_definition(version: &TotalVersion) -> TotalError {
    let reason = format!(
        "the definition of version {} in millstream.total cannot be read; is this release older?",
        version.version
    );
    TotalError::Conflict { total: version.name.clone(), reason }
}

async fn recompute_once(
    client: &Client,
    version: &TotalVersion,
    sql: &TotalSql<'_>,
    Mode { dry_run, timeout }: Mode,
    started: Instant,
) -> Result<Vec<GroupDifference>, TotalError> {
    let locked = statement_triggers::detached(client, &sql.triggers(), &version.table).await?;
    // LOCK TABLE takes no snapshot, any query does. With an older snapshot than the lock, two runs would correct one error twice.
    let mut begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; \
         SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; \
         SET LOCAL extra_float_digits = 1; SET LOCAL row_security = off;",
        LOCK_TIMEOUT.as_millis(),
        timeout.as_millis().max(1),
    );
    if !dry_run {
        begin.push_str(&format!("LOCK TABLE {} IN EXCLUSIVE MODE;", sql.object("recompute")));
    }
    begin.push_str(&format!("LOCK TABLE {} IN SHARE MODE;", sql.object("frozen")));
    for table in std::iter::once(&version.table).chain(&locked) {
        begin.push_str(&format!("LOCK TABLE {table} IN ACCESS SHARE MODE;"));
    }
    let difference = async {
        client.batch_execute(&begin).await?;
        let detached = statement_triggers::detached(client, &sql.triggers(), &version.table).await?;
        if detached.iter().any(|table| !locked.contains(table)) {
            let reason = "a partition was detached meanwhile".to_owned();
            return Err(TotalError::Busy { total: version.name.clone(), reason });
        }
        let source = pieces(client, &version.table, &detached).await?;
        client.execute_typed(&sql.sum_pieces(&source), &[]).await?;
        let rows = client.query_typed(&sql.difference(!dry_run), &[]).await?;
        if !dry_run {
            finish(client, version, rows.len() as i64, started).await?;
        }
        client.batch_execute(if dry_run { "ROLLBACK" } else { "COMMIT" }).await?;
        Ok(rows)
    };
    match difference.await {
        Ok(rows) => {
            let group =
                |row: &tokio_postgres::Row| GroupDifference { group: row.get("groups"), figures: row.get("figures") };
            Ok(rows.iter().map(group).collect())
        }
        Err(error) => {
            client.batch_execute("ROLLBACK").await.unwrap_or_default();
            Err(error)
        }
    }
}

/// The rows of the table and of its detached partitions, whose columns may have another order.
async fn pieces(client: &Client, table: &TableName, detached: &[TableName]) -> Result<String, TotalError> {
    if detached.is_empty() {
        return Ok(table.to_string());
    }
    let name = table.to_string();
    let rows = client.query_typed(include_str!("recompute/columns.sql"), &[(&name, Type::TEXT)]).await?;
    let columns: String = rows.first().map(|row| row.get(0)).unwrap_or_default();
    let selects = std::iter::once(table).chain(detached).map(|piece| format!("SELECT {columns} FROM {piece}"));
    Ok(format!("({})", selects.collect::<Vec<_>>().join(" UNION ALL ")))
}

/// Deletes the marks that this snapshot sees: what they stand for is in the difference. The update makes a second run with an
/// older snapshot fail instead of correcting twice.
async fn finish(client: &Client, version: &TotalVersion, off_by: i64, started: Instant) -> Result<(), TotalError> {
    let first = version.state == TotalState::Building;
    let (off_by, seconds) = (if first { 0 } else { off_by }, started.elapsed().as_secs_f64());
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&version.name, Type::TEXT), (&version.version, Type::INT4), (&off_by, Type::INT8), (&seconds, Type::FLOAT8)];
    client.execute_typed(include_str!("recompute/finish.sql"), &parameters).await?;
    Ok(())
}

/// Removes groups without content from the batch and merges groups that have two rows.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn tidy(client: &Client, version: &TotalVersion, timeout: Duration) -> Result<(), TotalError> {
    let Some(sql) = version.sql() else { return Err(unknown_definition(version)) };
    in_transaction(client, timeout, async { Ok(client.batch_execute(&sql.tidy()).await?) }).await
}
