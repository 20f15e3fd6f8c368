//! Pending maintenance of a table: partitions to create ahead, expired partitions, and work that an earlier run left
//! unfinished. Read-only, so that [`crate::status`] and a dry run report what the next run would find.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::{LIMITS, MaintainError, PartitionedTable, activity, partitioned_tables};
use crate::apply;
use crate::catalog::comment::{
    DETACHED, detached_note, detached_partition_end, split_note, with_note, without_detached_mark,
};
use crate::catalog::{self, Catalog, CatalogError, DbPartition, DbTable};
use crate::clock::now;
use crate::config::Config;
use crate::names::{Identifier, TableName, quote_literal};
use crate::plan::{TableDiff, new_partition};
use crate::spec::OnUnwritable;
use crate::timestamp::Timestamp;
use crate::unwritable::detach_partition;

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
    statements.extend(apply::missing_board_grants(client, &activity::board_objects(config)).await?);
    client.batch_execute("COMMIT").await?;
    Ok(statements)
}

async fn dry_run_table(
    client: &Client,
    partitioned: &PartitionedTable,
    statements: &mut Vec<String>,
) -> Result<(), MaintainError> {
    for InterruptedDrop { name, remaining } in interrupted_drops(client, partitioned, now()).await? {
        match remaining {
            RemainingWork::RemoveMark { statement } => statements.push(statement),
            RemainingWork::Drop => statements.push(drop_table(&name)),
            RemainingWork::Finalize { drops } => {
                statements.push(finalize(&partitioned.name, &name));
                statements.extend(drops.then(|| drop_table(&name)));
            }
        }
    }
    let Some(table) = load(client, partitioned).await? else { return Ok(()) };
    if let Some(obstacle) = obstacle(&table) {
        statements.push(format!("-- postponed: {obstacle}"));
        return Ok(());
    }
    let mut diff = missing_partitions(&table, partitioned, now());
    apply::choose_partition_names(client, &mut diff).await?;
    if !diff.is_empty() {
        let lock = apply::missing_lock_ddl(client).await?;
        statements.extend(lock.into_iter().filter(|statement| !statements.contains(statement)).collect::<Vec<_>>());
    }
    statements.extend(diff.statements());
    for partition in expired(&table, partitioned, now()) {
        if let Some(mark) = mark(client, &partitioned.name, partition).await? {
            statements.extend([mark, detach(&partitioned.name, &partition.name), drop_table(&partition.name)]);
        }
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

/// Returns what prevents the maintenance of a table's partitions.
pub fn obstacle(table: &DbTable) -> Option<String> {
    let name = table.name.unquoted();
    if table.partition_column.is_none() {
        return Some(format!("table {name} is not partitioned by a timestamp"));
    }
    let partition = table.default_partition.as_ref()?;
    let remedy = detach_partition(&table.name, partition);
    Some(format!("table {name} has a default partition, which would capture new rows; run: {remedy}"))
}

/// Returns the partitions that should exist ahead of time and are missing.
pub fn missing_partitions(table: &DbTable, partitioned: &PartitionedTable, now: Timestamp) -> TableDiff {
    let mut diff = TableDiff {
        table: partitioned.name.clone(),
        source_label: None,
        key: key_of_partitions(table, &partitioned.partition_column),
        partition_column: Some(partitioned.partition_column.clone()),
        columns: Vec::new(),
        partitions: Vec::new(),
        on_unwritable: OnUnwritable::DeadLetter,
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
    /// What is left to do.
    pub remaining: RemainingWork,
}

/// What is left to do for a partition that an earlier run started to drop.
pub enum RemainingWork {
    /// The detach did not begin. The statement removes the mark, so that a detach by the owner is not taken for this one.
    RemoveMark {
        /// Restores the partition's comment.
        statement: String,
    },
    /// The detach was interrupted. An unmarked partition was being detached by its owner and is not dropped.
    Finalize {
        /// Whether the partition is dropped afterwards.
        drops: bool,
    },
    /// The partition is detached.
    Drop,
}

/// Returns marked partitions and interrupted detaches. A partition that was detached without the mark is its owner's; one
/// that has not expired, because the retention was extended, stays as it is.
///
/// # Errors
/// Returns an error if the query fails.
pub async fn interrupted_drops(
    client: &Client,
    partitioned: &PartitionedTable,
    now: Timestamp,
) -> Result<Vec<InterruptedDrop>, MaintainError> {
    let cutoff = partitioned.policy.retention_cutoff(now);
    let parent = partitioned.name.unquoted();
    let (schema, name) = (partitioned.name.schema.as_str(), partitioned.name.table.as_str());
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&schema, Type::TEXT), (&name, Type::TEXT), (&DETACHED, Type::TEXT)];
    let mut drops = Vec::new();
    for row in client.query_typed(include_str!("detached.sql"), &parameters).await? {
        let (table, comment): (String, Option<&str>) = (row.get("relname"), row.get("comment"));
        let name = TableName { schema: partitioned.name.schema.clone(), table: Identifier::truncated(&table, &table) };
        let (owner, note) = comment.map(split_note).unwrap_or_default();
        let end = note.and_then(|note| detached_partition_end(note, &parent));
        let has_expired = end.zip(cutoff).is_some_and(|(end, cutoff)| end <= cutoff);
        let remaining = match (row.get("attached"), row.get("pending")) {
            (_, true) => RemainingWork::Finalize { drops: has_expired },
            (true, false) => match note.and_then(without_detached_mark) {
                Some(note) => RemainingWork::RemoveMark { statement: set_comment(&name, &with_note(owner, note)) },
                None => continue,
            },
            (false, false) if has_expired => RemainingWork::Drop,
            (false, false) => continue,
        };
        drops.push(InterruptedDrop { name, remaining });
    }
    Ok(drops)
}

/// Returns the statement that marks a partition as detached by maintenance, before it is detached: afterwards nothing could
/// prove it. `None` for a partition that is not an ordinary table, for example a foreign table: Millstream did not create it.
///
/// # Errors
/// Returns an error if the query fails.
pub async fn mark(
    client: &Client,
    table: &TableName,
    partition: &DbPartition,
) -> Result<Option<String>, MaintainError> {
    let (schema, name) = (partition.name.schema.as_str(), partition.name.table.as_str());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schema, Type::TEXT), (&name, Type::TEXT)];
    let rows = client.query_typed(include_str!("partition.sql"), &parameters).await?;
    let Some(row) = rows.first().filter(|row| row.get("is_table")) else { return Ok(None) };
    let (owner, _) = row.get::<_, Option<&str>>("comment").map(split_note).unwrap_or_default();
    Ok(Some(set_comment(&partition.name, &with_note(owner, &detached_note(&table.unquoted(), partition.bounds)))))
}

fn set_comment(table: &TableName, comment: &str) -> String {
    format!("COMMENT ON TABLE {table} IS {}", quote_literal(comment))
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
