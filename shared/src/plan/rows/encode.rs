//! Values → cells: each value is brought to its column, and what does not fit becomes a rejection or overflow.

use std::sync::Arc;

use super::super::survey::{Candidate, Slot, Survey};
use super::super::{Draft, cell};
use super::{Encoded, Entry, TableWrite};
use crate::catalog::Table;
use crate::change::{Change, Changes, Operation, Value};
use crate::field::Field;
use crate::rejection::{Misfit, Reason};
use crate::spec::{Absent, Deletes, Merge, MisfitRule, OVERFLOW, Rule};

/// What room is made for a cell: its length and a little.
const CELL_BYTES: usize = 8;

/// Encodes the candidates. What does not fit its column is told to the draft.
pub fn encode(survey: &Survey<'_>, candidates: &[Candidate], changes: &Changes<'_>, draft: &mut Draft) {
    let Some(table) = survey.found() else { return };
    let mut encoder = Encoder::new(survey, table);
    let cells = candidates.len() * encoder.write.columns.len();
    encoder.write.bounds.reserve(cells + candidates.len());
    encoder.write.cells.reserve(cells * CELL_BYTES);
    let mut entries = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let Change { record, operation, version, .. } = changes.list[candidate.change];
        match encoder.change(operation, &changes.values[changes.list[candidate.change].values.clone()]) {
            Ok(()) => entries.push(Entry { partition: candidate.partition, record, operation, version }),
            Err(reason) => draft.rejected.push((record, survey.rejection(reason))),
        }
    }
    if encoder.lacks_overflow {
        draft.lacks.push(survey.lack_of_overflow());
    }
    if !entries.is_empty() {
        draft.encoded.push(Encoded { write: encoder.write, entries });
    }
}

struct Encoder<'s, 'v> {
    survey: &'s Survey<'s>,
    write: TableWrite,
    /// For each column of the table, its place among those written.
    places: Vec<Option<usize>>,
    overflow: Option<usize>,
    /// Whether a column that a change does not carry keeps what it has.
    keeps_absent: bool,
    lacks_overflow: bool,
    /// One change's values, by the place of their column; kept to be used again.
    values: Vec<Option<(Field, &'v Value<'v>, MisfitRule)>>,
    overflowing: Vec<(Field, &'v Value<'v>)>,
}

impl<'s, 'v> Encoder<'s, 'v> {
    fn new(survey: &'s Survey<'s>, table: &Arc<Table>) -> Self {
        let spec = survey.spec;
        let mut columns: Vec<usize> = spec.key_columns().filter_map(|c| table.position(c.name.as_str())).collect();
        let key = columns.len();
        let taken = survey.slots.iter().filter_map(|slot| match slot {
            Slot::Column(position, _) => Some(*position),
            Slot::Unresolved | Slot::Skip | Slot::Lacking(_) | Slot::Overflow | Slot::Unknown => None,
        });
        let whole_row = spec.rule != Rule::Append && spec.absent == Absent::Null;
        let of_the_source = (0..table.columns.len()).filter(|&position| {
            let column = &table.columns[position];
            let declared = spec.columns.iter().any(|c| c.name == column.name && c.field.is_some());
            whole_row && (column.original.is_some() || declared) && !column.generated
        });
        let mut more: Vec<usize> = taken.chain(of_the_source).chain(table.position(OVERFLOW)).collect();
        more.sort_unstable();
        more.dedup();
        more.retain(|position| !columns.contains(position));
        columns.extend(more);
        let mut places = vec![None; table.columns.len()];
        for (place, &position) in columns.iter().enumerate() {
            places[position] = Some(place);
        }
        Self {
            survey,
            overflow: table.position(OVERFLOW).and_then(|position| places[position]),
            places,
            keeps_absent: spec.rule == Rule::Merge(Merge::Column) && spec.absent == Absent::Keeps,
            lacks_overflow: false,
            values: vec![None; columns.len()],
            overflowing: Vec::new(),
            write: TableWrite { columns, key, ..TableWrite::empty(table.clone(), spec) },
        }
    }

