//! Scheduled maintenance: creates partitions ahead of time, and drops them once every row in them has expired.
//!
//! Safe to run alongside writers: partitions are created the same way as by writers, dropped partitions hold only rows that
//! writers no longer write, and a partition is detached concurrently before it is dropped, so that no other transaction waits
//! for the drop. The next run resumes whatever was interrupted.
//!
//! Drops only what belongs to it: partitions of tables whose note names the source. Before a partition is detached, its comment
//! records that maintenance detaches it; a partition without that mark was detached by its owner, and stays.
//!
//! Settings never outlive their transaction, because a pooler may assign each transaction to a different backend. A concurrent
//! detach cannot run in a transaction and therefore has no settings; if it waits too long, another connection cancels it.

mod activity;
pub mod pending;

use std::pin::pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::apply::{self, ApplyError, Limits};
use crate::catalog::comment::{names_source, parse_note};
use crate::catalog::{Catalog, CatalogError, DbTable};
use crate::clock::now;
use crate::config::{Config, SourceConfig};
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, describe};
use crate::database::{Database, DatabaseError};
use crate::decode::Decoder;
use crate::feed::{FeedError, retention};
use crate::names::{Identifier, TableName};
use crate::spec::PartitionPolicy;
use crate::timestamp::Timestamp;
use crate::totals::{self, TotalError};
use pending::{InterruptedDrop, RemainingWork};

/// Timeout of a maintenance statement; these change the catalog, not rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { statement: STATEMENT_TIMEOUT, lock: STATEMENT_TIMEOUT };

/// Bounds how long other transactions queue up behind a maintenance statement that waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of the statement that sums the rows of a partition before it is dropped.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(240);

/// How long a concurrent detach waits for transactions that still read the partition. It blocks no other transaction, but the
/// remaining tables also need their turn.
const DETACH_TIMEOUT: Duration = Duration::from_secs(2);

/// What a maintenance run did.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct MaintenanceReport {
    /// Partitions created, by name.
    pub made: Vec<String>,
    /// Partitions dropped, by name.
    pub dropped: Vec<String>,
    /// Number of tombstones pruned.
    pub forgotten: u64,
    /// What this run could not do, and why; the next run retries it.
    pub postponed: Vec<String>,
    /// Slots of change logs whose entries were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emptied: Vec<String>,
}

/// Why a maintenance run failed.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// The connection to the database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A partition could not be created.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A total could not be maintained.
    #[error(transparent)]
    Total(#[from] TotalError),
    /// The change logs could not be maintained.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A statement, or the connection, failed.
    #[error("partition maintenance failed: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
}

impl MaintainError {
    /// Whether operator action is required before a retry can succeed.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Database(error) => error.needs_operator(),
            Self::Apply(error) => error.needs_operator(),
            Self::Total(error) => error.needs_operator(),
            Self::Feed(error) => error.needs_operator(),
            Self::Catalog(error) => error.needs_operator(),
            Self::Statement(error) => classify(DatabaseStep::Session, error) == ErrorAction::Halt,
        }
    }
}

/// A partitioned table that maintenance applies to.
#[derive(Clone, Debug)]
pub struct PartitionedTable {
    /// Schema and name.
    pub name: TableName,
    /// The partition column.
    pub partition_column: Identifier,
    /// Partition width, number of partitions created ahead, and retention.
    pub policy: PartitionPolicy,
}

/// Maintains every partitioned table of the configuration.
///
/// # Errors
/// Fails on errors that concern all tables. Work on a single table that fails is postponed.
pub async fn maintain(config: &Config, database: &Database) -> Result<MaintenanceReport, MaintainError> {
    let connection = database.connection().await?;
    let client: &Client = &connection;
    let mut report = MaintenanceReport::default();
    for source in &config.sources {
        for partitioned in partitioned_tables(client, source).await? {
            let since = report.recorded_until();
            maintain_table(database, client, &partitioned, &mut report).await?;
            activity::record_partitions(client, &source.name, since, &mut report).await?;
        }
        if source.format.replicates() {
            report.forgotten += prune_tombstones(client, source).await?;
        }
        prune_closed_shards(client, source, &mut report).await?;
    }
    prune_totals(client, config, &mut report).await?;
    prune_change_logs(client, &mut report).await?;
    activity::prune(client, &mut report).await?;
    activity::grant_board(client, config, &mut report).await?;
    connection.release();
    Ok(report)
}

/// Deletes tombstones older than the source's configured retention; returns how many.
async fn prune_tombstones(client: &Client, source: &SourceConfig) -> Result<u64, MaintainError> {
    if !apply::TOMBSTONE_TABLE.exists(client).await? {
        return Ok(0);
    }
    let (tables, seconds) = (format!("{}.", source.schema.as_str()), source.tombstone_retention_micros as f64 / 1e6);
    let mut forgotten = 0;
    loop {
        let statement = include_str!("maintain/prune_tombstones.sql");
        let count = client.execute_typed(statement, &[(&tables, Type::TEXT), (&seconds, Type::FLOAT8)]).await?;
        forgotten += count;
        if count == 0 {
            return Ok(forgotten);
        }
    }
}

