//! Scheduled upkeep: partitions made ahead of time, and dropped once every row in them has expired.
//!
//! Safe against writers at work: a partition is made as writers make it, dropped ones hold only rows that writers no longer
//! write, and a partition is detached concurrently before it is dropped, so that nobody waits for the drop. Whatever was
//! interrupted is taken up again by the next run.
//!
//! No setting outlives its transaction, for a pooler may give every transaction another backend. A concurrent detach cannot
//! have one; it is cancelled from outside where it waits too long.

pub mod due;

use std::pin::pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::apply::{self, ApplyError, Limits};
use crate::catalog::{Catalog, CatalogError, Table};
use crate::config::{Config, Source};
use crate::database::fault::{Verdict, describe, judge};
use crate::database::{Database, DatabaseError};
use crate::ingest::now;
use crate::names::{Identifier, TableName};
use crate::spec::Period;
use due::Leftover;

/// A statement of the upkeep takes at most this long; it is a matter of the catalog, not of rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { statement: STATEMENT_TIMEOUT, lock: STATEMENT_TIMEOUT };

/// Nobody shall queue for longer behind what waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// A concurrent detach waits this long for those who still read the partition. It holds nothing that others want, but the
/// tables behind it have their turn, too.
const DETACH_PATIENCE: Duration = Duration::from_secs(2);

/// What the upkeep did.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Upkeep {
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
    #[error("looking after partitions: {}", describe(.0))]
    Upkeep(#[from] tokio_postgres::Error),
}

impl MaintainError {
    /// Whether a person must act before it can go on.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::Database(error) => error.needs_a_person(),
            Self::Apply(error) => error.needs_a_person(),
            Self::Catalog(CatalogError::DefaultPartition(_)) => true,
            Self::Catalog(CatalogError::Database(_)) => false,
            Self::Upkeep(error) => judge(error) == Verdict::Halt,
        }
    }
}

/// A table that is looked after.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Schema and name.
    pub name: TableName,
    /// The column that it is partitioned by.
    pub by: Identifier,
    /// How long a partition is, how many are made ahead, how long rows are kept.
    pub period: Period,
}

/// Looks after every partitioned table of the configuration.
///
/// # Errors
/// Whatever concerns all tables; what concerns one is postponed.
pub async fn maintain(config: &Config, database: &Database) -> Result<Upkeep, MaintainError> {
    let connection = database.connection().await?;
    let client: &Client = &connection;
    let mut upkeep = Upkeep::default();
    for source in &config.sources {
        for kept in tables(client, source).await? {
            look_after(database, client, &kept, &mut upkeep).await?;
        }
        if source.format.replicates() {
            upkeep.forgotten += forget(client, source).await?;
        }
        forget_shards(client, source, &mut upkeep).await?;
    }
    connection.release();
    Ok(upkeep)
}

/// Forgets deletes that are older than the source's configuration asks; how many.
async fn forget(client: &Client, source: &Source) -> Result<u64, MaintainError> {
    if !apply::TOMBSTONE.is_there(client).await? {
        return Ok(0);
    }
    let (tables, seconds) = (format!("{}.", source.schema.as_str()), source.remember as f64 / 1e6);
    let mut forgotten = 0;
    loop {
        let statement = include_str!("maintain/forget.sql");
        let count = client.execute_typed(statement, &[(&tables, Type::TEXT), (&seconds, Type::FLOAT8)]).await?;
        forgotten += count;
        if count == 0 {
            return Ok(forgotten);
        }
    }
}

