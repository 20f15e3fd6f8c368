//! Scheduled upkeep: partitions made ahead of time, and dropped once every row in them has expired.
//!
//! Safe against writers at work: a partition is made as writers make it, dropped ones hold only rows that writers no longer
//! write, and a partition is detached concurrently before it is dropped, so that nobody waits for the drop. Whatever was
//! interrupted is taken up again by the next run.
//!
//! No setting outlives its transaction, for a pooler may give every transaction another backend. A concurrent detach cannot
//! have one; it is cancelled from outside where it waits too long.

pub mod pending;

use std::pin::pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::apply::{self, ApplyError, Limits};
use crate::catalog::{Catalog, CatalogError, DbTable};
use crate::clock::now;
use crate::config::{Config, SourceConfig};
use crate::database::sqlstate::{ErrorAction, classify, describe};
use crate::database::{Database, DatabaseError};
use crate::names::{Identifier, TableName};
use crate::spec::PartitionPolicy;
use pending::InterruptedDrop;

/// A statement of the upkeep takes at most this long; it is a matter of the catalog, not of rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { statement: STATEMENT_TIMEOUT, lock: STATEMENT_TIMEOUT };

/// Nobody shall queue for longer behind what waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// A concurrent detach waits this long for those who still read the partition. It holds nothing that others want, but the
/// tables behind it have their turn, too.
const DETACH_TIMEOUT: Duration = Duration::from_secs(2);

/// What the upkeep did.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct MaintenanceReport {
    /// Partitions made, by name.
    pub made: Vec<String>,
    /// Partitions dropped, by name.
    pub dropped: Vec<String>,
    /// Deletes that are remembered no longer.
    pub forgotten: u64,
    /// What could not be done this time, and why; the next run tries again.
    pub postponed: Vec<String>,
}

/// Why the upkeep failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// No connection.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// PostgreSQL refused.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// PostgreSQL, or the connection to it.
    #[error("partition maintenance failed: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
}

impl MaintainError {
    /// Whether operator action required before it can go on.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Database(error) => error.needs_operator(),
            Self::Apply(error) => error.needs_operator(),
            Self::Catalog(CatalogError::DefaultPartition(_)) => true,
            Self::Catalog(CatalogError::Database(_)) => false,
            Self::Statement(error) => classify(error) == ErrorAction::Halt,
        }
    }
}

/// A table that is looked after.
#[derive(Clone, Debug)]
pub struct PartitionedTable {
    /// Schema and name.
    pub name: TableName,
    /// The column that it is partitioned by.
    pub column: Identifier,
    /// How long a partition is, how many are made ahead, how long rows are kept.
    pub period: PartitionPolicy,
}

/// Looks after every partitioned table of the configuration.
///
/// # Errors
/// Whatever concerns all tables; what concerns one is postponed.
pub async fn maintain(config: &Config, database: &Database) -> Result<MaintenanceReport, MaintainError> {
    let connection = database.connection().await?;
    let client: &Client = &connection;
    let mut upkeep = MaintenanceReport::default();
    for source in &config.sources {
        for kept in partitioned_tables(client, source).await? {
            maintain_table(database, client, &kept, &mut upkeep).await?;
        }
        if source.format.replicates() {
            upkeep.forgotten += prune_tombstones(client, source).await?;
        }
        prune_closed_shards(client, source, &mut upkeep).await?;
    }
    connection.release();
    Ok(upkeep)
}

