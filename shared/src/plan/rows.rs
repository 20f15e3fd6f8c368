//! One table's rows, in the form in which they are written: encoded, sorted by partition and key, one row a key.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::survey::{Candidate, Slot, Survey};
use super::{Draft, cell};
use crate::catalog::Table;
use crate::change::{Change, Changes, Operation, Value, Version};
use crate::field::Field;
use crate::rejection::{Misfit, Reason};
use crate::spec::{Absent, Deletes, Merge, MisfitRule, OVERFLOW, Rule, TableSpec};

/// What is written to one table.
#[derive(Debug)]
pub struct TableWrite {
    /// The table, as the catalog has it.
    pub table: Arc<Table>,
    /// What a second change of a key does.
    pub rule: Rule,
    /// What becomes of a row whose source is deleted.
    pub deletes: Deletes,
    /// What a column takes that a change does not carry.
    pub absent: Absent,
    /// The columns written, as places in `table.columns`. The key's come first.
    pub columns: Vec<usize>,
    /// How many columns make the key.
    pub key: usize,
    /// The rows, sorted by partition and key: every writer takes its locks in this order.
    pub rows: Vec<Row>,
    /// The changes behind the rows.
    pub members: Vec<Member>,
    /// Of changes, the fields that had not changed and have no column yet, by their paths.
    untold: BTreeMap<usize, Vec<String>>,
    cells: Vec<u8>,
    /// For each member, where each of its cells begins, and where the last one ends.
    bounds: Vec<u32>,
}

/// One key.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The partition, by its place in the table.
    pub partition: usize,
    /// The changes of this key, in [`TableWrite::members`], the newest last.
    pub members: Range<usize>,
}

/// One change of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
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
    pub fn cell(&self, member: &Member, column: usize) -> &[u8] {
        self.cells(member, column..column + 1)
    }

    /// Several cells of a member, one after the other.
    pub fn cells(&self, member: &Member, columns: Range<usize>) -> &[u8] {
        let first = member.encoded * (self.columns.len() + 1);
        &self.cells[self.bounds[first + columns.start] as usize..self.bounds[first + columns.end] as usize]
    }

    /// A row's newest change.
    pub fn newest(&self, row: &Row) -> &Member {
        &self.members[row.members.end - 1]
    }

    /// The cells of a row's newest change, in the order of the columns.
    pub fn newest_cells(&self, row: &Row) -> impl Iterator<Item = &[u8]> {
        let newest = self.newest(row);
        (0..self.columns.len()).map(move |column| self.cell(newest, column))
    }

    /// No rows, of a table whose keys are asked for.
    pub fn of_keys(table: Arc<Table>, spec: &TableSpec) -> Self {
        let columns: Vec<usize> = spec.key_columns().filter_map(|c| table.position(c.name.as_str())).collect();
        Self { key: columns.len(), columns, ..Self::empty(table, spec) }
    }

    fn empty(table: Arc<Table>, spec: &TableSpec) -> Self {
        Self {
            table,
            rule: spec.rule,
            deletes: spec.deletes,
            absent: spec.absent,
            columns: Vec::new(),
            key: 0,
            rows: Vec::new(),
            members: Vec::new(),
            untold: BTreeMap::new(),
            cells: Vec::new(),
            bounds: Vec::new(),
        }
    }

    /// The paths of a member's fields that had not changed and have no column yet.
    pub fn untold(&self, member: &Member) -> &[String] {
        self.untold.get(&member.encoded).map_or(&[], Vec::as_slice)
    }

    /// Whether no other writer may be at work on the table: rows are deleted, and a row that holds a key's place until the
    /// delete is done might be refused, for it is made of the key alone.
    pub fn exclusive(&self) -> bool {
        let key = &self.columns[..self.key];
        let mut others = self.table.columns.iter().enumerate().filter(|(position, _)| !key.contains(position));
        let guarded = self.table.checked || others.any(|(_, column)| column.guarded);
        guarded
            && self.deletes == Deletes::Hard
            && self.members.iter().any(|member| member.operation == Operation::Delete)
    }

    /// The cells of a member's key, one after the other.
    pub fn key_cells(&self, member: &Member) -> &[u8] {
        self.cells(member, 0..self.key)
    }

    /// How many changes are encoded whole: each has a bound before each of its cells, and one behind the last.
    fn encoded_count(&self) -> usize {
        self.bounds.len() / (self.columns.len() + 1)
    }

    fn key(&self, encoded: usize) -> &[u8] {
        self.key_cells(&Member { record: 0, operation: Operation::Put, version: None, encoded })
    }
}

