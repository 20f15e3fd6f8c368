//! What is due for a table: partitions to be made ahead, expired ones, and what an earlier run left half done. Reads only,
//! so that [`crate::status`] and a dry run say what a run would find.

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

/// What a run would do, as SQL, in its order; what it could not do is told in a comment.
///
/// # Errors
/// Whatever concerns all tables.
pub async fn dry_run(client: &Client, config: &Config) -> Result<Vec<String>, MaintainError> {
    let mut statements = Vec::new();
    apply::begin_read_only(client, LIMITS).await?;
    for source in &config.sources {
        for kept in partitioned_tables(client, source).await? {
            dry_run_table(client, &kept, &mut statements).await?;
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(statements)
}

async fn dry_run_table(
    client: &Client,
    kept: &PartitionedTable,
    statements: &mut Vec<String>,
) -> Result<(), MaintainError> {
    for InterruptedDrop { name, pending } in interrupted_drops(client, kept, now()).await? {
        statements.extend(pending.then(|| finalize(&kept.name, &name)));
        statements.push(drop_table(&name));
    }
    let table = match load(client, kept).await {
        Err(error @ CatalogError::DefaultPartition(_)) => {
            statements.push(format!("-- postponed: {error}"));
            return Ok(());
        }
        loaded => loaded?,
    };
    let Some(table) = table else { return Ok(()) };
    statements.extend(missing_partitions(&table, kept, now()).statements());
    for partition in expired(&table, kept, now()) {
        statements.extend([detach(&kept.name, &partition.name), drop_table(&partition.name)]);
    }
    Ok(())
}

/// The table as the database has it. Must run inside a transaction.
///
/// # Errors
/// The catalog's.
pub async fn load(client: &Client, kept: &PartitionedTable) -> Result<Option<Arc<DbTable>>, CatalogError> {
    let mut catalog = Catalog::default();
    catalog::load(client, &mut catalog, std::slice::from_ref(&kept.name)).await?;
    Ok(catalog.table(&kept.name).cloned())
}

/// The partitions that are to be there ahead of time and are not.
pub fn missing_partitions(table: &DbTable, kept: &PartitionedTable, now: Timestamp) -> TableDiff {
    let mut lack = TableDiff {
        table: kept.name.clone(),
        created_by: None,
        key: key_of_partitions(table, &kept.column),
        partition_column: Some(kept.column.clone()),
        columns: Vec::new(),
        adopted_columns: Vec::new(),
        partitions: Vec::new(),
    };
    let mut moment = now;
    for _ in 0..=kept.period.ahead {
        if table.partition_of(moment).is_none() {
            lack.partitions.push(new_partition(table, kept.period.width, moment, &lack.partitions));
        }
        moment = kept.period.width.bounds(moment).to.unwrap_or(moment);
    }
    lack
}

/// The columns that rows of a partition are known by: those of its neighbours' index, or of the table's own.
fn key_of_partitions(table: &DbTable, by: &Identifier) -> Vec<Identifier> {
    if !table.unique.is_empty() {
        return table.unique[0].clone();
    }
    let neighbour = table.partitions.iter().rev().find_map(|partition| partition.unique.first().cloned());
    neighbour.unwrap_or_else(|| vec![by.clone()])
}

/// The partitions that hold only rows that have expired.
pub fn expired<'t>(
    table: &'t DbTable,
    kept: &PartitionedTable,
    now: Timestamp,
) -> impl Iterator<Item = &'t DbPartition> + use<'t> {
    let oldest = kept.period.retention_cutoff(now);
    let ends_before =
        move |partition: &&DbPartition| partition.bounds.to.zip(oldest).is_some_and(|(to, oldest)| to <= oldest);
    table.partitions.iter().filter(ends_before)
}

/// A partition that an earlier run has begun to drop.
pub struct InterruptedDrop {
    /// Its own table.
    pub name: TableName,
    /// Whether its detaching was interrupted.
    pub pending: bool,
}

/// Detaches that were interrupted, and partitions that were detached but not dropped, as far as all in them has expired.
///
/// # Errors
/// PostgreSQL's, or the connection's.
pub async fn interrupted_drops(
    client: &Client,
    kept: &PartitionedTable,
    now: Timestamp,
) -> Result<Vec<InterruptedDrop>, MaintainError> {
    let Some(oldest) = kept.period.retention_cutoff(now) else { return Ok(Vec::new()) };
    let (schema, name) = (kept.name.schema.as_str(), kept.name.table.as_str());
    let comment = format!("Millstream: partition of {} [", kept.name.unquoted());
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&schema, Type::TEXT), (&name, Type::TEXT), (&comment, Type::TEXT)];
    let rows = client.query_typed(include_str!("detached.sql"), &parameters).await?;
    let leftover = |row: &tokio_postgres::Row| {
        let (table, pending, comment): (String, bool, String) = (row.get(0), row.get(1), row.get(2));
        let name = TableName { schema: kept.name.schema.clone(), table: Identifier::truncated(&table, &table) };
        ends_before(&comment, oldest).then_some(InterruptedDrop { name, pending })
    };
    Ok(rows.iter().filter_map(leftover).collect())
}

/// Whether the partition that wrote this comment held only what has expired. One that the owner detached to keep it stays,
/// if it is younger.
fn ends_before(comment: &str, oldest: Timestamp) -> bool {
    let end = comment.rsplit_once(", ").and_then(|(_, end)| end.strip_suffix(')'));
    end.and_then(Timestamp::parse).is_some_and(|end| end <= oldest)
}

/// A concurrent detach keeps nobody waiting; it cannot run inside a transaction.
pub fn detach(table: &TableName, partition: &TableName) -> String {
    format!("ALTER TABLE {table} DETACH PARTITION {partition} CONCURRENTLY")
}

/// Ends a detach that was interrupted.
pub fn finalize(table: &TableName, partition: &TableName) -> String {
    format!("ALTER TABLE {table} DETACH PARTITION {partition} FINALIZE")
}

/// Drops a partition that is detached.
pub fn drop_table(partition: &TableName) -> String {
    format!("DROP TABLE IF EXISTS {partition}")
}