/// Forgets deletes that are older than the source's configuration asks; how many.
async fn prune_tombstones(client: &Client, source: &SourceConfig) -> Result<u64, MaintainError> {
    if !apply::TOMBSTONE.exists(client).await? {
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

/// Forgets how fresh shards were that are long closed. Nothing depends on it.
async fn prune_closed_shards(
    client: &Client,
    source: &SourceConfig,
    upkeep: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    if !apply::FRESHNESS.exists(client).await? {
        return Ok(());
    }
    let statement = include_str!("maintain/prune_closed_shards.sql");
    match client.execute_typed(statement, &[(&source.name, Type::TEXT)]).await {
        Err(error) if error.as_db_error().is_some() => {
            upkeep.postponed.push(format!("pruning closed shards of {}: {}", source.name, describe(&error)));
        }
        outcome => drop(outcome?),
    }
    Ok(())
}

/// The partitioned tables of a source: those that are declared with a partitioning of their own, and all others of its
/// schema that are partitioned by the source's column.
///
/// # Errors
/// PostgreSQL's, or the connection's.
pub async fn partitioned_tables(
    client: &Client,
    source: &SourceConfig,
) -> Result<Vec<PartitionedTable>, MaintainError> {
    let rows = client
        .query_typed(include_str!("maintain/partitioned_tables.sql"), &[(&source.schema.as_str(), Type::TEXT)])
        .await?;
    let mut kept = Vec::new();
    for row in rows {
        let (table, by): (String, String) = (row.get(0), row.get(1));
        let declared = source.tables.iter().find(|declared| declared.name.as_str() == table);
        let partition = declared.and_then(|declared| declared.partition.as_ref()).or(source.partition.as_ref());
        let name = TableName { schema: source.schema.clone(), table: Identifier::truncated(&table, &table) };
        if let Some(partition) = partition {
            kept.push(PartitionedTable { name, column: Identifier::truncated(&by, &by), period: partition.period });
        }
    }
    Ok(kept)
}

async fn maintain_table(
    database: &Database,
    client: &Client,
    kept: &PartitionedTable,
    upkeep: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    finish_detached(client, kept, upkeep).await?;
    apply::begin_read_only(client, LIMITS).await?;
    let loaded = pending::load(client, kept).await;
    client.batch_execute("COMMIT").await?;
    let table = match loaded {
        Ok(table) => table,
        Err(error @ CatalogError::DefaultPartition(_)) => {
            upkeep.postponed.push(error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let Some(table) = table else { return Ok(()) };
    create_ahead(client, &table, kept, upkeep).await?;
    drop_expired(database, client, &table, kept, upkeep).await
}

async fn create_ahead(
    client: &Client,
    table: &DbTable,
    kept: &PartitionedTable,
    upkeep: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    let lack = pending::missing_partitions(table, kept, now());
    if lack.is_empty() {
        return Ok(());
    }
    match apply::create_missing(client, &mut Catalog::default(), std::slice::from_ref(&lack), LIMITS).await {
        Ok(_) => upkeep.made.extend(lack.partitions.iter().map(|partition| partition.name.unquoted())),
        Err(error @ ApplyError::Schema { .. }) => upkeep.postponed.push(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn drop_expired(
    database: &Database,
    client: &Client,
    table: &DbTable,
    kept: &PartitionedTable,
    upkeep: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    for partition in pending::expired(table, kept, now()) {
        let detached = detach(database, client, &kept.name, &partition.name).await;
        if upkeep.record_step("detaching", &partition.name, detached)? {
            drop_table(client, &partition.name, upkeep).await?;
        }
    }
    Ok(())
}

/// Detaches a partition concurrently: outside a transaction, with no lock that readers or writers of the table would wait for.
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
            // By SQL, for RDS Proxy passes no request to cancel on; again, for the statement may have come to a backend only now.
            Err(_elapsed) => {
                let cancel = include_str!("maintain/cancel.sql");
                database.side_connection().await?.query_typed(cancel, &[(&detach, Type::TEXT)]).await?;
            }
        }
    }
}

/// What an earlier run left half done: detaches that were interrupted, and partitions that were detached but not dropped.
async fn finish_detached(
    client: &Client,
    kept: &PartitionedTable,
    upkeep: &mut MaintenanceReport,
) -> Result<(), MaintainError> {
    for InterruptedDrop { name, pending } in pending::interrupted_drops(client, kept, now()).await? {
        if pending {
            let finalized = in_transaction(client, &pending::finalize(&kept.name, &name)).await;
            if !upkeep.record_step("detaching", &name, finalized)? {
                continue;
            }
        }
        drop_table(client, &name, upkeep).await?;
    }
    Ok(())
}

async fn drop_table(client: &Client, name: &TableName, upkeep: &mut MaintenanceReport) -> Result<(), MaintainError> {
    let dropped = in_transaction(client, &pending::drop_table(name)).await;
    if upkeep.record_step("dropping", name, dropped)? {
        upkeep.dropped.push(name.unquoted());
    }
    Ok(())
}

/// Carries a statement out that shall not wait for a lock for long.
async fn in_transaction(client: &Client, statement: &str) -> Result<(), MaintainError> {
    apply::begin(client, LOCK_TIMEOUT, STATEMENT_TIMEOUT).await?;
    let outcome = client.batch_execute(statement).await;
    client.batch_execute(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    Ok(outcome?)
}

impl MaintenanceReport {
    /// Whether a step went through. What PostgreSQL refuses is postponed; a broken connection ends the run.
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