/// Changes of one table in the form in which they are written, in the order in which they came.
#[derive(Debug)]
pub struct Encoded {
    write: TableWrite,
    entries: Vec<Entry>,
}

/// A change that is encoded.
#[derive(Clone, Copy, Debug)]
struct Entry {
    partition: usize,
    record: usize,
    operation: Operation,
    version: Option<Version>,
}

impl Encoded {
    /// The table.
    pub fn table(&self) -> &Table {
        &self.write.table
    }

    /// What a second change of a key does.
    pub fn rule(&self) -> Rule {
        self.write.rule
    }

    /// How many changes there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Puts the changes behind those of the same table and columns, where the list has them.
    pub fn join(self, list: &mut Vec<Self>) {
        let same = |before: &&mut Self| {
            Arc::ptr_eq(&before.write.table, &self.write.table) && before.write.columns == self.write.columns
        };
        let Some(before) = list.iter_mut().find(same) else { return list.push(self) };
        let (write, next) = (&mut before.write, self.write);
        let (count, end) = (write.encoded_count(), write.cells.len() as u32);
        write.untold.extend(next.untold.into_iter().map(|(encoded, paths)| (encoded + count, paths)));
        write.bounds.extend(next.bounds.iter().map(|bound| bound + end));
        write.cells.extend_from_slice(&next.cells);
        before.entries.extend(self.entries);
    }

    /// Sorts by partition, key and version, and brings the changes of a key together; records with a row of an event table
    /// that another record already holds are told.
    pub fn fold(self, repeated: &mut Vec<usize>) -> TableWrite {
        let Self { mut write, entries } = self;
        let mut order: Vec<(usize, u128, usize)> = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.partition, prefix(write.key(index)), index))
            .collect();
        let events = write.rule == Rule::Append;
        order.sort_unstable_by(|a, b| {
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| write.key(a.2).cmp(write.key(b.2))).then_with(|| {
                // Of events the first stays; of entities the newest comes last, and of the same change twice the first.
                let by_version = entries[a.2].version.cmp(&entries[b.2].version);
                by_version.then(if events { a.2.cmp(&b.2) } else { b.2.cmp(&a.2) })
            })
        });
        let mut previous: Option<(usize, usize)> = None;
        for (partition, _, index) in order {
            let Entry { record, operation, version, .. } = entries[index];
            let member = Member { record, operation, version, encoded: index };
            let same = previous.is_some_and(|(p, i)| p == partition && write.key(i) == write.key(index));
            previous = Some((partition, index));
            match write.rows.last_mut().filter(|_| same) {
                Some(_) if events => repeated.push(member.record),
                Some(row) => {
                    row.members.end += 1;
                    write.members.push(member);
                }
                None => {
                    write.rows.push(Row { partition, members: write.members.len()..write.members.len() + 1 });
                    write.members.push(member);
                }
            }
        }
        write
    }
}

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

/// The first bytes of a key's content: most comparisons end there.
fn prefix(key: &[u8]) -> u128 {
    let content = key.get(4..).unwrap_or_default();
    let mut bytes = [0; 16];
    let length = content.len().min(bytes.len());
    bytes[..length].copy_from_slice(&content[..length]);
    u128::from_be_bytes(bytes)
}
