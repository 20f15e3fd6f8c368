//! Encodes values as the cells of their columns. A value that does not fit becomes a rejection or overflow.

use std::sync::Arc;

use super::super::table_planner::{FieldRoute, PlannedChange, TablePlanner};
use super::super::{PartialPlan, cell};
use super::{EncodedChange, EncodedChanges, TableWrite};
use crate::catalog::DbTable;
use crate::change::{Change, Changes, Operation, Value};
use crate::field::FieldId;
use crate::rejection::{Mismatch, RejectionReason};
use crate::spec::{DeleteMode, MergeBy, MissingColumns, OVERFLOW, OnMismatch, WriteMode};

/// The number of bytes reserved per cell: its length and a short content.
const CELL_BYTES: usize = 8;

/// Encodes the planned changes. Changes that do not fit their columns are rejected in the partial plan.
pub fn encode(
    planner: &TablePlanner<'_>,
    planned: &[PlannedChange],
    changes: &Changes<'_>,
    partial_plan: &mut PartialPlan,
) {
    let Some(table) = planner.existing_table() else { return };
    let mut encoder = Encoder::new(planner, table);
    let cells = planned.len() * encoder.write.column_indexes.len();
    encoder.write.bounds.reserve(cells + planned.len());
    encoder.write.cells.reserve(cells * CELL_BYTES);
    let mut entries = Vec::with_capacity(planned.len());
    for planned_change in planned {
        let Change { record, operation, version, .. } = changes.list[planned_change.change];
        match encoder.change(operation, &changes.values[changes.list[planned_change.change].values.clone()]) {
            Ok(()) => entries.push(EncodedChange { partition: planned_change.partition, record, operation, version }),
            Err(reason) => partial_plan.rejected.push((record, planner.rejection(reason))),
        }
    }
    if encoder.needs_overflow_column {
        partial_plan.diffs.push(planner.overflow_column_diff());
    }
    if !entries.is_empty() {
        partial_plan.encoded.push(EncodedChanges { write: encoder.write, entries });
    }
}

struct Encoder<'s, 'v> {
    planner: &'s TablePlanner<'s>,
    write: TableWrite,
    /// For each column of the table, its index among the written columns.
    written_index_of: Vec<Option<usize>>,
    overflow: Option<usize>,
    /// Whether a column that a change does not carry keeps its value.
    keeps_missing: bool,
    needs_overflow_column: bool,
    /// One change's values, by the index of their written column; reused for the next change.
    values: Vec<Option<(FieldId, &'v Value<'v>, OnMismatch)>>,
    overflowing: Vec<(FieldId, &'v Value<'v>)>,
}

