//! What is due for a table: partitions to be made ahead, expired ones, and what an earlier run left half done. Reads only,
//! so that [`crate::status`] and a dry run say what a run would find.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::{Kept, LIMITS, MaintainError, tables};
use crate::apply;
use crate::catalog::{self, Catalog, CatalogError, Partition, Table};
use crate::config::Config;
use crate::ingest::now;
use crate::names::{Identifier, TableName};
use crate::plan::{TableLack, new_partition};
use crate::timestamp::Timestamp;

/// What a run would do, as SQL, in its order; what it could not do is told in a comment.
///
/// # Errors
/// Whatever concerns all tables.
pub async fn rehearse(client: &Client, config: &Config) -> Result<Vec<String>, MaintainError> {
    let mut statements = Vec::new();
    apply::begin_reading(client, LIMITS).await?;
    for source in &config.sources {
        for kept in tables(client, source).await? {
            rehearse_table(client, &kept, &mut statements).await?;
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(statements)
}

async fn rehearse_table(client: &Client, kept: &Kept, statements: &mut Vec<String>) -> Result<(), MaintainError> {
    for Leftover { name, pending } in leftovers(client, kept, now()).await? {
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
    statements.extend(ahead(&table, kept, now()).statements());
    for partition in expired(&table, kept, now()) {
        statements.extend([detach(&kept.name, &partition.name), drop_table(&partition.name)]);
    }
    Ok(())
}

/// The table as the database has it. Must run inside a transaction.
///
/// # Errors
/// The catalog's.
pub async fn load(client: &Client, kept: &Kept) -> Result<Option<Arc<Table>>, CatalogError> {
    let mut catalog = Catalog::default();
    catalog::load(client, &mut catalog, std::slice::from_ref(&kept.name)).await?;
    Ok(catalog.table(&kept.name).cloned())
}

/// The partitions that are to be there ahead of time and are not.
pub fn ahead(table: &Table, kept: &Kept, now: Timestamp) -> TableLack {
    let mut lack = TableLack {
        table: kept.name.clone(),
        create: None,
        key: key_of_partitions(table, &kept.by),
        partition_by: Some(kept.by.clone()),
        columns: Vec::new(),
        claims: Vec::new(),
        partitions: Vec::new(),
    };
    let mut moment = now;
    for _ in 0..=kept.period.ahead {
        if table.partition_of(moment).is_none() {
            lack.partitions.push(new_partition(table, kept.period.every, moment, &lack.partitions));
        }
        moment = kept.period.every.bounds(moment).to.unwrap_or(moment);
    }
    lack
}

/// The columns that rows of a partition are known by: those of its neighbours' index, or of the table's own.
fn key_of_partitions(table: &Table, by: &Identifier) -> Vec<Identifier> {
    if !table.unique.is_empty() {
        return table.unique[0].clone();
    }
    let neighbour = table.partitions.iter().rev().find_map(|partition| partition.unique.first().cloned());
    neighbour.unwrap_or_else(|| vec![by.clone()])
}

/// The partitions that hold only rows that have expired.
pub fn expired<'t>(table: &'t Table, kept: &Kept, now: Timestamp) -> impl Iterator<Item = &'t Partition> + use<'t> {
    let oldest = kept.period.oldest(now);
    let ends_before =
        move |partition: &&Partition| partition.bounds.to.zip(oldest).is_some_and(|(to, oldest)| to <= oldest);
    table.partitions.iter().filter(ends_before)
}

/// A partition that an earlier run has begun to drop.
pub struct Leftover {
    /// Its own table.
    pub name: TableName,
    /// Whether its detaching was interrupted.
    pub pending: bool,
}

/// Detaches that were interrupted, and partitions that were detached but not dropped, as far as all in them has expired.
///
/// # Errors
/// PostgreSQL's, or the connection's.
pub async fn leftovers(client: &Client, kept: &Kept, now: Timestamp) -> Result<Vec<Leftover>, MaintainError> {
    let Some(oldest) = kept.period.oldest(now) else { return Ok(Vec::new()) };
    let (schema, name) = (kept.name.schema.as_str(), kept.name.table.as_str());
    let comment = format!("Millstream: partition of {} [", kept.name.plain());
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&schema, Type::TEXT), (&name, Type::TEXT), (&comment, Type::TEXT)];
    let rows = client.query_typed(include_str!("detached.sql"), &parameters).await?;
    let leftover = |row: &tokio_postgres::Row| {
        let (table, pending, comment): (String, bool, String) = (row.get(0), row.get(1), row.get(2));
        let name = TableName { schema: kept.name.schema.clone(), table: Identifier::fitting(&table, &table) };
        ends_before(&comment, oldest).then_some(Leftover { name, pending })
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
