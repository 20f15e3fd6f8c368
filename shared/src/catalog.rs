//! A cache of the tables, columns and partitions in the database, which outlives the invocation.
//!
//! The plan reads the cache, never the database. Each table has a fingerprint of its columns; the writer compares it
//! under a lock before it writes the first row, so that it detects a column that its owner dropped or retyped before it
//! writes a value in the wrong format. A stale table is [invalidated](Catalog::invalidate) and read again.

mod column_type;
pub mod comment;
mod load;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use column_type::{ArrayElement, ColumnType};
pub use load::{CatalogError, attached, fingerprints, load, lookup_types, taken_names};

use crate::names::{Identifier, TableName};
use crate::partition::TimeRange;
use crate::spec::TableSpec;
use crate::timestamp::Timestamp;

/// The cache. It also remembers tables that do not exist.
#[derive(Default, Debug)]
pub struct Catalog {
    tables: HashMap<TableName, Option<Arc<DbTable>>>,
    /// Names of tables that do not exist and cannot be created: another relation or a type has the name.
    taken: HashSet<TableName>,
    /// Whether the table of tombstones is known to exist.
    pub tombstone_table_exists: bool,
}

impl Catalog {
    /// Whether no table has been loaded.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether the table has been loaded, even if it does not exist.
    pub fn is_loaded(&self, name: &TableName) -> bool {
        self.tables.contains_key(name)
    }

    /// The table, if it existed when it was loaded.
    pub fn table(&self, name: &TableName) -> Option<&Arc<DbTable>> {
        self.tables.get(name)?.as_ref()
    }

    /// Whether the name of a table that does not exist belongs to another relation or to a type.
    pub fn is_taken(&self, name: &TableName) -> bool {
        self.taken.contains(name)
    }

    /// Caches a table; `None` if it does not exist.
    pub fn insert(&mut self, name: TableName, table: Option<DbTable>) {
        self.tables.insert(name, table.map(Arc::new));
    }

    /// Removes a table from the cache, so that it is loaded again.
    pub fn invalidate(&mut self, name: &TableName) {
        self.tables.remove(name);
        self.taken.remove(name);
        self.tombstone_table_exists = false;
    }
}

/// The OIDs of a table's composite type and of the type of arrays of it; 0 for a table that is only planned.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RowTypeOids {
    /// The type of a row.
    pub row: u32,
    /// The type of an array of rows.
    pub array: u32,
}

/// A table in the database.
#[derive(Clone, PartialEq, Debug)]
pub struct DbTable {
    /// Schema and name.
    pub name: TableName,
    /// Its OID; 0 for a table that is only planned.
    pub oid: u32,
    /// The OIDs of its row type.
    pub row_type: RowTypeOids,
    /// What fills it, from the note in its comment, if Millstream wrote one.
    pub source_label: Option<String>,
    /// Whether it has a check constraint, which may reject a row.
    pub has_check: bool,
    /// The columns, without dropped ones.
    pub columns: Vec<DbColumn>,
    /// The partition column, if it is partitioned by range on one column that holds a time.
    pub partition_column: Option<Identifier>,
    /// How it is partitioned otherwise: in a way that Millstream does not manage.
    pub other_partitioning: Option<OtherPartitioning>,
    /// Its partitions by time, ordered by lower bound.
    pub partitions: Vec<DbPartition>,
    /// Its default partition, if it is partitioned by time.
    pub default_partition: Option<TableName>,
    /// The columns of each unique index of this relation, without partial and expression indexes.
    pub unique: Vec<Vec<Identifier>>,
    /// Those of `unique` whose constraint is deferrable: `ON CONFLICT` accepts none of them.
    pub deferrable: Vec<Vec<Identifier>>,
    /// A value that changes whenever a column changes.
    pub fingerprint: String,
}

/// A column in the database.
#[derive(Clone, PartialEq, Debug)]
pub struct DbColumn {
    /// Its name.
    pub name: Identifier,
    /// How its values are written.
    pub column_type: ColumnType,
    /// The OID of its type.
    pub type_oid: u32,
    /// Its SQL type, for messages.
    pub sql_type: String,
    /// Its SQL type with the schema, for casts: no search path changes its meaning.
    pub cast_type: String,
    /// The schema of the operators that compare its values.
    pub operator_schema: Identifier,
    /// The path of its values in the source, from the note in its comment.
    pub source_path: Option<String>,
    /// Whether an inserted row must provide a value: it is NOT NULL and has no default.
    pub required: bool,
    /// Whether it may reject a NULL: it is NOT NULL, or its type is a domain.
    pub may_reject_null: bool,
    /// How the database computes it, if it does.
    pub generated: Option<GeneratedAs>,
}