impl<'s, 'v> Encoder<'s, 'v> {
    fn new(planner: &'s TablePlanner<'s>, table: &Arc<DbTable>) -> Self {
        let spec = planner.spec;
        let mut columns: Vec<usize> = spec.key_columns().filter_map(|c| table.column_index(c.name.as_str())).collect();
        let key = columns.len();
        let routed = planner.routes.iter().filter_map(|route| match route {
            FieldRoute::Column(column_index, _) => Some(*column_index),
            FieldRoute::Unresolved
            | FieldRoute::Ignored
            | FieldRoute::NewColumn(_)
            | FieldRoute::Overflow
            | FieldRoute::Rejected => None,
        });
        let whole_row = spec.write_mode != WriteMode::Append && spec.missing_columns == MissingColumns::SetNull;
        let source_columns = (0..table.columns.len()).filter(|&column_index| {
            let column = &table.columns[column_index];
            let declared = spec.columns.iter().any(|c| c.name == column.name && c.field.is_some());
            whole_row && (column.source_path.is_some() || declared) && column.generated.is_none()
        });
        let mut others: Vec<usize> = routed.chain(source_columns).chain(table.column_index(OVERFLOW)).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|column_index| !columns.contains(column_index));
        columns.extend(others);
        let mut written_index_of = vec![None; table.columns.len()];
        for (written_index, &column_index) in columns.iter().enumerate() {
            written_index_of[column_index] = Some(written_index);
        }
        Self {
            planner,
            overflow: table.column_index(OVERFLOW).and_then(|column_index| written_index_of[column_index]),
            written_index_of,
            keeps_missing: spec.write_mode == WriteMode::Merge(MergeBy::Column)
                && spec.missing_columns == MissingColumns::Keep,
            needs_overflow_column: false,
            values: vec![None; columns.len()],
            overflowing: Vec::new(),
            write: TableWrite {
                column_indexes: columns,
                key_column_count: key,
                ..TableWrite::empty(table.clone(), spec)
            },
        }
    }

    /// Appends the cells of one change, or nothing if the change is rejected.
    fn change(&mut self, operation: Operation, values: &'v [(FieldId, Value<'v>)]) -> Result<(), RejectionReason> {
        let (cells, bounds, encoded) = (self.write.cells.len(), self.write.bounds.len(), self.write.encoded_count());
        let outcome = self.collect(values).and_then(|()| match operation {
            Operation::Put => self.encode(),
            Operation::Delete => self.encode_key(),
        });
        if outcome.is_err() {
            self.write.cells.truncate(cells);
            self.write.bounds.truncate(bounds);
            self.write.unchanged_paths.remove(&encoded);
        }
        outcome
    }

    /// Assigns the values to their columns.
    fn collect(&mut self, values: &'v [(FieldId, Value<'v>)]) -> Result<(), RejectionReason> {
        self.values.fill(None);
        self.overflowing.clear();
        for (field, value) in values {
            match self.planner.routes[field.0 as usize] {
                FieldRoute::Column(column_index, on_mismatch) => {
                    if let Some(written_index) =
                        self.written_index_of[column_index].filter(|_| self.planner.accepts_value(*field, value))
                    {
                        self.values[written_index] = Some((*field, value, on_mismatch));
                    }
                }
                // A null is recorded as different from a missing field, even if no column was ever needed.
                FieldRoute::NewColumn(_) if *value == Value::TypedNull => self.overflowing.push((*field, value)),
                FieldRoute::NewColumn(_) if *value == Value::Unchanged => {
                    let path = self.planner.fields.path(*field);
                    self.write.unchanged_paths.entry(self.write.encoded_count()).or_default().push(path);
                }
                FieldRoute::Overflow
                    if !matches!(value, Value::Null | Value::Unchanged)
                        && self.planner.accepts_value(*field, value) =>
                {
                    self.overflowing.push((*field, value));
                }
                FieldRoute::Rejected
                    if !matches!(value, Value::Null | Value::Unchanged)
                        && self.planner.accepts_value(*field, value) =>
                {
                    return Err(self.planner.unstorable_field(*field));
                }
                FieldRoute::Unresolved
                | FieldRoute::Ignored
                | FieldRoute::NewColumn(_)
                | FieldRoute::Overflow
                | FieldRoute::Rejected => {}
            }
        }
        Ok(())
    }

    fn encode(&mut self) -> Result<(), RejectionReason> {
        let overflow = self.overflow;
        let mut overflow_bound = None;
        for written_index in 0..self.values.len() {
            self.write.bounds.push(self.write.cells.len() as u32);
            match self.values[written_index] {
                _ if Some(written_index) == overflow => {
                    overflow_bound = Some((self.write.bounds.len(), self.write.cells.len()))
                }
                Some((_, Value::Unchanged, _)) => {}
                Some((field, value, on_mismatch)) => self.cell(written_index, field, value, on_mismatch)?,
                None if written_index < self.write.key_column_count => return Err(self.missing(written_index)),
                None if self.keeps_missing => {}
                None => self.null(written_index)?,
            }
        }
        self.write.bounds.push(self.write.cells.len() as u32);
        if let Some((bound, at)) = overflow_bound {
            self.insert_overflow(bound, at)?;
        } else if !self.overflowing.is_empty() {
            self.planner.allow_schema_change()?;
            self.needs_overflow_column = true;
        }
        Ok(())
    }

    /// A delete has only its key and, with soft deletes, the time of the delete. The other columns keep their values, or are
    /// NULL if rows are only written whole.
    fn encode_key(&mut self) -> Result<(), RejectionReason> {
        for written_index in 0..self.values.len() {
            self.write.bounds.push(self.write.cells.len() as u32);
            match self.values[written_index] {
                Some((field, value, on_mismatch)) if written_index < self.write.key_column_count => {
                    self.cell(written_index, field, value, on_mismatch)?
                }
                None if written_index < self.write.key_column_count => return Err(self.missing(written_index)),
                Some((field, value, on_mismatch)) if self.write.deletes == DeleteMode::Soft => {
                    self.cell(written_index, field, value, on_mismatch)?
                }
                Some(_) | None if self.write.write_mode == WriteMode::Merge(MergeBy::Column) => {}
                Some(_) | None => self.write.cells.extend_from_slice(&cell::NULL),
            }
        }
        self.write.bounds.push(self.write.cells.len() as u32);
        Ok(())
    }

    fn cell(
        &mut self,
        written_index: usize,
        field: FieldId,
        value: &'v Value<'v>,
        on_mismatch: OnMismatch,
    ) -> Result<(), RejectionReason> {
        let column = &self.write.table.columns[self.write.column_indexes[written_index]];
        if matches!(value, Value::Null | Value::TypedNull) && self.rejects_null(written_index) {
            return Err(self.missing(written_index));
        }
        if *value == Value::TypedNull {
            self.overflowing.push((field, value));
        }
        let is_accepted =
            on_mismatch != OnMismatch::OverflowUnlessExact || cell::is_exact_type(column.column_type, value);
        let result = if is_accepted {
            cell::encode(column.column_type, value, &mut self.write.cells)
        } else {
            Err(Mismatch::Type)
        };
        match result {
            Ok(()) => Ok(()),
            Err(mismatch) if on_mismatch != OnMismatch::Reject && mismatch != Mismatch::NulCharacter => {
                self.overflowing.push((field, value));
                if !self.keeps_missing {
                    self.write.cells.extend_from_slice(&cell::NULL);
                }
                Ok(())
            }
            Err(mismatch) => Err(RejectionReason::DoesNotFit {
                path: self.planner.fields.path(field),
                column: column.name.as_str().to_owned(),
                sql_type: column.sql_type.clone(),
                mismatch,
            }),
        }
    }

    fn null(&mut self, written_index: usize) -> Result<(), RejectionReason> {
        if self.rejects_null(written_index) {
            return Err(self.missing(written_index));
        }
        self.write.cells.extend_from_slice(&cell::NULL);
        Ok(())
    }

    fn rejects_null(&self, written_index: usize) -> bool {
        written_index < self.write.key_column_count
            || self.write.table.columns[self.write.column_indexes[written_index]].required
    }

    fn missing(&self, written_index: usize) -> RejectionReason {
        let column = &self.write.table.columns[self.write.column_indexes[written_index]];
        let declared = self.planner.spec.columns.iter().find(|spec| spec.name == column.name);
        let path = declared.and_then(|spec| spec.field).map(|field| self.planner.fields.path(field));
        let path = path.or_else(|| column.source_path.clone()).unwrap_or_else(|| column.name.as_str().to_owned());
        RejectionReason::Missing {
            path,
            role: if written_index < self.write.key_column_count { "the key" } else { "a NOT NULL column" },
        }
    }

    /// Writes the overflow cell, once all overflowing values are known.
    fn insert_overflow(&mut self, bound: usize, at: usize) -> Result<(), RejectionReason> {
        let mut overflow = Vec::new();
        if self.overflowing.is_empty() {
            if self.keeps_missing {
                return Ok(());
            }
            overflow.extend_from_slice(&cell::NULL);
        } else {
            cell::write_jsonb(&self.overflow_json()?, &mut overflow);
        }
        let length = overflow.len() as u32;
        self.write.cells.splice(at..at, overflow);
        for later in &mut self.write.bounds[bound..] {
            *later += length;
        }
        Ok(())
    }

    /// `{"path": value, …}`
    fn overflow_json(&self) -> Result<String, RejectionReason> {
        let mut json = String::from("{");
        for (field, value) in &self.overflowing {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&serde_json::Value::from(self.planner.fields.path(*field)).to_string());
            json.push(':');
            json.push_str(&cell::overflow_field(value).map_err(|mismatch| self.overflow_mismatch(*field, mismatch))?);
        }
        json.push('}');
        Ok(json)
    }

    fn overflow_mismatch(&self, field: FieldId, mismatch: Mismatch) -> RejectionReason {
        let path = self.planner.fields.path(field);
        RejectionReason::DoesNotFit { path, column: OVERFLOW.to_owned(), sql_type: "jsonb".to_owned(), mismatch }
    }
}
