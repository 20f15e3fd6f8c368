//! Plans one table's part of a batch: the column of each field, the partition of each row, and what is missing.

mod blocked;

use std::borrow::Cow;
use std::sync::Arc;

use super::diff::{InferredType, NewColumn, NewPartition, TableDiff};
use super::routes::{FieldRoute, FieldRoutes};
use super::{OwnerObject, PartialPlan, cell};
use crate::catalog::{Catalog, ColumnType, DbColumn, DbTable};
use crate::change::{Changes, Value};
use crate::field::{FieldId, FieldTree};
use crate::names::Identifier;
use crate::partition::TimeRange;
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{Coercion, ColumnSpec, Nested, OVERFLOW, OnMismatch, PartitionSpec, RESERVED, SchemaMode, TableSpec};
use crate::timestamp::Timestamp;
use crate::unwritable::Blocked;

/// A table has at most this many partitions: `ALTER TABLE` locks each of them, and PostgreSQL's lock table holds 6,400
/// entries by default (`max_locks_per_transaction` × `max_connections`).
const PARTITIONS_MAX: usize = 4_000;

/// A change whose partition is known.
#[derive(Clone, Copy, Debug)]
pub struct PlannedChange {
    /// The change, by its index in the batch.
    pub change: usize,
    /// The row's partition, by its index in the table; 0 for a table without partitions.
    pub partition: usize,
}

/// Plans one table's part of a batch.
pub struct TablePlanner<'p> {
    pub spec: &'p TableSpec,
    pub fields: &'p FieldTree,
    /// The table in the database, or else the table as it would be created.
    pub table: Cow<'p, DbTable>,
    pub routes: FieldRoutes,
    existing: Option<&'p Arc<DbTable>>,
    pending: Vec<PendingColumn>,
    /// What the batch does not fill because it is its owner's.
    owner_objects: Vec<OwnerObject>,
    partitions: Vec<NewPartition>,
    blocked: Option<&'p Blocked>,
}

/// A column that is created if a value needs it.
struct PendingColumn {
    column: NewColumn,
    inferred: Option<InferredType>,
    has_value: bool,
}

impl<'p> TablePlanner<'p> {
    /// Creates a planner for the table as the catalog has it.
    pub fn new(spec: &'p TableSpec, fields: &'p FieldTree, catalog: &'p Catalog) -> Self {
        let existing = catalog.table(&spec.name);
        let table = existing.map_or_else(|| Cow::Owned(DbTable::planned(spec)), |table| Cow::Borrowed(&**table));
        let mut planner = Self {
            spec,
            fields,
            routes: FieldRoutes::new(fields.count()),
            existing,
            table,
            pending: Vec::new(),
            owner_objects: owner_table(spec, catalog).into_iter().collect(),
            partitions: Vec::new(),
            blocked: None,
        };
        planner.declared_columns();
        planner
    }

    /// Adds the typed columns of a table that does not exist yet, and Millstream's own columns.
    fn declared_columns(&mut self) {
        let is_new = self.existing.is_none();
        let spec = self.spec;
        for column in spec.columns.iter().filter(|column| is_new && column.sql_type.is_some()) {
            let source_path = self.noted_path(column);
            self.add_pending(NewColumn { source_path, ..declared_column(column) }, None, true);
        }
        let version = self.spec.version_column().map(|name| (name, "text"));
        for (name, sql_type) in version.into_iter().chain(is_new.then_some((OVERFLOW, "jsonb"))) {
            if self.table.column_index(name).is_none() {
                self.add_pending(system_column(name, sql_type), None, true);
            }
        }
    }

    /// The path for the note of a declared column. The source names of a replica's key columns are kept, too: a full load does
    /// not say which attributes form the key.
    fn noted_path(&self, column: &ColumnSpec) -> Option<String> {
        let field = column.field.filter(|&field| self.spec.replicated && !self.fields.is_synthetic(field));
        field.map(|field| self.fields.path(field).to_owned())
    }

    fn add_pending(&mut self, column: NewColumn, inferred: Option<InferredType>, has_value: bool) -> usize {
        self.pending.push(PendingColumn { column, inferred, has_value });
        self.pending.len() - 1
    }

    /// Resolves each change's partition and each field's column. Expired and rejected changes go to the partial plan.
    pub fn changes(
        &mut self,
        changes: &Changes<'_>,
        list: &[usize],
        now: Timestamp,
        partial_plan: &mut PartialPlan,
    ) -> Vec<PlannedChange> {
        let mut planned = Vec::with_capacity(list.len());
        for &index in list {
            let change = &changes.list[index];
            let values = &changes.values[change.values.clone()];
            match self.partition(values, now) {
                Ok(Some(partition)) => match self.resolve_all(values) {
                    Ok(()) => planned.push(PlannedChange { change: index, partition }),
                    Err(reason) => partial_plan.rejected.push((change.record, self.rejection(reason))),
                },
                Ok(None) => partial_plan.expired.push(change.record),
                Err(reason) => partial_plan.rejected.push((change.record, self.rejection(reason))),
            }
        }
        self.without_unwritable_partitions(planned, changes, partial_plan)
    }

