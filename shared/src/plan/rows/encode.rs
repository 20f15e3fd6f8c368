//! Values → cells: each value is brought to its column, and what does not fit becomes a rejection or overflow.

use std::sync::Arc;

use super::super::table_planner::{FieldRoute, PlannedChange, TablePlanner};
use super::super::{PartialPlan, cell};
use super::{EncodedChange, EncodedChanges, TableWrite};
use crate::catalog::DbTable;
use crate::change::{Change, Changes, Operation, Value};
use crate::field::FieldId;
use crate::rejection::{Mismatch, RejectionReason};
use crate::spec::{DeleteMode, MergeBy, MissingColumns, OVERFLOW, OnMismatch, WriteMode};

/// What room is made for a cell: its length and a little.
const CELL_BYTES: usize = 8;

/// Encodes the candidates. What does not fit its column is told to the draft.
pub fn encode(survey: &TablePlanner<'_>, candidates: &[PlannedChange], changes: &Changes<'_>, draft: &mut PartialPlan) {
    let Some(table) = survey.found() else { return };
    let mut encoder = Encoder::new(survey, table);
    let cells = candidates.len() * encoder.write.columns.len();
    encoder.write.bounds.reserve(cells + candidates.len());
    encoder.write.cells.reserve(cells * CELL_BYTES);
    let mut entries = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let Change { record, operation, version, .. } = changes.list[candidate.change];
        match encoder.change(operation, &changes.values[changes.list[candidate.change].values.clone()]) {
            Ok(()) => entries.push(EncodedChange { partition: candidate.partition, record, operation, version }),
            Err(reason) => draft.rejected.push((record, survey.rejection(reason))),
        }
    }
    if encoder.needs_overflow_column {
        draft.diffs.push(survey.overflow_column_diff());
    }
    if !entries.is_empty() {
        draft.encoded.push(EncodedChanges { write: encoder.write, entries });
    }
}

struct Encoder<'s, 'v> {
    planner: &'s TablePlanner<'s>,
    write: TableWrite,
    /// For each column of the table, its place among those written.
    written_index_of: Vec<Option<usize>>,
    overflow: Option<usize>,
    /// Whether a column that a change does not carry keeps what it has.
    keeps_missing: bool,
    needs_overflow_column: bool,
    /// One change's values, by the place of their column; kept to be used again.
    values: Vec<Option<(FieldId, &'v Value<'v>, OnMismatch)>>,
    overflowing: Vec<(FieldId, &'v Value<'v>)>,
}

impl<'s, 'v> Encoder<'s, 'v> {
    fn new(planner: &'s TablePlanner<'s>, table: &Arc<DbTable>) -> Self {
        let spec = planner.spec;
        let mut columns: Vec<usize> = spec.key_columns().filter_map(|c| table.column_index(c.name.as_str())).collect();
        let key = columns.len();
        let taken = planner.routes.iter().filter_map(|slot| match slot {
            FieldRoute::Column(position, _) => Some(*position),
            FieldRoute::Unresolved
            | FieldRoute::Ignored
            | FieldRoute::NewColumn(_)
            | FieldRoute::Overflow
            | FieldRoute::Refused => None,
        });
        let whole_row = spec.write_mode != WriteMode::Append && spec.missing_columns == MissingColumns::SetNull;
        let of_the_source = (0..table.columns.len()).filter(|&position| {
            let column = &table.columns[position];
            let declared = spec.columns.iter().any(|c| c.name == column.name && c.field.is_some());
            whole_row && (column.source_path.is_some() || declared) && !column.generated
        });
        let mut more: Vec<usize> = taken.chain(of_the_source).chain(table.column_index(OVERFLOW)).collect();
        more.sort_unstable();
        more.dedup();
        more.retain(|position| !columns.contains(position));
        columns.extend(more);
        let mut written_index_of = vec![None; table.columns.len()];
        for (place, &position) in columns.iter().enumerate() {
            written_index_of[position] = Some(place);
        }
        Self {
            planner,
            overflow: table.column_index(OVERFLOW).and_then(|position| written_index_of[position]),
            written_index_of,
            keeps_missing: spec.write_mode == WriteMode::Merge(MergeBy::Column)
                && spec.missing_columns == MissingColumns::Keep,
            needs_overflow_column: false,
            values: vec![None; columns.len()],
            overflowing: Vec::new(),
            write: TableWrite { columns, key, ..TableWrite::empty(table.clone(), spec) },
        }
    }

    /// Appends the cells of one change, or nothing at all.
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

