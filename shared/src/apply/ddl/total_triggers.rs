//! The triggers of totals ([`crate::totals`]) on new partitions: only the triggers of the table that a statement names fire, so
//! that a partition needs those of its parent.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::names::{Identifier, SYSTEM_SCHEMA, TableName};

/// The operations that a total has a trigger for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TotalTrigger {
    /// INSERT and COPY.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE; only on tables that hold rows, because TRUNCATE of a partitioned table fires the triggers of its partitions.
    Truncate,
}

impl TotalTrigger {
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

    /// The trigger's name; `prefix` is that of the total's version.
    pub fn name(self, prefix: &str) -> Identifier {
        let name = format!("millstream_{prefix}_{}", self.as_str());
        Identifier::truncated(&name, &name)
    }

    /// The statement that creates the trigger on a table.
    pub fn create(self, prefix: &str, table: &TableName) -> String {
        let (event, transition_tables) = match self {
            Self::Insert => ("AFTER INSERT", "REFERENCING NEW TABLE AS new_rows "),
            Self::Update => ("AFTER UPDATE", "REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows "),
            Self::Delete => ("AFTER DELETE", "REFERENCING OLD TABLE AS old_rows "),
            Self::Truncate => ("BEFORE TRUNCATE", ""),
        };
        let function = format!("{prefix}_{}", self.as_str());
        format!(
            "CREATE TRIGGER {} {event} ON {table} {transition_tables}FOR EACH STATEMENT EXECUTE FUNCTION {SYSTEM_SCHEMA}.{}()",
            self.name(prefix),
            Identifier::truncated(&function, &function),
        )
    }
}

/// The statements that give new partitions the triggers of their parent's totals. Must be read in the transaction that creates
/// the partitions, under the lock of the parent's schema changes.
///
/// # Errors
/// Returns an error if the query or the connection fails.
pub async fn total_triggers<'p>(
    client: &Client,
    parent: &TableName,
    partitions: impl Iterator<Item = &'p TableName>,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let parent = parent.to_string();
    let rows = client.query_typed(include_str!("total_triggers/prefixes.sql"), &[(&parent, Type::TEXT)]).await?;
    let prefixes: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let on_partition = |partition: &TableName| {
        let create = |prefix: &&str| TotalTrigger::ALL.map(|trigger| trigger.create(prefix, partition));
        prefixes.iter().flat_map(create).collect::<Vec<_>>()
    };
    Ok(partitions.flat_map(on_partition).collect())
}
