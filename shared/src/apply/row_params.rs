//! Rows as parameters of a statement: whole, as one array of the table's row type, or else one array a column.
//!
//! One array costs PostgreSQL half of what twenty cost. It cannot be had where a column's type is one that the writer
//! knows only as text; then each column is an array of its own, and is cast.

use bytes::{BufMut, BytesMut};

use super::sql::{self, Array, RowSource};
use crate::catalog::{ColumnType, DbColumn};
use crate::plan::{TableWrite, cell};

const TEXT: ColumnType = ColumnType::Text { characters_max: None };

/// Rows on their way into a statement.
pub struct RowParams<'w> {
    write: &'w TableWrite,
    version: &'w str,
    form: ParamForm,
    /// Columns beside the table's: their names and values.
    extra: Vec<(String, Array)>,
    /// How many rows there are.
    pub count: usize,
}

enum ParamForm {
    Whole { rows: Array, row: BytesMut, layout: Vec<(u32, RowCell)> },
    Columns(Vec<Array>),
}

/// Where a column of a whole row comes from.
#[derive(Clone, Copy)]
enum RowCell {
    /// The column written at this place.
    Written(usize),
    /// The version column.
    Version,
    /// It is not written.
    Nothing,
}

impl<'w> RowParams<'w> {
    /// No rows yet; `version` is the version column, `extra` the names and kinds of further columns.
    pub fn new(write: &'w TableWrite, version: &'w str, extra: Vec<(String, ColumnType)>) -> Self {
        // A domain may refuse the NULL that would stand in a whole row for a column that is not written.
        let refuses = |(position, column): (usize, &DbColumn)| {
            column.may_reject_null && !column.required && !write.columns.contains(&position)
        };
        let refused = write.table.columns.iter().enumerate().any(refuses);
        let form = if refused || sql::columns(write).any(|column| column.kind.needs_cast()) {
            ParamForm::Columns(
                sql::columns(write).map(|column| column.kind).chain([TEXT]).map(Array::for_type).collect(),
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

    /// Appends a row: its cells, its version, and its values of the further columns.
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
                for (type_oid, origin) in layout {
                    row.put_u32(*type_oid);
                    match origin {
                        RowCell::Written(place) => row.extend_from_slice(cells.get(*place).unwrap_or(&&cell::NULL[..])),
                        RowCell::Version => cell::write_text(version, row),
                        RowCell::Nothing => row.extend_from_slice(&cell::NULL),
                    }
                }
                rows.push_row(row);
            }
        }
        self.extra.iter_mut().zip(extra).for_each(|((_, array), cell)| array.push(cell));
    }

    /// The rows as a statement takes them.
    pub fn source(&self) -> RowSource {
        let extra = self.extra.iter().map(|(name, _)| format!("\"{name}\""));
        let (names, count): (Vec<String>, usize) = match &self.form {
            // A row's columns go by the names of the table's.
            ParamForm::Whole { .. } => {
                (self.write.table.columns.iter().map(|column| column.name.to_string()).collect(), 1)
            }
            ParamForm::Columns(arrays) => {
                let own = format!("\"{}\"", self.version);
                let names = sql::columns(self.write).map(|column| column.name.to_string()).chain([own]);
                (names.collect(), arrays.len())
            }
        };
        let names: Vec<String> = names.into_iter().chain(extra).collect();
        let parameters = sql::placeholders(1, count + self.extra.len());
        RowSource {
            from: format!("unnest({parameters}) AS u ({})", names.join(", ")),
            as_text: matches!(self.form, ParamForm::Columns(_)),
        }
    }

    /// The parameters of the statement, to be lent to [`statement::parameters`].
    pub fn arrays(self) -> Vec<Array> {
        let columns = match self.form {
            ParamForm::Whole { rows, .. } => vec![rows],
            ParamForm::Columns(arrays) => arrays,
        };
        columns.into_iter().chain(self.extra.into_iter().map(|(_, array)| array)).map(Array::with_length).collect()
    }
}

/// For each column of the table, in the order of its row type: the type's number, and where the value comes from.
fn layout(write: &TableWrite, version: &str) -> Vec<(u32, RowCell)> {
    let origin = |position: usize| match write.columns.iter().position(|&written| written == position) {
        Some(place) => RowCell::Written(place),
        None if write.table.columns[position].name.as_str() == version => RowCell::Version,
        None => RowCell::Nothing,
    };
    let columns = write.table.columns.iter().enumerate();
    columns.map(|(position, column)| (column.type_oid, origin(position))).collect()
}
