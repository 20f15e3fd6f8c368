//! Serializes schema changes: each holds the row of its table or schema in a table that only writers may write.
//!
//! Advisory locks would not do: any role that may connect can hold them.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{
    ATTEMPTS, BACKOFF_FIRST, BACKOFF_MAX, FailedStatement, SystemTable, begin, execute_each, relation_exists,
    restrict_search_path,
};
use crate::apply::{ApplyError, Limits};
use crate::backoff::backoff_delay;
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify};
use crate::names::{Identifier, TableName};

const LOCK_TABLE: SystemTable =
    SystemTable { name: "millstream.schema_lock", ddl: include_str!("schema_lock/create.sql") };

/// What a lock protects.
pub enum Locked<'n> {
    /// A schema, while it is created.
    Schema(&'n Identifier),
    /// A table.
    Table(&'n TableName),
}

/// What the role may do with the table of locks.
struct Access {
    usable: bool,
    /// The table does not exist, and the role may create it.
    creatable: bool,
}

/// Waits, at most until the lock timeout, until no other session holds the lock, and takes it until the transaction
/// ends.
///
/// A role that may neither write nor create the table of locks locks the table that it changes, which delays neither
/// readers nor writers. If that does not exist either, colliding changes fail and are retried.
pub async fn lock(client: &Client, locked: &Locked<'_>) -> Result<(), FailedStatement> {
    if access(client).await.map_err(FailedStatement::of_session)?.usable {
        let name = match locked {
            Locked::Schema(schema) => schema.to_string(),
            Locked::Table(table) => table.to_string(),
        };
        let acquiring = client.execute_typed(include_str!("schema_lock/acquire.sql"), &[(&name, Type::TEXT)]).await;
        acquiring.map_err(|error| waited(LOCK_TABLE.name, error))?;
    } else if let Locked::Table(table) = locked
        && relation_exists(client, &table.to_string()).await.map_err(FailedStatement::of_session)?
    {
        let statement = format!("LOCK TABLE ONLY {table} IN SHARE UPDATE EXCLUSIVE MODE");
        let locking = client.batch_execute(&statement).await;
        locking.map_err(|error| FailedStatement::of_change(&statement, error))?;
    }
    Ok(())
}

/// Another session changes the table or the schema, or one of Millstream's own tables cannot be used.
fn waited(table: &str, error: tokio_postgres::Error) -> FailedStatement {
    if classify(DatabaseStep::ChangeSchema, &error) == ErrorAction::RefreshCatalog {
        return FailedStatement::of_change(&format!("INSERT INTO {table}"), error);
    }
    FailedStatement { step: DatabaseStep::SystemTable, statement: table.to_owned(), error }
}

/// Creates the table of locks if it does not exist and the role may create it. Several sessions may do so at once.
///
/// If the schema change is rejected, for example by an event trigger, the table is not needed: see [`lock`].
pub async fn ensure_lock_table(client: &Client, limits: Limits) -> Result<(), ApplyError> {
    let mut attempt = 0;
    while access(client).await?.creatable {
        let Err(error) = create(client, limits).await else { break };
        client.batch_execute("ROLLBACK").await.unwrap_or_default();
        attempt += 1;
        match error.database_error().map(|error| classify(DatabaseStep::ChangeSchema, error)) {
            // Another session has created the schema or the table.
            Some(ErrorAction::RefreshCatalog) if attempt < ATTEMPTS => {
                tokio::time::sleep(backoff_delay(attempt, BACKOFF_FIRST, BACKOFF_MAX)).await;
            }
            Some(ErrorAction::RejectTable) => {
                tracing::warn!(%error, "schema changes are not serialized: the table of locks cannot be created");
                break;
            }
            Some(_) | None => return Err(error),
        }
    }
    Ok(())
}

/// The statements with which [`ensure_lock_table`] would create the table.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn missing_lock_ddl(client: &Client) -> Result<Vec<String>, ApplyError> {
    if access(client).await?.creatable { LOCK_TABLE.missing_ddl(client).await } else { Ok(Vec::new()) }
}

async fn create(client: &Client, limits: Limits) -> Result<(), ApplyError> {
    begin(client, limits.lock, limits.statement).await?;
    restrict_search_path(client, false).await?;
    execute_each(client, &LOCK_TABLE.missing_ddl(client).await?).await?;
    client.batch_execute("COMMIT").await?;
    Ok(())
}

async fn access(client: &Client) -> Result<Access, tokio_postgres::Error> {
    let rows = client.query_typed(include_str!("schema_lock/access.sql"), &[]).await?;
    let access = rows.first().map(|row| Access { usable: row.get("usable"), creatable: row.get("creatable") });
    Ok(access.unwrap_or(Access { usable: false, creatable: false }))
}
