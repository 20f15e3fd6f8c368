//! Statement-level triggers on a table, its intermediate partitions and its leaves: only those of the relation that a statement
//! names fire. [`crate::totals`] and the change log ([`crate::feed`]) each have a set of them on a table.
//!
//! A set consists of a trigger for each operation, whose functions are in Millstream's schema and have the name of the trigger
//! without its prefix. New partitions get the sets of their parent in the transaction that creates them ([`for_partitions`]);
//! what is missing otherwise is created by [`repair`].

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::apply::{self, ApplyError};
use crate::database::sqlstate::describe;
use crate::names::{Identifier, SYSTEM_SCHEMA, TableName};
use crate::schema_work::{WorkError, in_transaction, is_interference, retry};

/// Creating a trigger changes the catalog only.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// An operation that has a trigger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TriggerOperation {
    /// INSERT and COPY.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE; only on tables that hold rows, because TRUNCATE of a partitioned table fires the triggers of its partitions.
    Truncate,
}

impl TriggerOperation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Insert, Self::Update, Self::Delete, Self::Truncate];

    /// The operation in the names of triggers and functions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
        }
    }
}

/// When the triggers of a set fire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Firing {
    /// In ordinary sessions.
    Origin,
    /// Also in sessions with `session_replication_role = replica`.
    Always,
}

impl Firing {
    /// As `pg_trigger.tgenabled` has it.
    fn as_catalog(self) -> &'static str {
        match self {
            Self::Origin => "O",
            Self::Always => "A",
        }
    }

    /// The words of `ALTER TABLE`.
    fn enable(self) -> &'static str {
        match self {
            Self::Origin => "ENABLE",
            Self::Always => "ENABLE ALWAYS",
        }
    }
}

/// A set of triggers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TriggerSet {
    /// What the names of its triggers and functions begin with.
    pub prefix: String,
    /// When they fire.
    pub firing: Firing,
}

impl TriggerSet {
    /// The trigger's name.
    pub fn name(&self, operation: TriggerOperation) -> Identifier {
        let name = format!("millstream_{}_{}", self.prefix, operation.as_str());
        Identifier::truncated(&name, &name)
    }

    /// The trigger's function, with its schema.
    pub fn function(&self, operation: TriggerOperation) -> String {
        let name = format!("{}_{}", self.prefix, operation.as_str());
        format!("{SYSTEM_SCHEMA}.{}", Identifier::truncated(&name, &name))
    }

    /// The functions, with their arguments.
    pub fn functions(&self) -> Vec<String> {
        TriggerOperation::ALL.iter().map(|operation| format!("{}()", self.function(*operation))).collect()
    }

    /// The statements that make the functions do nothing, which needs no lock on a table: the triggers can then be dropped one
    /// by one.
    pub fn empty_functions(&self) -> Vec<String> {
        let empty = |function: String| {
            format!(
                "CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp \
                 AS $empty$BEGIN RETURN NULL; END$empty$"
            )
        };
        self.functions().into_iter().map(empty).collect()
    }

    /// The statements that create a trigger on a table.
    pub fn create(&self, operation: TriggerOperation, table: &TableName) -> Vec<String> {
        let (event, transition_tables) = match operation {
            TriggerOperation::Insert => ("AFTER INSERT", "REFERENCING NEW TABLE AS new_rows "),
            TriggerOperation::Update => ("AFTER UPDATE", "REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows "),
            TriggerOperation::Delete => ("AFTER DELETE", "REFERENCING OLD TABLE AS old_rows "),
            TriggerOperation::Truncate => ("BEFORE TRUNCATE", ""),
        };
        let mut statements = vec![format!(
            "CREATE TRIGGER {} {event} ON {table} {transition_tables}FOR EACH STATEMENT EXECUTE FUNCTION {}()",
            self.name(operation),
            self.function(operation),
        )];
        if self.firing == Firing::Always {
            statements.push(self.enable(operation, table));
        }
        statements
    }

    /// The statement that lets a trigger fire.
    fn enable(&self, operation: TriggerOperation, table: &TableName) -> String {
        format!("ALTER TABLE {table} {} TRIGGER {}", self.firing.enable(), self.name(operation))
    }
}

