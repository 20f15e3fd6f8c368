//! What the database has: tables, columns, partitions. A cache that outlives the invocation and heals itself.
//!
//! The plan reads it and never the database. Each table carries a fingerprint of its columns; the writer compares it
//! under a lock before the first row, so that a column dropped or retyped by its owner is noticed before a value is
//! written in the wrong form, never after. What is found stale is [`forgotten`](Catalog::forget) and read again.

pub mod comment;
mod kind;
mod load;

use std::collections::HashMap;
use std::sync::Arc;

pub use kind::{Element, Kind};
pub use load::{CatalogError, fingerprints, load, types};

use crate::names::{Identifier, TableName};
use crate::partition::Bounds;
use crate::spec::TableSpec;
use crate::timestamp::Timestamp;

/// The cache. A table that is known to be absent is known, too.
#[derive(Default, Debug)]
pub struct Catalog {
    tables: HashMap<TableName, Option<Arc<Table>>>,
    /// Whether the writer's memory of deletes is known to be there.
    pub tombstones: bool,
}

impl Catalog {
    /// Whether the database has not been asked for anything yet.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether the database has been asked for the table.
    pub fn knows(&self, name: &TableName) -> bool {
        self.tables.contains_key(name)
    }

    /// The table, if it was there when the database was asked.
    pub fn table(&self, name: &TableName) -> Option<&Arc<Table>> {
        self.tables.get(name)?.as_ref()
    }

    /// Remembers what the database said.
    pub fn learn(&mut self, name: TableName, table: Option<Table>) {
        self.tables.insert(name, table.map(Arc::new));
    }

    /// Forgets a table, so that the database is asked again.
    pub fn forget(&mut self, name: &TableName) {
        self.tables.remove(name);
        self.tombstones = false;
    }
}

/// A table as the database has it.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    /// Schema and name.
    pub name: TableName,
    /// PostgreSQL's number; 0 for a table that is only planned.
    pub oid: u32,
    /// The numbers of its row type, and of the type of arrays of rows.
    pub row_type: (u32, u32),
    /// What fills it, as its comment says, where the writer has made it.
    pub origin: Option<String>,
    /// Whether the writer may alter it.
    pub owned: bool,
    /// Whether it has a check that may refuse a row.
    pub checked: bool,
    /// The columns, without dropped ones.
    pub columns: Vec<Column>,
    /// The column that it is partitioned by, if it is by the range of one.
    pub partitioned_by: Option<Identifier>,
    /// Whether it is partitioned in a way of its owner's that the writer leaves alone.
    pub partitioned_otherwise: bool,
    /// Its partitions, by their beginning.
    pub partitions: Vec<Partition>,
    /// The columns of each unique index that holds for all rows of this very relation.
    pub unique: Vec<Vec<Identifier>>,
    /// Changes whenever a column does.
    pub fingerprint: String,
}

/// A column as the database has it.
#[derive(Clone, PartialEq, Debug)]
pub struct Column {
    /// Its name.
    pub name: Identifier,
    /// How values are written.
    pub kind: Kind,
    /// The number of its type.
    pub type_oid: u32,
    /// Its type in SQL, for messages and casts.
    pub sql_type: String,
    /// The path whose values it holds, from its comment.
    pub original: Option<String>,
    /// The whole comment.
    pub comment: Option<String>,
    /// Whether a row must carry it.
    pub required: bool,
    /// Whether it may refuse a NULL: it is NOT NULL, or of a domain.
    pub guarded: bool,
    /// Whether the database computes it.
    pub generated: bool,
}

/// A partition of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct Partition {
    /// Its own table.
    pub name: TableName,
    /// What it holds.
    pub bounds: Bounds,
    /// The columns of each of its unique indexes.
    pub unique: Vec<Vec<Identifier>>,
}

impl Table {
    /// A table that is not there yet, as the specification has it: what a plan reckons with until it is made.
    pub fn planned(spec: &TableSpec) -> Self {
        Self {
            name: spec.name.clone(),
            oid: 0,
            row_type: (0, 0),
            origin: None,
            owned: true,
            checked: false,
            columns: Vec::new(),
            partitioned_by: spec.partition.map(|partition| spec.columns[partition.column].name.clone()),
            partitioned_otherwise: false,
            partitions: Vec::new(),
            unique: vec![spec.key_columns().map(|column| column.name.clone()).collect()],
            fingerprint: String::new(),
        }
    }

    /// Has arrays written as text and cast where they cannot be sent as they are: in rows that are not sent whole, and in keys.
    pub(crate) fn cast_arrays(&mut self) {
        let parted = |column: &Column| column.kind == Kind::Other || (column.guarded && !column.required);
        let unknown = self.columns.iter().any(parted);
        let unique = &self.unique;
        let keyed = |column: &Column| unique.iter().any(|key| key.contains(&column.name));
        for column in &mut self.columns {
            if let Kind::Array(element) = column.kind
                && (unknown || keyed(column))
            {
                column.kind = Kind::ArrayText(element);
            }
        }
    }

    /// The place of a column.
    pub fn position(&self, name: &str) -> Option<usize> {
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
