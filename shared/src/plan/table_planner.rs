//! One table's part of a batch: which column each field goes to, which partition each row, and what is lacking.

use std::borrow::Cow;
use std::sync::Arc;

use super::diff::{InferredType, NewColumn, NewPartition, TableDiff};
use super::{PartialPlan, PlanError, cell};
use crate::catalog::comment::with_note;
use crate::catalog::{Catalog, ColumnType, DbColumn, DbTable};
use crate::change::{Changes, Value};
use crate::field::{FieldId, FieldTree};
use crate::names::Identifier;
use crate::partition::TimeRange;
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{Coercion, ColumnSpec, Nested, OVERFLOW, OnMismatch, PartitionSpec, RESERVED, SchemaMode, TableSpec};
use crate::timestamp::Timestamp;

/// A table has at most this many partitions: `ALTER TABLE` locks each of them, and PostgreSQL's lock table holds 6,400
/// entries by default (`max_locks_per_transaction` × `max_connections`).
const PARTITIONS_MAX: usize = 4_000;

/// Where a field's values go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldRoute {
    /// Not yet asked.
    Unresolved,
    /// The table does not take the field.
    Ignored,
    /// A column that is there.
    Column(usize, OnMismatch),
    /// A column that is lacking, by its place among the new ones.
    NewColumn(usize),
    /// The overflow column.
    Overflow,
    /// The table is strict, and takes no such field.
    Refused,
}

/// A change on its way to a row.
#[derive(Clone, Copy, Debug)]
pub struct PlannedChange {
    /// The change, by its place in the batch.
    pub change: usize,
    /// The row's partition, by its place in the table; 0 for a table without.
    pub partition: usize,
}

/// One table's part of a batch.
pub struct TablePlanner<'p> {
    pub spec: &'p TableSpec,
    pub fields: &'p FieldTree,
    /// What the database has, or would have had once the table is made.
    pub table: Cow<'p, DbTable>,
    /// For each field of the source.
    pub routes: Vec<FieldRoute>,
    found: Option<&'p Arc<DbTable>>,
    pending: Vec<PendingColumn>,
    adopted_columns: Vec<(Identifier, String)>,
    partitions: Vec<NewPartition>,
}

/// A column that would be made, if some value asks for it.
struct PendingColumn {
    column: NewColumn,
    inferred: Option<InferredType>,
    has_value: bool,
}

impl<'p> TablePlanner<'p> {
    /// A survey of the table, as far as the catalog knows it.
    pub fn new(spec: &'p TableSpec, fields: &'p FieldTree, catalog: &'p Catalog) -> Self {
        let found = catalog.table(&spec.name);
        let table = found.map_or_else(|| Cow::Owned(DbTable::planned(spec)), |table| Cow::Borrowed(&**table));
        let mut survey = Self {
            spec,
            fields,
            routes: vec![FieldRoute::Unresolved; fields.count()],
            found,
            table,
            pending: Vec::new(),
            adopted_columns: Vec::new(),
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
            self.add_pending(NewColumn { original, ..declared_column(column) }, None, true);
        }
        let version = self.spec.version_column().map(|name| (name, "text"));
        for (name, sql_type) in version.into_iter().chain(absent.then_some((OVERFLOW, "jsonb"))) {
            if self.table.column_index(name).is_none() {
                self.add_pending(system_column(name, sql_type), None, true);
            }
        }
    }

    fn add_pending(&mut self, column: NewColumn, inferred: Option<InferredType>, wanted: bool) -> usize {
        self.pending.push(PendingColumn { column, inferred, has_value: wanted });
        self.pending.len() - 1
    }

    /// Finds each change's partition, and each field's column. Changes that end here are told to the draft.
    pub fn changes(
        &mut self,
        changes: &Changes<'_>,
        list: &[usize],
        now: Timestamp,
        draft: &mut PartialPlan,
    ) -> Vec<PlannedChange> {
        let mut candidates = Vec::with_capacity(list.len());
        for &index in list {
            let change = &changes.list[index];
            let values = &changes.values[change.values.clone()];
            match self.partition(values, now) {
                Ok(Some(partition)) => {
                    self.resolve_all(values);
                    candidates.push(PlannedChange { change: index, partition });
                }
                Ok(None) => draft.expired.push(change.record),
                Err(reason) => draft.rejected.push((change.record, self.rejection(reason))),
            }
        }
        candidates
    }

