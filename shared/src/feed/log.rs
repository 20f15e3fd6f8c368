//! The SQL of a change log: its table, a ring of slots, and the trigger functions that fill it.
//!
//! Entries go to the slot of their day. A slot is used again after [`SLOTS`] days, so that nothing has to be created ahead and no
//! writer fails because a partition is missing; until then [`super::retention`] empties it.

use super::definition::{FeedDefinition, LoggedColumn};
use crate::names::{Identifier, SYSTEM_SCHEMA, TableName};
use crate::sql_script::{fill, quoted, split_script};
use crate::statement_triggers::{Firing, TriggerOperation, TriggerSet};

/// The slots of the ring: one more than retention keeps, that of today, and one that is about to be used.
pub const SLOTS: i16 = 10;

/// The length of a slot.
pub const SLOT_SECONDS: i64 = 86_400;

/// An entry holds the keys of at most this many rows; a larger statement makes several.
pub const ENTRY_KEYS_MAX: u32 = 10_000;

/// The name of a trigger is the prefix of its log with up to 20 bytes more, of 63; this leaves room for the prefix's own
/// beginning and the hash.
const TABLE_BYTES_MAX: usize = 28;

/// The SQL of the log of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedSql {
    prefix: String,
}

impl FeedSql {
    /// The SQL of a table's log. Two tables never share a log, whatever their names.
    pub fn new(table: &TableName) -> Self {
        let name = table.table.as_str();
        let name = &name[..name.floor_char_boundary(TABLE_BYTES_MAX)];
        // The suffix of a name that is derived from the whole name of the table.
        let hash = Identifier::with_hash_suffix("", &table.to_string());
        let hash = hash.as_str().rsplit('_').next().unwrap_or_default();
        Self { prefix: format!("feed_{name}_{hash}") }
    }

    /// What the names of the log's objects begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The triggers that fill it.
    pub fn triggers(&self) -> TriggerSet {
        TriggerSet { prefix: self.prefix.clone(), firing: Firing::Always }
    }

    /// The log.
    pub fn log(&self) -> String {
        self.object("")
    }

    /// A slot of the log.
    pub fn slot(&self, slot: i16) -> String {
        self.object(&format!("_{slot}"))
    }

    /// The sequence that holds the highest transaction ID whose entries are not kept any more.
    pub fn floor(&self) -> String {
        self.object("_floor")
    }

    fn object(&self, suffix: &str) -> String {
        let name = format!("{}{suffix}", self.prefix);
        format!("{SYSTEM_SCHEMA}.{}", Identifier::truncated(&name, &name))
    }

    /// The statements that create the log and its functions, or replace the functions.
    pub fn create(&self, definition: &FeedDefinition) -> Vec<String> {
        let columns: String = key_columns(definition)
            .map(|(number, column)| {
                let collation =
                    column.collation.as_ref().map(|collation| format!(" COLLATE {collation}")).unwrap_or_default();
                format!("key_{number} {}[]{collation}, ", column.sql_type)
            })
            .collect();
        let (log, floor) = (self.log(), self.floor());
        let (slots, seconds, keys) = (SLOTS.to_string(), SLOT_SECONDS.to_string(), ENTRY_KEYS_MAX.to_string());
        let values = [
            ("log", &*log),
            ("floor", &*floor),
            ("slots", &*slots),
            ("slot_seconds", &*seconds),
            ("keys_max", &*keys),
            ("key_columns", &*columns),
        ];
        // Split before it is filled: a name may contain anything.
        let mut statements: Vec<String> =
            split_script(include_str!("log/tables.sql")).iter().map(|statement| fill(statement, &values)).collect();
        for slot in 0..SLOTS {
            statements.push(format!(
                "CREATE TABLE {} PARTITION OF {log} FOR VALUES IN ({slot}) WITH (autovacuum_vacuum_insert_threshold = -1)",
                self.slot(slot)
            ));
        }
        statements.extend(self.create_functions(definition));
        statements
    }

    /// The statements that create or replace the trigger functions.
    fn create_functions(&self, definition: &FeedDefinition) -> Vec<String> {
        let triggers = self.triggers();
        let mut statements = Vec::new();
        for operation in TriggerOperation::ALL {
            let body = match self.rows_of(operation, definition) {
                Some(rows) => self.log_rows(definition, &rows),
                None => format!("INSERT INTO {} (n) VALUES (0);", self.log()),
            };
            statements.push(fill(
                include_str!("log/trigger_function.sql"),
                &[("function", &triggers.function(operation)), ("log", &self.log()), ("body", &body)],
            ));
        }
        statements.push(format!("REVOKE ALL ON FUNCTION {} FROM PUBLIC", triggers.functions().join(", ")));
        statements
    }

