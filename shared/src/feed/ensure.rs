//! Brings the change log of a table in line with it: creates it, repairs its triggers, and begins a new incarnation whenever
//! something may have been written past it, so that readers get the whole table.
//!
//! Each step is complete in itself and found by the next run: a log is marked as incomplete before its triggers are repaired, and
//! as complete only afterwards, in the transaction that begins the incarnation.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::definition::{self, FeedDefinition};
use super::log::FeedSql;
use super::registry::{self, FEED_TABLE, Feed, load_feeds};
use super::{FeedError, functions, of_triggers};
use crate::apply::{self, Limits, ensure_system_table};
use crate::names::{TableName, quote_literal};
use crate::schema_work::{in_transaction, retry};
use crate::statement_triggers;

/// Creating and dropping objects changes the catalog only; a restored log is deleted row by row.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { statement: STATEMENT_TIMEOUT, lock: STATEMENT_TIMEOUT };

/// The state of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FeedState {
    /// Every write is in it.
    Ready {
        /// Whether it has just begun a new incarnation: readers get the whole table.
        is_new: bool,
    },
    /// Its table, or the table's first partition, does not exist yet.
    Waiting {
        /// What is missing.
        reason: String,
    },
}

/// Creates the log of a table, or repairs it. `attempts` bounds how often a lock is tried.
///
/// # Errors
/// Returns an error if the table cannot have a log, a lock is not obtained, or a statement or the connection fails.
pub async fn ensure(client: &Client, table: &TableName, attempts: u32) -> Result<FeedState, FeedError> {
    ensure_functions(client, attempts).await?;
    let definition = in_transaction(client, STATEMENT_TIMEOUT, definition::read(client, table)).await?;
    let Some(definition) = definition else {
        let reason = format!("table {} does not exist yet, or has no partition yet", table.unquoted());
        return Ok(FeedState::Waiting { reason });
    };
    let sql = FeedSql::new(table);
    retry(attempts, || ensure_log(client, table, &definition)).await?;
    let triggers = sql.triggers();
    if !statement_triggers::incomplete(client, &triggers, table).await?.is_empty() {
        registry::mark_incomplete(client, table).await?;
        let repaired = statement_triggers::repair(client, &triggers, table, attempts).await;
        repaired.map_err(|error| of_triggers(table, error))?;
    }
    let identity = registry::current_identity(client).await?;
    let feed = registry::find(client, table).await?;
    if feed.is_some_and(|feed| feed.ready && feed.identity == identity) {
        return Ok(FeedState::Ready { is_new: false });
    }
    retry(attempts, || begin_incarnation(client, table)).await?;
    tracing::info!(table = table.unquoted(), "change log begun");
    Ok(FeedState::Ready { is_new: true })
}

/// Creates the tables that all logs share, if they do not exist.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn ensure_tables(client: &Client) -> Result<(), FeedError> {
    if !FEED_TABLE.exists(client).await? {
        ensure_system_table(client, &FEED_TABLE, LIMITS).await?;
    }
    Ok(())
}

/// Creates the functions that all logs share, or replaces those of an earlier release.
async fn ensure_functions(client: &Client, attempts: u32) -> Result<(), FeedError> {
    ensure_tables(client).await?;
    if functions::are_current(client).await? {
        return Ok(());
    }
    retry(attempts, || in_transaction(client, STATEMENT_TIMEOUT, functions::create(client))).await
}

/// Creates the log and its functions if they do not exist with this definition.
async fn ensure_log(client: &Client, table: &TableName, definition: &FeedDefinition) -> Result<(), FeedError> {
    if is_defined(client, table, definition).await? {
        return Ok(());
    }
    in_transaction(client, STATEMENT_TIMEOUT, async {
        apply::lock_system_schema(client).await?;
        apply::lock_schema_changes(client, table).await?;
        if is_defined(client, table, definition).await? {
            return Ok(());
        }
        let sql = FeedSql::new(table);
        // What is left of a log with another key. Its triggers stay, and call the functions that are replaced below.
        for relation in [format!("TABLE IF EXISTS {}", sql.log()), format!("SEQUENCE IF EXISTS {}", sql.floor())] {
            client.execute_typed(&format!("DROP {relation}"), &[]).await?;
        }
        for statement in sql.create(definition) {
            client.execute_typed(&statement, &[]).await?;
        }
        let feed =
            Feed { table: table.clone(), definition: Some(definition.clone()), ready: false, identity: String::new() };
        registry::upsert(client, &sql, &feed).await
    })
    .await
}