/// Forgets how fresh shards were that are long closed. Nothing depends on it.
async fn forget_shards(client: &Client, source: &Source, upkeep: &mut Upkeep) -> Result<(), MaintainError> {
    if !apply::FRESHNESS.is_there(client).await? {
        return Ok(());
    }
    let statement = include_str!("maintain/forget_shards.sql");
    match client.execute_typed(statement, &[(&source.name, Type::TEXT)]).await {
        Err(error) if error.as_db_error().is_some() => {
            upkeep.postponed.push(format!("forgetting shards of {}: {}", source.name, describe(&error)));
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
pub async fn tables(client: &Client, source: &Source) -> Result<Vec<Kept>, MaintainError> {
    let rows =
        client.query_typed(include_str!("maintain/tables.sql"), &[(&source.schema.as_str(), Type::TEXT)]).await?;
    let mut kept = Vec::new();
    for row in rows {
        let (table, by): (String, String) = (row.get(0), row.get(1));
        let declared = source.tables.iter().find(|declared| declared.name.as_str() == table);
        let partition = declared.and_then(|declared| declared.partition.as_ref()).or(source.partition.as_ref());
        let name = TableName { schema: source.schema.clone(), table: Identifier::fitting(&table, &table) };
        if let Some(partition) = partition {
            kept.push(Kept { name, by: Identifier::fitting(&by, &by), period: partition.period });
        }
    }
    Ok(kept)
}

async fn look_after(
    database: &Database,
    client: &Client,
    kept: &Kept,
    upkeep: &mut Upkeep,
) -> Result<(), MaintainError> {
    finish_detached(client, kept, upkeep).await?;
    apply::begin_reading(client, LIMITS).await?;
    let loaded = due::load(client, kept).await;
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
    make_ahead(client, &table, kept, upkeep).await?;
    drop_expired(database, client, &table, kept, upkeep).await
}

async fn make_ahead(client: &Client, table: &Table, kept: &Kept, upkeep: &mut Upkeep) -> Result<(), MaintainError> {
    let lack = due::ahead(table, kept, now());
    if lack.is_empty() {
        return Ok(());
    }
    match apply::make_up(client, &mut Catalog::default(), std::slice::from_ref(&lack), LIMITS).await {
        Ok(_) => upkeep.made.extend(lack.partitions.iter().map(|partition| partition.name.plain())),
        Err(error @ ApplyError::Schema { .. }) => upkeep.postponed.push(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn drop_expired(
    database: &Database,
    client: &Client,
    table: &Table,
    kept: &Kept,
    upkeep: &mut Upkeep,
) -> Result<(), MaintainError> {
    for partition in due::expired(table, kept, now()) {
        let detached = detach(database, client, &kept.name, &partition.name).await;
        if upkeep.managed("detaching", &partition.name, detached)? {
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
    let detach = due::detach(table, partition);
    let mut detaching = pin!(client.batch_execute(&detach));
    loop {
        match tokio::time::timeout(DETACH_PATIENCE, &mut detaching).await {
            Ok(outcome) => return Ok(outcome?),
            // By SQL, for RDS Proxy passes no request to cancel on; again, for the statement may have come to a backend only now.
            Err(_elapsed) => {
                let cancel = include_str!("maintain/cancel.sql");
                database.second().await?.query_typed(cancel, &[(&detach, Type::TEXT)]).await?;
            }
        }
    }
}

/// What an earlier run left half done: detaches that were interrupted, and partitions that were detached but not dropped.
async fn finish_detached(client: &Client, kept: &Kept, upkeep: &mut Upkeep) -> Result<(), MaintainError> {
    for Leftover { name, pending } in due::leftovers(client, kept, now()).await? {
        if pending {
            let finalized = in_transaction(client, &due::finalize(&kept.name, &name)).await;
            if !upkeep.managed("detaching", &name, finalized)? {
                continue;
            }
        }
        drop_table(client, &name, upkeep).await?;
    }
    Ok(())
}

async fn drop_table(client: &Client, name: &TableName, upkeep: &mut Upkeep) -> Result<(), MaintainError> {
    let dropped = in_transaction(client, &due::drop_table(name)).await;
    if upkeep.managed("dropping", name, dropped)? {
        upkeep.dropped.push(name.plain());
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

impl Upkeep {
    /// Whether a step went through. What PostgreSQL refuses is postponed; a broken connection ends the run.
    fn managed(
        &mut self,
        step: &str,
        partition: &TableName,
        outcome: Result<(), MaintainError>,
    ) -> Result<bool, MaintainError> {
        match outcome {
            Ok(()) => Ok(true),
            Err(MaintainError::Upkeep(error)) if error.as_db_error().is_some() => {
                let cancelled = error.code() == Some(&SqlState::QUERY_CANCELED);
                let reason = if cancelled { "others kept it waiting".to_owned() } else { describe(&error) };
                self.postponed.push(format!("{step} {}: {reason}", partition.plain()));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
