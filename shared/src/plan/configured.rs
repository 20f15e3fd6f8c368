//! What the configuration declares of a table, and the database has not, or has otherwise. Pure over the catalog's snapshot.

use std::fmt;

use super::survey::Survey;
use super::{PlanError, TableLack};
use crate::catalog::{Catalog, Kind, Table};
use crate::field::Fields;
use crate::names::Identifier;
use crate::spec::TableSpec;

/// A declared table beside the one that is there.
#[derive(Debug)]
pub struct Configured {
    /// What the next record of the table would have made, should it carry all that is declared.
    pub lack: Option<TableLack>,
    /// What no record changes.
    pub remarks: Vec<Remark>,
}

/// What no record changes: the owner's word counts, or a value's has to be waited for.
#[derive(Clone, PartialEq, Debug)]
pub enum Remark {
    /// The table is made by its first record, which tells its key.
    KeyIsTheSource,
    /// The column is made by its first value, which tells its type.
    TypeIsTheValue(Identifier),
    /// The column has another type than is declared.
    OtherType {
        /// The column.
        column: Identifier,
        /// The type that it has.
        has: String,
        /// The type that is declared.
        declared: String,
    },
    /// A type that is declared is not there.
    NoType(String),
    /// The table is partitioned otherwise than is declared.
    OtherPartitioning {
        /// The column that it is partitioned by.
        has: Option<Identifier>,
        /// The column that is declared.
        declared: Option<Identifier>,
    },
    /// A key could be there twice.
    NotUnique(PlanError),
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |column: &Option<Identifier>| {
            column.as_ref().map_or("not partitioned".to_owned(), |column| format!("partitioned by {column}"))
        };
        match self {
            Self::KeyIsTheSource => write!(f, "made by its first record, which tells its key"),
            Self::TypeIsTheValue(column) => {
                write!(f, "column {column} is made by its first value, which tells its type")
            }
            Self::OtherType { column, has, declared } => {
                write!(
                    f,
                    "column {column} is {has} and stays so, although {declared} is declared: alter it if you want to"
                )
            }
            Self::NoType(name) => write!(f, "there is no type {name}: PostgreSQL would refuse"),
            Self::OtherPartitioning { has, declared } => {
                write!(f, "{} and stays so, although it is declared as {}", by(has), by(declared))
            }
            Self::NotUnique(error) => write!(f, "{error}"),
        }
    }
}

/// Compares what a table should be with what is there. `kind` tells the kind and the number of a type, if it is there.
pub fn configured(
    spec: &TableSpec,
    fields: &Fields,
    catalog: &Catalog,
    kind: impl Fn(&str) -> Option<(Kind, u32)>,
) -> Configured {
    let found = catalog.table(&spec.name).map(|table| &**table);
    if found.is_none() && spec.replicated {
        return Configured { lack: None, remarks: vec![Remark::KeyIsTheSource] };
    }
    let mut survey = Survey::new(spec, fields, catalog);
    survey.ask_for_declared();
    let mut remarks = columns(spec, found, kind);
    if let Some(table) = found {
        let declared = spec.partition.map(|partition| spec.columns[partition.column].name.clone());
        if declared != table.partitioned_by && !table.partitioned_otherwise {
            remarks.push(Remark::OtherPartitioning { has: table.partitioned_by.clone(), declared });
        }
        remarks.extend(survey.check_unique(&[]).err().map(Remark::NotUnique));
    }
    Configured { lack: survey.lack(), remarks }
}

fn columns(spec: &TableSpec, found: Option<&Table>, kind: impl Fn(&str) -> Option<(Kind, u32)>) -> Vec<Remark> {
    let remark = |column: &crate::spec::ColumnSpec| {
        let there = found.and_then(|table| table.columns.iter().find(|there| there.name == column.name));
        match (&column.sql_type, there) {
            (None, Some(_)) => None,
            (None, None) => Some(Remark::TypeIsTheValue(column.name.clone())),
            (Some(declared), there) => match (kind(declared), there) {
                (None, _) => Some(Remark::NoType(declared.clone())),
                (Some((kind, oid)), Some(there)) if there.type_oid != oid || !same(kind, there.kind) => {
                    let (column, has) = (column.name.clone(), there.sql_type.clone());
                    Some(Remark::OtherType { column, has, declared: declared.clone() })
                }
                (Some(_), _) => None,
            },
        }
    };
    spec.columns.iter().filter_map(remark).collect()
}

/// Whether two kinds of one type are the same, lengths and digits included. A domain's kind is its base's in the catalog only.
fn same(declared: Kind, has: Kind) -> bool {
    matches!(declared, Kind::Other | Kind::Array(_)) || declared == has
}
