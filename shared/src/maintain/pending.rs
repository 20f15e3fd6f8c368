//! Pending maintenance of a table: partitions to create ahead, expired partitions, and work that an earlier run left
//! unfinished. Read-only, so that [`crate::status`] and a dry run report what the next run would find.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::{LIMITS, MaintainError, PartitionedTable, partitioned_tables};
use crate::apply;
use crate::catalog::{self, Catalog, CatalogError, DbPartition, DbTable};
use crate::clock::now;
use crate::config::Config;
use crate::names::{Identifier, TableName};
use crate::plan::{TableDiff, new_partition};
use crate::timestamp::Timestamp;

/// Returns what a run would do, as SQL in order of execution. What it would postpone is listed as a comment.
///
/// # Errors
/// Fails on errors that concern all tables.
pub async fn dry_run(client: &Client, config: &Config) -> Result<Vec<String>, MaintainError> {
    let mut statements = Vec::new();
    apply::begin_read_only(client, LIMITS).await?;
    for source in &config.sources {
        for partitioned in partitioned_tables(client, source).await? {
            dry_run_table(client, &partitioned, &mut statements).await?;
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(statements)
}

async fn dry_run_table(
    client: &Client,
    partitioned: &PartitionedTable,
    statements: &mut Vec<String>,
) -> Result<(), MaintainError> {
    for InterruptedDrop { name, pending } in interrupted_drops(client, partitioned, now()).await? {
        statements.extend(pending.then(|| finalize(&partitioned.name, &name)));
        statements.push(drop_table(&name));
    }
    let table = match load(client, partitioned).await {
        Err(error @ CatalogError::DefaultPartition(_)) => {
            statements.push(format!("-- postponed: {error}"));
            return Ok(());
        }
        loaded => loaded?,
    };
    let Some(table) = table else { return Ok(()) };
    statements.extend(missing_partitions(&table, partitioned, now()).statements());
    for partition in expired(&table, partitioned, now()) {
        statements.extend([detach(&partitioned.name, &partition.name), drop_table(&partition.name)]);
    }
    Ok(())
}

/// Loads the table from the catalog. Must run inside a transaction.
///
/// # Errors
/// See [`CatalogError`].
pub async fn load(client: &Client, partitioned: &PartitionedTable) -> Result<Option<Arc<DbTable>>, CatalogError> {
    let mut catalog = Catalog::default();
    catalog::load(client, &mut catalog, std::slice::from_ref(&partitioned.name)).await?;
    Ok(catalog.table(&partitioned.name).cloned())
}

/// Returns the partitions that should exist ahead of time and are missing.
pub fn missing_partitions(table: &DbTable, partitioned: &PartitionedTable, now: Timestamp) -> TableDiff {
    let mut diff = TableDiff {
        table: partitioned.name.clone(),
        source_label: None,
        key: key_of_partitions(table, &partitioned.partition_column),
        partition_column: Some(partitioned.partition_column.clone()),
        columns: Vec::new(),
        adopted_columns: Vec::new(),
        partitions: Vec::new(),
    };
    let mut timestamp = now;
    for _ in 0..=partitioned.policy.partitions_ahead {
        if table.partition_of(timestamp).is_none() {
            diff.partitions.push(new_partition(table, partitioned.policy.width, timestamp, &diff.partitions));
        }
        timestamp = partitioned.policy.width.bounds(timestamp).to.unwrap_or(timestamp);
    }
    diff
}

/// Returns the key columns of a new partition: those of the table's unique index or, if it has none, of the newest partition
/// that has one; otherwise the partition column.
fn key_of_partitions(table: &DbTable, by: &Identifier) -> Vec<Identifier> {
    if !table.unique.is_empty() {
        return table.unique[0].clone();
    }
    let neighbour = table.partitions.iter().rev().find_map(|partition| partition.unique.first().cloned());
    neighbour.unwrap_or_else(|| vec![by.clone()])
}

/// Returns the partitions that hold only expired rows.
pub fn expired<'t>(
    table: &'t DbTable,
    partitioned: &PartitionedTable,
    now: Timestamp,
) -> impl Iterator<Item = &'t DbPartition> + use<'t> {
    let cutoff = partitioned.policy.retention_cutoff(now);
    let ends_before =
        move |partition: &&DbPartition| partition.bounds.to.zip(cutoff).is_some_and(|(to, cutoff)| to <= cutoff);
    table.partitions.iter().filter(ends_before)
}

/// A partition that an earlier run started to drop.
pub struct InterruptedDrop {
    /// The partition's table.
    pub name: TableName,
    /// Whether the detach itself was interrupted.
    pub pending: bool,
}

/// Returns interrupted detaches, and partitions that were detached but not dropped, if all their rows have expired.
///
/// # Errors
/// Returns an error if the query fails.
pub async fn interrupted_drops(
    client: &Client,
    partitioned: &PartitionedTable,
    now: Timestamp,
) -> Result<Vec<InterruptedDrop>, MaintainError> {
    let Some(cutoff) = partitioned.policy.retention_cutoff(now) else { return Ok(Vec::new()) };
    let (schema, name) = (partitioned.name.schema.as_str(), partitioned.name.table.as_str());
    let comment = format!("Millstream: partition of {} [", partitioned.name.unquoted());
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&schema, Type::TEXT), (&name, Type::TEXT), (&comment, Type::TEXT)];
    let rows = client.query_typed(include_str!("detached.sql"), &parameters).await?;
    let interrupted_drop = |row: &tokio_postgres::Row| {
        let (table, pending, comment): (String, bool, String) = (row.get(0), row.get(1), row.get(2));
        let name = TableName { schema: partitioned.name.schema.clone(), table: Identifier::truncated(&table, &table) };
        ends_before(&comment, cutoff).then_some(InterruptedDrop { name, pending })
    };
    Ok(rows.iter().filter_map(interrupted_drop).collect())
}

/// Whether the partition with this comment holds only expired rows. A newer partition, which the owner detached to keep it,
/// stays.
fn ends_before(comment: &str, cutoff: Timestamp) -> bool {
    let end = comment.rsplit_once(", ").and_then(|(_, end)| end.strip_suffix(')'));
    end.and_then(Timestamp::parse).is_some_and(|end| end <= cutoff)
}

/// Detaches without blocking other transactions; cannot run inside a transaction.
pub fn detach(table: &TableName, partition: &TableName) -> String {
    format!("ALTER TABLE {table} DETACH PARTITION {partition} CONCURRENTLY")
}

/// Completes an interrupted detach.
pub fn finalize(table: &TableName, partition: &TableName) -> String {
    format!("ALTER TABLE {table} DETACH PARTITION {partition} FINALIZE")
}

/// Drops a detached partition.
pub fn drop_table(partition: &TableName) -> String {
    format!("DROP TABLE IF EXISTS {partition}")
}
