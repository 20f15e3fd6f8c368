//! The statements of the writer, built from identifiers alone, and cells as their array parameters.
//!
//! Parameters are one array a column, unfolded by `unnest`: no temporary table, which RDS Proxy would pin for.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type};

use crate::catalog::{Column, Kind};
use crate::names::TableName;
use crate::plan::TableWrite;

/// An array parameter in binary form, its elements already encoded.
#[derive(Debug)]
pub struct Array {
    bytes: BytesMut,
    elements: i32,
    /// The parameter's type.
    pub array: Type,
}

/// Where an array's length stands: behind the number of dimensions, the flag for nulls, and the element's type.
const LENGTH_AT: usize = 12;

impl Array {
    /// An empty array of the type that carries such values.
    pub fn of(kind: Kind) -> Self {
        let mut bytes = BytesMut::with_capacity(1024);
        for word in [1, 1, kind.element().oid() as i32, 0, 1] {
            bytes.put_i32(word);
        }
        Self { bytes, elements: 0, array: kind.array() }
    }

    /// Appends a cell.
    pub fn push(&mut self, cell: &[u8]) {
        self.bytes.extend_from_slice(cell);
        self.elements += 1;
    }

    /// Appends a text.
    pub fn push_text(&mut self, text: &str) {
        self.bytes.put_i32(text.len() as i32);
        self.push(text.as_bytes());
    }

    /// Appends a whole number to an array of `bigint`.
    pub fn push_number(&mut self, number: i64) {
        self.bytes.put_i32(8);
        self.push(&number.to_be_bytes());
    }

    /// The array with its length filled in.
    pub fn finished(mut self) -> Self {
        self.bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&self.elements.to_be_bytes());
        self
    }
}

impl ToSql for Array {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }
}

/// The arrays as the driver takes them.
pub fn parameters(arrays: &[Array]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    arrays.iter().map(|array| (array as &(dyn ToSql + Sync), array.array.clone())).collect()
}

/// The columns of a write, by name.
pub fn columns(write: &TableWrite) -> impl Iterator<Item = &Column> {
    write.columns.iter().map(|&position| &write.table.columns[position])
}

/// `$first, $first+1, …`
fn placeholders(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

/// `c0, c1, …`: names for unfolded arrays that meet no name of a table.
fn aliases(count: usize) -> String {
    (0..count).map(|number| format!("c{number}")).collect::<Vec<_>>().join(", ")
}

/// An unfolded value as the column takes it: enums and types that the writer does not know come as text.
fn cast(value: String, column: &Column) -> String {
    match column.kind {
        Kind::Enum | Kind::Other => format!("{value}::{}", column.sql_type),
        Kind::Text { .. } | Kind::Bool | Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Numeric { .. } => value,
        Kind::Float4 | Kind::Float8 | Kind::Timestamp { .. } | Kind::Date | Kind::Uuid | Kind::Json | Kind::Jsonb => {
            value
        }
    }
}

fn key_condition(write: &TableWrite) -> String {
    let equal =
        |(place, column): (usize, &Column)| format!("t.{} = {}", column.name, cast(format!("u.c{place}"), column));
    columns(write).take(write.key).enumerate().map(equal).collect::<Vec<_>>().join(" AND ")
}

/// Which of the keys are in one relation: their places, from 1.
pub fn existing_keys(write: &TableWrite, relation: &TableName) -> String {
    format!(
        "SELECT u.n FROM unnest({}) WITH ORDINALITY AS u ({}, n) WHERE EXISTS (SELECT FROM {relation} t WHERE {})",
        placeholders(1, write.key),
        aliases(write.key),
        key_condition(write),
    )
}

/// The version of each key that is there, its row locked until the transaction ends, in the order of the keys.
pub fn locked_versions(write: &TableWrite, version: &str) -> String {
    format!(
        "SELECT u.n, t.{version}::text FROM unnest({}) WITH ORDINALITY AS u ({}, n) JOIN {} t ON {} \
         ORDER BY u.n FOR NO KEY UPDATE OF t",
        placeholders(1, write.key),
        aliases(write.key),
        write.table.name,
        key_condition(write),
    )
}

/// A binary COPY of the columns, and of one more where the writer keeps one.
pub fn copy(write: &TableWrite, own: Option<&str>) -> String {
    let names = columns(write).map(|column| column.name.to_string()).chain(own.map(|name| format!("\"{name}\"")));
    format!("COPY {} ({}) FROM STDIN (FORMAT binary)", write.table.name, names.collect::<Vec<_>>().join(", "))
}

/// The same as a statement, for tables with columns of types that have to be cast.
pub fn insert(write: &TableWrite, own: Option<&str>) -> String {
    let count = write.columns.len();
    let names = columns(write).map(|column| column.name.to_string()).chain(own.map(|name| format!("\"{name}\"")));
    let values = columns(write).enumerate().map(|(place, column)| cast(format!("u.c{place}"), column));
    let own_type =
        |name: &str| write.table.position(name).map(|at| write.table.columns[at].sql_type.clone()).unwrap_or_default();
    let values = values.chain(own.map(|name| format!("u.c{count}::{}", own_type(name))));
    let total = count + usize::from(own.is_some());
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM unnest({}) AS u ({})",
        write.table.name,
        names.collect::<Vec<_>>().join(", "),
        values.collect::<Vec<_>>().join(", "),
        placeholders(1, total),
        aliases(total),
    )
}

/// How many columns one mask of an update speaks for.
pub const COLUMNS_A_MASK: usize = 63;

/// Updates rows by key. The parameters: the columns, the version column, the overflow's new fields, and as many masks as the
/// columns need, in which a set bit says that the column is written.
pub fn update(write: &TableWrite, version: &str, overflow: Option<usize>) -> String {
    let count = write.columns.len();
    let masks = count.div_ceil(COLUMNS_A_MASK);
    let set = columns(write).enumerate().skip(write.key).filter(|(place, _)| Some(*place) != overflow).map(
        |(place, column)| {
            let bit = 1i64 << (place % COLUMNS_A_MASK);
            let mask = count + 2 + place / COLUMNS_A_MASK;
            let value = cast(format!("u.c{place}"), column);
            format!("{name} = CASE WHEN u.c{mask} & {bit} <> 0 THEN {value} ELSE t.{name} END", name = column.name)
        },
    );
    let own_type = if version == crate::spec::VERSIONS { "::jsonb" } else { "" };
    let set = set.chain([format!("\"{version}\" = u.c{count}{own_type}")]);
    // The overflow is merged field by field: what is not new stays.
    let set = set.chain(overflow.map(|place| {
        let name = &write.table.columns[write.columns[place]].name;
        format!(
            "{name} = CASE WHEN u.c{0} IS NULL THEN t.{name} ELSE coalesce(t.{name}, '{{}}') || u.c{0}::jsonb END",
            count + 1
        )
    }));
    format!(
        "UPDATE {} t SET {} FROM unnest({}) AS u ({}) WHERE {}",
        write.table.name,
        set.collect::<Vec<_>>().join(", "),
        placeholders(1, count + 2 + masks),
        aliases(count + 2 + masks),
        key_condition(write),
    )
}
