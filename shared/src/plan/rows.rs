//! One table's rows, in the form in which they are written: encoded, sorted by partition and key, one row a key.

mod encode;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::DbTable;
use crate::change::{Operation, Version};
use crate::spec::{DeleteMode, MissingColumns, TableSpec, WriteMode};
pub use encode::encode;

/// What is written to one table.
#[derive(Debug)]
pub struct TableWrite {
    /// The table, as the catalog has it.
    pub table: Arc<DbTable>,
    /// What a second change of a key does.
    pub write_mode: WriteMode,
    /// What becomes of a row whose source is deleted.
    pub deletes: DeleteMode,
    /// What a column takes that a change does not carry.
    pub absent: MissingColumns,
    /// The columns written, as places in `table.columns`. The key's come first.
    pub columns: Vec<usize>,
    /// How many columns make the key.
    pub key: usize,
    /// The rows, sorted by partition and key: every writer takes its locks in this order.
    pub rows: Vec<KeyChanges>,
    /// The changes behind the rows.
    pub changes: Vec<RowChange>,
    /// Of changes, the fields that had not changed and have no column yet, by their paths.
    unchanged_paths: BTreeMap<usize, Vec<String>>,
    cells: Vec<u8>,
    /// For each member, where each of its cells begins, and where the last one ends.
    bounds: Vec<u32>,
}

/// One key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyChanges {
    /// The partition, by its place in the table.
    pub partition: usize,
    /// The changes of this key, in [`TableWrite::members`], the newest last.
    pub changes: Range<usize>,
}

/// One change of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowChange {
    /// The record that says it.
    pub record: usize,
    /// What it does to the row.
    pub operation: Operation,
    /// Its version, for entities.
    pub version: Option<Version>,
    encoded: usize,
}

impl TableWrite {
    /// The cell of a member; empty where the change does not carry the column.
    pub fn cell(&self, member: &RowChange, column: usize) -> &[u8] {
        self.cells(member, column..column + 1)
    }

    /// Several cells of a member, one after the other.
    pub fn cells(&self, member: &RowChange, columns: Range<usize>) -> &[u8] {
        let first = member.encoded * (self.columns.len() + 1);
        &self.cells[self.bounds[first + columns.start] as usize..self.bounds[first + columns.end] as usize]
    }

    /// A row's newest change.
    pub fn newest(&self, row: &KeyChanges) -> &RowChange {
        &self.changes[row.changes.end - 1]
    }

    /// The cells of a row's newest change, in the order of the columns.
    pub fn newest_cells(&self, row: &KeyChanges) -> impl Iterator<Item = &[u8]> {
        let newest = self.newest(row);
        (0..self.columns.len()).map(move |column| self.cell(newest, column))
    }

    /// No rows, of a table whose keys are asked for.
    pub fn for_key_query(table: Arc<DbTable>, spec: &TableSpec) -> Self {
        let columns: Vec<usize> = spec.key_columns().filter_map(|c| table.column_index(c.name.as_str())).collect();
        Self { key: columns.len(), columns, ..Self::empty(table, spec) }
    }

    fn empty(table: Arc<DbTable>, spec: &TableSpec) -> Self {
        Self {
            table,
            write_mode: spec.write_mode,
            deletes: spec.deletes,
            absent: spec.missing_columns,
            columns: Vec::new(),
            key: 0,
            rows: Vec::new(),
            changes: Vec::new(),
            unchanged_paths: BTreeMap::new(),
            cells: Vec::new(),
            bounds: Vec::new(),
        }
    }

    /// The paths of a member's fields that had not changed and have no column yet.
    pub fn unchanged_paths(&self, member: &RowChange) -> &[String] {
        self.unchanged_paths.get(&member.encoded).map_or(&[], Vec::as_slice)
    }