    /// Appends the cells of one change, or nothing at all.
    fn change(&mut self, operation: Operation, values: &'v [(Field, Value<'v>)]) -> Result<(), Reason> {
        let (cells, bounds, encoded) = (self.write.cells.len(), self.write.bounds.len(), self.write.encoded_count());
        let outcome = self.collect(values).and_then(|()| match operation {
            Operation::Put => self.encode(),
            Operation::Delete => self.encode_key(),
        });
        if outcome.is_err() {
            self.write.cells.truncate(cells);
            self.write.bounds.truncate(bounds);
            self.write.untold.remove(&encoded);
        }
        outcome
    }

    /// Brings the values to their columns.
    fn collect(&mut self, values: &'v [(Field, Value<'v>)]) -> Result<(), Reason> {
        self.values.fill(None);
        self.overflowing.clear();
        for (field, value) in values {
            match self.survey.slots[field.0 as usize] {
                Slot::Column(position, rule) => {
                    if let Some(place) = self.places[position].filter(|_| self.survey.takes(*field, value)) {
                        self.values[place] = Some((*field, value, rule));
                    }
                }
                // That a value is a null, and not absent, is told even where no column was ever needed.
                Slot::Lacking(_) if *value == Value::NullAttribute => self.overflowing.push((*field, value)),
                Slot::Lacking(_) if *value == Value::Unchanged => {
                    let path = self.survey.fields.path(*field).to_owned();
                    self.write.untold.entry(self.write.encoded_count()).or_default().push(path);
                }
                Slot::Overflow
                    if !matches!(value, Value::Null | Value::Unchanged) && self.survey.takes(*field, value) =>
                {
                    self.overflowing.push((*field, value));
                }
                Slot::Unknown
                    if !matches!(value, Value::Null | Value::Unchanged) && self.survey.takes(*field, value) =>
                {
                    return Err(Reason::UnknownField { path: self.survey.fields.path(*field).to_owned() });
                }
                Slot::Unresolved | Slot::Skip | Slot::Lacking(_) | Slot::Overflow | Slot::Unknown => {}
            }
        }
        Ok(())
    }

    fn encode(&mut self) -> Result<(), Reason> {
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
                None if self.keeps_absent => {}
                None => self.null(place)?,
            }
        }
        self.write.bounds.push(self.write.cells.len() as u32);
        if let Some((bound, at)) = overflow_bound {
            self.insert_overflow(bound, at)?;
        } else if !self.overflowing.is_empty() {
            self.lacks_overflow = true;
        }
        Ok(())
    }

    /// Of a delete only the key counts, and where deleted rows stay, when it was; what else the row holds is kept, or NULL
    /// where rows are only ever written whole.
    fn encode_key(&mut self) -> Result<(), Reason> {
        for place in 0..self.values.len() {
            self.write.bounds.push(self.write.cells.len() as u32);
            match self.values[place] {
                Some((field, value, rule)) if place < self.write.key => self.cell(place, field, value, rule)?,
                None if place < self.write.key => return Err(self.missing(place)),
                Some((field, value, rule)) if self.write.deletes == Deletes::Soft => {
                    self.cell(place, field, value, rule)?
                }
                Some(_) | None if self.write.rule == Rule::Merge(Merge::Column) => {}
                Some(_) | None => self.write.cells.extend_from_slice(&cell::NULL),
            }
        }
        self.write.bounds.push(self.write.cells.len() as u32);
        Ok(())
    }

    fn cell(&mut self, place: usize, field: Field, value: &'v Value<'v>, rule: MisfitRule) -> Result<(), Reason> {
        let column = &self.write.table.columns[self.write.columns[place]];
        if matches!(value, Value::Null | Value::NullAttribute) && self.refuses_null(place) {
            return Err(self.missing(place));
        }
        if *value == Value::NullAttribute {
            self.overflowing.push((field, value));
        }
        let exact = rule != MisfitRule::Exact || cell::is_of_kind(column.kind, value);
        let written = if exact { cell::write(column.kind, value, &mut self.write.cells) } else { Err(Misfit::Kind) };
        match written {
            Ok(()) => Ok(()),
            Err(misfit) if rule != MisfitRule::Reject && misfit != Misfit::Nul => {
                self.overflowing.push((field, value));
                if !self.keeps_absent {
                    self.write.cells.extend_from_slice(&cell::NULL);
                }
                Ok(())
            }
            Err(misfit) => Err(Reason::DoesNotFit {
                path: self.survey.fields.path(field).to_owned(),
                column: column.name.as_str().to_owned(),
                sql_type: column.sql_type.clone(),
                misfit,
            }),
        }
    }

    fn null(&mut self, place: usize) -> Result<(), Reason> {
        if self.refuses_null(place) {
            return Err(self.missing(place));
        }
        self.write.cells.extend_from_slice(&cell::NULL);
        Ok(())
    }

    fn refuses_null(&self, place: usize) -> bool {
        place < self.write.key || self.write.table.columns[self.write.columns[place]].required
    }

    fn missing(&self, place: usize) -> Reason {
        let column = &self.write.table.columns[self.write.columns[place]];
        let declared = self.survey.spec.columns.iter().find(|spec| spec.name == column.name);
        let path = declared.and_then(|spec| spec.field).map(|field| self.survey.fields.path(field));
        let path = path.or(column.original.as_deref()).unwrap_or(column.name.as_str()).to_owned();
        Reason::Missing { path, role: if place < self.write.key { "the key" } else { "a required column" } }
    }

    /// Fills the overflow's cell, once it is known which values came to it.
    fn insert_overflow(&mut self, bound: usize, at: usize) -> Result<(), Reason> {
        let mut overflow = Vec::new();
        if self.overflowing.is_empty() {
            if self.keeps_absent {
                return Ok(());
            }
            overflow.extend_from_slice(&cell::NULL);
        } else {
            let json = self.overflow_json()?;
            let fits = cell::write(crate::catalog::Kind::Jsonb, &Value::Json(json.into()), &mut overflow);
            fits.map_err(|misfit| self.overflow_misfit(self.overflowing[0].0, misfit))?;
        }
        let length = overflow.len() as u32;
        self.write.cells.splice(at..at, overflow);
        for later in &mut self.write.bounds[bound..] {
            *later += length;
        }
        Ok(())
    }

    /// `{"path": value, …}`
    fn overflow_json(&self) -> Result<String, Reason> {
        let member = |(field, value): &(Field, &Value<'_>)| {
            let key = serde_json::Value::from(self.survey.fields.path(*field));
            let json = cell::as_json(value).map_err(|misfit| self.overflow_misfit(*field, misfit))?;
            Ok(format!("{key}:{json}"))
        };
        let members: Vec<String> = self.overflowing.iter().map(member).collect::<Result<_, Reason>>()?;
        Ok(format!("{{{}}}", members.join(",")))
    }

    fn overflow_misfit(&self, field: Field, misfit: Misfit) -> Reason {
        let path = self.survey.fields.path(field).to_owned();
        Reason::DoesNotFit { path, column: OVERFLOW.to_owned(), sql_type: "jsonb".to_owned(), misfit }
    }
}