    /// What a statement of an operation has done, as a query for keys and versions; `None` for TRUNCATE.
    ///
    /// A version is the hash of what the statement left behind, and NULL for a key that it removed: a deleted one, or the old key
    /// of a row whose key has changed. Without the old key, a row that no longer exists would stay with a reader. A row without a
    /// version has the hash 0, because NULL means removed.
    fn rows_of(&self, operation: TriggerOperation, definition: &FeedDefinition) -> Option<ChangedRows> {
        let keys: Vec<String> = definition.key.iter().map(|column| quoted(&column.name)).collect();
        let keys = keys.join(", ");
        let version = match &definition.version {
            Some(column) => format!("coalesce(hashtextextended({}::text, 0), 0)", quoted(column)),
            None => "0::bigint".to_owned(),
        };
        let written = format!("SELECT {keys}, {version} FROM new_rows");
        match operation {
            TriggerOperation::Insert => Some(ChangedRows { query: written, transition_table: "new_rows", per_row: 1 }),
            // EXCEPT compares as unique indexes do, and takes linear time whatever the planner expects.
            TriggerOperation::Update => Some(ChangedRows {
                query: format!(
                    "{written} UNION ALL SELECT removed.*, NULL::bigint FROM (SELECT {keys} FROM old_rows EXCEPT SELECT {keys} \
                     FROM new_rows) removed"
                ),
                transition_table: "new_rows",
                per_row: 2,
            }),
            TriggerOperation::Delete => Some(ChangedRows {
                query: format!("SELECT {keys}, NULL::bigint FROM old_rows"),
                transition_table: "old_rows",
                per_row: 1,
            }),
            TriggerOperation::Truncate => None,
        }
    }

    /// The statements of a trigger function that add entries.
    fn log_rows(&self, definition: &FeedDefinition, rows: &ChangedRows) -> String {
        let list = |of: &str| {
            let columns: Vec<String> =
                key_columns(definition).map(|(number, _)| of.replace('#', &number.to_string())).collect();
            columns.join(", ")
        };
        let limit = (ENTRY_KEYS_MAX / rows.per_row).to_string();
        fill(
            include_str!("log/log_rows.sql"),
            &[
                ("log", &self.log()),
                ("rows", &rows.query),
                ("transition_table", rows.transition_table),
                ("limit", &limit),
                ("keys_max", &ENTRY_KEYS_MAX.to_string()),
                ("keys", &list("key_#")),
                ("arrays", &list("array_agg(key_#)")),
            ],
        )
    }

    /// The statements that remove the functions, the log and its floor, once no trigger is left.
    pub fn drop(&self) -> Vec<String> {
        vec![
            format!("DROP FUNCTION IF EXISTS {}", self.triggers().functions().join(", ")),
            format!("DROP TABLE IF EXISTS {}", self.log()),
            format!("DROP SEQUENCE IF EXISTS {}", self.floor()),
        ]
    }
}

/// The rows that a statement has changed.
struct ChangedRows {
    /// A query for their keys and versions.
    query: String,
    /// The transition table that tells how many there are.
    transition_table: &'static str,
    /// At most this many rows of the query for each row of that table.
    per_row: u32,
}

/// The columns of the key, numbered from 1: their own names may be those of other columns of the log.
fn key_columns(definition: &FeedDefinition) -> impl Iterator<Item = (usize, &LoggedColumn)> {
    (1..).zip(&definition.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::IDENTIFIER_BYTES_MAX;

    #[test]
    fn tables_do_not_share_a_log_and_its_names_fit() {
        let tables = [("a", "b_c"), ("a_b", "c"), ("a", "é"), ("s", "x"), ("t", "x")];
        let long = "é".repeat(31);
        let mut prefixes = Vec::new();
        for (schema, table) in tables.into_iter().chain([("s", long.as_str())]) {
            let sql = FeedSql::new(&TableName::from_catalog(schema, table));
            let trigger = format!("millstream_{}_truncate", sql.prefix());
            assert!(trigger.len() <= IDENTIFIER_BYTES_MAX, "{trigger}");
            assert_eq!(sql.triggers().name(TriggerOperation::Truncate).as_str(), trigger);
            prefixes.push(sql.prefix().to_owned());
        }
        prefixes.sort();
        prefixes.dedup();
        assert_eq!(prefixes.len(), 6);
    }
}
