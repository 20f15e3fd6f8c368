//! What the database lacks is made, in short transactions of its own, safe among any number of functions that want the same.
//!
//! Serialised per table by an advisory lock that ends with the transaction; looked at again once the lock is held; never
//! waiting for a table's lock longer than a moment, so that no reader or writer has to queue behind the wait.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{ApplyError, Limits};
use crate::backoff::backoff_delay;
use crate::catalog::{Catalog, load};
use crate::database::sqlstate::describe;
use crate::names::{Identifier, TableName};
use crate::plan::TableDiff;

/// While DDL waits for a lock, everybody else queues behind it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// With at most this wait between, forty attempts are a minute or more; then Lambda's own retry takes over.
const ATTEMPTS: u32 = 40;
const BACKOFF_MAX: Duration = Duration::from_millis(800);
const BACKOFF_FIRST: Duration = Duration::from_millis(40);

/// SQLSTATEs that mean that somebody else was faster or in the way: look again.
const RETRYABLE_DDL_SQLSTATES: &[&str] =
    &["55P03", "55006", "40P01", "40001", "42P06", "42P07", "42701", "42710", "42P17", "23505", "XX000"];

/// Makes what is lacking, and brings the catalog up to date; how many statements changed the schema.
///
/// # Errors
/// The connection's, a lack of permission, or a lock that could not be had time after time.
pub async fn create_missing(
    client: &Client,
    catalog: &mut Catalog,
    lacks: &[TableDiff],
    limits: Limits,
) -> Result<usize, ApplyError> {
    let mut statements = 0;
    for lack in lacks {
        statements += create_missing_in_table(client, catalog, lack, limits).await?;
    }
    Ok(statements)
}

async fn create_missing_in_table(
    client: &Client,
    catalog: &mut Catalog,
    lack: &TableDiff,
    limits: Limits,
) -> Result<usize, ApplyError> {
    let mut attempt = 0;
    loop {
        let outcome = try_once(client, catalog, lack, limits).await;
        let Err(error) = outcome else { return outcome };
        client.batch_execute("ROLLBACK").await.unwrap_or_default();
        catalog.invalidate(&lack.table);
        attempt += 1;
        let ApplyError::Database(database) = &error else { return Err(error) };
        match database.code().map(|code| code.code()) {
            Some(code) if RETRYABLE_DDL_SQLSTATES.contains(&code) && attempt < ATTEMPTS => {
                tokio::time::sleep(backoff_delay(attempt, BACKOFF_FIRST, BACKOFF_MAX)).await;
            }
            Some(code) if code.starts_with("42") || RETRYABLE_DDL_SQLSTATES.contains(&code) => {
                return Err(ApplyError::Schema { table: lack.table.unquoted(), reason: describe(database) });
            }
            Some(_) | None => return Err(error),
        }
    }
}

