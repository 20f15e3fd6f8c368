//! The writer's SQL statements, built only from identifiers, and cells as their array parameters.
//!
//! Parameters are one array per column, expanded by `unnest`. A temporary table would make RDS Proxy pin the
//! connection.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type};

use crate::catalog::{ColumnType, DbColumn, RowTypeOids};
use crate::names::{Identifier, TableName, quote_literal};
use crate::plan::{TableWrite, cell};
use crate::spec::DELETED_AT;

/// An array parameter in binary format, with encoded elements.
#[derive(Debug)]
pub struct Array {
    bytes: BytesMut,
    elements: i32,
    /// The parameter's type.
    pub array: Type,
}

/// The offset of an array's length: it follows the number of dimensions, the null flag and the element's type.
const LENGTH_OFFSET: usize = 12;

impl Array {
    /// An empty array with elements of a column type.
    pub fn for_type(kind: ColumnType) -> Self {
        let mut bytes = BytesMut::with_capacity(1024);
        for word in [1, 1, kind.element_type().oid() as i32, 0, 1] {
            bytes.put_i32(word);
        }
        Self { bytes, elements: 0, array: kind.array_type() }
    }

    /// An empty array of rows of a table.
    pub fn for_rows(oids: RowTypeOids) -> Self {
        let mut bytes = BytesMut::with_capacity(1024);
        for word in [1, 1, oids.row as i32, 0, 1] {
            bytes.put_i32(word);
        }
        let element = Type::new(String::new(), oids.row, tokio_postgres::types::Kind::Simple, String::new());
        let kind = tokio_postgres::types::Kind::Array(element);
        Self { bytes, elements: 0, array: Type::new(String::new(), oids.array, kind, String::new()) }
    }

    /// Appends a row: its number of columns, then the type's OID and the cell of each column.
    pub fn push_row(&mut self, row: &[u8]) {
        self.bytes.put_i32(row.len() as i32);
        self.push(row);
    }

    /// Appends a cell.
    pub fn push(&mut self, cell: &[u8]) {
        self.bytes.extend_from_slice(cell);
        self.elements += 1;
    }

    /// Appends a text.
    pub fn push_text(&mut self, text: &str) {
        cell::write_text(text, &mut self.bytes);
        self.elements += 1;
    }

    /// Fills in the array's length.
    pub fn with_length(mut self) -> Self {
        self.bytes[LENGTH_OFFSET..LENGTH_OFFSET + 4].copy_from_slice(&self.elements.to_be_bytes());
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

/// The arrays in the form that the driver expects.
pub fn parameters(arrays: &[Array]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    arrays.iter().map(|array| (array as &(dyn ToSql + Sync), array.array.clone())).collect()
}

/// The columns of a write.
pub fn columns(write: &TableWrite) -> impl Iterator<Item = &DbColumn> {
    write.column_indexes.iter().map(|&index| &write.table.columns[index])
}

/// The type `text`, whatever the search path is.
const TEXT: &str = "pg_catalog.text";

/// The expansion of `count` array parameters, from `$first`. `unnest` with a schema takes one array, and without one it
/// is looked up in the search path.
pub fn unnest(first: usize, count: usize) -> String {
    let arrays: Vec<String> = (first..first + count).map(|number| format!("pg_catalog.unnest(${number})")).collect();
    format!("ROWS FROM ({})", arrays.join(", "))
}

/// A comparison operator for a column's values: the one of its type, never one of the search path.
fn operator(name: &str, column: &DbColumn) -> String {
    format!("OPERATOR({}.{name})", column.operator_schema)
}

/// `c0, c1, …`: names for expanded arrays that cannot collide with the table's names.
fn aliases(count: usize) -> String {
    (0..count).map(|number| format!("c{number}")).collect::<Vec<_>>().join(", ")
}

/// An expanded value with the column's type: enums and types that the writer does not know are passed as text.
fn cast(value: String, column: &DbColumn) -> String {
    match column.column_type {
        ColumnType::Enum | ColumnType::Other | ColumnType::ArrayText(_) => format!("{value}::{}", column.cast_type),
        ColumnType::Text { .. }
        | ColumnType::Bool
        | ColumnType::Int2
        | ColumnType::Int4
        | ColumnType::Int8
        | ColumnType::Numeric { .. } => value,
        ColumnType::Bytea | ColumnType::Array(_) => value,
        ColumnType::Float4
        | ColumnType::Float8
        | ColumnType::Timestamp { .. }
        | ColumnType::Date
        | ColumnType::Uuid
        | ColumnType::Json
        | ColumnType::Jsonb => value,
    }
}

fn aliased(index: usize, column: &DbColumn) -> String {
    cast(format!("u.c{index}"), column)
}

fn key_condition(write: &TableWrite, value: impl Fn(usize, &DbColumn) -> String) -> String {
    let condition = |(index, column): (usize, &DbColumn)| {
        format!("t.{} {} {}", column.name, operator("=", column), value(index, column))
    };
    columns(write).take(write.key_column_count).enumerate().map(condition).collect::<Vec<_>>().join(" AND ")
}

/// The positions, from 1, of the keys that exist in one relation.
pub fn select_existing_keys(write: &TableWrite, relation: &TableName) -> String {
    format!(
        "SELECT u.n FROM {} WITH ORDINALITY AS u ({}, n) WHERE EXISTS (SELECT FROM {relation} t WHERE {})",
        unnest(1, write.key_column_count),
        aliases(write.key_column_count),
        key_condition(write, aliased),
    )
}

/// Whether rows are locked as they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowLock {
    /// Lock rows until the transaction ends, in the order of the keys.
    Rows,
    /// Do not lock.
    None,
}

/// The version of each key that exists.
pub fn select_versions(write: &TableWrite, version: &str, lock: RowLock) -> String {
    let lock_clause = if lock == RowLock::Rows { " FOR NO KEY UPDATE OF t" } else { "" };
    format!(
        "SELECT u.n, t.{version}::{TEXT} FROM {} WITH ORDINALITY AS u ({}, n) JOIN {} t ON {} \
         ORDER BY u.n{lock_clause}",
        unnest(1, write.key_column_count),
        aliases(write.key_column_count),
        write.table.name,
        key_condition(write, aliased),
    )
}

/// The rows that a statement reads: the expression after `FROM`, aliased as `u`, with the table's column names.
pub struct RowSource {
    /// The expression, including parameters.
    pub from: String,
    /// Whether columns of types that the writer does not know are passed as text.
    pub as_text: bool,
}

impl RowSource {
    fn value(&self, column: &DbColumn) -> String {
        let value = format!("u.{}", column.name);
        if self.as_text { cast(value, column) } else { value }
    }

