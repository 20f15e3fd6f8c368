//! Lets the board's database role read what it shows, and nothing else.
//!
//! The role is found by its name, as `infra/roles.sql` creates it: the writer's, with `_board` in place of `_writer`. Where no such
//! role exists, nothing is granted. The writer owns the objects, so it can grant their privileges.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::ApplyError;
use super::activity::{EVENT_TABLE, MINUTE_TABLE};
use crate::names::{Identifier, TableName};

/// What the board reads, besides the counters and events.
#[derive(Clone, Default, Debug)]
pub struct BoardObjects {
    /// Relations, written as in SQL.
    pub relations: Vec<String>,
    /// Functions with one argument of type `text`.
    pub functions: Vec<TableName>,
}

/// Grants SELECT on the counters and events.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn grant_activity(client: &Client) -> Result<(), ApplyError> {
    grant_to_board(client, &BoardObjects::default()).await
}

/// Grants what [`missing_board_grants`] lists.
///
/// # Errors
/// Returns an error if a statement or the connection fails.
pub async fn grant_to_board(client: &Client, objects: &BoardObjects) -> Result<(), ApplyError> {
    for statement in missing_board_grants(client, objects).await? {
        client.execute_typed(&statement, &[]).await?;
    }
    Ok(())
}

/// The statements that let the board's role read the counters, the events, and these objects. Those that do not exist or belong to
/// somebody else, and those that the role can read already, are skipped.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn missing_board_grants(client: &Client, objects: &BoardObjects) -> Result<Vec<String>, ApplyError> {
    let activity = [&MINUTE_TABLE, &EVENT_TABLE].map(|table| table.name);
    let relations: Vec<&str> = activity.into_iter().chain(objects.relations.iter().map(String::as_str)).collect();
    let functions: Vec<String> =
        objects.functions.iter().map(|function| format!("{function}(pg_catalog.text)")).collect();
    let mut statements = Vec::new();
    let missing = include_str!("board_access/missing_grants.sql");
    for row in client.query_typed(missing, &[(&relations, Type::TEXT_ARRAY), (&functions, Type::TEXT_ARRAY)]).await? {
        let [role, schema, name] = ["role", "schema", "name"].map(|column| {
            let name: &str = row.get(column);
            Identifier::truncated(name, name)
        });
        let object = TableName { schema: schema.clone(), table: name };
        let usage = format!("GRANT USAGE ON SCHEMA {schema} TO {role}");
        if !row.get::<_, bool>("has_usage") && !statements.contains(&usage) {
            statements.push(usage);
        }
        statements.push(if row.get("is_function") {
            format!("GRANT EXECUTE ON FUNCTION {object}(pg_catalog.text) TO {role}")
        } else {
            format!("GRANT SELECT ON {object} TO {role}")
        });
    }
    Ok(statements)
}
