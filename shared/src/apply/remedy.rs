//! The statements after which a table can be written, for what only PostgreSQL can say: missing rights, event triggers, missing
//! partitions. Read after a rejection, from the catalogs, because messages are translated.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use crate::catalog::PartitionStrategy;
use crate::database::sqlstate::{describe, is_permission, raising_function_name, relation_without_partition};
use crate::names::{Identifier, TableName};
use crate::plan::TableWrite;
use crate::spec::{DeleteMode, WriteMode};
use crate::unwritable::{TableProblem, UnwritableTable, detach_partition, rename_away};

/// Why a table does not accept rows, given an error that concerns the table. `None` if the rows are at fault after all: a policy
/// rejects each of them.
pub async fn unwritable_by_rows(
    client: &Client,
    write: &TableWrite,
    statement: String,
    error: &Error,
) -> Result<Option<UnwritableTable>, Error> {
    let table = &write.table.name;
    let (problem, remedy) = match relation_without_partition(error) {
        Some((schema, relation)) => {
            let relation = TableName::from_catalog(schema, relation);
            let remedy = missing_partition(client, table, &relation).await?;
            (TableProblem::NoPartitionForRow { relation }, remedy)
        }
        None if error.code().is_some_and(|code| is_permission(code.code())) => {
            let grants = missing_grants(client, table, &needed_privileges(write), SchemaRights::NotNeeded).await?;
            if grants.is_empty() {
                return Ok(None);
            }
            (statement_rejected(statement, error), grants)
        }
        None => (statement_rejected(statement, error), vec![other_remedy(client, table).await?]),
    };
    Ok(Some(UnwritableTable { table: table.clone(), problem, remedy, on_unwritable: write.on_unwritable }))
}

/// The problem of a statement that PostgreSQL rejected.
pub fn statement_rejected(statement: String, error: &Error) -> TableProblem {
    let sqlstate = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
    TableProblem::StatementRejected { statement, cause: describe(error), sqlstate }
}

/// What makes PostgreSQL accept a schema change that it rejected: the missing rights; or the change itself, past the event
/// trigger that rejected it; or a new table.
pub async fn for_schema_change(
    client: &Client,
    table: &TableName,
    is_new: bool,
    ddl: &[String],
    error: &Error,
) -> Result<Vec<String>, Error> {
    if let Some(function) = raising_function_name(error) {
        let mut remedy: Vec<String> = ddl.to_vec();
        for row in client.query_typed(include_str!("remedy/event_triggers.sql"), &[(&function, Type::TEXT)]).await? {
            remedy.insert(0, row.get("disable"));
            remedy.push(row.get("enable"));
        }
        return Ok(remedy);
    }
    if error.code().is_some_and(|code| is_permission(code.code())) {
        return missing_grants(client, table, &[], SchemaRights::Needed).await;
    }
    Ok(if is_new { Vec::new() } else { vec![rename_away(table)] })
}

/// Whether the table must be created or changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SchemaRights {
    /// Only its rows are written.
    NotNeeded,
    /// It is created or changed.
    Needed,
}

/// The statements that give this role the rights that it is missing.
pub async fn missing_grants(
    client: &Client,
    table: &TableName,
    privileges: &[&str],
    schema_rights: SchemaRights,
) -> Result<Vec<String>, Error> {
    let (schema, name) = (table.schema.as_str(), table.table.as_str());
    let changes_schema = schema_rights == SchemaRights::Needed;
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&schema, Type::TEXT), (&name, Type::TEXT), (&privileges, Type::TEXT_ARRAY), (&changes_schema, Type::BOOL)];
    let rows = client.query_typed(include_str!("remedy/grants.sql"), &parameters).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The privileges that a write needs.
pub fn needed_privileges(write: &TableWrite) -> Vec<&'static str> {
    let mut privileges = vec!["SELECT", "INSERT"];
    match write.write_mode {
        WriteMode::Append => {}
        WriteMode::Merge(_) => privileges.push("UPDATE"),
    }
    match write.deletes {
        DeleteMode::Hard => privileges.push("DELETE"),
        DeleteMode::Soft | DeleteMode::Never => {}
    }
    privileges
}

/// A default partition accepts the row. Partitions by hash have none: the relation is moved away, and Millstream creates its own.
async fn missing_partition(client: &Client, table: &TableName, relation: &TableName) -> Result<Vec<String>, Error> {
    let Relation { strategy, is_partition, .. } = read_relation(client, relation).await?;
    let statement = match strategy {
        Some(PartitionStrategy::Range | PartitionStrategy::List) => {
            let name = format!("{}_default", relation.table.as_str());
            let partition = TableName { schema: relation.schema.clone(), table: Identifier::truncated(&name, &name) };
            format!("CREATE TABLE {partition} PARTITION OF {relation} DEFAULT")
        }
        Some(PartitionStrategy::Hash) | None if is_partition => detach_partition(table, relation),
        Some(PartitionStrategy::Hash) | None => rename_away(table),
    };
    Ok(vec![statement])
}

/// A table that is published can be updated only if it has a replica identity.
async fn other_remedy(client: &Client, table: &TableName) -> Result<String, Error> {
    let relation = read_relation(client, table).await?;
    let is_plain = relation.strategy.is_none();
    Ok(if relation.has_no_identity && is_plain {
        format!("ALTER TABLE {table} REPLICA IDENTITY FULL")
    } else {
        rename_away(table)
    })
}

/// What the catalogs say about a relation.
#[derive(Default)]
struct Relation {
    strategy: Option<PartitionStrategy>,
    is_partition: bool,
    has_no_identity: bool,
}

async fn read_relation(client: &Client, name: &TableName) -> Result<Relation, Error> {
    let (schema, table) = (name.schema.as_str(), name.table.as_str());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&schema, Type::TEXT), (&table, Type::TEXT)];
    let rows = client.query_typed(include_str!("remedy/relation.sql"), &parameters).await?;
    let Some(row) = rows.first() else { return Ok(Relation::default()) };
    Ok(Relation {
        strategy: row.get::<_, Option<&str>>("strategy").map(PartitionStrategy::from_catalog),
        is_partition: row.get("is_partition"),
        has_no_identity: row.get("has_no_identity"),
    })
}
