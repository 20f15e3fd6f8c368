//! One table's part of a batch: which column each field goes to, which partition each row, and what is lacking.

use std::borrow::Cow;
use std::sync::Arc;

use super::lack::{Inferred, NewColumn, NewPartition, TableLack};
use super::{Draft, PlanError, cell};
use crate::catalog::comment::telling;
use crate::catalog::{Catalog, Column, Kind, Table};
use crate::change::{Changes, Value};
use crate::field::{Field, Fields};
use crate::names::Identifier;
use crate::partition::Bounds;
use crate::rejection::{Reason, Rejection};
use crate::spec::{ColumnSpec, Evolution, MisfitRule, Nested, OVERFLOW, PartitionSpec, RESERVED, TableSpec, Typing};
use crate::timestamp::Timestamp;

/// A table has at most this many partitions: `ALTER TABLE` locks each of them, and PostgreSQL's lock table holds 6,400
/// entries by default (`max_locks_per_transaction` × `max_connections`).
const PARTITIONS_MAX: usize = 4_000;

/// Where a field's values go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// Not yet asked.
    Unresolved,
    /// The table does not take the field.
    Skip,
    /// A column that is there.
    Column(usize, MisfitRule),
    /// A column that is lacking, by its place among the new ones.
    Lacking(usize),
    /// The overflow column.
    Overflow,
    /// The table is strict, and takes no such field.
    Unknown,
}

/// A change on its way to a row.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The change, by its place in the batch.
    pub change: usize,
    /// The row's partition, by its place in the table; 0 for a table without.
    pub partition: usize,
}

/// One table's part of a batch.
pub struct Survey<'p> {
    pub spec: &'p TableSpec,
    pub fields: &'p Fields,
    /// What the database has, or would have had once the table is made.
    pub table: Cow<'p, Table>,
    /// For each field of the source.
    pub slots: Vec<Slot>,
    found: Option<&'p Arc<Table>>,
    lacking: Vec<Lacking>,
    claims: Vec<(Identifier, String)>,
    partitions: Vec<NewPartition>,
}

/// A column that would be made, if some value asks for it.
struct Lacking {
    column: NewColumn,
    inferred: Option<Inferred>,
    wanted: bool,
}

impl<'p> Survey<'p> {
    /// A survey of the table, as far as the catalog knows it.
    pub fn new(spec: &'p TableSpec, fields: &'p Fields, catalog: &'p Catalog) -> Self {
        let found = catalog.table(&spec.name);
        let table = found.map_or_else(|| Cow::Owned(Table::planned(spec)), |table| Cow::Borrowed(&**table));
        let mut survey = Self {
            spec,
            fields,
            slots: vec![Slot::Unresolved; fields.count()],
            found,
            table,
            lacking: Vec::new(),
            claims: Vec::new(),
            partitions: Vec::new(),
        };
        survey.declared_columns();
        survey
    }

    /// Typed columns of a table that is to be made, and the writer's own columns.
    fn declared_columns(&mut self) {
        let absent = self.found.is_none();
        let spec = self.spec;
        for column in spec.columns.iter().filter(|column| absent && column.sql_type.is_some()) {
            // What a key is called at the source is kept, too: a full load does not tell which attributes it is made of.
            let field = column.field.filter(|&field| spec.replicated && !self.fields.is_synthetic(field));
            let original = field.map(|field| self.fields.path(field).to_owned());
            self.add_lacking(NewColumn { original, ..declared(column) }, None, true);
        }
        let version = self.spec.version_column().map(|name| (name, "text"));
        for (name, sql_type) in version.into_iter().chain(absent.then_some((OVERFLOW, "jsonb"))) {
            if self.table.position(name).is_none() {
                self.add_lacking(own_column(name, sql_type), None, true);
            }
        }
    }

    fn add_lacking(&mut self, column: NewColumn, inferred: Option<Inferred>, wanted: bool) -> usize {
        self.lacking.push(Lacking { column, inferred, wanted });
        self.lacking.len() - 1
    }

