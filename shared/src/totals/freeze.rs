//! Freezing: the sums of a partition outlive its rows.
//!
//! In one transaction, under the locks of the frozen sums and of the partition (in this order; the other deadlocks with a
//! recompute), the partition's sums are added to the frozen ones and the partition is dropped. The figures do not change.
//!
//! A period whose rows are restored gives up its frozen sums in the transaction that attaches it, so that nothing counts twice.
//! A period that is merely created again, empty, keeps them.

use std::time::Duration;

use tokio_postgres::Client;

use super::registry::{TotalState, TotalVersion, load_versions};
use super::{TotalError, recompute};
use crate::apply;
use crate::feed;
use crate::names::TableName;
use crate::schema_work::in_transaction;
use crate::statement_triggers;
use crate::timestamp::Timestamp;

/// Floats as exact text, and no silently filtered rows.
const SETTINGS: &str = "SET LOCAL extra_float_digits = 1; SET LOCAL row_security = off";

/// Drops a detached partition of `table` and keeps its sums in every total of the table.
///
/// # Errors
/// Returns an error if a statement or the connection fails; the partition is kept then.
pub async fn drop_partition(
    client: &Client,
    table: &TableName,
    partition: &TableName,
    timeout: Duration,
) -> Result<(), TotalError> {
    in_transaction(client, timeout, async {
        let versions = lock_frozen(client, table).await?;
        if apply::relation_exists(client, &partition.to_string()).await? {
            client.batch_execute(&format!("LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE")).await?;
            for sql in versions.iter().filter_map(TotalVersion::sql) {
                client.execute_typed(&sql.freeze(partition), &[]).await?;
            }
            client.batch_execute(&format!("DROP TABLE IF EXISTS {partition}")).await?;
        }
        Ok(())
    })
    .await
}

/// Attaches a table with the restored rows of a dropped partition. Its frozen sums become deltas where they differ from the
/// rows: nothing, if all rows were restored.
///
/// # Errors
/// Returns an error if a statement or the connection fails; nothing is changed then.
pub async fn attach_restored(
    client: &Client,
    table: &TableName,
    partition: &TableName,
    bounds: (Timestamp, Timestamp),
    timeout: Duration,
) -> Result<(), TotalError> {
    in_transaction(client, timeout, async {
        let versions = lock_frozen(client, table).await?;
        client.batch_execute(&format!("LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE")).await?;
        for sql in versions.iter().filter_map(TotalVersion::sql) {
            client.execute_typed(&sql.restore(partition, &partition.unquoted()), &[]).await?;
        }
        for statement in statement_triggers::for_partitions(client, table, std::iter::once(partition)).await? {
            client.execute_typed(&statement, &[]).await?;
        }
        feed::log_reset(client, table).await?;
        let (from, to) = bounds;
        let attach = format!("ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ('{from}') TO ('{to}')");
        client.batch_execute(&attach).await?;
        Ok(())
    })
    .await
}

/// Replaces the frozen sums of a dropped partition by the sums of rows in another table, for example one that was filled from
/// the archive. What they differ by is added to the total.
///
/// # Errors
/// Returns an error if no total has this name, or if a statement or the connection fails; nothing is changed then.
pub async fn refreeze(
    client: &Client,
    total: &str,
    partition: &str,
    rows: &TableName,
    timeout: Duration,
) -> Result<(), TotalError> {
    let versions = load_versions(client).await?;
    let Some(version) = versions.iter().find(|version| version.name == total && version.state == TotalState::Ready)
    else {
        let reason = "the database has no total with this name that is ready".to_owned();
        return Err(TotalError::Conflict { total: total.to_owned(), reason });
    };
    let sql = version.sql().ok_or_else(|| recompute::unknown_definition(version))?;
    let work = async {
        lock_frozen(client, &version.table).await?;
        client.execute_typed(&sql.refreeze(rows, partition), &[]).await?;
        Ok(())
    };
    in_transaction(client, timeout, work).await
}

/// Locks the frozen sums of all totals of a table, by name.
async fn lock_frozen(client: &Client, table: &TableName) -> Result<Vec<TotalVersion>, TotalError> {
    client.batch_execute(SETTINGS).await?;
    apply::lock_schema_changes(client, table).await?;
    let mut versions = load_versions(client).await?;
    versions.retain(|version| version.table == *table && version.state != TotalState::Removing);
    for version in &versions {
        // Without its definition the sums cannot be kept.
        let sql = version.sql().ok_or_else(|| recompute::unknown_definition(version))?;
        client.batch_execute(&format!("LOCK TABLE {} IN EXCLUSIVE MODE", sql.object("frozen"))).await?;
    }
    Ok(versions)
}

/// Removes the buckets of a total that began before a time. The view hides them at once; deltas that arrive later for them
/// are discarded when they are folded.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn prune(
    client: &Client,
    version: &TotalVersion,
    before: Timestamp,
    timeout: Duration,
) -> Result<(), TotalError> {
    let Some(sql) = version.sql() else { return Err(recompute::unknown_definition(version)) };
    let Some(statement) = sql.prune(&before.to_string()) else { return Ok(()) };
    in_transaction(client, timeout, async { Ok(client.batch_execute(&statement).await?) }).await
}
