//! Adds new rows to a table, with a binary COPY or, if a column's type needs a cast, with an INSERT.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;

use super::sql::{self, Array, parameters};
use super::transaction::WriteTransaction;
use super::{ApplyError, RejectedAttempt};
use crate::catalog::ColumnType;
use crate::names::TableName;
use crate::plan::{KeyChanges, TableWrite, cell};

/// The format's signature, without flags and extensions: <https://www.postgresql.org/docs/current/sql-copy.html>.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1i16).to_be_bytes();

/// With fewer rows per partition on average, one COPY into the table costs less than one into each partition.
const ROWS_PER_COPY_MIN: usize = 50;

/// The server processes one chunk while the next one is built.
const CHUNK_BYTES: usize = 128 * 1024;

/// Rows to be added to a table.
pub struct RowCopy<'w> {
    write: &'w TableWrite,
    target: &'w TableName,
    version_column: Option<&'w str>,
    format: CopyFormat,
    count: usize,
}

enum CopyFormat {
    Copy { chunks: Vec<Bytes>, chunk: BytesMut },
    Insert { arrays: Vec<Array> },
}

impl<'w> RowCopy<'w> {
    /// Starts without rows. `version_column` is the version column, whose value comes with each row; `target` is the table or
    /// one of its partitions.
    fn new(write: &'w TableWrite, version_column: Option<&'w str>, target: &'w TableName) -> Self {
        let needs_cast = sql::columns(write).any(|column| column.column_type.needs_cast());
        let format = if needs_cast {
            let version_array = version_column.map(|_| Array::for_type(ColumnType::Text { characters_max: None }));
            CopyFormat::Insert {
                arrays: sql::columns(write)
                    .map(|column| Array::for_type(column.column_type))
                    .chain(version_array)
                    .collect(),
            }
        } else {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            chunk.extend_from_slice(HEADER);
            CopyFormat::Copy { chunks: Vec::new(), chunk }
        };
        Self { write, target, version_column, format, count: 0 }
    }

    /// Appends a row from its encoded, adjacent cells.
    pub fn push_encoded_row(&mut self, cells: &[u8]) {
        self.count += 1;
        match &mut self.format {
            CopyFormat::Copy { chunks, chunk } => {
                chunk.put_i16(self.write.column_indexes.len() as i16);
                chunk.extend_from_slice(cells);
                cut_chunk(chunks, chunk);
            }
            CopyFormat::Insert { arrays } => {
                let mut rest = cells;
                for array in arrays {
                    let (cell, after) = rest.split_at(cell::length(rest));
                    array.push(cell);
                    rest = after;
                }
            }
        }
    }

    /// Appends a row from its cells and the value of the version column.
    pub fn push<'c>(&mut self, cells: impl Iterator<Item = &'c [u8]>, version: &str) {
        self.count += 1;
        match &mut self.format {
            CopyFormat::Copy { chunks, chunk } => {
                chunk.put_i16(self.write.column_indexes.len() as i16 + 1);
                cells.for_each(|cell| chunk.extend_from_slice(cell));
                cell::write_text(version, chunk);
                cut_chunk(chunks, chunk);
            }
            CopyFormat::Insert { arrays } => {
                let (last, arrays) = arrays.split_last_mut().unzip();
                arrays.into_iter().flatten().zip(cells).for_each(|(array, cell)| array.push(cell));
                last.into_iter().for_each(|array: &mut Array| array.push_text(version));
            }
        }
    }

    /// Writes the rows and returns their number. If PostgreSQL rejects them, the error names the row that probably
    /// caused it.
    async fn write(self, transaction: &WriteTransaction<'_>) -> Result<u64, RejectedAttempt> {
        if self.count == 0 {
            return Ok(0);
        }
        match self.format {
            CopyFormat::Copy { mut chunks, mut chunk } => {
                chunk.extend_from_slice(&TRAILER);
                chunks.push(chunk.freeze());
                let statement = sql::copy(self.write, self.version_column, self.target);
                copy(transaction, &statement, chunks).await
            }
            CopyFormat::Insert { arrays } => {
                let arrays: Vec<Array> = arrays.into_iter().map(Array::with_length).collect();
                let statement = sql::insert(self.write, self.version_column, self.target);
                Ok(transaction
                    .client
                    .execute_typed(&statement, &parameters(&arrays))
                    .await
                    .map_err(ApplyError::from)?)
            }
        }
    }
}

/// Copies rows, given by their index, and returns their number. Rows of a partition are copied straight into it, if there are
/// enough of them: through a partitioned table, a statement trigger that reads new rows makes PostgreSQL insert them one by one.
/// If PostgreSQL rejects the rows, the error names the row that probably caused it.
pub async fn copy_rows<'w>(
    transaction: &WriteTransaction<'_>,
    write: &'w TableWrite,
    version_column: Option<&'w str>,
    rows: impl Iterator<Item = (usize, &KeyChanges)>,
    push: impl Fn(&mut RowCopy<'w>, usize),
) -> Result<u64, RejectedAttempt> {
    let mut by_partition: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows {
        by_partition.entry(row.partition).or_default().push(index);
    }
    let count: usize = by_partition.values().map(Vec::len).sum();
    let is_direct = by_partition.len() * ROWS_PER_COPY_MIN <= count.max(ROWS_PER_COPY_MIN)
        && by_partition.keys().all(|&partition| write.direct_partition(partition).is_some());
    if !is_direct {
        by_partition = BTreeMap::from([(usize::MAX, by_partition.into_values().flatten().collect())]);
    }
    let mut copied = 0;
    for (partition, rows) in by_partition {
        let target = write.direct_partition(partition).map_or(&write.table.name, |partition| &partition.name);
        let mut copy = RowCopy::new(write, version_column, target);
        rows.iter().for_each(|&index| push(&mut copy, index));
        let with_row_index = |rejected: RejectedAttempt| RejectedAttempt {
            row: rejected.row.and_then(|line| rows.get(line).copied()),
            ..rejected
        };
        copied += copy.write(transaction).await.map_err(with_row_index)?;
    }
    Ok(copied)
}

fn cut_chunk(chunks: &mut Vec<Bytes>, chunk: &mut BytesMut) {
    if chunk.len() >= CHUNK_BYTES - CHUNK_BYTES / 8 {
        chunks.push(std::mem::replace(chunk, BytesMut::with_capacity(CHUNK_BYTES)).freeze());
    }
}

async fn copy(transaction: &WriteTransaction<'_>, statement: &str, chunks: Vec<Bytes>) -> Result<u64, RejectedAttempt> {
    let sink = transaction.client.copy_in(statement).await.map_err(|error| {
        transaction.mark_out_of_step();
        ApplyError::CopyNotBegun(error)
    })?;
    let mut sink = std::pin::pin!(sink);
    let copying = async {
        for chunk in chunks {
            sink.send(chunk).await?;
        }
        sink.finish().await
    };
    copying.await.map_err(|error| RejectedAttempt { row: failed_line(&error), error: error.into() })
}

/// PostgreSQL's context names the row: `COPY bet, line 37, column stake`. This is only a hint: a row is rejected only
/// after it was tried alone.
fn failed_line(error: &tokio_postgres::Error) -> Option<usize> {
    let context = error.as_db_error()?.where_()?;
    let number = context.strip_prefix("COPY ")?.split(", line ").nth(1)?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).map_or(number, |end| &number[..end]);
    digits.parse::<usize>().ok()?.checked_sub(1)
}