async fn try_once(
    client: &Client,
    catalog: &mut Catalog,
    lack: &TableDiff,
    limits: Limits,
) -> Result<usize, ApplyError> {
    begin(client, LOCK_TIMEOUT, limits.statement).await?;
    let mut statements = 0;
    if lack.created_by.is_some() {
        statements += create_schema(client, &lack.table).await?;
    }
    advisory_lock(client, &format!("{}.{}", lack.table.schema, lack.table.table)).await?;
    catalog.invalidate(&lack.table);
    load(client, catalog, std::slice::from_ref(&lack.table)).await?;
    let lack = lack.remaining(catalog.table(&lack.table).map(|table| &**table));
    if !lack.is_empty() {
        let todo = lack.statements();
        client.batch_execute(&todo.join(";")).await?;
        statements += todo.len();
        catalog.invalidate(&lack.table);
        load(client, catalog, std::slice::from_ref(&lack.table)).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(statements)
}

/// Makes a table of the writer's own schema, if it is not there; whether it had to be made.
pub async fn ensure_system_table(client: &Client, own: &SystemTable, limits: Limits) -> Result<bool, ApplyError> {
    begin(client, limits.lock, limits.statement).await?;
    match create_system_table(client, own).await {
        Ok(made) => {
            client.batch_execute("COMMIT").await?;
            Ok(made)
        }
        Err(error) => {
            client.batch_execute("ROLLBACK").await.unwrap_or_default();
            Err(error)
        }
    }
}

async fn create_system_table(client: &Client, own: &SystemTable) -> Result<bool, ApplyError> {
    // One lock for all of them: their schema is made with the first.
    advisory_lock(client, SYSTEM_SCHEMA).await?;
    let statements = own.missing_ddl(client).await?;
    if !statements.is_empty() {
        client.batch_execute(&statements.join(";")).await?;
    }
    Ok(!statements.is_empty())
}

/// A table of the writer's own schema.
pub struct SystemTable {
    /// Its name, with the schema.
    pub name: &'static str,
    /// What makes both, for owners whose writers may not: `CREATE SCHEMA` comes first.
    pub ddl: &'static str,
}

/// The writer's own schema.
const SYSTEM_SCHEMA: &str = "millstream";

impl SystemTable {
    /// Whether the table is there.
    ///
    /// # Errors
    /// PostgreSQL's, or the connection's.
    pub async fn exists(&self, client: &Client) -> Result<bool, ApplyError> {
        let find = "SELECT FROM pg_class WHERE oid = to_regclass($1)";
        Ok(!client.query_typed(find, &[(&self.name, Type::TEXT)]).await?.is_empty())
    }

    /// The statements that make the table; none where it is there.
    ///
    /// # Errors
    /// PostgreSQL's, or the connection's.
    pub async fn missing_ddl(&self, client: &Client) -> Result<Vec<String>, ApplyError> {
        if self.exists(client).await? {
            return Ok(Vec::new());
        }
        let code: Vec<&str> = self.ddl.lines().filter(|line| !line.starts_with("--")).collect();
        let statements = code.join("\n");
        let statements = statements.split(';').map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        let schema = Identifier::truncated(SYSTEM_SCHEMA, SYSTEM_SCHEMA);
        // To make a schema that is there asks for a permission all the same.
        let there = usize::from(missing_schema_ddl(client, &schema).await?.is_none());
        Ok(statements.skip(there).collect())
    }
}

/// Begins a transaction in which moments read and write as UTC.
pub async fn begin(client: &Client, lock: Duration, statement: Duration) -> Result<(), ApplyError> {
    begin_with(client, "BEGIN", lock, statement).await
}

/// The same, for one that only looks: PostgreSQL itself refuses whatever would write.
pub async fn begin_read_only(client: &Client, limits: Limits) -> Result<(), ApplyError> {
    begin_with(client, "BEGIN READ ONLY", limits.lock, limits.statement).await
}

async fn begin_with(client: &Client, begin: &str, lock: Duration, statement: Duration) -> Result<(), ApplyError> {
    let settings = format!(
        "{begin}; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'",
        lock.as_millis().max(1),
        statement.as_millis().max(1),
    );
    Ok(client.batch_execute(&settings).await?)
}

/// Waits until nobody else changes the thing, for as long as the lock time-out allows.
pub async fn advisory_lock(client: &Client, thing: &str) -> Result<(), ApplyError> {
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    client.query_typed(lock, &[(&format!("millstream {thing}"), Type::TEXT)]).await?;
    Ok(())
}

async fn create_schema(client: &Client, table: &TableName) -> Result<usize, ApplyError> {
    advisory_lock(client, &table.schema.to_string()).await?;
    let lacking = missing_schema_ddl(client, &table.schema).await?;
    if let Some(statement) = &lacking {
        client.batch_execute(statement).await?;
    }
    Ok(usize::from(lacking.is_some()))
}

/// What makes the schema, if it is not there: `CREATE SCHEMA IF NOT EXISTS` asks for a permission even where it is.
pub async fn missing_schema_ddl(client: &Client, schema: &Identifier) -> Result<Option<String>, ApplyError> {
    let find = "SELECT FROM pg_namespace WHERE nspname = $1";
    let there = client.query_typed(find, &[(&schema.as_str(), Type::TEXT)]).await?;
    Ok(there.is_empty().then(|| format!("CREATE SCHEMA {schema}")))
}
