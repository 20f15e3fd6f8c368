//! What a table is missing for a batch. Its `Display` is the DDL that would be run.

use crate::catalog::{ColumnType, DbColumn, DbPartition, DbTable, PartitionRelation, RowTypeOids};
use crate::change::Value;
use crate::names::{Identifier, TableName};
use crate::partition::TimeRange;
use crate::spec::{Arrays, OnUnwritable};

/// What one table is missing.
#[derive(Clone, PartialEq, Debug)]
pub struct TableDiff {
    /// The table.
    pub table: TableName,
    /// Its comment, if the table itself is missing.
    pub source_label: Option<String>,
    /// The columns of the key.
    pub key: Vec<Identifier>,
    /// The column that the table is partitioned by.
    pub partition_column: Option<Identifier>,
    /// Missing columns.
    pub columns: Vec<NewColumn>,
    /// Missing partitions.
    pub partitions: Vec<NewPartition>,
    /// What happens to the records that need it if it cannot be created.
    pub on_unwritable: OnUnwritable,
}

/// A missing column.
#[derive(Clone, PartialEq, Debug)]
pub struct NewColumn {
    /// Its name.
    pub name: Identifier,
    /// Its type in SQL.
    pub sql_type: String,
    /// Whether a row without a value is rejected; only for a column that is created with its table.
    pub required: bool,
    /// A check constraint's expression.
    pub check: Option<String>,
    /// A default, in SQL.
    pub default: Option<&'static str>,
    /// The path whose values it holds, kept in its comment.
    pub source_path: Option<String>,
}

/// A missing partition.
#[derive(Clone, PartialEq, Debug)]
pub struct NewPartition {
    /// The name of its table.
    pub name: TableName,
    /// The time range that it will hold.
    pub bounds: TimeRange,
}

impl TableDiff {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.source_label.is_none() && self.columns.is_empty() && self.partitions.is_empty()
    }

    /// Whether keys are unique only within a partition. If so, the index is created there.
    pub(super) fn key_is_by_partition(&self) -> bool {
        self.partition_column.as_ref().is_some_and(|by| !self.key.contains(by))
    }

    /// What is still missing, given the current table: another writer may have created a part of it.
    pub fn remaining(&self, table: Option<&DbTable>) -> Self {
        let mut diff = self.clone();
        let Some(table) = table else { return diff };
        if self.source_label.is_some() && table.source_label != self.source_label {
            // Another table has taken the name. The batch is planned again: with that table, if it may be filled, or else
            // with another name for this one.
            return Self { source_label: None, columns: Vec::new(), partitions: Vec::new(), ..diff };
        }
        diff.source_label = None;
        diff.partition_column = table.partition_column.clone();
        diff.columns.retain(|column| table.column_index(column.name.as_str()).is_none());
        diff.partitions.retain(|new| !table.partitions.iter().any(|existing| existing.bounds.overlaps(&new.bounds)));
        diff
    }
}

/// The fallback type: any value can be written as text.
pub const TEXT: &str = "text";

/// The type that the values of a new column have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InferredType {
    Text,
    Numeric,
    Boolean,
    Timestamp,
    Date,
    Array,
    Object,
    Bytes,
    TextArray,
    NumericArray,
    ByteaArray,
}

impl InferredType {
    /// The type of one value; `None` for a null, which has no type.
    pub fn from_value(value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Null | Value::TypedNull | Value::Unchanged => None,
            Value::Bool(_) => Some(Self::Boolean),
            Value::Number(_) => Some(Self::Numeric),
            Value::Text(_) => Some(Self::Text),
            Value::Json(text) if text.starts_with('{') => Some(Self::Object),
            Value::Json(_) => Some(Self::Array),
            Value::Time(_) => Some(Self::Timestamp),
            Value::Date(_) => Some(Self::Date),
            Value::Bytes(_) => Some(Self::Bytes),
            Value::List(values) => match values.first().and_then(Self::from_value) {
                Some(Self::Numeric) => Some(Self::NumericArray),
                Some(Self::Bytes) => Some(Self::ByteaArray),
                Some(_) | None => Some(Self::TextArray),
            },
        }
    }

    /// A type that holds both exactly: text, if they differ.
    pub fn unify(self, other: Option<Self>) -> Self {
        if other.is_none_or(|other| other == self) { self } else { Self::Text }
    }

    /// The SQL type. Numbers are `numeric`: any other type would sooner or later reject one.
    pub fn sql_type(self, arrays: Arrays) -> &'static str {
        match (self, arrays) {
            (Self::Text, _) | (Self::Array, Arrays::Text) => TEXT,
            (Self::Numeric, _) => "numeric",
            (Self::Boolean, _) => "boolean",
            (Self::Timestamp, _) => "timestamptz",
            (Self::Date, _) => "date",
            (Self::Object, _) | (Self::Array, Arrays::Jsonb) => "jsonb",
            (Self::Bytes, _) => "bytea",
            (Self::TextArray, _) => "text[]",
            (Self::NumericArray, _) => "numeric[]",
            (Self::ByteaArray, _) => "bytea[]",
        }
    }
}

impl TableDiff {
    /// The table after [`TableDiff::statements`] have run on `before`. `type_of` returns the column type and the OID of an
    /// SQL type.
    pub fn applied_to(&self, before: Option<&DbTable>, type_of: impl Fn(&str) -> (ColumnType, u32)) -> DbTable {
        let mut table = before.cloned().unwrap_or_else(|| self.created());
        table.has_check |= self.columns.iter().any(|column| column.check.is_some());
        for new in &self.columns {
            let (kind, type_oid) = type_of(&new.sql_type);
            // A column that is added to an existing table is nullable.
            let not_null = before.is_none() && (new.required || self.key.contains(&new.name));
            table.columns.push(DbColumn {
                name: new.name.clone(),
                column_type: kind,
                type_oid,
                sql_type: new.sql_type.clone(),
                cast_type: new.sql_type.clone(),
                operator_schema: Identifier::pg_catalog(),
                source_path: new.source_path.clone(),
                required: not_null && new.default.is_none(),
                may_reject_null: not_null,
                generated: None,
            });
        }
        let unique = if self.key_is_by_partition() { vec![self.key.clone()] } else { table.unique.clone() };
        let partitions = self.partitions.iter().map(|new| DbPartition {
            name: new.name.clone(),
            bounds: new.bounds,
            oid: 0,
            relation: PartitionRelation::Table,
            accepts_copies: false,
            unique: unique.clone(),
        });
        table.partitions.extend(partitions);
        table.partitions.sort_by_key(|partition| partition.bounds.from);
        table.write_arrays_as_text();
        table
    }

    fn created(&self) -> DbTable {
        let unique: Vec<Vec<Identifier>> = if self.key_is_by_partition() { Vec::new() } else { vec![self.key.clone()] };
        DbTable {
            name: self.table.clone(),
            oid: 0,
            row_type: RowTypeOids::default(),
            source_label: self.source_label.clone(),
            has_check: false,
            columns: Vec::new(),
            partition_column: self.partition_column.clone(),
            other_partitioning: None,
            partitions: Vec::new(),
            default_partition: None,
            unique,
            deferrable: Vec::new(),
            fingerprint: String::new(),
        }
    }
}
