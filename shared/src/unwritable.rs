//! A table that cannot be written as it is defined, whatever its records hold, and the statements that change that.
//!
//! The plan finds such tables in the catalog, and applying finds those that only PostgreSQL knows of. The value goes from there
//! to the rejections of the table's records: other tables are written. Nothing is remembered after the batch, so that a table
//! whose owner has run the statements is written again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::names::{Identifier, TableName};
use crate::spec::OnUnwritable;

/// A table that cannot be written until its owner changes it. `Display` says why, and what to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnwritableTable {
    /// The table that the records belong to.
    pub table: TableName,
    /// Why it, or a partition of it, cannot be written.
    pub problem: TableProblem,
    /// The statements after which it can be written, in order. PostgreSQL accepts each of them from a role with the necessary
    /// rights. Empty if only a change of the configuration helps.
    pub remedy: Vec<String>,
    /// Whether the records become dead letters, or wait.
    pub on_unwritable: OnUnwritable,
}

/// Why a table cannot be written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableProblem {
    /// Two writers could insert two rows with one key.
    #[error("{} has no unique index on its key", .relation.unquoted())]
    KeyNotUnique {
        /// The table, or one of its partitions.
        relation: TableName,
    },
    /// PostgreSQL computes the values of a column that the records provide.
    #[error("column {column} is {generated}, so PostgreSQL accepts no value for it")]
    GeneratedColumn {
        /// The column.
        column: Identifier,
        /// How its values are computed, in SQL.
        generated: &'static str,
    },
    /// The key cannot be kept unique in a foreign table.
    #[error("partition {} is a foreign table, whose key PostgreSQL cannot keep unique", .partition.unquoted())]
    ForeignPartition {
        /// The partition.
        partition: TableName,
    },
    /// A new partition cannot take rows that the default partition already holds.
    #[error("partition {} is its default partition, which would capture the rows of missing partitions", .partition.unquoted())]
    DefaultPartition {
        /// The default partition.
        partition: TableName,
    },
    /// The table is partitioned by the configured column, but not by time.
    #[error("it is partitioned by column {column}, which is {sql_type} and not a timestamp")]
    NotPartitionedByTime {
        /// The partition column.
        column: Identifier,
        /// Its type.
        sql_type: String,
    },
    /// No partition accepts the row, and Millstream does not manage the partitions of this relation.
    #[error("no partition of {} accepts the row [SQLSTATE 23514]", .relation.unquoted())]
    NoPartitionForRow {
        /// The table, or one of its partitions that is itself partitioned.
        relation: TableName,
    },
    /// The configuration is wrong about a column.
    #[error("its configuration is wrong: {0}")]
    Configuration(String),
    /// PostgreSQL rejected a statement.
    #[error("PostgreSQL rejected `{statement}`: {cause}")]
    StatementRejected {
        /// The statement, without values.
        statement: String,
        /// PostgreSQL's error, without values.
        cause: String,
        /// Its SQLSTATE.
        sqlstate: String,
    },
}

impl UnwritableTable {
    /// The statement that PostgreSQL rejects, or would reject.
    pub fn statement(&self) -> String {
        match &self.problem {
            TableProblem::StatementRejected { statement, .. } => statement.clone(),
            TableProblem::KeyNotUnique { .. }
            | TableProblem::GeneratedColumn { .. }
            | TableProblem::ForeignPartition { .. }
            | TableProblem::DefaultPartition { .. }
            | TableProblem::NotPartitionedByTime { .. }
            | TableProblem::NoPartitionForRow { .. } => format!("INSERT INTO {}", self.table),
            TableProblem::Configuration(_) => format!("ALTER TABLE {}", self.table),
        }
    }

    /// PostgreSQL's SQLSTATE, if PostgreSQL reported the problem.
    pub fn sqlstate(&self) -> Option<&str> {
        match &self.problem {
            TableProblem::StatementRejected { sqlstate, .. } => Some(sqlstate),
            TableProblem::NoPartitionForRow { .. } => Some("23514"),
            TableProblem::KeyNotUnique { .. }
            | TableProblem::GeneratedColumn { .. }
            | TableProblem::ForeignPartition { .. }
            | TableProblem::DefaultPartition { .. }
            | TableProblem::NotPartitionedByTime { .. }
            | TableProblem::Configuration(_) => None,
        }
    }

    /// What to do, as text.
    pub fn remedy_text(&self) -> String {
        match &self.remedy[..] {
            [] => "correct the table or its configuration".to_owned(),
            statements => format!("run: {}", statements.join("; ")),
        }
    }
}

impl fmt::Display for UnwritableTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} cannot be written: {}; {}", self.table.unquoted(), self.problem, self.remedy_text())
    }
}

impl std::error::Error for UnwritableTable {}

/// Moves a table out of the way: Millstream then creates one of its own. PostgreSQL accepts this for every kind of table.
pub fn rename_away(table: &TableName) -> String {
    let kept = format!("{}_kept", table.table.as_str());
    format!("ALTER TABLE {table} RENAME TO {}", Identifier::truncated(&kept, &kept))
}

/// Takes a partition out of its table: Millstream then creates one of its own.
pub fn detach_partition(table: &TableName, partition: &TableName) -> String {
    format!("ALTER TABLE {table} DETACH PARTITION {partition}")
}

/// What is known within a batch about a table that PostgreSQL has rejected a statement for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Blocked {
    /// No row can be written.
    Rows(Arc<UnwritableTable>),
    /// What the table is missing cannot be created: rows that need none of it can be written.
    SchemaChanges(Arc<UnwritableTable>),
}

/// The tables of a batch that PostgreSQL has rejected a statement for.
pub type BlockedTables = BTreeMap<TableName, Blocked>;
