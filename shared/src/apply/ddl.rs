//! What the database lacks is made, in short transactions of its own, safe among any number of functions that want the same.
//!
//! Serialised per table by an advisory lock that ends with the transaction; looked at again once the lock is held; never
//! waiting for a table's lock longer than a moment, so that no reader or writer has to queue behind the wait.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{ApplyError, Limits};
use crate::catalog::{Catalog, load};
use crate::database::fault::describe;
use crate::names::TableName;
use crate::pause::pause;
use crate::plan::TableLack;

/// While DDL waits for a lock, everybody else queues behind it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// With at most this wait between, forty attempts are a minute or more; then Lambda's own retry takes over.
const ATTEMPTS: u32 = 40;
const PAUSE_MAX: Duration = Duration::from_millis(800);
const PAUSE_FIRST: Duration = Duration::from_millis(40);

/// SQLSTATEs that mean that somebody else was faster or in the way: look again.
const IN_THE_WAY: &[&str] =
    &["55P03", "55006", "40P01", "40001", "42P06", "42P07", "42701", "42710", "42P17", "23505", "XX000"];

/// Makes what is lacking, and brings the catalog up to date; how many statements changed the schema.
///
/// # Errors
/// The connection's, a lack of permission, or a lock that could not be had time after time.
pub async fn make_up(
    client: &Client,
    catalog: &mut Catalog,
    lacks: &[TableLack],
    limits: Limits,
) -> Result<usize, ApplyError> {
    let mut statements = 0;
    for lack in lacks {
        statements += make_up_table(client, catalog, lack, limits).await?;
    }
    Ok(statements)
}

async fn make_up_table(
    client: &Client,
    catalog: &mut Catalog,
    lack: &TableLack,
    limits: Limits,
) -> Result<usize, ApplyError> {
    let mut attempt = 0;
    loop {
        let outcome = try_once(client, catalog, lack, limits).await;
        let Err(error) = outcome else { return outcome };
        client.batch_execute("ROLLBACK").await.unwrap_or_default();
        catalog.forget(&lack.table);
        attempt += 1;
        let ApplyError::Database(database) = &error else { return Err(error) };
        match database.code().map(|code| code.code()) {
            Some(code) if IN_THE_WAY.contains(&code) && attempt < ATTEMPTS => {
                tokio::time::sleep(pause(attempt, PAUSE_FIRST, PAUSE_MAX)).await;
            }
            Some(code) if code.starts_with("42") || IN_THE_WAY.contains(&code) => {
                return Err(ApplyError::Schema { table: lack.table.plain(), reason: describe(database) });
            }
            Some(_) | None => return Err(error),
        }
    }
}

async fn try_once(
    client: &Client,
    catalog: &mut Catalog,
    lack: &TableLack,
    limits: Limits,
) -> Result<usize, ApplyError> {
    begin(client, LOCK_TIMEOUT, limits.statement).await?;
    let mut statements = 0;
    if lack.create.is_some() {
        statements += create_schema(client, &lack.table).await?;
    }
    serialise(client, &format!("{}.{}", lack.table.schema, lack.table.table)).await?;
    catalog.forget(&lack.table);
    load(client, catalog, std::slice::from_ref(&lack.table)).await?;
    let lack = lack.still(catalog.table(&lack.table).map(|table| &**table));
    if !lack.is_empty() {
        let todo = lack.statements();
        client.batch_execute(&todo.join(";")).await?;
        statements += todo.len();
        catalog.forget(&lack.table);
        load(client, catalog, std::slice::from_ref(&lack.table)).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(statements)
}

/// Begins a transaction in which moments read and write as UTC.
pub async fn begin(client: &Client, lock: Duration, statement: Duration) -> Result<(), ApplyError> {
    let settings = format!(
        "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'",
        lock.as_millis().max(1),
        statement.as_millis().max(1),
    );
    Ok(client.batch_execute(&settings).await?)
}

/// Waits until nobody else changes the thing, for as long as the lock time-out allows.
pub async fn serialise(client: &Client, thing: &str) -> Result<(), ApplyError> {
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    client.query_typed(lock, &[(&format!("millstream {thing}"), Type::TEXT)]).await?;
    Ok(())
}

/// `CREATE SCHEMA IF NOT EXISTS` asks for a permission even where the schema is there.
async fn create_schema(client: &Client, table: &TableName) -> Result<usize, ApplyError> {
    let schema = &table.schema;
    serialise(client, &schema.to_string()).await?;
    let find = "SELECT FROM pg_namespace WHERE nspname = $1";
    let there = client.query_typed(find, &[(&schema.as_str(), Type::TEXT)]).await?;
    if there.is_empty() {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
    }
    Ok(usize::from(there.is_empty()))
}
