//! What the configuration declares of a table, and the database has not, or has otherwise. Pure over the catalog's snapshot.

use std::fmt;

use super::table_planner::TablePlanner;
use super::{PlanError, TableDiff};
use crate::catalog::{Catalog, ColumnType, DbTable};
use crate::field::FieldTree;
use crate::names::Identifier;
use crate::spec::TableSpec;

/// A declared table beside the one that is there.
#[derive(Debug)]
pub struct DeclaredDiff {
    /// What the next record of the table would have made, should it carry all that is declared.
    pub diff: Option<TableDiff>,
    /// What no record changes.
    pub remarks: Vec<SchemaNote>,
}

/// What no record changes: the owner's word counts, or a value's has to be waited for.
#[derive(Clone, PartialEq, Debug)]
pub enum SchemaNote {
    /// The table is made by its first record, which tells its key.
    CreatedByFirstRecord,
    /// The column is made by its first value, which tells its type.
    TypeFromFirstValue(Identifier),
    /// The column has another type than is declared.
    TypeDiffers {
        /// The column.
        column: Identifier,
        /// The type that it has.
        has: String,
        /// The type that is declared.
        declared: String,
    },
    /// A type that is declared is not there.
    UnknownType(String),
    /// The table is partitioned otherwise than is declared.
    PartitioningDiffers {
        /// The column that it is partitioned by.
        has: Option<Identifier>,
        /// The column that is declared.
        declared: Option<Identifier>,
    },
    /// A key could be there twice.
    NotUnique(PlanError),
}

impl fmt::Display for SchemaNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |column: &Option<Identifier>| {
            column.as_ref().map_or("not partitioned".to_owned(), |column| format!("partitioned by {column}"))
        };
        match self {
            Self::CreatedByFirstRecord => write!(f, "created by its first record, which determines its key"),
            Self::TypeFromFirstValue(column) => {
                write!(f, "column {column} is created by its first value, which determines its type")
            }
            Self::TypeDiffers { column, has, declared } => {
                write!(f, "column {column} is {has}, not {declared} as declared; use ALTER TABLE to change it")
            }
            Self::UnknownType(name) => write!(f, "unknown type {name}; create it or correct the configuration"),
            Self::PartitioningDiffers { has, declared } => {
                write!(f, "{}, but declared as {}; Millstream will not change it", by(has), by(declared))
            }
            Self::NotUnique(error) => write!(f, "{error}"),
        }
    }
}

/// Compares what a table should be with what is there. `kind` tells the kind and the number of a type, if it is there.
pub fn declared_diff(
    spec: &TableSpec,
    fields: &FieldTree,
    catalog: &Catalog,
    kind: impl Fn(&str) -> Option<(ColumnType, u32)>,
) -> DeclaredDiff {
    let found = catalog.table(&spec.name).map(|table| &**table);
    if found.is_none() && spec.replicated {
        return DeclaredDiff { diff: None, remarks: vec![SchemaNote::CreatedByFirstRecord] };
    }
    let mut survey = TablePlanner::new(spec, fields, catalog);
    survey.require_declared_columns();
    let mut remarks = columns(spec, found, kind);
    if let Some(table) = found {
        let declared = spec.partition.map(|partition| spec.columns[partition.column].name.clone());
        if declared != table.partition_column && !table.other_partitioning {
            remarks.push(SchemaNote::PartitioningDiffers { has: table.partition_column.clone(), declared });
        }
        remarks.extend(survey.require_unique_key(&[]).err().map(SchemaNote::NotUnique));
    }
    DeclaredDiff { diff: survey.diff(), remarks }
}

fn columns(
    spec: &TableSpec,
    found: Option<&DbTable>,
    kind: impl Fn(&str) -> Option<(ColumnType, u32)>,
) -> Vec<SchemaNote> {
    let remark = |column: &crate::spec::ColumnSpec| {
        let there = found.and_then(|table| table.columns.iter().find(|there| there.name == column.name));
        match (&column.sql_type, there) {
            (None, Some(_)) => None,
            (None, None) => Some(SchemaNote::TypeFromFirstValue(column.name.clone())),
            (Some(declared), there) => match (kind(declared), there) {
                (None, _) => Some(SchemaNote::UnknownType(declared.clone())),
                (Some((kind, oid)), Some(there)) if there.type_oid != oid || !is_same_type(kind, there.kind) => {
                    let (column, has) = (column.name.clone(), there.sql_type.clone());
                    Some(SchemaNote::TypeDiffers { column, has, declared: declared.clone() })
                }
                (Some(_), _) => None,
            },
        }
    };
    spec.columns.iter().filter_map(remark).collect()
}

/// Whether two kinds of one type are the same, lengths and digits included. A domain's kind is its base's in the catalog only.
fn is_same_type(declared: ColumnType, has: ColumnType) -> bool {
    matches!(declared, ColumnType::Other | ColumnType::Array(_)) || declared == has
}