/// Whether the log exists with this definition.
async fn is_defined(client: &Client, table: &TableName, definition: &FeedDefinition) -> Result<bool, FeedError> {
    let feed = registry::find(client, table).await?;
    let is_same = feed.is_some_and(|feed| feed.definition.as_ref() == Some(definition));
    let sql = FeedSql::new(table);
    Ok(is_same
        && apply::relation_exists(client, &sql.log()).await?
        && apply::relation_exists(client, &sql.floor()).await?)
}

/// Voids all cursors. Entries that were restored from a dump are deleted: their transaction IDs are another cluster's, and would
/// be reached by this one some day; the floor would be above every new transaction. Entries of transactions that are still open
/// are not visible here, and stay.
async fn begin_incarnation(client: &Client, table: &TableName) -> Result<(), FeedError> {
    let sql = FeedSql::new(table);
    in_transaction(client, STATEMENT_TIMEOUT, async {
        apply::lock_schema_changes(client, table).await?;
        let identity = registry::current_identity(client).await?;
        if registry::find(client, table).await?.is_some_and(|feed| feed.identity != identity) {
            client.execute_typed(&format!("DELETE FROM {}", sql.log()), &[]).await?;
            client.execute_typed(&format!("SELECT setval({}, 0)", quote_literal(&sql.floor())), &[]).await?;
        }
        registry::begin_incarnation(client, table).await
    })
    .await
}

/// Logs a reset in this transaction, if the table has a log: rows become a part of it that no statement has written, such as those
/// of a table that is attached.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn log_reset(client: &Client, table: &TableName) -> Result<(), tokio_postgres::Error> {
    let log = FeedSql::new(table).log();
    if apply::relation_exists(client, &log).await? {
        client.execute_typed(&format!("INSERT INTO {log} (n) VALUES (0)"), &[]).await?;
    }
    Ok(())
}

/// Removes the logs that no transform reads: neither one of `read`, nor one that has a cursor. Returns their tables.
///
/// # Errors
/// Returns an error if a lock is not obtained, or a statement or the connection fails.
pub async fn remove_unused(client: &Client, read: &[TableName], attempts: u32) -> Result<Vec<TableName>, FeedError> {
    let mut removed = Vec::new();
    for feed in load_feeds(client).await? {
        if !read.contains(&feed.table) && !has_readers(client, &feed.table).await? {
            remove(client, &feed.table, attempts).await?;
            removed.push(feed.table);
        }
    }
    Ok(removed)
}

async fn has_readers(client: &Client, table: &TableName) -> Result<bool, FeedError> {
    let (schema, table) = (table.schema.as_str(), table.table.as_str());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schema, Type::TEXT), (&table, Type::TEXT)];
    Ok(!client.query_typed(include_str!("ensure/readers.sql"), &parameters).await?.is_empty())
}

/// Removes a log: its functions first become empty, which needs no lock on the table; then its triggers go one by one, each with
/// a lock for a moment; then the rest.
async fn remove(client: &Client, table: &TableName, attempts: u32) -> Result<(), FeedError> {
    let sql = FeedSql::new(table);
    let emptying = retry(attempts, || {
        in_transaction(client, STATEMENT_TIMEOUT, async {
            apply::lock_system_schema(client).await?;
            registry::mark_removing(client, table).await?;
            for statement in sql.triggers().empty_functions() {
                client.execute_typed(&statement, &[]).await?;
            }
            Ok::<(), FeedError>(())
        })
    });
    emptying.await?;
    let dropped = statement_triggers::drop_all(client, &sql.triggers(), attempts).await;
    dropped.map_err(|error| of_triggers(table, error))?;
    let dropping = retry(attempts, || {
        in_transaction(client, STATEMENT_TIMEOUT, async {
            apply::lock_system_schema(client).await?;
            for statement in sql.drop() {
                client.execute_typed(&statement, &[]).await?;
            }
            registry::delete(client, table).await
        })
    });
    dropping.await
}
