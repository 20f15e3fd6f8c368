//! The triggers that feed a total: on the table, its intermediate partitions and its leaves, because only those of the table
//! that a statement names fire.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::sql::TotalSql;
use super::{TotalError, in_transaction, retry};
use crate::apply::{self, TotalTrigger};
use crate::names::{Identifier, TableName};

/// Creating a trigger changes the catalog only.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// A table that has rows of a total, or partitions that have.
struct TriggeredTable {
    name: TableName,
    /// Its kind, as `pg_class.relkind` has it.
    kind: i8,
    /// The statements that create, replace or enable its triggers.
    statements: Vec<String>,
}

/// Creates the missing triggers of a total and enables disabled ones, with one short transaction and one lock per table;
/// returns how many there were. `attempts` bounds how often a lock is tried.
pub(super) async fn repair(
    client: &Client,
    sql: &TotalSql<'_>,
    table: &TableName,
    attempts: u32,
) -> Result<usize, TotalError> {
    let mut repaired = 0;
    // The table comes first: partitions that are created from then on copy its triggers.
    loop {
        let relations = incomplete_relations(client, sql, table).await?;
        let Some(relation) = relations.into_iter().next() else { return Ok(repaired) };
        if relation.kind == b'f' as i8 {
            return Err(TotalError::Conflict {
                total: sql.name().to_owned(),
                reason: format!(
                    "{} is a foreign table, whose changes triggers do not see; detach it from {}",
                    relation.name.unquoted(),
                    table.unquoted(),
                ),
            });
        }
        repair_relation(client, sql, table, &relation, attempts).await?;
        repaired += relation.statements.len();
    }
}

async fn repair_relation(
    client: &Client,
    sql: &TotalSql<'_>,
    table: &TableName,
    relation: &TriggeredTable,
    attempts: u32,
) -> Result<(), TotalError> {
    let repairing = retry(attempts, || {
        in_transaction(client, STATEMENT_TIMEOUT, async {
            apply::lock_schema_changes(client, table).await?;
            for statement in &relation.statements {
                client.execute_typed(statement, &[]).await?;
            }
            Ok(())
        })
    });
    repairing.await.map_err(|error| match error.is_busy() {
        true => {
            let reason = format!("no lock on {} for its triggers", relation.name.unquoted());
            TotalError::Busy { total: sql.name().to_owned(), reason }
        }
        false => error,
    })
}

/// The tables whose triggers are missing, disabled or replaced: the total's table first, then by level.
async fn incomplete_relations(
    client: &Client,
    sql: &TotalSql<'_>,
    table: &TableName,
) -> Result<Vec<TriggeredTable>, TotalError> {
    let triggers = TotalTrigger::ALL;
    let names: Vec<String> = triggers.iter().map(|trigger| trigger.name(sql.prefix()).as_str().to_owned()).collect();
    let functions = sql.trigger_functions();
    let table = table.to_string();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table, Type::TEXT), (&names, Type::TEXT_ARRAY), (&functions, Type::TEXT_ARRAY)];
    let mut relations: Vec<TriggeredTable> = Vec::new();
    for row in client.query_typed(include_str!("triggers/incomplete.sql"), &parameters).await? {
        let name = TableName::from_catalog(row.get("nspname"), row.get("relname"));
        let trigger = triggers[row.get::<_, i64>("operation") as usize - 1];
        let create = trigger.create(sql.prefix(), &name);
        let trigger = trigger.name(sql.prefix());
        let statements = match row.get("problem") {
            "disabled" => vec![format!("ALTER TABLE {name} ENABLE TRIGGER {trigger}")],
            "replaced" => vec![format!("DROP TRIGGER {trigger} ON {name}"), create],
            _ => vec![create],
        };
        match relations.last_mut().filter(|last| last.name == name) {
            Some(last) => last.statements.extend(statements),
            None => relations.push(TriggeredTable { name, kind: row.get("relkind"), statements }),
        }
    }
    Ok(relations)
}

/// The tables that bear the total's trigger but are no longer part of its table: detached partitions, and one whose detach
/// is pending. Must be read in the snapshot that also reads the table.
pub(super) async fn detached(
    client: &Client,
    sql: &TotalSql<'_>,
    table: &TableName,
) -> Result<Vec<TableName>, TotalError> {
    let (function, table) = (format!("{}()", sql.object("insert")), table.to_string());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&function, Type::TEXT), (&table, Type::TEXT)];
    let rows = client.query_typed(include_str!("triggers/detached.sql"), &parameters).await?;
    Ok(rows.iter().map(|row| TableName::from_catalog(row.get(0), row.get(1))).collect())
}

/// All tables that bear a trigger of the total.
pub(super) async fn bearing(client: &Client, sql: &TotalSql<'_>) -> Result<Vec<(TableName, Identifier)>, TotalError> {
    let functions = sql.trigger_functions();
    let rows = client.query_typed(include_str!("triggers/bearing.sql"), &[(&functions, Type::TEXT_ARRAY)]).await?;
    let bearing = |row: &tokio_postgres::Row| {
        let table = TableName::from_catalog(row.get(0), row.get(1));
        (table, Identifier::truncated(row.get(2), row.get(2)))
    };
    Ok(rows.iter().map(bearing).collect())
}

/// Drops a trigger, with a lock on its table for a moment.
pub(super) async fn drop_trigger(client: &Client, table: &TableName, trigger: &Identifier) -> Result<(), TotalError> {
    let statement = format!("DROP TRIGGER IF EXISTS {trigger} ON {table}");
    in_transaction(client, STATEMENT_TIMEOUT, async { Ok(client.batch_execute(&statement).await?) }).await
}
