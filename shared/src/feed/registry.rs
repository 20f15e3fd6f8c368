//! `millstream.feed`: the tables that have a change log.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::FeedError;
use super::definition::FeedDefinition;
use super::log::FeedSql;
use crate::apply::SystemTable;
use crate::names::TableName;

/// The table of logs, and that of their closed slots.
pub const FEED_TABLE: SystemTable = SystemTable { name: "millstream.feed", ddl: include_str!("registry/create.sql") };

/// The change log of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feed {
    /// The table.
    pub table: TableName,
    /// What the log records; `None` if a later release of Millstream wrote it.
    pub definition: Option<FeedDefinition>,
    /// Whether every write since the beginning of this incarnation is in the log.
    pub ready: bool,
    /// The cluster, the database and the timeline in which the log began; empty before its first incarnation.
    pub identity: String,
}

impl Feed {
    /// The SQL of the log.
    pub fn sql(&self) -> FeedSql {
        FeedSql::new(&self.table)
    }
}

/// Reads all logs, by the names of their tables; none if the registry does not exist.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn load_feeds(client: &Client) -> Result<Vec<Feed>, FeedError> {
    if !FEED_TABLE.exists(client).await? {
        return Ok(Vec::new());
    }
    Ok(client.query_typed(include_str!("registry/load.sql"), &[]).await?.iter().map(feed).collect())
}

fn feed(row: &Row) -> Feed {
    Feed {
        table: TableName::from_catalog(row.get("schema_name"), row.get("table_name")),
        definition: serde_json::from_str(row.get("definition")).ok(),
        ready: row.get("ready"),
        identity: row.get("identity"),
    }
}

/// The log of a table.
pub(super) async fn find(client: &Client, table: &TableName) -> Result<Option<Feed>, FeedError> {
    Ok(load_feeds(client).await?.into_iter().find(|feed| feed.table == *table))
}

/// The cluster, the database and the timeline of the connection. The functions must exist.
pub(super) async fn current_identity(client: &Client) -> Result<String, FeedError> {
    let rows = client.query_typed("SELECT millstream.feed_identity()", &[]).await?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}

/// Records a log that is not ready yet, or its new definition.
pub(super) async fn upsert(client: &Client, sql: &FeedSql, feed: &Feed) -> Result<(), FeedError> {
    let Some(definition) = &feed.definition else { return Ok(()) };
    let (schema, table, prefix) = (feed.table.schema.as_str(), feed.table.table.as_str(), sql.prefix());
    let columns: Vec<&str> = definition.key.iter().map(|column| &*column.name).collect();
    let operators: Vec<&str> = definition.key.iter().map(|column| &*column.operator_schema).collect();
    let text = serde_json::to_string(definition).unwrap_or_default();
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
        (&schema, Type::TEXT),
        (&table, Type::TEXT),
        (&prefix, Type::TEXT),
        (&columns, Type::TEXT_ARRAY),
        (&operators, Type::TEXT_ARRAY),
        (&text, Type::TEXT),
    ];
    client.execute_typed(include_str!("registry/upsert.sql"), &parameters).await?;
    Ok(())
}

/// Marks a log as one that is being removed: whoever needs it creates it anew.
pub(super) async fn mark_removing(client: &Client, table: &TableName) -> Result<(), FeedError> {
    execute_for(client, include_str!("registry/mark_removing.sql"), table).await
}

/// Marks a log as incomplete: something may be written past it.
pub(super) async fn mark_incomplete(client: &Client, table: &TableName) -> Result<(), FeedError> {
    execute_for(client, include_str!("registry/mark_incomplete.sql"), table).await
}

/// Begins a new incarnation of a log that is complete from now on.
pub(super) async fn begin_incarnation(client: &Client, table: &TableName) -> Result<(), FeedError> {
    execute_for(client, include_str!("registry/begin_incarnation.sql"), table).await
}

/// Forgets a log, its closed slots, and the cursors of its readers.
pub(super) async fn delete(client: &Client, table: &TableName) -> Result<(), FeedError> {
    execute_for(client, include_str!("registry/delete.sql"), table).await
}

/// Executes a statement about one table.
async fn execute_for(client: &Client, statement: &str, table: &TableName) -> Result<(), FeedError> {
    let (schema, table) = (table.schema.as_str(), table.table.as_str());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schema, Type::TEXT), (&table, Type::TEXT)];
    client.execute_typed(statement, &parameters).await?;
    Ok(())
}