    fn resolve_all(&mut self, values: &[(FieldId, Value<'_>)]) {
        for (field, value) in values {
            if self.routes[field.0 as usize] == FieldRoute::Unresolved {
                self.routes[field.0 as usize] = self.resolve(*field);
            }
            if let FieldRoute::NewColumn(index) = self.routes[field.0 as usize]
                && let Some(inferred) = InferredType::from_value(value)
                && self.accepts_value(*field, value)
            {
                let lacking = &mut self.pending[index];
                lacking.inferred = Some(inferred.unify(lacking.inferred));
                lacking.has_value = true;
            }
        }
    }

    /// Whether the table takes this very value: an object only where it is declared whole, or objects stay whole.
    pub fn accepts_value(&self, field: FieldId, value: &Value<'_>) -> bool {
        let object = matches!(value, Value::Json(text) if text.starts_with('{'));
        !object || self.spec.nested == Nested::Jsonb || self.declaration(field).is_some()
    }

    fn declaration(&self, field: FieldId) -> Option<&'p ColumnSpec> {
        self.spec.columns.iter().find(|column| column.field == Some(field))
    }

    fn resolve(&mut self, field: FieldId) -> FieldRoute {
        if let Some(column) = self.declaration(field) {
            return self.declared_route(column);
        }
        let in_scope = self.spec.scope.iter().any(|&scope| self.fields.is_within(field, scope));
        if self.fields.is_synthetic(field) || !in_scope || self.is_inside_jsonb_column(field) {
            return FieldRoute::Ignored;
        }
        if self.spec.schema_mode == SchemaMode::Strict {
            return FieldRoute::Refused;
        }
        self.undeclared_route(field)
    }

    /// Whether an object that the table takes whole already holds the field.
    fn is_inside_jsonb_column(&self, field: FieldId) -> bool {
        let parent = self.fields.parent(field);
        if self.fields.is_container(field) || (self.spec.nested == Nested::Jsonb && !self.fields.is_container(parent)) {
            return true;
        }
        let mut above = parent;
        while above != FieldId::ROOT && self.declaration(above).is_none() {
            above = self.fields.parent(above);
        }
        above != FieldId::ROOT
    }

    fn declared_route(&mut self, column: &ColumnSpec) -> FieldRoute {
        if let Some(position) = self.table.column_index(column.name.as_str()) {
            return FieldRoute::Column(position, column.on_mismatch);
        }
        let known = self.pending.iter().position(|lacking| lacking.column.name == column.name);
        FieldRoute::NewColumn(known.unwrap_or_else(|| self.add_pending(declared_column(column), None, false)))
    }

    fn undeclared_route(&mut self, field: FieldId) -> FieldRoute {
        let path = self.fields.path(field);
        let known = self.table.columns.iter().position(|column| column.source_path.as_deref() == Some(path));
        if let Some(position) = known {
            return self.existing_route(position);
        }
        let name = Identifier::truncated(self.fields.column(field), path);
        let declared = self.spec.columns.iter().any(|column| column.name == name);
        if declared && self.spec.coercion == Coercion::Convert {
            return FieldRoute::Overflow;
        }
        if declared || RESERVED.contains(&name.as_str()) || self.pending.iter().any(|l| l.column.name == name) {
            return self.route_by_name(Identifier::with_hash_suffix(self.fields.column(field), path), path);
        }
        match self.table.columns.iter().find(|column| column.name == name) {
            Some(DbColumn { source_path: Some(_), .. }) => {
                self.route_by_name(Identifier::with_hash_suffix(self.fields.column(field), path), path)
            }
            Some(DbColumn { source_path: None, .. })
                if self.adopted_columns.iter().any(|(claimed, _)| *claimed == name) =>
            {
                self.route_by_name(Identifier::with_hash_suffix(self.fields.column(field), path), path)
            }
            Some(DbColumn { source_path: None, .. }) | None => self.route_by_name(name, path),
        }
    }

    /// The slot of the column that `path` is to have, whether it is there or not.
    fn route_by_name(&mut self, name: Identifier, path: &str) -> FieldRoute {
        if let Some(position) = self.table.column_index(name.as_str()) {
            let column = &self.table.columns[position];
            if column.source_path.is_none() && self.table.owned {
                self.adopted_columns.push((name, with_note(column.comment.as_deref(), path)));
            }
            return self.existing_route(position);
        }
        let full = self.table.columns.len() + self.pending.len() >= self.spec.columns_max;
        if self.spec.schema_mode == SchemaMode::Fixed || full {
            return FieldRoute::Overflow;
        }
        let column = NewColumn {
            name,
            sql_type: String::new(),
            required: false,
            check: None,
            default: None,
            original: Some(path.to_owned()),
        };
        FieldRoute::NewColumn(self.add_pending(column, None, false))
    }

    /// A column that nobody declared. Of a type that the writer would itself have chosen, it was chosen by some other
    /// value, and what does not fit goes to the overflow; any other type is its owner's word.
    fn existing_route(&self, position: usize) -> FieldRoute {
        let column = &self.table.columns[position];
        let inferred = match column.kind {
            ColumnType::Text { characters_max } => characters_max == self.spec.text_characters_max,
            ColumnType::Numeric { modifier } => modifier.is_none(),
            // Formats with types of their own make it only of moments, and a text that is one belongs there, too.
            ColumnType::Timestamp { zoned, digits } => zoned && digits == 6 && self.spec.coercion == Coercion::Convert,
            ColumnType::Bool
            | ColumnType::Jsonb
            | ColumnType::Bytea
            | ColumnType::Array(_)
            | ColumnType::ArrayText(_) => true,
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Float4 | ColumnType::Float8 => false,
            ColumnType::Date | ColumnType::Uuid | ColumnType::Json | ColumnType::Enum | ColumnType::Other => false,
        };
        if column.generated {
            return FieldRoute::Overflow;
        }
        let rule = match (inferred, self.spec.coercion) {
            (true, Coercion::Convert) => OnMismatch::Overflow,
            (true, Coercion::Exact) => OnMismatch::OverflowUnlessExact,
            (false, _) => OnMismatch::Reject,
        };
        FieldRoute::Column(position, rule)
    }

    /// The row's partition; `None` for a row that has expired.
    fn partition(&mut self, values: &[(FieldId, Value<'_>)], now: Timestamp) -> Result<Option<usize>, RejectionReason> {
        let Some(PartitionSpec { column, policy: period }) = self.spec.partition else { return Ok(Some(0)) };
        let column = &self.spec.columns[column];
        let moment = self.partition_time(column, values)?;
        if period.retention_cutoff(now).is_some_and(|oldest| moment < oldest) {
            return Ok(None);
        }
        if moment > period.future_cutoff(now) {
            return Err(RejectionReason::TooFarAhead { column: column.name.as_str().to_owned() });
        }
        if self.table.partition_column.as_ref() != Some(&column.name) {
            return Ok(Some(0));
        }
        if let Some(index) = self.table.partition_of(moment) {
            return Ok(Some(index));
        }
        if !self.partitions.iter().any(|partition| partition.bounds.contains(moment)) {
            let count = self.table.partitions.len() + self.partitions.len();
            if count >= PARTITIONS_MAX {
                return Err(RejectionReason::TooManyPartitions(count));
            }
            self.partitions.push(new_partition(&self.table, period.width, moment, &self.partitions));
        }
        Ok(Some(0))
    }

    fn partition_time(
        &self,
        column: &ColumnSpec,
        values: &[(FieldId, Value<'_>)],
    ) -> Result<Timestamp, RejectionReason> {
        let path = || column.field.map(|field| self.fields.path(field).to_owned()).unwrap_or_default();
        let value = values.iter().rev().find(|(field, _)| Some(*field) == column.field).map(|(_, value)| value);
        let value = value.filter(|value| **value != Value::Null);
        let value = value.ok_or_else(|| RejectionReason::Missing { path: path(), role: "the partition" })?;
        cell::timestamp(value).map_err(|misfit| RejectionReason::DoesNotFit {
            path: path(),
            column: column.name.as_str().to_owned(),
            sql_type: column.sql_type.clone().unwrap_or_default(),
            mismatch: misfit,
        })
    }

    /// A rejection by this table.
    pub fn rejection(&self, reason: RejectionReason) -> Rejection {
        Rejection::for_table(self.spec.name.unquoted(), reason)
    }

    /// Asks for the overflow column, which the table was made without.
    pub fn overflow_column_diff(&self) -> TableDiff {
        TableDiff { columns: vec![system_column(OVERFLOW, "jsonb")], ..self.empty_diff() }
    }

    fn empty_diff(&self) -> TableDiff {
        TableDiff {
            table: self.spec.name.clone(),
            created_by: None,
            key: self.spec.key_columns().map(|column| column.name.clone()).collect(),
            partition_column: self.table.partition_column.clone(),
            columns: Vec::new(),
            adopted_columns: Vec::new(),
            partitions: Vec::new(),
        }
    }

    /// What the table lacks for the changes surveyed.
    pub fn diff(&self) -> Option<TableDiff> {
        let typed = |lacking: &PendingColumn| {
            let inferred = lacking.inferred.map(|inferred| match (inferred, self.spec.text_characters_max) {
                (InferredType::Text, Some(limit)) => format!("varchar({limit})"),
                (inferred, _) => inferred.sql_type(self.spec.arrays).to_owned(),
            });
            let sql_type = Some(lacking.column.sql_type.clone()).filter(|sql_type| !sql_type.is_empty()).or(inferred);
            NewColumn { sql_type: sql_type.unwrap_or_else(|| "text".to_owned()), ..lacking.column.clone() }
        };
        let lack = TableDiff {
            created_by: self.found.is_none().then(|| self.spec.source_label.clone()),
            columns: self.pending.iter().filter(|lacking| lacking.has_value).map(typed).collect(),
            adopted_columns: self.adopted_columns.clone(),
            partitions: self.partitions.clone(),
            ..self.empty_diff()
        };
        (!lack.is_empty()).then_some(lack)
    }

    /// Asks for every column whose type is declared, whatever the records carry.
    pub fn require_declared_columns(&mut self) {
        for column in self.spec.columns.iter().filter(|column| column.sql_type.is_some()) {
            let asked = self.pending.iter().any(|lacking| lacking.column.name == column.name);
            if !asked && self.table.column_index(column.name.as_str()).is_none() {
                self.add_pending(declared_column(column), None, true);
            }
        }
    }

    /// Makes sure that a key can be there only once, in the table or in each partition that is written.
    pub fn require_unique_key(&self, rows: &[PlannedChange]) -> Result<(), PlanError> {
        let key: Vec<&Identifier> = self.spec.key_columns().map(|column| &column.name).collect();
        let by = self.table.partition_column.as_ref();
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
            PlanError::NoUniqueIndex { table: name.unquoted(), ddl }
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
    pub fn found(&self) -> Option<&'p Arc<DbTable>> {
        self.found
    }
}

/// The partition for a moment that no partition holds yet, within what its neighbours leave.
pub fn new_partition(
    table: &DbTable,
    every: crate::partition::PartitionWidth,
    moment: Timestamp,
    planned: &[NewPartition],
) -> NewPartition {
    let there = table.partitions.iter().map(|partition| partition.bounds);
    let taken = there.chain(planned.iter().map(|partition| partition.bounds));
    let bounds: TimeRange = every.bounds(moment).clipped_to_gap(moment, taken);
    NewPartition { name: every.partition_name(&table.name, bounds), bounds }
}

fn declared_column(column: &ColumnSpec) -> NewColumn {
    NewColumn {
        name: column.name.clone(),
        sql_type: column.sql_type.clone().unwrap_or_default(),
        required: column.required,
        check: column.check.clone(),
        default: column.default,
        original: None,
    }
}

fn system_column(name: &str, sql_type: &str) -> NewColumn {
    NewColumn {
        name: Identifier::truncated(name, name),
        sql_type: sql_type.to_owned(),
        required: false,
        check: None,
        default: None,
        original: None,
    }
}