/// Why the triggers of a set are not complete.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// Triggers do not see what changes in a foreign table.
    #[error("{} is a foreign table, whose changes triggers do not see; detach it from {}", .partition.unquoted(), .table.unquoted())]
    Foreign {
        /// The foreign table.
        partition: TableName,
        /// The table that it is a partition of.
        table: TableName,
    },
    /// A lock could not be obtained, or a concurrent change interfered, after repeated attempts.
    #[error("no lock on {} for its triggers", .0.unquoted())]
    Busy(TableName),
    /// A statement, or the connection, failed.
    #[error("statement about triggers failed: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// The lock of schema changes could not be obtained.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl WorkError for TriggerError {
    fn is_busy(&self) -> bool {
        match self {
            Self::Foreign { .. } => false,
            Self::Busy(_) => true,
            Self::Statement(error) => is_interference(error),
            Self::Apply(error) => error.is_busy(),
        }
    }
}

/// A table that has rows, or partitions that have.
struct TriggeredTable {
    name: TableName,
    /// Its kind, as `pg_class.relkind` has it.
    kind: i8,
    /// The statements that create, replace or enable its triggers.
    statements: Vec<String>,
    /// How many triggers they are about.
    triggers: usize,
}

/// Creates the missing triggers of a set and enables disabled ones, with one short transaction and one lock per table; returns
/// how many there were. `attempts` bounds how often a lock is tried.
///
/// # Errors
/// Returns an error if a partition is a foreign table, a lock is not obtained, or a statement or the connection fails.
pub async fn repair(
    client: &Client,
    set: &TriggerSet,
    table: &TableName,
    attempts: u32,
) -> Result<usize, TriggerError> {
    let mut repaired = 0;
    // The table comes first: partitions that are created from then on copy its triggers.
    loop {
        let relations = incomplete_relations(client, set, table).await?;
        let Some(relation) = relations.into_iter().next() else { return Ok(repaired) };
        if relation.kind == b'f' as i8 {
            return Err(TriggerError::Foreign { partition: relation.name, table: table.clone() });
        }
        repair_relation(client, table, &relation, attempts).await?;
        repaired += relation.triggers;
    }
}

async fn repair_relation(
    client: &Client,
    table: &TableName,
    relation: &TriggeredTable,
    attempts: u32,
) -> Result<(), TriggerError> {
    let repairing = retry(attempts, || {
        in_transaction(client, STATEMENT_TIMEOUT, async {
            apply::lock_schema_changes(client, table).await?;
            for statement in &relation.statements {
                client.execute_typed(statement, &[]).await?;
            }
            Ok(())
        })
    });
    repairing.await.map_err(|error: TriggerError| match error.is_busy() {
        true => TriggerError::Busy(relation.name.clone()),
        false => error,
    })
}

/// The tables whose triggers are missing, disabled or replaced: the table itself first, then by level.
async fn incomplete_relations(
    client: &Client,
    set: &TriggerSet,
    table: &TableName,
) -> Result<Vec<TriggeredTable>, TriggerError> {
    let mut relations: Vec<TriggeredTable> = Vec::new();
    for IncompleteTrigger { relation, kind, operation, problem } in incomplete(client, set, table).await? {
        let create = set.create(operation, &relation);
        let statements = match problem {
            TriggerProblem::Missing => create,
            TriggerProblem::Disabled => vec![set.enable(operation, &relation)],
            TriggerProblem::Replaced => {
                let drop = format!("DROP TRIGGER {} ON {relation}", set.name(operation));
                std::iter::once(drop).chain(create).collect()
            }
        };
        match relations.last_mut().filter(|last| last.name == relation) {
            Some(last) => {
                last.statements.extend(statements);
                last.triggers += 1;
            }
            None => relations.push(TriggeredTable { name: relation, kind, statements, triggers: 1 }),
        }
    }
    Ok(relations)
}

/// A trigger that a set should have on a relation and has not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncompleteTrigger {
    /// The table or the partition.
    pub relation: TableName,
    /// Its kind, as `pg_class.relkind` has it.
    pub kind: i8,
    /// The operation.
    pub operation: TriggerOperation,
    /// What is wrong.
    pub problem: TriggerProblem,
}

/// What is wrong with a trigger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TriggerProblem {
    /// It does not exist.
    Missing,
    /// It does not fire whenever it should.
    Disabled,
    /// It calls another function.
    Replaced,
}

