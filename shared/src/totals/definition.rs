//! The definition of a total: its configuration, and the types that PostgreSQL gives to its expressions.
//!
//! It is stored with each version, so that a change of the configuration, or of a column's type, is noticed and the total is
//! built anew.

use serde::{Deserialize, Serialize};

use crate::names::{Identifier, TableName};

/// What a total sums. Two equal definitions have the same tables, functions and figures.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Definition {
    /// The total's name, which is also that of its view.
    pub name: String,
    /// The table whose rows are summed.
    #[serde(with = "table_name")]
    pub table: TableName,
    /// What a row is grouped by, the time bucket last.
    pub groups: Vec<Group>,
    /// The group that is a time bucket.
    pub bucket: Option<String>,
    /// The condition that a row must meet.
    pub condition: Option<String>,
    /// What is summed.
    pub sums: Vec<Sum>,
}

/// A column that rows are grouped by.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The expression.
    pub expression: String,
    /// Its type in SQL, with the schema unless it is PostgreSQL's own.
    pub sql_type: String,
    /// Whether its values differ in length.
    pub has_variable_length: bool,
}

/// A sum.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Sum {
    /// Its name.
    pub name: String,
    /// What is summed.
    pub expression: String,
    /// The condition that a row must meet to be part of this sum.
    pub condition: Option<String>,
    /// The kind of its values.
    pub kind: SumKind,
}

/// The kind of a sum's values.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum SumKind {
    /// `smallint`, `integer`, `bigint`.
    Integer,
    /// `numeric`.
    Numeric,
    /// `real`, `double precision`: summed exactly, as numeric values.
    Float,
}

impl Definition {
    /// The view that serves the total.
    pub fn view(&self) -> TableName {
        TableName { schema: self.table.schema.clone(), table: Identifier::truncated(&self.name, &self.name) }
    }

    /// Whether the sums of `earlier` determine this definition's: it has the same rows, and fewer groups or sums. Then the
    /// sums of dropped partitions, whose rows are gone, can be carried over.
    pub fn follows_from(&self, earlier: &Self) -> bool {
        self.table == earlier.table
            && self.condition == earlier.condition
            && self.bucket.as_ref().is_none_or(|bucket| earlier.bucket.as_ref() == Some(bucket))
            && self.groups.iter().all(|group| earlier.groups.contains(group))
            && self.sums.iter().all(|sum| earlier.sums.contains(sum))
    }

    /// Whether a view of this definition can replace one of `earlier`: it has the same columns, and perhaps more after them.
    pub fn extends_columns_of(&self, earlier: &Self) -> bool {
        let groups = |definition: &Self| {
            definition.groups.iter().map(|group| (group.name.clone(), group.sql_type.clone())).collect::<Vec<_>>()
        };
        groups(self) == groups(earlier)
            && self
                .sums
                .iter()
                .map(|sum| &sum.name)
                .zip(earlier.sums.iter().map(|sum| &sum.name))
                .all(|(new, old)| new == old)
            && self.sums.len() >= earlier.sums.len()
    }
}

/// A table name as `[schema, table]`.
mod table_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::names::TableName;

    pub(super) fn serialize<S: Serializer>(name: &TableName, serializer: S) -> Result<S::Ok, S::Error> {
        (name.schema.as_str(), name.table.as_str()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TableName, D::Error> {
        let (schema, table) = <(String, String)>::deserialize(deserializer)?;
        Ok(TableName::from_catalog(&schema, &table))
    }
}