    /// The value of the version column.
    fn version_value(&self, write: &TableWrite, name: &str) -> String {
        let cast_type = write.table.column_index(name).map(|index| write.table.columns[index].cast_type.as_str());
        match cast_type {
            Some(cast_type) if self.as_text => format!("u.\"{name}\"::{cast_type}"),
            Some(_) | None => format!("u.\"{name}\""),
        }
    }
}

/// A binary COPY of the columns, and of the version column if there is one.
pub fn copy(write: &TableWrite, version_column: Option<&str>, target: &TableName) -> String {
    let names =
        columns(write).map(|column| column.name.to_string()).chain(version_column.map(|name| format!("\"{name}\"")));
    format!("COPY {target} ({}) FROM STDIN (FORMAT binary)", names.collect::<Vec<_>>().join(", "))
}

/// The same as an INSERT, for tables with columns whose types need a cast.
pub fn insert(write: &TableWrite, version_column: Option<&str>, target: &TableName) -> String {
    let count = write.column_indexes.len();
    let names =
        columns(write).map(|column| column.name.to_string()).chain(version_column.map(|name| format!("\"{name}\"")));
    let values = columns(write).enumerate().map(|(index, column)| cast(format!("u.c{index}"), column));
    let version_type = |name: &str| {
        write.table.column_index(name).map(|index| write.table.columns[index].cast_type.clone()).unwrap_or_default()
    };
    let values = values.chain(version_column.map(|name| format!("u.c{count}::{}", version_type(name))));
    let total = count + usize::from(version_column.is_some());
    format!(
        "INSERT INTO {target} ({}) SELECT {} FROM {} AS u ({})",
        names.collect::<Vec<_>>().join(", "),
        values.collect::<Vec<_>>().join(", "),
        unnest(1, total),
        aliases(total),
    )
}

/// How many columns one mask of an update covers.
pub const COLUMNS_PER_MASK: usize = 63;

/// Which columns an update writes.
pub enum UpdateColumns<'p> {
    /// These columns in every row, by index.
    Same(&'p [usize]),
    /// In each row the columns whose bits are set in its masks, see [`mask_name`].
    Masked,
}

/// The name of the parameter that holds an overflow's new fields, if the overflow is merged field by field.
pub const NEW_FIELDS: &str = "(new fields)";

/// The name of the parameter that holds one mask of [`UpdateColumns::Masked`].
pub fn mask_name(number: usize) -> String {
    format!("(mask {number})")
}

/// Updates rows by key from `source`, whose columns have the table's names; `merged_overflow` is the index of an
/// overflow column into which [`NEW_FIELDS`] are merged.
pub fn update(
    write: &TableWrite,
    version: &str,
    set: &UpdateColumns<'_>,
    merged_overflow: Option<usize>,
    source: &RowSource,
) -> String {
    let assigned =
        columns(write).enumerate().skip(write.key_column_count).filter(|(index, _)| Some(*index) != merged_overflow);
    let assignments: Vec<String> = assigned
        .filter(|(index, _)| match set {
            UpdateColumns::Same(columns) => columns.contains(index),
            UpdateColumns::Masked => true,
        })
        .map(|(index, column)| {
            let (name, value) = (&column.name, source.value(column));
            match set {
                UpdateColumns::Same(_) => format!("{name} = {value}"),
                UpdateColumns::Masked => {
                    let (mask, bit) = (index / COLUMNS_PER_MASK, 1i64 << (index % COLUMNS_PER_MASK));
                    format!(
                        "{name} = CASE WHEN (u.\"{}\" OPERATOR(pg_catalog.&) {bit}::bigint) OPERATOR(pg_catalog.<>) 0 \
                         THEN {value} ELSE t.{name} END",
                        mask_name(mask)
                    )
                }
            }
        })
        .chain([format!("\"{version}\" = {}", source.version_value(write, version))])
        // Fields that are not new keep their values.
        .chain(merged_overflow.map(|index| {
            let name = &write.table.columns[write.column_indexes[index]].name;
            format!(
                "{name} = CASE WHEN u.\"{NEW_FIELDS}\" IS NULL THEN t.{name} \
                 ELSE coalesce(t.{name}, '{{}}') OPERATOR(pg_catalog.||) u.\"{NEW_FIELDS}\"::pg_catalog.jsonb END"
            )
        }))
        .collect();
    format!(
        "UPDATE {} t SET {} FROM {} WHERE {}",
        write.table.name,
        assignments.join(", "),
        source.from,
        key_condition(write, |_, column| source.value(column)),
    )
}

/// The columns of the unique index on the key, if one index covers the whole table. `ON CONFLICT` accepts no columns of which
/// any index is deferrable.
pub fn conflict_target(write: &TableWrite) -> Option<String> {
    let key: Vec<_> = columns(write).take(write.key_column_count).map(|column| &column.name).collect();
    let is_same_set =
        |a: &[Identifier], b: &[Identifier]| a.len() == b.len() && a.iter().all(|column| b.contains(column));
    let is_target = |unique: &&Vec<Identifier>| {
        unique.iter().all(|column| key.contains(&column))
            && !write.table.deferrable.iter().any(|deferrable| is_same_set(deferrable, unique))
    };
    let unique = write.table.unique.iter().find(is_target)?;
    Some(unique.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// Inserts rows and replaces older ones. Returns how many were written, and how many of them are new.
pub fn upsert(write: &TableWrite, version: &str, target: &str, source: &RowSource) -> String {
    let names: Vec<String> =
        columns(write).map(|column| column.name.to_string()).chain([format!("\"{version}\"")]).collect();
    let values = columns(write).map(|column| source.value(column)).chain([source.version_value(write, version)]);
    let set = names.iter().skip(write.key_column_count).map(|name| format!("{name} = excluded.{name}"));
    // PostgreSQL returns no system column of a partitioned table.
    let is_new = if write.table.is_partitioned() { "false" } else { "xmax OPERATOR(pg_catalog.=) 0" };
    format!(
        "WITH written AS (INSERT INTO {} AS t ({}) SELECT {} FROM {} ON CONFLICT ({target}) DO UPDATE SET {} \
         WHERE t.\"{version}\" IS NULL OR t.\"{version}\" COLLATE pg_catalog.\"C\" \
         OPERATOR(pg_catalog.<) excluded.\"{version}\" COLLATE pg_catalog.\"C\" \
         RETURNING {is_new} AS is_new) \
         SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE is_new) FROM written",
        write.table.name,
        names.join(", "),
        values.collect::<Vec<_>>().join(", "),
        source.from,
        set.collect::<Vec<_>>().join(", "),
    )
}

/// Deletes rows by key.
pub fn delete(write: &TableWrite) -> String {
    format!(
        "DELETE FROM {} t USING {} AS u ({}) WHERE {}",
        write.table.name,
        unnest(1, write.key_column_count),
        aliases(write.key_column_count),
        key_condition(write, aliased),
    )
}

/// The rows of `source` that are missing from the table or differ: the key, whether the row is missing, and the columns
/// that differ.
pub fn select_differences(write: &TableWrite, source: &RowSource) -> String {
    let differs: Vec<(String, String)> = columns(write)
        .skip(write.key_column_count)
        .map(|column| {
            let (stored, expected) = (format!("t.{}", column.name), source.value(column));
            let differs = is_distinct(stored, expected, column);
            (format!("CASE WHEN {differs} THEN {} END", quote_literal(column.name.as_str())), differs)
        })
        .collect();
    let key: Vec<String> =
        columns(write).take(write.key_column_count).map(|column| format!("{}::{TEXT}", source.value(column))).collect();
    let first = columns(write).next().map(|column| column.name.to_string()).unwrap_or_default();
    let names = differs.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", ");
    let any: String = differs.iter().map(|(_, differs)| format!(" OR {differs}")).collect();
    format!(
        "SELECT pg_catalog.concat_ws(', ', {}), t.{first} IS NULL, \
         pg_catalog.array_remove(ARRAY[{names}]::{TEXT}[], NULL) FROM {} \
         LEFT JOIN {} t ON {} WHERE t.{first} IS NULL{any}",
        key.join(", "),
        source.from,
        write.table.name,
        key_condition(write, |_, column| source.value(column)),
    )
}

/// Whether two values differ; two nulls do not. `IS DISTINCT FROM` would look `=` up in the search path.
fn is_distinct(stored: String, expected: String, column: &DbColumn) -> String {
    // `json` has no equality operator.
    let (stored, expected) = if column.column_type == ColumnType::Json {
        (format!("{stored}::{TEXT}"), format!("{expected}::{TEXT}"))
    } else {
        (stored, expected)
    };
    let equal = operator("=", column);
    format!(
        "NOT coalesce({stored} {equal} {expected}, \
         pg_catalog.num_nulls({stored}, {expected}) OPERATOR(pg_catalog.=) 2)"
    )
}

/// Keys as texts, in order, up to a limit; with `after`, only those that follow the key in the parameters.
pub fn select_keys(write: &TableWrite, after: bool, limit: i64) -> String {
    let names: Vec<String> =
        columns(write).take(write.key_column_count).map(|column| column.name.to_string()).collect();
    let selected = columns(write).take(write.key_column_count).map(|column| {
        let name = &column.name;
        let bytes = format!("pg_catalog.translate(pg_catalog.encode({name}, 'base64'), E'\\n', '')");
        if column.column_type == ColumnType::Bytea { bytes } else { format!("{name}::{TEXT}") }
    });
    let after_values = columns(write).take(write.key_column_count).zip(1..).map(|(column, number)| {
        let bytes = format!("pg_catalog.decode(${number}, 'base64')");
        if column.column_type == ColumnType::Bytea { bytes } else { format!("${number}::{}", column.cast_type) }
    });
    let after_values: Vec<String> = after_values.collect();
    let not_deleted = write.table.column_index(DELETED_AT).map(|_| format!("\"{DELETED_AT}\" IS NULL"));
    let condition_after = after.then(|| follows(write, &names, &after_values));
    let conditions: Vec<String> = not_deleted.into_iter().chain(condition_after).collect();
    let filter = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    format!(
        "SELECT {} FROM {} {filter} ORDER BY {} LIMIT {limit}",
        selected.collect::<Vec<_>>().join(", "),
        write.table.name,
        names.join(", "),
    )
}

/// Whether a key follows another one, in the order of an index on the key.
fn follows(write: &TableWrite, names: &[String], after: &[String]) -> String {
    let columns: Vec<&DbColumn> = columns(write).take(write.key_column_count).collect();
    // PostgreSQL searches an index with a comparison of rows, which has one operator for all columns.
    if columns.iter().all(|column| column.operator_schema == columns[0].operator_schema) {
        return format!("({}) {} ({})", names.join(", "), operator(">", columns[0]), after.join(", "));
    }
    let alternative = |last: usize| {
        let comparison = |index: usize| {
            let symbol = if index == last { ">" } else { "=" };
            format!("{} {} {}", names[index], operator(symbol, columns[index]), after[index])
        };
        (0..=last).map(comparison).collect::<Vec<_>>().join(" AND ")
    };
    format!("({})", (0..columns.len()).map(alternative).collect::<Vec<_>>().join(" OR "))
}