/// The triggers of a set that are missing, disabled or replaced on a table and its partitions, the table itself first.
///
/// # Errors
/// Returns an error if the query or the connection fails.
pub async fn incomplete(
    client: &Client,
    set: &TriggerSet,
    table: &TableName,
) -> Result<Vec<IncompleteTrigger>, tokio_postgres::Error> {
    let operations = TriggerOperation::ALL;
    let names: Vec<String> = operations.iter().map(|operation| set.name(*operation).as_str().to_owned()).collect();
    let (table, functions, firing) = (table.to_string(), set.functions(), set.firing.as_catalog());
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&table, Type::TEXT), (&names, Type::TEXT_ARRAY), (&functions, Type::TEXT_ARRAY), (&firing, Type::TEXT)];
    let rows = client.query_typed(include_str!("statement_triggers/incomplete.sql"), &parameters).await?;
    let trigger = |row: &tokio_postgres::Row| IncompleteTrigger {
        relation: TableName::from_catalog(row.get("nspname"), row.get("relname")),
        kind: row.get("relkind"),
        operation: operations[row.get::<_, i64>("operation") as usize - 1],
        problem: match row.get("problem") {
            "disabled" => TriggerProblem::Disabled,
            "replaced" => TriggerProblem::Replaced,
            _ => TriggerProblem::Missing,
        },
    };
    Ok(rows.iter().map(trigger).collect())
}

/// The tables that bear a trigger of the set but are no longer part of its table: detached partitions, and one whose detach is
/// pending. Must be read in the snapshot that also reads the table.
///
/// # Errors
/// Returns an error if the query or the connection fails.
pub async fn detached(
    client: &Client,
    set: &TriggerSet,
    table: &TableName,
) -> Result<Vec<TableName>, tokio_postgres::Error> {
    let (function, table) = (format!("{}()", set.function(TriggerOperation::Insert)), table.to_string());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&function, Type::TEXT), (&table, Type::TEXT)];
    let rows = client.query_typed(include_str!("statement_triggers/detached.sql"), &parameters).await?;
    Ok(rows.iter().map(|row| TableName::from_catalog(row.get(0), row.get(1))).collect())
}

/// All tables that bear a trigger of the set, each with the trigger.
///
/// # Errors
/// Returns an error if the query or the connection fails.
pub async fn bearing(client: &Client, set: &TriggerSet) -> Result<Vec<(TableName, Identifier)>, tokio_postgres::Error> {
    let functions = set.functions();
    let rows =
        client.query_typed(include_str!("statement_triggers/bearing.sql"), &[(&functions, Type::TEXT_ARRAY)]).await?;
    let bearing = |row: &tokio_postgres::Row| {
        let table = TableName::from_catalog(row.get(0), row.get(1));
        (table, Identifier::truncated(row.get(2), row.get(2)))
    };
    Ok(rows.iter().map(bearing).collect())
}

/// Drops all triggers of a set, each with a lock on its table for a moment.
///
/// # Errors
/// Returns an error if a lock is not obtained, or a statement or the connection fails.
pub async fn drop_all(client: &Client, set: &TriggerSet, attempts: u32) -> Result<(), TriggerError> {
    for (table, trigger) in bearing(client, set).await? {
        let statement = format!("DROP TRIGGER IF EXISTS {trigger} ON {table}");
        let dropping = retry(attempts, || {
            in_transaction(client, STATEMENT_TIMEOUT, async { Ok(client.batch_execute(&statement).await?) })
        });
        dropping.await.map_err(|error: TriggerError| match error.is_busy() {
            true => TriggerError::Busy(table.clone()),
            false => error,
        })?;
    }
    Ok(())
}

/// The statements that give new partitions the triggers of their parent. Must be read in the transaction that creates the
/// partitions, under the lock of the parent's schema changes.
///
/// # Errors
/// Returns an error if the query or the connection fails.
pub async fn for_partitions<'p>(
    client: &Client,
    parent: &TableName,
    partitions: impl Iterator<Item = &'p TableName>,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let parent = parent.to_string();
    let rows = client.query_typed(include_str!("statement_triggers/on_table.sql"), &[(&parent, Type::TEXT)]).await?;
    let mut sets = Vec::new();
    for row in &rows {
        let firing = if row.get("always") { Firing::Always } else { Firing::Origin };
        sets.push(TriggerSet { prefix: row.get("prefix"), firing });
    }
    let mut statements = Vec::new();
    for partition in partitions {
        for set in &sets {
            statements.extend(TriggerOperation::ALL.iter().flat_map(|operation| set.create(*operation, partition)));
        }
    }
    Ok(statements)
}
