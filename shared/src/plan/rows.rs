//! One table's rows in the form in which they are written: encoded, sorted by partition and key, one row per key.

mod encode;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{DbPartition, DbTable};
use crate::change::{Operation, Version};
use crate::spec::{DeleteMode, MissingColumns, OnUnwritable, TableSpec, WriteMode};
pub use encode::encode;

/// What is written to one table.
#[derive(Debug)]
pub struct TableWrite {
    /// The table, as the catalog has it.
    pub table: Arc<DbTable>,
    /// What a second change of a key does.
    pub write_mode: WriteMode,
    /// What happens to a row that is deleted at its source.
    pub deletes: DeleteMode,
    /// What happens to a column that a change does not carry.
    pub missing_columns: MissingColumns,
    /// What happens to the records if the table cannot be written.
    pub on_unwritable: OnUnwritable,
    /// The written columns, as indexes into `table.columns`. The key's come first.
    pub column_indexes: Vec<usize>,
    /// The number of key columns.
    pub key_column_count: usize,
    /// The rows, sorted by partition and key: every writer locks rows in this order.
    pub rows: Vec<KeyChanges>,
    /// The changes of the rows.
    pub changes: Vec<RowChange>,
    /// For each encoded change, the paths of fields that had not changed and have no column yet.
    unchanged_paths: BTreeMap<usize, Vec<String>>,
    cells: Vec<u8>,
    /// For each encoded change, where each of its cells begins, and where the last one ends.
    bounds: Vec<u32>,
}

/// One key and its changes.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyChanges {
    /// The partition, as an index into the partitions of the table.
    pub partition: usize,
    /// The changes of this key in [`TableWrite::changes`], the newest last.
    pub changes: Range<usize>,
}

/// One change of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowChange {
    /// The record that the change comes from.
    pub record: usize,
    /// What it does to the row.
    pub operation: Operation,
    /// Its version, for entities.
    pub version: Option<Version>,
    encoded: usize,
}

impl TableWrite {
    /// The cell of a change; empty if the change does not carry the column.
    pub fn cell(&self, change: &RowChange, column: usize) -> &[u8] {
        self.cells(change, column..column + 1)
    }

    /// Adjacent cells of a change.
    pub fn cells(&self, change: &RowChange, columns: Range<usize>) -> &[u8] {
        let first = change.encoded * (self.column_indexes.len() + 1);
        &self.cells[self.bounds[first + columns.start] as usize..self.bounds[first + columns.end] as usize]
    }

    /// A row's newest change.
    pub fn newest(&self, row: &KeyChanges) -> &RowChange {
        &self.changes[row.changes.end - 1]
    }

    /// The cells of a row's newest change, in the order of the columns.
    pub fn newest_cells(&self, row: &KeyChanges) -> impl Iterator<Item = &[u8]> {
        let newest = self.newest(row);
        (0..self.column_indexes.len()).map(move |column| self.cell(newest, column))
    }

    /// The partition, if rows may be copied straight into it.
    pub fn direct_partition(&self, partition: usize) -> Option<&DbPartition> {
        self.table.partitions.get(partition).filter(|partition| partition.accepts_copies)
    }

    /// The partitions of the rows that may be copied straight into them, by OID.
    pub fn direct_partitions(&self) -> BTreeMap<u32, &DbPartition> {
        let partitions = self.rows.iter().filter_map(|row| self.direct_partition(row.partition));
        partitions.map(|partition| (partition.oid, partition)).collect()
    }

    /// A write without rows, for a query of the keys of a table.
    pub fn for_key_query(table: Arc<DbTable>, spec: &TableSpec) -> Self {
        let column_indexes: Vec<usize> =
            spec.key_columns().filter_map(|c| table.column_index(c.name.as_str())).collect();
        Self { key_column_count: column_indexes.len(), column_indexes, ..Self::empty(table, spec) }
    }

    fn empty(table: Arc<DbTable>, spec: &TableSpec) -> Self {
        Self {
            table,
            write_mode: spec.write_mode,
            deletes: spec.deletes,
            missing_columns: spec.missing_columns,
            on_unwritable: spec.on_unwritable,
            column_indexes: Vec::new(),
            key_column_count: 0,
            rows: Vec::new(),
            changes: Vec::new(),
            unchanged_paths: BTreeMap::new(),
            cells: Vec::new(),
            bounds: Vec::new(),
        }
    }

    /// The paths of a change's fields that had not changed and have no column yet.
    pub fn unchanged_paths(&self, change: &RowChange) -> &[String] {
        self.unchanged_paths.get(&change.encoded).map_or(&[], Vec::as_slice)
    }

