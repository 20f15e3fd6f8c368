//! The triggers that feed a total: on the table, its intermediate partitions and its leaves, because only those of the table
//! that a statement names fire.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::sql::TotalSql;
use super::{TotalError, in_transaction};
use crate::apply::{self, ApplyError, TotalTrigger};
use crate::backoff::backoff_delay;
use crate::names::{Identifier, TableName};

/// Creating a trigger changes the catalog only.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// A table that has rows of a total, or partitions that have.
struct Relation {
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
    relation: &Relation,
    attempts: u32,
) -> Result<(), TotalError> {
    let mut attempt = 0;
    loop {
        let repairing = in_transaction(client, STATEMENT_TIMEOUT, async {
            apply::lock_schema_changes(client, table).await?;
            for statement in &relation.statements {
                client.execute_typed(statement, &[]).await?;
            }
            Ok(())
        });
        let Err(error) = repairing.await else { return Ok(()) };
        attempt += 1;
        if !is_busy(&error) {
            return Err(error);
        }
        if attempt >= attempts {
            let reason = format!("no lock on {} for its triggers", relation.name.unquoted());
            return Err(TotalError::Busy { total: sql.name().to_owned(), reason });
        }
        tokio::time::sleep(backoff_delay(attempt, BACKOFF_FIRST, BACKOFF_MAX)).await;
    }
}

/// Whether another session interfered, so that a retry may succeed.
pub(super) fn is_busy(error: &TotalError) -> bool {
    const BUSY: [SqlState; 7] = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::OBJECT_IN_USE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::UNDEFINED_TABLE,
        SqlState::INTERNAL_ERROR,
    ];
    if matches!(error, TotalError::Busy { .. } | TotalError::Apply(ApplyError::Locked(_))) {
        return true;
    }
    let code = error.database_error().and_then(tokio_postgres::Error::code);
    code.is_some_and(|code| BUSY.contains(code))
}

/// The tables whose triggers are missing, disabled or replaced: the total's table first, then by level.
async fn incomplete_relations(
    client: &Client,
    sql: &TotalSql<'_>,
    table: &TableName,
) -> Result<Vec<Relation>, TotalError> {
    let triggers = TotalTrigger::ALL;
    let names: Vec<String> = triggers.iter().map(|trigger| trigger.name(sql.prefix()).as_str().to_owned()).collect();
    let functions = functions(sql);
    let table = table.to_string();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table, Type::TEXT), (&names, Type::TEXT_ARRAY), (&functions, Type::TEXT_ARRAY)];
    let mut relations: Vec<Relation> = Vec::new();
    for row in client.query_typed(include_str!("triggers/incomplete.sql"), &parameters).await? {
        let identifier = |column: &str| Identifier::truncated(row.get(column), row.get(column));
        let name = TableName { schema: identifier("nspname"), table: identifier("relname") };
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
            None => relations.push(Relation { name, kind: row.get("relkind"), statements }),
        }
    }
    Ok(relations)
}

/// The trigger functions of a total, with their arguments.
fn functions(sql: &TotalSql<'_>) -> Vec<String> {
    TotalTrigger::ALL.iter().map(|trigger| format!("{}()", sql.object(trigger.as_str()))).collect()
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
    let identifier = |name: &str| Identifier::truncated(name, name);
    Ok(rows.iter().map(|row| TableName { schema: identifier(row.get(0)), table: identifier(row.get(1)) }).collect())
}

/// All tables that bear a trigger of the total.
pub(super) async fn bearing(client: &Client, sql: &TotalSql<'_>) -> Result<Vec<(TableName, Identifier)>, TotalError> {
    let functions = functions(sql);
    let rows = client.query_typed(include_str!("triggers/bearing.sql"), &[(&functions, Type::TEXT_ARRAY)]).await?;
    let identifier = |name: &str| Identifier::truncated(name, name);
    let bearing = |row: &tokio_postgres::Row| {
        let table = TableName { schema: identifier(row.get(0)), table: identifier(row.get(1)) };
        (table, identifier(row.get(2)))
    };
    Ok(rows.iter().map(bearing).collect())
}

/// Drops a trigger, with a lock on its table for a moment.
pub(super) async fn drop_trigger(client: &Client, table: &TableName, trigger: &Identifier) -> Result<(), TotalError> {
    let statement = format!("DROP TRIGGER IF EXISTS {trigger} ON {table}");
    in_transaction(client, STATEMENT_TIMEOUT, async { Ok(client.batch_execute(&statement).await?) }).await
}
