//! Rows as parameters of a statement: whole rows in one array of the table's row type, or one array per column.
//!
//! One array costs PostgreSQL half as much as twenty. It is not possible if the writer knows a column's type only as
//! text; then each column is an array that is cast.

use bytes::{BufMut, BytesMut};

use super::sql::{self, Array, RowSource};
use crate::catalog::{ColumnType, DbColumn};
use crate::plan::{TableWrite, cell};

const TEXT: ColumnType = ColumnType::Text { characters_max: None };

/// Rows that become parameters of a statement.
pub struct RowParams<'w> {
    write: &'w TableWrite,
    version: &'w str,
    form: ParamForm,
    /// Additional columns: their names and values.
    extra: Vec<(String, Array)>,
    /// The number of rows.
    pub count: usize,
}

enum ParamForm {
    Whole { rows: Array, row: BytesMut, layout: Vec<(u32, RowCell)> },
    Columns(Vec<Array>),
}

/// The source of a cell of a whole row.
#[derive(Clone, Copy)]
enum RowCell {
    /// The written column at this index.
    Written(usize),
    /// The version column.
    Version,
    /// The column is not written.
    NotWritten,
}

impl<'w> RowParams<'w> {
    /// Starts without rows; `version` is the version column, `extra` the names and types of additional columns.
    pub fn new(write: &'w TableWrite, version: &'w str, extra: Vec<(String, ColumnType)>) -> Self {
        // A domain may reject the NULL that a whole row contains for a column that is not written.
        let may_reject = |(position, column): (usize, &DbColumn)| {
            column.may_reject_null && !column.required && !write.column_indexes.contains(&position)
        };
        let rejects_null = write.table.columns.iter().enumerate().any(may_reject);
        let form = if rejects_null || sql::columns(write).any(|column| column.column_type.needs_cast()) {
            ParamForm::Columns(
                sql::columns(write).map(|column| column.column_type).chain([TEXT]).map(Array::for_type).collect(),
            )
        } else {
            ParamForm::Whole {
                rows: Array::for_rows(write.table.row_type),
                row: BytesMut::new(),
                layout: layout(write, version),
            }
        };
        let extra = extra.into_iter().map(|(name, kind)| (name, Array::for_type(kind))).collect();
        Self { write, version, form, extra, count: 0 }
    }

    /// Appends a row: its cells, its version, and its values of the additional columns.
    pub fn push<'c>(&mut self, cells: impl Iterator<Item = &'c [u8]>, version: &str, extra: &[&[u8]]) {
        self.count += 1;
        match &mut self.form {
            ParamForm::Columns(arrays) => {
                let (last, arrays) = arrays.split_last_mut().unzip();
                arrays.into_iter().flatten().zip(cells).for_each(|(array, cell)| array.push(cell));
                last.into_iter().for_each(|array: &mut Array| array.push_text(version));
            }
            ParamForm::Whole { rows, row, layout } => {
                let cells: Vec<&[u8]> = cells.collect();
                row.clear();
                row.put_i32(layout.len() as i32);
                for (type_oid, source) in layout {
                    row.put_u32(*type_oid);
                    match source {
                        RowCell::Written(index) => row.extend_from_slice(cells.get(*index).unwrap_or(&&cell::NULL[..])),
                        RowCell::Version => cell::write_text(version, row),
                        RowCell::NotWritten => row.extend_from_slice(&cell::NULL),
                    }
                }
                rows.push_row(row);
            }
        }
        self.extra.iter_mut().zip(extra).for_each(|((_, array), cell)| array.push(cell));
    }

    /// The rows as the source of a statement.
    pub fn source(&self) -> RowSource {
        let extra = self.extra.iter().map(|(name, _)| format!("\"{name}\""));
        let (names, count): (Vec<String>, usize) = match &self.form {
            // The columns of a row have the table's names.
            ParamForm::Whole { .. } => {
                (self.write.table.columns.iter().map(|column| column.name.to_string()).collect(), 1)
            }
            ParamForm::Columns(arrays) => {
                let version = format!("\"{}\"", self.version);
                let names = sql::columns(self.write).map(|column| column.name.to_string()).chain([version]);
                (names.collect(), arrays.len())
            }
        };
        let names: Vec<String> = names.into_iter().chain(extra).collect();
        RowSource {
            from: format!("{} AS u ({})", sql::unnest(1, count + self.extra.len()), names.join(", ")),
            as_text: matches!(self.form, ParamForm::Columns(_)),
        }
    }

    /// The parameters of the statement, for [`sql::parameters`].
    pub fn arrays(self) -> Vec<Array> {
        let columns = match self.form {
            ParamForm::Whole { rows, .. } => vec![rows],
            ParamForm::Columns(arrays) => arrays,
        };
        columns.into_iter().chain(self.extra.into_iter().map(|(_, array)| array)).map(Array::with_length).collect()
    }
}

/// For each column of the table, in the order of its row type: the OID of its type and the source of its value.
fn layout(write: &TableWrite, version: &str) -> Vec<(u32, RowCell)> {
    let source = |position: usize| match write.column_indexes.iter().position(|&written| written == position) {
        Some(index) => RowCell::Written(index),
        None if write.table.columns[position].name.as_str() == version => RowCell::Version,
        None => RowCell::NotWritten,
    };
    let columns = write.table.columns.iter().enumerate();
    columns.map(|(position, column)| (column.type_oid, source(position))).collect()
}
