//! What a table lacks for a batch. Printed, it reads as the DDL that would be run.

use crate::catalog::comment::{parse_note, with_note};
use crate::catalog::{ColumnType, DbColumn, DbPartition, DbTable, RowTypeOids};
use crate::change::Value;
use crate::names::{Identifier, TableName};
use crate::partition::TimeRange;
use crate::spec::Arrays;

/// What one table lacks.
#[derive(Clone, PartialEq, Debug)]
pub struct TableDiff {
    /// The table.
    pub table: TableName,
    /// Its comment, if the table itself is lacking.
    pub created_by: Option<String>,
    /// The columns that a row is known by.
    pub key: Vec<Identifier>,
    /// The column that it is to be partitioned by.
    pub partition_column: Option<Identifier>,
    /// Lacking columns.
    pub columns: Vec<NewColumn>,
    /// The owner's columns that from now on belong to a path, and the comments that say so.
    pub adopted_columns: Vec<(Identifier, String)>,
    /// Lacking partitions.
    pub partitions: Vec<NewPartition>,
}

/// A lacking column.
#[derive(Clone, PartialEq, Debug)]
pub struct NewColumn {
    /// Its name.
    pub name: Identifier,
    /// Its type in SQL.
    pub sql_type: String,
    /// Whether a row without a value is refused; only for a table that is made with it.
    pub required: bool,
    /// A check constraint's expression.
    pub check: Option<String>,
    /// A default, in SQL.
    pub default: Option<&'static str>,
    /// The path whose values it holds, kept in its comment.
    pub original: Option<String>,
}

/// A lacking partition.
#[derive(Clone, PartialEq, Debug)]
pub struct NewPartition {
    /// Its table.
    pub name: TableName,
    /// What it will hold.
    pub bounds: TimeRange,
}

impl TableDiff {
    /// Whether nothing is lacking any more.
    pub fn is_empty(&self) -> bool {
        self.created_by.is_none()
            && self.columns.is_empty()
            && self.adopted_columns.is_empty()
            && self.partitions.is_empty()
    }

    /// Whether keys are unique within a partition only: then the index is made there.
    pub(super) fn key_is_by_partition(&self) -> bool {
        self.partition_column.as_ref().is_some_and(|by| !self.key.contains(by))
    }

    /// What of it is still lacking, now that the table looks like this: others may have been faster.
    pub fn remaining(&self, table: Option<&DbTable>) -> Self {
        let mut lack = self.clone();
        let Some(table) = table else { return lack };
        if self.created_by.is_some() && table.origin.is_some() && table.origin != self.created_by {
            // Another table of the source has taken the name: what this one lacks is asked for anew, by another name.
            return Self {
                created_by: None,
                columns: Vec::new(),
                adopted_columns: Vec::new(),
                partitions: Vec::new(),
                ..lack
            };
        }
        lack.created_by = None;
        lack.partition_column = table.partition_column.clone();
        lack.columns.retain(|column| table.column_index(column.name.as_str()).is_none());
        lack.adopted_columns.retain(|(name, _)| {
            table.columns.iter().any(|column| column.name == *name && column.source_path.is_none())
        });
        lack.partitions.retain(|new| !table.partitions.iter().any(|there| there.bounds.overlaps(&new.bounds)));
        lack
    }
}

/// The fallback: any value can be told as a text.
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
    /// The type of one value; `None` for a null, which says nothing.
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

    /// A type that holds both exactly: where they differ, text does.
    pub fn unify(self, other: Option<Self>) -> Self {
        if other.is_none_or(|other| other == self) { self } else { Self::Text }
    }

    /// The type in SQL. Numbers are `numeric`: any other type would sooner or later refuse one.
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
    /// The table after [`TableLack::statements`], for which it was `before`. `kind` tells the kind and the number of a type.
    pub fn applied_to(&self, before: Option<&DbTable>, kind: impl Fn(&str) -> (ColumnType, u32)) -> DbTable {
        let mut table = before.cloned().unwrap_or_else(|| self.created());
        let checked = self.columns.iter().any(|column| column.check.is_some());
        table.has_check |= checked;
        for new in &self.columns {
            let (kind, type_oid) = kind(&new.sql_type);
            // Into a table that is there a column comes nullable.
            let kept = before.is_none() && (new.required || self.key.contains(&new.name));
            table.columns.push(DbColumn {
                name: new.name.clone(),
                kind,
                type_oid,
                sql_type: new.sql_type.clone(),
                source_path: new.original.clone(),
                comment: new.original.as_deref().map(|path| with_note(None, path)),
                required: kept && new.default.is_none(),
                may_reject_null: kept,
                generated: false,
            });
        }
        for (name, comment) in &self.adopted_columns {
            for column in table.columns.iter_mut().filter(|column| column.name == *name) {
                column.source_path = parse_note(comment).map(str::to_owned);
                column.comment = Some(comment.clone());
            }
        }
        let unique = if self.key_is_by_partition() { vec![self.key.clone()] } else { table.unique.clone() };
        let partitions = self.partitions.iter().map(|new| DbPartition {
            name: new.name.clone(),
            bounds: new.bounds,
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
            origin: self.created_by.clone(),
            owned: true,
            has_check: false,
            columns: Vec::new(),
            partition_column: self.partition_column.clone(),
            other_partitioning: false,
            partitions: Vec::new(),
            unique,
            fingerprint: String::new(),
        }
    }
}