    /// Whether other writers must be locked out of the table. This is the case if rows are deleted and the table may reject
    /// the placeholder row that locks a key until the delete is done, as it consists of the key alone.
    pub fn needs_exclusive_lock(&self) -> bool {
        let key = &self.column_indexes[..self.key_column_count];
        let mut others = self.table.columns.iter().enumerate().filter(|(index, _)| !key.contains(index));
        let may_reject_placeholder = self.table.has_check || others.any(|(_, column)| column.may_reject_null);
        may_reject_placeholder
            && self.deletes == DeleteMode::Hard
            && self.changes.iter().any(|change| change.operation == Operation::Delete)
    }

    /// The key cells of a change.
    pub fn key_cells(&self, change: &RowChange) -> &[u8] {
        self.cells(change, 0..self.key_column_count)
    }

    /// The number of completely encoded changes: each has a bound before each of its cells, and one after the last.
    fn encoded_count(&self) -> usize {
        self.bounds.len() / (self.column_indexes.len() + 1)
    }

    fn encoded_key(&self, encoded: usize) -> &[u8] {
        self.key_cells(&RowChange { record: 0, operation: Operation::Put, version: None, encoded })
    }
}

/// Encoded changes of one table, in order of arrival.
#[derive(Debug)]
pub struct EncodedChanges {
    write: TableWrite,
    entries: Vec<EncodedChange>,
}

/// An encoded change; its cells are in the write, at the same index.
#[derive(Clone, Copy, Debug)]
struct EncodedChange {
    partition: usize,
    record: usize,
    operation: Operation,
    version: Option<Version>,
}

impl EncodedChanges {
    /// The table.
    pub fn table(&self) -> &DbTable {
        &self.write.table
    }

    /// What a second change of a key does.
    pub fn write_mode(&self) -> WriteMode {
        self.write.write_mode
    }

    /// The number of changes.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of their cells.
    pub fn bytes(&self) -> usize {
        self.write.cells.len()
    }

    /// Appends the changes to those of the same table and columns in the list, or to the list itself if there are none.
    pub fn append_to(self, list: &mut Vec<Self>) {
        let same_columns = |target: &&mut Self| {
            Arc::ptr_eq(&target.write.table, &self.write.table)
                && target.write.column_indexes == self.write.column_indexes
        };
        let Some(target) = list.iter_mut().find(same_columns) else { return list.push(self) };
        let (write, next) = (&mut target.write, self.write);
        let (count, end) = (write.encoded_count(), write.cells.len() as u32);
        write.unchanged_paths.extend(next.unchanged_paths.into_iter().map(|(encoded, paths)| (encoded + count, paths)));
        write.bounds.extend(next.bounds.iter().map(|bound| bound + end));
        write.cells.extend_from_slice(&next.cells);
        target.entries.extend(self.entries);
    }

    /// Sorts by partition, key and version, and groups the changes by key. `repeated` receives the records whose event row
    /// another record already holds.
    pub fn fold_by_key(self, repeated: &mut Vec<usize>) -> TableWrite {
        let Self { mut write, entries } = self;
        let mut order: Vec<(usize, u128, usize)> = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.partition, prefix(write.encoded_key(index)), index))
            .collect();
        let is_append = write.write_mode == WriteMode::Append;
        order.sort_unstable_by(|a, b| {
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| write.encoded_key(a.2).cmp(write.encoded_key(b.2))).then_with(
                || {
                    // Of equal events the first is kept. Of entities the newest change comes last; of equal versions, the first.
                    let by_version = entries[a.2].version.cmp(&entries[b.2].version);
                    by_version.then(if is_append { a.2.cmp(&b.2) } else { b.2.cmp(&a.2) })
                },
            )
        });
        let mut previous: Option<(usize, usize)> = None;
        for (partition, _, index) in order {
            let EncodedChange { record, operation, version, .. } = entries[index];
            let change = RowChange { record, operation, version, encoded: index };
            let same_key =
                previous.is_some_and(|(p, i)| p == partition && write.encoded_key(i) == write.encoded_key(index));
            previous = Some((partition, index));
            match write.rows.last_mut().filter(|_| same_key) {
                Some(_) if is_append => repeated.push(change.record),
                Some(row) => {
                    row.changes.end += 1;
                    write.changes.push(change);
                }
                None => {
                    write.rows.push(KeyChanges { partition, changes: write.changes.len()..write.changes.len() + 1 });
                    write.changes.push(change);
                }
            }
        }
        write
    }
}

/// The first bytes of a key's content, which decide most comparisons.
fn prefix(key: &[u8]) -> u128 {
    let content = key.get(4..).unwrap_or_default();
    let mut bytes = [0; 16];
    let length = content.len().min(bytes.len());
    bytes[..length].copy_from_slice(&content[..length]);
    u128::from_be_bytes(bytes)
}