    /// Resolves the columns of a change's fields.
    fn resolve_all(&mut self, values: &[(FieldId, Value<'_>)]) -> Result<(), RejectionReason> {
        for (field, value) in values {
            if self.routes.get(*field) == FieldRoute::Unresolved {
                let route = self.resolve(*field);
                self.routes.set(*field, route);
            }
            if let FieldRoute::NewColumn(index) = self.routes.get(*field)
                && let Some(inferred) = InferredType::from_value(value)
                && self.accepts_value(*field, value)
            {
                self.allow_schema_change()?;
                let pending = &mut self.pending[index];
                pending.inferred = Some(inferred.unify(pending.inferred));
                pending.has_value = true;
            }
        }
        Ok(())
    }

    /// Whether the table accepts this value: an object only if its field is declared, or if objects are stored whole and
    /// this one does not just group its members.
    pub fn accepts_value(&self, field: FieldId, value: &Value<'_>) -> bool {
        let is_object = matches!(value, Value::Json(text) if text.starts_with('{'));
        let stores_objects = || self.spec.nested == Nested::Jsonb && !self.fields.is_container(field);
        !is_object || stores_objects() || self.declaration(field).is_some()
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
        if self.spec.schema_mode == SchemaMode::Strict || self.fields.path(field).contains('\0') {
            return FieldRoute::Rejected;
        }
        // Anything but an object in place of the members' object has no column of its own.
        if self.fields.is_container(field) {
            return FieldRoute::Overflow;
        }
        self.undeclared_route(field)
    }

    /// Why a record with a field of the route [`FieldRoute::Rejected`] is rejected.
    pub fn unstorable_field(&self, field: FieldId) -> RejectionReason {
        if let Some(unwritable) = self.generated_column(field).and_then(|column| self.problems()?.of_column(column)) {
            return RejectionReason::Unwritable(unwritable);
        }
        let path = self.fields.path(field);
        if path.contains('\0') {
            return RejectionReason::nul_in_name(&path);
        }
        RejectionReason::UnknownField { path }
    }

    /// Whether the field is part of an object that the table stores whole.
    fn is_inside_jsonb_column(&self, field: FieldId) -> bool {
        let parent = self.fields.parent(field);
        if self.spec.nested == Nested::Jsonb && !self.fields.is_container(parent) {
            return true;
        }
        let mut ancestor = parent;
        while ancestor != FieldId::ROOT && self.declaration(ancestor).is_none() {
            ancestor = self.fields.parent(ancestor);
        }
        ancestor != FieldId::ROOT
    }

    /// The column that is declared for the field, if PostgreSQL computes it.
    fn generated_column(&self, field: FieldId) -> Option<&DbColumn> {
        let name = &self.declaration(field)?.name;
        self.table.columns.iter().find(|column| column.name == *name && column.generated.is_some())
    }

    fn declared_route(&mut self, column: &ColumnSpec) -> FieldRoute {
        if let Some(column_index) = self.table.column_index(column.name.as_str()) {
            if self.table.columns[column_index].generated.is_some() {
                return FieldRoute::Rejected;
            }
            return FieldRoute::Column(column_index, column.on_mismatch);
        }
        let pending_index = self.pending.iter().position(|pending| pending.column.name == column.name);
        FieldRoute::NewColumn(pending_index.unwrap_or_else(|| {
            let source_path = self.noted_path(column);
            self.add_pending(NewColumn { source_path, ..declared_column(column) }, None, false)
        }))
    }

    fn undeclared_route(&mut self, field: FieldId) -> FieldRoute {
        let path = &*self.fields.path(field);
        let existing = self.table.columns.iter().position(|column| column.source_path.as_deref() == Some(path));
        if let Some(column_index) = existing {
            return self.existing_route(column_index);
        }
        let derived = &*self.fields.column(field);
        let name = Identifier::truncated(derived, path);
        let is_declared = self.spec.columns.iter().any(|column| column.name == name);
        if is_declared && self.spec.coercion == Coercion::Convert {
            return FieldRoute::Overflow;
        }
        if is_declared
            || RESERVED.contains(&name.as_str())
            || self.pending.iter().any(|pending| pending.column.name == name)
        {
            return self.route_by_name(Identifier::with_hash_suffix(derived, path), path);
        }
        match self.table.columns.iter().find(|column| column.name == name) {
            Some(DbColumn { source_path: Some(_), .. }) => {
                self.route_by_name(Identifier::with_hash_suffix(derived, path), path)
            }
            Some(DbColumn { source_path: None, .. }) | None => self.route_by_name(name, path),
        }
    }

    /// The route of a field that no column is for. A column that has the name is its owner's: a field fills only columns whose
    /// note names its path, or which are declared.
    fn route_by_name(&mut self, name: Identifier, path: &str) -> FieldRoute {
        if self.table.column_index(name.as_str()).is_some() {
            let table = self.spec.name.clone();
            self.owner_objects.push(OwnerObject::Column { table, column: name, path: path.to_owned() });
            return FieldRoute::Overflow;
        }
        let is_full = self.table.columns.len() + self.pending.len() >= self.spec.columns_max;
        if self.spec.schema_mode == SchemaMode::Fixed || is_full {
            return FieldRoute::Overflow;
        }
        let column = NewColumn {
            name,
            sql_type: String::new(),
            required: false,
            check: None,
            default: None,
            source_path: Some(path.to_owned()),
        };
        FieldRoute::NewColumn(self.add_pending(column, None, false))
    }

    /// The route to an existing column that is not declared. If its type is one that Millstream chooses, another value
    /// determined it, and a value that does not fit goes to the overflow. Any other type is the owner's choice, and a value
    /// that does not fit is rejected.
    fn existing_route(&self, column_index: usize) -> FieldRoute {
        let column = &self.table.columns[column_index];
        let inferred = match column.column_type {
            ColumnType::Text { characters_max } => characters_max == self.spec.text_characters_max,
            ColumnType::Numeric { modifier } => modifier.is_none(),
            // Formats with types of their own create it only for timestamps; text that is a timestamp belongs in it, too.
            ColumnType::Timestamp { zoned, digits } => zoned && digits == 6 && self.spec.coercion == Coercion::Convert,
            ColumnType::Bool
            | ColumnType::Jsonb
            | ColumnType::Bytea
            | ColumnType::Array(_)
            | ColumnType::ArrayText(_) => true,
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Float4 | ColumnType::Float8 => false,
            ColumnType::Date | ColumnType::Uuid | ColumnType::Json | ColumnType::Enum | ColumnType::Other => false,
        };
        if column.generated.is_some() {
            return FieldRoute::Overflow;
        }
        let on_mismatch = match (inferred, self.spec.coercion) {
            (true, Coercion::Convert) => OnMismatch::Overflow,
            (true, Coercion::Exact) => OnMismatch::OverflowUnlessExact,
            (false, _) => OnMismatch::Reject,
        };
        FieldRoute::Column(column_index, on_mismatch)
    }

    /// The row's partition; `None` if the row has expired.
    fn partition(&mut self, values: &[(FieldId, Value<'_>)], now: Timestamp) -> Result<Option<usize>, RejectionReason> {
        let Some(PartitionSpec { column, policy }) = self.spec.partition else { return Ok(Some(0)) };
        let column = &self.spec.columns[column];
        let time = self.partition_time(column, values)?;
        if policy.retention_cutoff(now).is_some_and(|cutoff| time < cutoff) {
            return Ok(None);
        }
        if time > policy.future_cutoff(now) {
            return Err(RejectionReason::TooFarAhead { column: column.name.as_str().to_owned() });
        }
        if self.table.partition_column.as_ref() != Some(&column.name) {
            return Ok(Some(0));
        }
        if let Some(index) = self.table.partition_of(time) {
            return Ok(Some(index));
        }
        self.allow_schema_change()?;
        if let Some(unwritable) = self.problems().and_then(|problems| problems.of_missing_partition()) {
            return Err(RejectionReason::Unwritable(unwritable));
        }
        if !self.partitions.iter().any(|partition| partition.bounds.contains(time)) {
            let count = self.table.partitions.len() + self.partitions.len();
            if count >= PARTITIONS_MAX {
                return Err(RejectionReason::TooManyPartitions(count));
            }
            self.partitions.push(new_partition(&self.table, policy.width, time, &self.partitions));
        }
        Ok(Some(0))
    }

    fn partition_time(
        &self,
        column: &ColumnSpec,
        values: &[(FieldId, Value<'_>)],
    ) -> Result<Timestamp, RejectionReason> {
        let path = || column.field.map(|field| self.fields.path(field)).unwrap_or_default();
        let value = values.iter().rev().find(|(field, _)| Some(*field) == column.field).map(|(_, value)| value);
        let value = value.filter(|value| **value != Value::Null);
        let value = value.ok_or_else(|| RejectionReason::Missing { path: path(), role: "the partition" })?;
        cell::timestamp(value).map_err(|mismatch| RejectionReason::DoesNotFit {
            path: path(),
            column: column.name.as_str().to_owned(),
            sql_type: column.sql_type.clone().unwrap_or_default(),
            mismatch,
        })
    }

    /// A rejection by this table.
    pub fn rejection(&self, reason: RejectionReason) -> Rejection {
        Rejection::for_table(self.spec.name.unquoted(), reason)
    }

    /// The overflow column, for a table that was created without it.
    pub fn overflow_column_diff(&self) -> TableDiff {
        TableDiff { columns: vec![system_column(OVERFLOW, "jsonb")], ..self.empty_diff() }
    }

    fn empty_diff(&self) -> TableDiff {
        TableDiff {
            table: self.spec.name.clone(),
            source_label: None,
            key: self.spec.key_columns().map(|column| column.name.clone()).collect(),
            partition_column: self.table.partition_column.clone(),
            columns: Vec::new(),
            partitions: Vec::new(),
            on_unwritable: self.spec.on_unwritable,
        }
    }

    /// What the table is missing for the changes planned so far.
    pub fn diff(&self) -> Option<TableDiff> {
        let with_type = |pending: &PendingColumn| {
            let inferred = pending.inferred.map(|inferred| match (inferred, self.spec.text_characters_max) {
                (InferredType::Text, Some(limit)) => format!("varchar({limit})"),
                (inferred, _) => inferred.sql_type(self.spec.arrays).to_owned(),
            });
            let sql_type = Some(pending.column.sql_type.clone()).filter(|sql_type| !sql_type.is_empty()).or(inferred);
            NewColumn { sql_type: sql_type.unwrap_or_else(|| "text".to_owned()), ..pending.column.clone() }
        };
        let diff = TableDiff {
            source_label: self.existing.is_none().then(|| self.spec.source_label.clone()),
            columns: self.pending.iter().filter(|pending| pending.has_value).map(with_type).collect(),
            partitions: self.partitions.clone(),
            ..self.empty_diff()
        };
        (!diff.is_empty()).then_some(diff)
    }

    /// Requires every column with a declared type, whatever the records carry.
    pub fn require_declared_columns(&mut self) {
        for column in self.spec.columns.iter().filter(|column| column.sql_type.is_some()) {
            let is_pending = self.pending.iter().any(|pending| pending.column.name == column.name);
            if !is_pending && self.table.column_index(column.name.as_str()).is_none() {
                self.add_pending(declared_column(column), None, true);
            }
        }
    }

    /// What the batch does not fill because it is its owner's.
    pub fn take_owner_objects(&mut self) -> Vec<OwnerObject> {
        std::mem::take(&mut self.owner_objects)
    }

    /// The table, if it exists.
    pub fn existing_table(&self) -> Option<&'p Arc<DbTable>> {
        self.existing
    }
}

/// The table of the owner or of another source that keeps the rows of this one out of its name.
fn owner_table(spec: &TableSpec, catalog: &Catalog) -> Option<OwnerObject> {
    let table = spec.own_name.as_ref()?;
    let note = catalog.table(table)?.source_label.clone();
    let is_reported = note.as_ref().is_none_or(|note| !spec.replicated && note.starts_with("source "));
    let (table, used, label) = (table.clone(), spec.name.clone(), spec.source_label.clone());
    is_reported.then_some(OwnerObject::Table { table, note, used, label })
}

/// The partition for a time that no partition covers yet, clipped to the gap between its neighbors.
pub fn new_partition(
    table: &DbTable,
    width: crate::partition::PartitionWidth,
    time: Timestamp,
    planned: &[NewPartition],
) -> NewPartition {
    let existing = table.partitions.iter().map(|partition| partition.bounds);
    let taken = existing.chain(planned.iter().map(|partition| partition.bounds));
    let bounds: TimeRange = width.bounds(time).clipped_to_gap(time, taken);
    NewPartition { name: width.partition_name(&table.name, bounds), bounds }
}

fn declared_column(column: &ColumnSpec) -> NewColumn {
    NewColumn {
        name: column.name.clone(),
        sql_type: column.sql_type.clone().unwrap_or_default(),
        required: column.required,
        check: column.check.clone(),
        default: column.default,
        source_path: None,
    }
}

fn system_column(name: &str, sql_type: &str) -> NewColumn {
    NewColumn {
        name: Identifier::truncated(name, name),
        sql_type: sql_type.to_owned(),
        required: false,
        check: None,
        default: None,
        source_path: None,
    }
}