    /// Whether no other writer may be at work on the table: rows are deleted, and a row that holds a key's place until the
    /// delete is done might be refused, for it is made of the key alone.
    pub fn needs_exclusive_lock(&self) -> bool {
        let key = &self.columns[..self.key];
        let mut others = self.table.columns.iter().enumerate().filter(|(position, _)| !key.contains(position));
        let guarded = self.table.has_check || others.any(|(_, column)| column.may_reject_null);
        guarded
            && self.deletes == DeleteMode::Hard
            && self.changes.iter().any(|member| member.operation == Operation::Delete)
    }

    /// The cells of a member's key, one after the other.
    pub fn key_cells(&self, member: &RowChange) -> &[u8] {
        self.cells(member, 0..self.key)
    }

    /// How many changes are encoded whole: each has a bound before each of its cells, and one behind the last.
    fn encoded_count(&self) -> usize {
        self.bounds.len() / (self.columns.len() + 1)
    }

    fn key(&self, encoded: usize) -> &[u8] {
        self.key_cells(&RowChange { record: 0, operation: Operation::Put, version: None, encoded })
    }
}

/// Changes of one table in the form in which they are written, in the order in which they came.
#[derive(Debug)]
pub struct EncodedChanges {
    write: TableWrite,
    entries: Vec<EncodedChange>,
}

/// A change that is encoded.
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

    /// How many changes there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Puts the changes behind those of the same table and columns, where the list has them.
    pub fn append_to(self, list: &mut Vec<Self>) {
        let same = |before: &&mut Self| {
            Arc::ptr_eq(&before.write.table, &self.write.table) && before.write.columns == self.write.columns
        };
        let Some(before) = list.iter_mut().find(same) else { return list.push(self) };
        let (write, next) = (&mut before.write, self.write);
        let (count, end) = (write.encoded_count(), write.cells.len() as u32);
        write.unchanged_paths.extend(next.unchanged_paths.into_iter().map(|(encoded, paths)| (encoded + count, paths)));
        write.bounds.extend(next.bounds.iter().map(|bound| bound + end));
        write.cells.extend_from_slice(&next.cells);
        before.entries.extend(self.entries);
    }

    /// Sorts by partition, key and version, and brings the changes of a key together; records with a row of an event table
    /// that another record already holds are told.
    pub fn fold_by_key(self, repeated: &mut Vec<usize>) -> TableWrite {
        let Self { mut write, entries } = self;
        let mut order: Vec<(usize, u128, usize)> = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.partition, prefix(write.key(index)), index))
            .collect();
        let events = write.write_mode == WriteMode::Append;
        order.sort_unstable_by(|a, b| {
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| write.key(a.2).cmp(write.key(b.2))).then_with(|| {
                // Of events the first stays; of entities the newest comes last, and of the same change twice the first.
                let by_version = entries[a.2].version.cmp(&entries[b.2].version);
                by_version.then(if events { a.2.cmp(&b.2) } else { b.2.cmp(&a.2) })
            })
        });
        let mut previous: Option<(usize, usize)> = None;
        for (partition, _, index) in order {
            let EncodedChange { record, operation, version, .. } = entries[index];
            let member = RowChange { record, operation, version, encoded: index };
            let same = previous.is_some_and(|(p, i)| p == partition && write.key(i) == write.key(index));
            previous = Some((partition, index));
            match write.rows.last_mut().filter(|_| same) {
                Some(_) if events => repeated.push(member.record),
                Some(row) => {
                    row.changes.end += 1;
                    write.changes.push(member);
                }
                None => {
                    write.rows.push(KeyChanges { partition, changes: write.changes.len()..write.changes.len() + 1 });
                    write.changes.push(member);
                }
            }
        }
        write
    }
}

/// The first bytes of a key's content: most comparisons end there.
fn prefix(key: &[u8]) -> u128 {
    let content = key.get(4..).unwrap_or_default();
    let mut bytes = [0; 16];
    let length = content.len().min(bytes.len());
    bytes[..length].copy_from_slice(&content[..length]);
    u128::from_be_bytes(bytes)
}
