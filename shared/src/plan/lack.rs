//! What a table lacks for a batch. Printed, it reads as the DDL that would be run.

use crate::catalog::Table;
use crate::change::Value;
use crate::names::{Identifier, TableName};
use crate::partition::Bounds;
use crate::spec::Arrays;

/// What one table lacks.
#[derive(Clone, PartialEq, Debug)]
pub struct TableLack {
    /// The table.
    pub table: TableName,
    /// Its comment, if the table itself is lacking.
    pub create: Option<String>,
    /// The columns that a row is known by.
    pub key: Vec<Identifier>,
    /// The column that it is to be partitioned by.
    pub partition_by: Option<Identifier>,
    /// Lacking columns.
    pub columns: Vec<NewColumn>,
    /// The owner's columns that from now on belong to a path, and the comments that say so.
    pub claims: Vec<(Identifier, String)>,
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
    pub bounds: Bounds,
}

impl TableLack {
    /// Whether nothing is lacking any more.
    pub fn is_empty(&self) -> bool {
        self.create.is_none() && self.columns.is_empty() && self.claims.is_empty() && self.partitions.is_empty()
    }

    /// Whether keys are unique within a partition only: then the index is made there.
    pub(super) fn key_is_by_partition(&self) -> bool {
        self.partition_by.as_ref().is_some_and(|by| !self.key.contains(by))
    }

    /// What of it is still lacking, now that the table looks like this: others may have been faster.
    pub fn still(&self, table: Option<&Table>) -> Self {
        let mut lack = self.clone();
        let Some(table) = table else { return lack };
        if self.create.is_some() && table.origin.is_some() && table.origin != self.create {
            // Another table of the source has taken the name: what this one lacks is asked for anew, by another name.
            return Self { create: None, columns: Vec::new(), claims: Vec::new(), partitions: Vec::new(), ..lack };
        }
        lack.create = None;
        lack.partition_by = table.partitioned_by.clone();
        lack.columns.retain(|column| table.position(column.name.as_str()).is_none());
        lack.claims
            .retain(|(name, _)| table.columns.iter().any(|column| column.name == *name && column.original.is_none()));
        lack.partitions.retain(|new| !table.partitions.iter().any(|there| there.bounds.overlaps(&new.bounds)));
        lack
    }
}

/// The fallback: any value can be told as a text.
pub const TEXT: &str = "text";

/// The type that the values of a new column have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inferred {
    Text,
    Numeric,
    Boolean,
    Moment,
    Day,
    Array,
    Object,
    Bytes,
    Texts,
    Numbers,
    ByteStrings,
}

impl Inferred {
    /// The type of one value; `None` for a null, which says nothing.
    pub fn of(value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Null | Value::NullAttribute | Value::Unchanged => None,
            Value::Bool(_) => Some(Self::Boolean),
            Value::Number(_) => Some(Self::Numeric),
            Value::Text(_) => Some(Self::Text),
            Value::Json(text) if text.starts_with('{') => Some(Self::Object),
            Value::Json(_) => Some(Self::Array),
            Value::Time(_) => Some(Self::Moment),
            Value::Date(_) => Some(Self::Day),
            Value::Bytes(_) => Some(Self::Bytes),
            Value::List(values) => match values.first().and_then(Self::of) {
                Some(Self::Numeric) => Some(Self::Numbers),
                Some(Self::Bytes) => Some(Self::ByteStrings),
                Some(_) | None => Some(Self::Texts),
            },
        }
    }

    /// A type that holds both exactly: where they differ, text does.
    pub fn or(self, other: Option<Self>) -> Self {
        if other.is_none_or(|other| other == self) { self } else { Self::Text }
    }

    /// The type in SQL. Numbers are `numeric`: any other type would sooner or later refuse one.
    pub fn sql_type(self, arrays: Arrays) -> &'static str {
        match (self, arrays) {
            (Self::Text, _) | (Self::Array, Arrays::Text) => TEXT,
            (Self::Numeric, _) => "numeric",
            (Self::Boolean, _) => "boolean",
            (Self::Moment, _) => "timestamptz",
            (Self::Day, _) => "date",
            (Self::Object, _) | (Self::Array, Arrays::Jsonb) => "jsonb",
            (Self::Bytes, _) => "bytea",
            (Self::Texts, _) => "text[]",
            (Self::Numbers, _) => "numeric[]",
            (Self::ByteStrings, _) => "bytea[]",
        }
    }
}