    /// Finds each change's partition, and each field's column. Changes that end here are told to the draft.
    pub fn changes(
        &mut self,
        changes: &Changes<'_>,
        list: &[usize],
        now: Timestamp,
        draft: &mut Draft,
    ) -> Vec<Candidate> {
        let mut candidates = Vec::with_capacity(list.len());
        for &index in list {
            let change = &changes.list[index];
            let values = &changes.values[change.values.clone()];
            match self.partition(values, now) {
                Ok(Some(partition)) => {
                    self.resolve_all(values);
                    candidates.push(Candidate { change: index, partition });
                }
                Ok(None) => draft.expired.push(change.record),
                Err(reason) => draft.rejected.push((change.record, self.rejection(reason))),
            }
        }
        candidates
    }

    fn resolve_all(&mut self, values: &[(Field, Value<'_>)]) {
        for (field, value) in values {
            if self.slots[field.0 as usize] == Slot::Unresolved {
                self.slots[field.0 as usize] = self.resolve(*field);
            }
            if let Slot::Lacking(index) = self.slots[field.0 as usize]
                && let Some(inferred) = Inferred::of(value)
                && self.takes(*field, value)
            {
                let lacking = &mut self.lacking[index];
                lacking.inferred = Some(inferred.or(lacking.inferred));
                lacking.wanted = true;
            }
        }
    }

    /// Whether the table takes this very value: an object only where it is declared whole, or objects stay whole.
    pub fn takes(&self, field: Field, value: &Value<'_>) -> bool {
        let object = matches!(value, Value::Json(text) if text.starts_with('{'));
        !object || self.spec.nested == Nested::Jsonb || self.declaration(field).is_some()
    }

    fn declaration(&self, field: Field) -> Option<&'p ColumnSpec> {
        self.spec.columns.iter().find(|column| column.field == Some(field))
    }

    fn resolve(&mut self, field: Field) -> Slot {
        if let Some(column) = self.declaration(field) {
            return self.declared_slot(column);
        }
        let in_scope = self.spec.scope.iter().any(|&scope| self.fields.within(field, scope));
        if self.fields.is_synthetic(field) || !in_scope || self.is_part_of_a_whole(field) {
            return Slot::Skip;
        }
        if self.spec.evolution == Evolution::Strict {
            return Slot::Unknown;
        }
        self.undeclared_slot(field)
    }

    /// Whether an object that the table takes whole already holds the field.
    fn is_part_of_a_whole(&self, field: Field) -> bool {
        let parent = self.fields.parent(field);
        if self.fields.is_container(field) || (self.spec.nested == Nested::Jsonb && !self.fields.is_container(parent)) {
            return true;
        }
        let mut above = parent;
        while above != Field::ROOT && self.declaration(above).is_none() {
            above = self.fields.parent(above);
        }
        above != Field::ROOT
    }

    fn declared_slot(&mut self, column: &ColumnSpec) -> Slot {
        if let Some(position) = self.table.position(column.name.as_str()) {
            return Slot::Column(position, column.misfit);
        }
        let known = self.lacking.iter().position(|lacking| lacking.column.name == column.name);
        Slot::Lacking(known.unwrap_or_else(|| self.add_lacking(declared(column), None, false)))
    }

    fn undeclared_slot(&mut self, field: Field) -> Slot {
        let path = self.fields.path(field);
        let known = self.table.columns.iter().position(|column| column.original.as_deref() == Some(path));
        if let Some(position) = known {
            return self.existing_slot(position);
        }
        let name = Identifier::fitting(self.fields.column(field), path);
        let declared = self.spec.columns.iter().any(|column| column.name == name);
        if declared && self.spec.typing == Typing::Converting {
            return Slot::Overflow;
        }
        if declared || RESERVED.contains(&name.as_str()) || self.lacking.iter().any(|l| l.column.name == name) {
            return self.slot_named(Identifier::distinct(self.fields.column(field), path), path);
        }
        match self.table.columns.iter().find(|column| column.name == name) {
            Some(Column { original: Some(_), .. }) => {
                self.slot_named(Identifier::distinct(self.fields.column(field), path), path)
            }
            Some(Column { original: None, .. }) if self.claims.iter().any(|(claimed, _)| *claimed == name) => {
                self.slot_named(Identifier::distinct(self.fields.column(field), path), path)
            }
            Some(Column { original: None, .. }) | None => self.slot_named(name, path),
        }
    }

    /// The slot of the column that `path` is to have, whether it is there or not.
    fn slot_named(&mut self, name: Identifier, path: &str) -> Slot {
        if let Some(position) = self.table.position(name.as_str()) {
            let column = &self.table.columns[position];
            if column.original.is_none() && self.table.owned {
                self.claims.push((name, telling(column.comment.as_deref(), path)));
            }
            return self.existing_slot(position);
        }
        let full = self.table.columns.len() + self.lacking.len() >= self.spec.columns_max;
        if self.spec.evolution == Evolution::Fixed || full {
            return Slot::Overflow;
        }
        let column = NewColumn {
            name,
            sql_type: String::new(),
            required: false,
            check: None,
            default: None,
            original: Some(path.to_owned()),
        };
        Slot::Lacking(self.add_lacking(column, None, false))
    }

    /// A column that nobody declared. Of a type that the writer would itself have chosen, it was chosen by some other
    /// value, and what does not fit goes to the overflow; any other type is its owner's word.
    fn existing_slot(&self, position: usize) -> Slot {
        let column = &self.table.columns[position];
        let inferred = match column.kind {
            Kind::Text { characters_max } => characters_max == self.spec.text_characters_max,
            Kind::Numeric { modifier } => modifier.is_none(),
            // Formats with types of their own make it only of moments, and a text that is one belongs there, too.
            Kind::Timestamp { zoned, digits } => zoned && digits == 6 && self.spec.typing == Typing::Converting,
            Kind::Bool | Kind::Jsonb | Kind::Bytea | Kind::Array(_) | Kind::ArrayText(_) => true,
            Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Float4 | Kind::Float8 => false,
            Kind::Date | Kind::Uuid | Kind::Json | Kind::Enum | Kind::Other => false,
        };
        if column.generated {
            return Slot::Overflow;
        }
        let rule = match (inferred, self.spec.typing) {
            (true, Typing::Converting) => MisfitRule::Overflow,
            (true, Typing::Exact) => MisfitRule::Exact,
            (false, _) => MisfitRule::Reject,
        };
        Slot::Column(position, rule)
    }

    /// The row's partition; `None` for a row that has expired.
    fn partition(&mut self, values: &[(Field, Value<'_>)], now: Timestamp) -> Result<Option<usize>, Reason> {
        let Some(PartitionSpec { column, period }) = self.spec.partition else { return Ok(Some(0)) };
        let column = &self.spec.columns[column];
        let moment = self.moment(column, values)?;
        if period.oldest(now).is_some_and(|oldest| moment < oldest) {
            return Ok(None);
        }
        if moment > period.newest(now) {
            return Err(Reason::TooFarAhead { column: column.name.as_str().to_owned() });
        }
        if self.table.partitioned_by.as_ref() != Some(&column.name) {
            return Ok(Some(0));
        }
        if let Some(index) = self.table.partition_of(moment) {
            return Ok(Some(index));
        }
        if !self.partitions.iter().any(|partition| partition.bounds.contains(moment)) {
            let count = self.table.partitions.len() + self.partitions.len();
            if count >= PARTITIONS_MAX {
                return Err(Reason::TooManyPartitions(count));
            }
            self.partitions.push(new_partition(&self.table, period.every, moment, &self.partitions));
        }
        Ok(Some(0))
    }

    fn moment(&self, column: &ColumnSpec, values: &[(Field, Value<'_>)]) -> Result<Timestamp, Reason> {
        let path = || column.field.map(|field| self.fields.path(field).to_owned()).unwrap_or_default();
        let value = values.iter().rev().find(|(field, _)| Some(*field) == column.field).map(|(_, value)| value);
        let value = value.filter(|value| **value != Value::Null);
        let value = value.ok_or_else(|| Reason::Missing { path: path(), role: "the partition" })?;
        cell::moment(value).map_err(|misfit| Reason::DoesNotFit {
            path: path(),
            column: column.name.as_str().to_owned(),
            sql_type: column.sql_type.clone().unwrap_or_default(),
            misfit,
        })
    }

    /// A rejection by this table.
    pub fn rejection(&self, reason: Reason) -> Rejection {
        Rejection::by(self.spec.name.plain(), reason)
    }

    /// Asks for the overflow column, which the table was made without.
    pub fn lack_of_overflow(&self) -> TableLack {
        TableLack { columns: vec![own_column(OVERFLOW, "jsonb")], ..self.no_lack() }
    }

    fn no_lack(&self) -> TableLack {
        TableLack {
            table: self.spec.name.clone(),
            create: None,
            key: self.spec.key_columns().map(|column| column.name.clone()).collect(),
            partition_by: self.table.partitioned_by.clone(),
            columns: Vec::new(),
            claims: Vec::new(),
            partitions: Vec::new(),
        }
    }

    /// What the table lacks for the changes surveyed.
    pub fn lack(&self) -> Option<TableLack> {
        let typed = |lacking: &Lacking| {
            let inferred = lacking.inferred.map(|inferred| match (inferred, self.spec.text_characters_max) {
                (Inferred::Text, Some(limit)) => format!("varchar({limit})"),
                (inferred, _) => inferred.sql_type(self.spec.arrays).to_owned(),
            });
            let sql_type = Some(lacking.column.sql_type.clone()).filter(|sql_type| !sql_type.is_empty()).or(inferred);
            NewColumn { sql_type: sql_type.unwrap_or_else(|| "text".to_owned()), ..lacking.column.clone() }
        };
        let lack = TableLack {
            create: self.found.is_none().then(|| self.spec.origin.clone()),
            columns: self.lacking.iter().filter(|lacking| lacking.wanted).map(typed).collect(),
            claims: self.claims.clone(),
            partitions: self.partitions.clone(),
            ..self.no_lack()
        };
        (!lack.is_empty()).then_some(lack)
    }

    /// Asks for every column whose type is declared, whatever the records carry.
    pub fn ask_for_declared(&mut self) {
        for column in self.spec.columns.iter().filter(|column| column.sql_type.is_some()) {
            let asked = self.lacking.iter().any(|lacking| lacking.column.name == column.name);
            if !asked && self.table.position(column.name.as_str()).is_none() {
                self.add_lacking(declared(column), None, true);
            }
        }
    }

    /// Makes sure that a key can be there only once, in the table or in each partition that is written.
    pub fn check_unique(&self, rows: &[Candidate]) -> Result<(), PlanError> {
        let key: Vec<&Identifier> = self.spec.key_columns().map(|column| &column.name).collect();
        let by = self.table.partitioned_by.as_ref();
        let holds = |unique: &[Vec<Identifier>]| {
            unique.iter().any(|columns| {
                let within = columns.iter().all(|column| key.contains(&column) || Some(column) == by);
                within && columns.iter().any(|column| key.contains(&column))
            })
        };
        if holds(&self.table.unique) {
            return Ok(());
        }
        let missing = |name: &crate::names::TableName| {
            let columns: Vec<String> = key.iter().map(ToString::to_string).collect();
            let ddl = format!("CREATE UNIQUE INDEX CONCURRENTLY ON {name} ({})", columns.join(", "));
            PlanError::NoUniqueIndex { table: name.plain(), ddl }
        };
        if by.is_none() {
            return Err(missing(&self.table.name));
        }
        let mut touched: Vec<usize> = rows.iter().map(|row| row.partition).collect();
        touched.sort_unstable();
        touched.dedup();
        let mut partitions = touched.iter().filter_map(|&index| self.table.partitions.get(index));
        let unkept = partitions.find(|partition| !holds(&partition.unique));
        unkept.map_or(Ok(()), |partition| Err(missing(&partition.name)))
    }

    /// The table, if the database has it.
    pub fn found(&self) -> Option<&'p Arc<Table>> {
        self.found
    }
}

/// The partition for a moment that no partition holds yet, within what its neighbours leave.
pub fn new_partition(
    table: &Table,
    every: crate::partition::Every,
    moment: Timestamp,
    planned: &[NewPartition],
) -> NewPartition {
    let there = table.partitions.iter().map(|partition| partition.bounds);
    let taken = there.chain(planned.iter().map(|partition| partition.bounds));
    let bounds: Bounds = every.bounds(moment).clipped(moment, taken);
    NewPartition { name: every.table(&table.name, bounds), bounds }
}

fn declared(column: &ColumnSpec) -> NewColumn {
    NewColumn {
        name: column.name.clone(),
        sql_type: column.sql_type.clone().unwrap_or_default(),
        required: column.required,
        check: column.check.clone(),
        default: column.default,
        original: None,
    }
}

fn own_column(name: &str, sql_type: &str) -> NewColumn {
    NewColumn {
        name: Identifier::fitting(name, name),
        sql_type: sql_type.to_owned(),
        required: false,
        check: None,
        default: None,
        original: None,
    }
}