    /// Brings the values to their columns.
    fn collect(&mut self, values: &'v [(FieldId, Value<'v>)]) -> Result<(), RejectionReason> {
        self.values.fill(None);
        self.overflowing.clear();
        for (field, value) in values {
            match self.planner.routes[field.0 as usize] {
                FieldRoute::Column(position, rule) => {
                    if let Some(place) =
                        self.written_index_of[position].filter(|_| self.planner.accepts_value(*field, value))
                    {
                        self.values[place] = Some((*field, value, rule));
                    }
                }
                // That a value is a null, and not absent, is told even where no column was ever needed.
                FieldRoute::NewColumn(_) if *value == Value::TypedNull => self.overflowing.push((*field, value)),
                FieldRoute::NewColumn(_) if *value == Value::Unchanged => {
                    let path = self.planner.fields.path(*field).to_owned();
                    self.write.unchanged_paths.entry(self.write.encoded_count()).or_default().push(path);
                }
                FieldRoute::Overflow
                    if !matches!(value, Value::Null | Value::Unchanged)
                        && self.planner.accepts_value(*field, value) =>
                {
                    self.overflowing.push((*field, value));
                }
                FieldRoute::Refused
                    if !matches!(value, Value::Null | Value::Unchanged)
                        && self.planner.accepts_value(*field, value) =>
                {
                    return Err(RejectionReason::UnknownField { path: self.planner.fields.path(*field).to_owned() });
                }
                FieldRoute::Unresolved
                | FieldRoute::Ignored
                | FieldRoute::NewColumn(_)
                | FieldRoute::Overflow
                | FieldRoute::Refused => {}
            }
        }
        Ok(())
    }

    fn encode(&mut self) -> Result<(), RejectionReason> {
        let overflow = self.overflow;
        let mut overflow_bound = None;
        for place in 0..self.values.len() {
            self.write.bounds.push(self.write.cells.len() as u32);
            match self.values[place] {
                _ if Some(place) == overflow => {
                    overflow_bound = Some((self.write.bounds.len(), self.write.cells.len()))
                }
                Some((_, Value::Unchanged, _)) => {}
                Some((field, value, rule)) => self.cell(place, field, value, rule)?,
                None if place < self.write.key => return Err(self.missing(place)),
                None if self.keeps_missing => {}
                None => self.null(place)?,
            }
        }
        self.write.bounds.push(self.write.cells.len() as u32);
        if let Some((bound, at)) = overflow_bound {
            self.insert_overflow(bound, at)?;
        } else if !self.overflowing.is_empty() {
            self.needs_overflow_column = true;
        }
        Ok(())
    }

    /// Of a delete only the key counts, and where deleted rows stay, when it was; what else the row holds is kept, or NULL
    /// where rows are only ever written whole.
    fn encode_key(&mut self) -> Result<(), RejectionReason> {
        for place in 0..self.values.len() {
            self.write.bounds.push(self.write.cells.len() as u32);
            match self.values[place] {
                Some((field, value, rule)) if place < self.write.key => self.cell(place, field, value, rule)?,
                None if place < self.write.key => return Err(self.missing(place)),
                Some((field, value, rule)) if self.write.deletes == DeleteMode::Soft => {
                    self.cell(place, field, value, rule)?
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
        place: usize,
        field: FieldId,
        value: &'v Value<'v>,
        rule: OnMismatch,
    ) -> Result<(), RejectionReason> {
        let column = &self.write.table.columns[self.write.columns[place]];
        if matches!(value, Value::Null | Value::TypedNull) && self.rejects_null(place) {
            return Err(self.missing(place));
        }
        if *value == Value::TypedNull {
            self.overflowing.push((field, value));
        }
        let exact = rule != OnMismatch::OverflowUnlessExact || cell::is_exact_type(column.kind, value);
        let written = if exact { cell::encode(column.kind, value, &mut self.write.cells) } else { Err(Mismatch::Type) };
        match written {
            Ok(()) => Ok(()),
            Err(misfit) if rule != OnMismatch::Reject && misfit != Mismatch::NulCharacter => {
                self.overflowing.push((field, value));
                if !self.keeps_missing {
                    self.write.cells.extend_from_slice(&cell::NULL);
                }
                Ok(())
            }
            Err(misfit) => Err(RejectionReason::DoesNotFit {
                path: self.planner.fields.path(field).to_owned(),
                column: column.name.as_str().to_owned(),
                sql_type: column.sql_type.clone(),
                mismatch: misfit,
            }),
        }
    }

    fn null(&mut self, place: usize) -> Result<(), RejectionReason> {
        if self.rejects_null(place) {
            return Err(self.missing(place));
        }
        self.write.cells.extend_from_slice(&cell::NULL);
        Ok(())
    }

    fn rejects_null(&self, place: usize) -> bool {
        place < self.write.key || self.write.table.columns[self.write.columns[place]].required
    }

    fn missing(&self, place: usize) -> RejectionReason {
        let column = &self.write.table.columns[self.write.columns[place]];
        let declared = self.planner.spec.columns.iter().find(|spec| spec.name == column.name);
        let path = declared.and_then(|spec| spec.field).map(|field| self.planner.fields.path(field));
        let path = path.or(column.source_path.as_deref()).unwrap_or(column.name.as_str()).to_owned();
        RejectionReason::Missing { path, role: if place < self.write.key { "the key" } else { "a NOT NULL column" } }
    }

    /// Fills the overflow's cell, once it is known which values came to it.
    fn insert_overflow(&mut self, bound: usize, at: usize) -> Result<(), RejectionReason> {
        let mut overflow = Vec::new();
        if self.overflowing.is_empty() {
            if self.keeps_missing {
                return Ok(());
            }
            overflow.extend_from_slice(&cell::NULL);
        } else {
            let json = self.overflow_json()?;
            let fits = cell::encode(crate::catalog::ColumnType::Jsonb, &Value::Json(json.into()), &mut overflow);
            fits.map_err(|misfit| self.overflow_mismatch(self.overflowing[0].0, misfit))?;
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
        let member = |(field, value): &(FieldId, &Value<'_>)| {
            let key = serde_json::Value::from(self.planner.fields.path(*field));
            let json = cell::as_json(value).map_err(|misfit| self.overflow_mismatch(*field, misfit))?;
            Ok(format!("{key}:{json}"))
        };
        let members: Vec<String> = self.overflowing.iter().map(member).collect::<Result<_, RejectionReason>>()?;
        Ok(format!("{{{}}}", members.join(",")))
    }

    fn overflow_mismatch(&self, field: FieldId, misfit: Mismatch) -> RejectionReason {
        let path = self.planner.fields.path(field).to_owned();
        RejectionReason::DoesNotFit {
            path,
            column: OVERFLOW.to_owned(),
            sql_type: "jsonb".to_owned(),
            mismatch: misfit,
        }
    }
}