/// How PostgreSQL computes the values of a column for which it accepts no others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GeneratedAs {
    /// GENERATED ALWAYS AS IDENTITY.
    Identity,
    /// GENERATED ALWAYS AS an expression.
    Expression,
}

/// How a relation is partitioned whose partitions Millstream does not manage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtherPartitioning {
    /// The strategy.
    pub strategy: PartitionStrategy,
    /// The partition columns; `None` if it is partitioned by an expression.
    pub columns: Option<Vec<Identifier>>,
}

/// A partitioning strategy of PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartitionStrategy {
    /// PARTITION BY RANGE.
    Range,
    /// PARTITION BY LIST.
    List,
    /// PARTITION BY HASH.
    Hash,
}

impl PartitionStrategy {
    /// The strategy that `pg_partitioned_table.partstrat` names.
    pub fn from_catalog(partstrat: &str) -> Self {
        match partstrat {
            "l" => Self::List,
            "h" => Self::Hash,
            _ => Self::Range,
        }
    }
}

/// A partition of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct DbPartition {
    /// The table of the partition.
    pub name: TableName,
    /// Its OID; 0 for a partition that is only planned.
    pub oid: u32,
    /// Its time range.
    pub bounds: TimeRange,
    /// What kind of relation it is.
    pub relation: PartitionRelation,
    /// Whether rows may be copied straight into it: neither the table's owner nor PostgreSQL notices a difference.
    pub accepts_copies: bool,
    /// The columns of each of its unique indexes.
    pub unique: Vec<Vec<Identifier>>,
}

/// What kind of relation a partition is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartitionRelation {
    /// A table with rows of its own.
    Table,
    /// A foreign table.
    Foreign,
    /// A table that is itself partitioned.
    Partitioned(OtherPartitioning),
}

impl DbTable {
    /// Creates a table that does not exist yet from its specification, for the plan to use until it is created.
    pub fn planned(spec: &TableSpec) -> Self {
        Self {
            name: spec.name.clone(),
            oid: 0,
            row_type: RowTypeOids::default(),
            source_label: None,
            has_check: false,
            columns: Vec::new(),
            partition_column: spec.partition.map(|partition| spec.columns[partition.column].name.clone()),
            other_partitioning: None,
            partitions: Vec::new(),
            default_partition: None,
            unique: vec![spec.key_columns().map(|column| column.name.clone()).collect()],
            deferrable: Vec::new(),
            fingerprint: String::new(),
        }
    }

    /// Writes arrays as text, to be cast, where they cannot be sent in binary: in rows that are not sent as one
    /// composite value, and in keys.
    pub(crate) fn write_arrays_as_text(&mut self) {
        let prevents_whole_rows =
            |column: &DbColumn| column.column_type == ColumnType::Other || (column.may_reject_null && !column.required);
        let sent_by_column = self.columns.iter().any(prevents_whole_rows);
        let unique = &self.unique;
        let is_key_column = |column: &DbColumn| unique.iter().any(|key| key.contains(&column.name));
        for column in &mut self.columns {
            if let ColumnType::Array(element) = column.column_type
                && (sent_by_column || is_key_column(column))
            {
                column.column_type = ColumnType::ArrayText(element);
            }
        }
    }

    /// The index of a column.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.as_str() == name)
    }

    /// Whether it is a partitioned table.
    pub fn is_partitioned(&self) -> bool {
        self.partition_column.is_some() || self.other_partitioning.is_some()
    }

    /// The partition that contains the timestamp, as an index into `partitions`.
    pub fn partition_of(&self, timestamp: Timestamp) -> Option<usize> {
        let after =
            self.partitions.partition_point(|partition| partition.bounds.from.is_none_or(|from| from <= timestamp));
        let candidate = after.checked_sub(1)?;
        self.partitions[candidate].bounds.contains(timestamp).then_some(candidate)
    }
}
