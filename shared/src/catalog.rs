//! What the database has: tables, columns, partitions. A cache that outlives the invocation and heals itself.
//!
//! The plan reads it and never the database. Each table carries a fingerprint of its columns; the writer compares it
//! under a lock before the first row, so that a column dropped or retyped by its owner is noticed before a value is
//! written in the wrong form, never after. What is found stale is [`forgotten`](Catalog::forget) and read again.

mod column_type;
pub mod comment;
mod load;

use std::collections::HashMap;
use std::sync::Arc;

pub use column_type::{ArrayElement, ColumnType};
pub use load::{CatalogError, fingerprints, load, lookup_types};

use crate::names::{Identifier, TableName};
use crate::partition::TimeRange;
use crate::spec::TableSpec;
use crate::timestamp::Timestamp;

/// The cache. A table that is known to be absent is known, too.
#[derive(Default, Debug)]
pub struct Catalog {
    tables: HashMap<TableName, Option<Arc<DbTable>>>,
    /// Whether the writer's memory of deletes is known to be there.
    pub tombstone_table_exists: bool,
}

impl Catalog {
    /// Whether the database has not been asked for anything yet.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether the database has been asked for the table.
    pub fn is_loaded(&self, name: &TableName) -> bool {
        self.tables.contains_key(name)
    }

    /// The table, if it was there when the database was asked.
    pub fn table(&self, name: &TableName) -> Option<&Arc<DbTable>> {
        self.tables.get(name)?.as_ref()
    }

    /// Remembers what the database said.
    pub fn insert(&mut self, name: TableName, table: Option<DbTable>) {
        self.tables.insert(name, table.map(Arc::new));
    }

    /// Forgets a table, so that the database is asked again.
    pub fn invalidate(&mut self, name: &TableName) {
        self.tables.remove(name);
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

/// A table as the database has it.
#[derive(Clone, PartialEq, Debug)]
pub struct DbTable {
    /// Schema and name.
    pub name: TableName,
    /// PostgreSQL's number; 0 for a table that is only planned.
    pub oid: u32,
    /// The OIDs of its row type.
    pub row_type: RowTypeOids,
    /// What fills it, as its comment says, where the writer has made it.
    pub origin: Option<String>,
    /// Whether the writer may alter it.
    pub owned: bool,
    /// Whether it has a check that may refuse a row.
    pub has_check: bool,
    /// The columns, without dropped ones.
    pub columns: Vec<DbColumn>,
    /// The column that it is partitioned by, if it is by the range of one.
    pub partition_column: Option<Identifier>,
    /// Whether it is partitioned in a way of its owner's that the writer leaves alone.
    pub other_partitioning: bool,
    /// Its partitions, by their beginning.
    pub partitions: Vec<DbPartition>,
    /// The columns of each unique index that holds for all rows of this very relation.
    pub unique: Vec<Vec<Identifier>>,
    /// Changes whenever a column does.
    pub fingerprint: String,
}

/// A column as the database has it.
#[derive(Clone, PartialEq, Debug)]
pub struct DbColumn {
    /// Its name.
    pub name: Identifier,
    /// How values are written.
    pub kind: ColumnType,
    /// The number of its type.
    pub type_oid: u32,
    /// Its type in SQL, for messages and casts.
    pub sql_type: String,
    /// The path whose values it holds, from its comment.
    pub source_path: Option<String>,
    /// The whole comment.
    pub comment: Option<String>,
    /// Whether a row must carry it.
    pub required: bool,
    /// Whether it may refuse a NULL: it is NOT NULL, or of a domain.
    pub may_reject_null: bool,
    /// Whether the database computes it.
    pub generated: bool,
}

/// A partition of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct DbPartition {
    /// Its own table.
    pub name: TableName,
    /// What it holds.
    pub bounds: TimeRange,
    /// The columns of each of its unique indexes.
    pub unique: Vec<Vec<Identifier>>,
}

impl DbTable {
    /// A table that is not there yet, as the specification has it: what a plan reckons with until it is made.
    pub fn planned(spec: &TableSpec) -> Self {
        Self {
            name: spec.name.clone(),
            oid: 0,
            row_type: RowTypeOids::default(),
            origin: None,
            owned: true,
            has_check: false,
            columns: Vec::new(),
            partition_column: spec.partition.map(|partition| spec.columns[partition.column].name.clone()),
            other_partitioning: false,
            partitions: Vec::new(),
            unique: vec![spec.key_columns().map(|column| column.name.clone()).collect()],
            fingerprint: String::new(),
        }
    }

    /// Has arrays written as text and cast where they cannot be sent as they are: in rows that are not sent whole, and in keys.
    pub(crate) fn write_arrays_as_text(&mut self) {
        let parted =
            |column: &DbColumn| column.kind == ColumnType::Other || (column.may_reject_null && !column.required);
        let unknown = self.columns.iter().any(parted);
        let unique = &self.unique;
        let keyed = |column: &DbColumn| unique.iter().any(|key| key.contains(&column.name));
        for column in &mut self.columns {
            if let ColumnType::Array(element) = column.kind
                && (unknown || keyed(column))
            {
                column.kind = ColumnType::ArrayText(element);
            }
        }
    }

    /// The place of a column.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.as_str() == name)
    }

    /// The partition that holds the moment, as an index into `partitions`.
    pub fn partition_of(&self, moment: Timestamp) -> Option<usize> {
        let after =
            self.partitions.partition_point(|partition| partition.bounds.from.is_none_or(|from| from <= moment));
        let candidate = after.checked_sub(1)?;
        self.partitions[candidate].bounds.contains(moment).then_some(candidate)
    }
}
