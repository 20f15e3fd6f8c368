//! Lets the board's database role read what it shows, and nothing else.
//!
//! The role is found by its name, as `infra/roles.sql` creates it: the writer's, with `_board` in place of `_writer`. Where no such
//! role exists, nothing is granted. The writer owns the relations, so it can grant their privileges.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::ApplyError;
use super::activity::{EVENT_TABLE, MINUTE_TABLE};
use crate::names::{Identifier, TableName};

/// Grants SELECT on the counters and events.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn grant_activity(client: &Client) -> Result<(), ApplyError> {
    let [minute, event] = [&MINUTE_TABLE, &EVENT_TABLE].map(|table| table.name);
    grant_to_board(client, &[minute, event]).await.map(drop)
}

/// Grants SELECT on relations, and USAGE on their schemas, to the board's role. `relations` are written as in SQL; those that do
/// not exist, or that the role can read already, are skipped. Returns the number of relations granted.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn grant_to_board(client: &Client, relations: &[&str]) -> Result<usize, ApplyError> {
    let statement = include_str!("board_access/missing_grants.sql");
    let missing = client.query_typed(statement, &[(&relations, Type::TEXT_ARRAY)]).await?;
    for row in &missing {
        let [role, schema, table] = ["role", "schema", "relation"].map(|column| {
            let name: &str = row.get(column);
            Identifier::truncated(name, name)
        });
        let relation = TableName { schema: schema.clone(), table };
        client.execute_typed(&format!("GRANT USAGE ON SCHEMA {schema} TO {role}"), &[]).await?;
        client.execute_typed(&format!("GRANT SELECT ON {relation} TO {role}"), &[]).await?;
    }
    Ok(missing.len())
}