/// Deletes the freshness rows of shards that closed long ago. Nothing depends on it.
async fn prune_closed_shards(
    client: &Client,
    source: &SourceConfig,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    if !apply::FRESHNESS_TABLE.exists(client).await? {
        return Ok(());
    }
    let statement = include_str!("maintain/prune_closed_shards.sql");
    match client.execute_typed(statement, &[(&source.name, Type::TEXT)]).await {
        Err(error) if error.as_db_error().is_some() => {
            report.postponed.push(format!("pruning closed shards of {}: {}", source.name, describe(&error)));
        }
        outcome => drop(outcome?),
    }
    Ok(())
}

/// Returns the tables that are partitioned as the source partitions them: those that the source created or adopted, by the
/// notes in their comments, and declared ones. Other tables of the schema belong to other sources or to its owner.
///
/// # Errors
/// Returns an error if the query fails.
pub async fn partitioned_tables(
    client: &Client,
    source: &SourceConfig,
) -> Result<Vec<PartitionedTable>, MaintainError> {
    let rows = client
        .query_typed(include_str!("maintain/partitioned_tables.sql"), &[(&source.schema.as_str(), Type::TEXT)])
        .await?;
    let mut decoder = Decoder::new(source.clone());
    let mut tables = Vec::new();
    for row in rows {
        let (table, by, comment): (String, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
        let table = Identifier::truncated(&table, &table);
        let note = comment.as_deref().and_then(parse_note);
        let has_note = note.is_some_and(|note| names_source(note, &source.name));
        let name = TableName { schema: source.schema.clone(), table };
        let is_declared = note.is_none() && decoder.tables.by_name(&name).is_some_and(|spec| spec.declared);
        let Some((partition_column, policy)) = decoder.partitioning(&name) else { continue };
        if partition_column.as_str() != by || !(has_note || is_declared) {
            continue;
        }
        // A declared table without a note is its owner's: it gets partitions ahead of time, but nothing of it is dropped.
        let retention_micros = policy.retention_micros.filter(|_| has_note);
        tables.push(PartitionedTable {
            name,
            partition_column,
            policy: PartitionPolicy { retention_micros, ..policy },
        });
    }
    Ok(tables)
}

async fn maintain_table(
    database: &Database,
    client: &Client,
    partitioned: &PartitionedTable,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    finish_detached(client, partitioned, report).await?;
    apply::begin_read_only(client, LIMITS).await?;
    let loaded = pending::load(client, partitioned).await;
    client.batch_execute("COMMIT").await?;
    let Some(table) = loaded? else { return Ok(()) };
    if let Some(obstacle) = pending::obstacle(&table) {
        report.postponed.push(obstacle);
        return Ok(());
    }
    create_ahead(client, &table, partitioned, report).await?;
    drop_expired(database, client, &table, partitioned, report).await
}

async fn create_ahead(
    client: &Client,
    table: &DbTable,
    partitioned: &PartitionedTable,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    let mut diff = pending::missing_partitions(table, partitioned, now());
    if diff.is_empty() {
        return Ok(());
    }
    // Chosen again under the table's lock; here for the report.
    apply::choose_partition_names(client, &mut diff).await?;
    match apply::create_missing(client, &mut Catalog::default(), std::slice::from_ref(&diff), LIMITS).await {
        Ok(changed) if changed.unwritable.is_empty() => {
            report.made.extend(diff.partitions.iter().map(|partition| partition.name.unquoted()));
        }
        Ok(changed) => report.postponed.extend(changed.unwritable.iter().map(ToString::to_string)),
        Err(error @ ApplyError::Locked(_)) => report.postponed.push(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn drop_expired(
    database: &Database,
    client: &Client,
    table: &DbTable,
    partitioned: &PartitionedTable,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    for partition in pending::expired(table, partitioned, now()) {
        let Some(mark) = pending::mark(client, &partitioned.name, partition).await? else {
            let reason = "not an ordinary table; detach and drop it yourself";
            report.postponed.push(format!("dropping {}: {reason}", partition.name.unquoted()));
            continue;
        };
        let marked = in_transaction(client, &mark).await;
        if !report.record_step("detaching", &partition.name, marked)? {
            continue;
        }
        let detached = detach(database, client, &partitioned.name, &partition.name).await;
        if report.record_step("detaching", &partition.name, detached)? {
            drop_table(client, &partitioned.name, &partition.name, report).await?;
        } else {
            remove_marks(client, partitioned, report).await?;
        }
    }
    Ok(())
}

/// Removes the mark of partitions that are still attached: if their owner detaches them now, they are the owner's.
async fn remove_marks(
    client: &Client,
    partitioned: &PartitionedTable,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    for InterruptedDrop { name, remaining } in pending::interrupted_drops(client, partitioned, now()).await? {
        if let RemainingWork::RemoveMark { statement } = remaining {
            let removed = in_transaction(client, &statement).await;
            report.record_step("restoring the comment of", &name, removed)?;
        }
    }
    Ok(())
}

/// Detaches a partition concurrently: outside a transaction, without a lock that blocks readers or writers of the table.
async fn detach(
    database: &Database,
    client: &Client,
    table: &TableName,
    partition: &TableName,
) -> Result<(), MaintainError> {
    let detach = pending::detach(table, partition);
    let mut detaching = pin!(client.batch_execute(&detach));
    loop {
        match tokio::time::timeout(DETACH_TIMEOUT, &mut detaching).await {
            Ok(outcome) => return Ok(outcome?),
            // By SQL, because RDS Proxy does not forward cancel requests; repeatedly, because the statement may have reached a
            // backend only now.
            Err(_elapsed) => {
                let cancel = include_str!("maintain/cancel.sql");
                database.side_connection().await?.query_typed(cancel, &[(&detach, Type::TEXT)]).await?;
            }
        }
    }
}

/// Completes what an earlier run left unfinished: interrupted detaches, and partitions detached but not dropped.
async fn finish_detached(
    client: &Client,
    partitioned: &PartitionedTable,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    remove_marks(client, partitioned, report).await?;
    for InterruptedDrop { name, remaining } in pending::interrupted_drops(client, partitioned, now()).await? {
        let drops = match remaining {
            RemainingWork::RemoveMark { .. } => false,
            RemainingWork::Drop => true,
            RemainingWork::Finalize { drops } => {
                let finalized = in_transaction(client, &pending::finalize(&partitioned.name, &name)).await;
                report.record_step("detaching", &name, finalized)? && drops
            }
        };
        if drops {
            drop_table(client, &partitioned.name, &name, report).await?;
        }
    }
    Ok(())
}

/// Drops a detached partition; its sums are kept in the totals of its table.
async fn drop_table(
    client: &Client,
    table: &TableName,
    partition: &TableName,
    report: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    match totals::freeze::drop_partition(client, table, partition, FREEZE_TIMEOUT).await {
        Ok(()) => report.dropped.push(partition.unquoted()),
        Err(error) if error.is_of_connection() => return Err(error.into()),
        Err(error) => report.postponed.push(format!("dropping {}: {error}", partition.unquoted())),
    }
    Ok(())
}

/// Removes the buckets that each total of the configuration no longer keeps.
async fn prune_totals(client: &Client, config: &Config, report: &mut MaintenanceReport) -> Result<(), MaintainError> {
    let versions = if config.totals.is_empty() { Vec::new() } else { totals::load_versions(client).await? };
    for version in versions {
        let total = config.totals.iter().find(|total| total.name.as_str() == version.name);
        let bucket = total.and_then(|total| total.bucket.as_ref());
        let Some(retention) = bucket.and_then(|bucket| bucket.retention_micros) else { continue };
        let before = Timestamp(now().0.saturating_sub(retention));
        match totals::freeze::prune(client, &version, before, FREEZE_TIMEOUT).await {
            Ok(()) => {}
            Err(error) if error.is_of_connection() => return Err(error.into()),
            Err(error) => report.postponed.push(format!("pruning total {}: {error}", version.name)),
        }
    }
    Ok(())
}

/// Removes the entries of change logs that are not kept any longer.
async fn prune_change_logs(client: &Client, report: &mut MaintenanceReport) -> Result<(), MaintainError> {
    let retained = retention::retain(client, retention::KEEP).await?;
    report.emptied.extend(retained.emptied);
    report.postponed.extend(retained.postponed);
    Ok(())
}

/// Runs a statement in a transaction with a short lock timeout.
async fn in_transaction(client: &Client, statement: &str) -> Result<(), MaintainError> {
    apply::begin(client, LOCK_TIMEOUT, STATEMENT_TIMEOUT).await?;
    let outcome = client.batch_execute(statement).await;
    client.batch_execute(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    Ok(outcome?)
}

impl MaintenanceReport {
    /// Returns whether a step succeeded. A step that PostgreSQL rejects is postponed; a broken connection ends the run.
    fn record_step(
        &mut self,
        step: &str,
        partition: &TableName,
        outcome: Result<(), MaintainError>,
    ) -> Result<bool, MaintainError> {
        match outcome {
            Ok(()) => Ok(true),
            Err(MaintainError::Statement(error)) if error.as_db_error().is_some() => {
                let cancelled = error.code() == Some(&SqlState::QUERY_CANCELED);
                let reason =
                    if cancelled { "timed out waiting for other transactions".to_owned() } else { describe(&error) };
                self.postponed.push(format!("{step} {}: {reason}", partition.unquoted()));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
