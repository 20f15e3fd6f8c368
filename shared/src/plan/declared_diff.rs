//! How a declared table and the database differ. Pure over the catalog's snapshot.

use std::fmt;
use std::sync::Arc;

use super::table_planner::TablePlanner;
use super::table_problems::TableProblems;
use super::{OwnerObject, TableDiff};
use crate::catalog::{Catalog, ColumnType, DbTable};
use crate::field::FieldTree;
use crate::names::Identifier;
use crate::spec::TableSpec;
use crate::unwritable::UnwritableTable;

/// The differences between a declared table and the database.
#[derive(Debug)]
pub struct DeclaredDiff {
    /// What the table's next record would create if it carried every declared column.
    pub diff: Option<TableDiff>,
    /// Differences that no record changes.
    pub remarks: Vec<SchemaNote>,
}

/// A difference that no record changes: existing schema is kept as it is, and some schema depends on values to come.
#[derive(Clone, PartialEq, Debug)]
pub enum SchemaNote {
    /// The table is created by its first record, which determines its key.
    CreatedByFirstRecord,
    /// The column is created by its first value, which determines its type.
    TypeFromFirstValue(Identifier),
    /// The type of the column is not the declared one.
    TypeDiffers {
        /// The column.
        column: Identifier,
        /// The existing type.
        has: String,
        /// The declared type.
        declared: String,
    },
    /// A declared type does not exist.
    UnknownType(String),
    /// The partitioning of the table is not the declared one.
    PartitioningDiffers {
        /// The existing partition column.
        has: Option<Identifier>,
        /// The declared partition column.
        declared: Option<Identifier>,
    },
    /// The table, or one of its partitions, cannot be written.
    Unwritable(Arc<UnwritableTable>),
    /// The table has another name, because its own belongs to another source.
    OwnerObject(OwnerObject),
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
            Self::Unwritable(unwritable) => write!(f, "{unwritable}"),
            Self::OwnerObject(object) => write!(f, "{object}"),
        }
    }
}

/// Compares a table with the database. `type_of` returns the column type and the OID of a type, or `None` if the type does
/// not exist.
pub fn declared_diff(
    spec: &TableSpec,
    fields: &FieldTree,
    catalog: &Catalog,
    type_of: impl Fn(&str) -> Option<(ColumnType, u32)>,
) -> DeclaredDiff {
    let table = catalog.table(&spec.name).map(|table| &**table);
    if table.is_none() && spec.replicated {
        return DeclaredDiff { diff: None, remarks: vec![SchemaNote::CreatedByFirstRecord] };
    }
    let mut planner = TablePlanner::new(spec, fields, catalog);
    planner.require_declared_columns();
    let mut remarks = column_notes(spec, table, type_of);
    remarks.extend(planner.take_owner_objects().into_iter().map(SchemaNote::OwnerObject));
    if let Some(table) = table {
        let declared = spec.partition.map(|partition| spec.columns[partition.column].name.clone());
        if declared != table.partition_column && table.other_partitioning.is_none() {
            remarks.push(SchemaNote::PartitioningDiffers { has: table.partition_column.clone(), declared });
        }
        let of_partitions = |problems: &TableProblems<'_>| {
            problems
                .of_missing_partition()
                .or_else(|| table.partitions.iter().find_map(|part| problems.of_partition(part)))
        };
        let problem = planner.problems().and_then(|problems| problems.of_table().or_else(|| of_partitions(&problems)));
        remarks.extend(problem.map(SchemaNote::Unwritable));
    }
    DeclaredDiff { diff: planner.diff(), remarks }
}

fn column_notes(
    spec: &TableSpec,
    table: Option<&DbTable>,
    type_of: impl Fn(&str) -> Option<(ColumnType, u32)>,
) -> Vec<SchemaNote> {
    let note = |column: &crate::spec::ColumnSpec| {
        let existing = table.and_then(|table| table.columns.iter().find(|existing| existing.name == column.name));
        match (&column.sql_type, existing) {
            (None, Some(_)) => None,
            (None, None) => Some(SchemaNote::TypeFromFirstValue(column.name.clone())),
            (Some(declared), existing) => match (type_of(declared), existing) {
                (None, _) => Some(SchemaNote::UnknownType(declared.clone())),
                (Some((column_type, oid)), Some(existing))
                    if existing.type_oid != oid || !is_same_type(column_type, existing.column_type) =>
                {
                    let (column, has) = (column.name.clone(), existing.sql_type.clone());
                    Some(SchemaNote::TypeDiffers { column, has, declared: declared.clone() })
                }
                (Some(_), _) => None,
            },
        }
    };
    spec.columns.iter().filter_map(note).collect()
}

/// Whether two column types with one OID are the same, including lengths and digits. Only the catalog resolves a domain to
/// its base type.
fn is_same_type(declared: ColumnType, has: ColumnType) -> bool {
    matches!(declared, ColumnType::Other | ColumnType::Array(_)) || declared == has
}
