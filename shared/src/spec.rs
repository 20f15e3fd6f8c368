//! The specification of a table, which connects configuration and decoding to planning.
//!
//! Decoders create a [`TableSpec`] for each table that they write to; [`crate::catalog`] describes what the database
//! has; the plan is the difference.

use std::collections::HashMap;

use crate::field::FieldId;
use crate::names::{Identifier, TableName};
use crate::partition::PartitionWidth;
use crate::timestamp::Timestamp;

/// The column for fields that have no column of their own.
pub const OVERFLOW: &str = "_overflow";
/// The column for the version of a row that is merged by row.
pub const VERSION: &str = "_version";
/// The column for the versions of the columns of a row that is merged by column.
pub const VERSIONS: &str = "_versions";
/// Column names that no field of a source can have: Millstream's, and the system columns of every PostgreSQL table
/// (<https://www.postgresql.org/docs/current/ddl-system-columns.html>).
pub const RESERVED: &[&str] = &[OVERFLOW, VERSION, VERSIONS, "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
/// The column for when a row was deleted at its source, in tables that keep deleted rows.
pub const DELETED_AT: &str = "_deleted_at";

/// A table of a [`TableRegistry`], as a small number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableId(pub u32);

/// The specification of a table.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Schema and table.
    pub name: TableName,
    /// The name that the table would have if it did not belong to another relation or to a type.
    pub own_name: Option<TableName>,
    /// What fills the table, recorded in its comment.
    pub source_label: String,
    /// The sources whose tables it may fill, by the notes in their comments; empty if it is replicated.
    pub filled_with: Vec<String>,
    /// Columns known in advance, declared by the format or the configuration.
    pub columns: Vec<ColumnSpec>,
    /// Undeclared fields within these become columns, as `schema_mode` says.
    pub scope: Vec<FieldId>,
    /// The key of a row, as indexes into `columns`. For event tables, unique within a partition.
    pub key: Vec<usize>,
    /// What a second change of the same key does.
    pub write_mode: WriteMode,
    /// What happens to a row that its source deletes.
    pub deletes: DeleteMode,
    /// What happens to a column that is missing from a change.
    pub missing_columns: MissingColumns,
    /// How the table is partitioned, if at all.
    pub partition: Option<PartitionSpec>,
    /// What happens to undeclared fields.
    pub schema_mode: SchemaMode,
    /// What happens to nested objects.
    pub nested: Nested,
    /// The type of a new column for arrays.
    pub arrays: Arrays,
    /// Whether it replicates a table of its source, from which it takes its name and key.
    pub replicated: bool,
    /// Whether the configuration names the table, so that it is filled even if its owner created it.
    pub declared: bool,
    /// Which values are converted to a column type that Millstream chose.
    pub coercion: Coercion,
    /// New text columns are `varchar` of this many characters; `None` means `text`.
    pub text_characters_max: Option<usize>,
    /// No column is added beyond this number; PostgreSQL's limit is 1,600.
    pub columns_max: usize,
    /// What happens to the records if the table cannot be written as it is defined.
    pub on_unwritable: OnUnwritable,
}

impl TableSpec {
    /// The name that the table gets if its own belongs to another relation or to a type. It does not depend on which of
    /// several events with one table is seen first.
    pub fn alternative_name(&self) -> TableName {
        let unquoted = self.name.unquoted();
        let original = if self.replicated { &self.source_label } else { &unquoted };
        TableName { schema: self.name.schema.clone(), table: self.name.table.alternative(original) }
    }

    /// The columns of the key.
    pub fn key_columns(&self) -> impl Iterator<Item = &ColumnSpec> {
        self.key.iter().map(|&index| &self.columns[index])
    }

    /// The column that holds the version, for entities.
    pub fn version_column(&self) -> Option<&'static str> {
        match self.write_mode {
            WriteMode::Append => None,
            WriteMode::Merge(MergeBy::Row) => Some(VERSION),
            WriteMode::Merge(MergeBy::Column) => Some(VERSIONS),
        }
    }
}

/// A column known in advance.
#[derive(Clone, Debug)]
pub struct ColumnSpec {
    /// Its name.
    pub name: Identifier,
    /// The field of its values; `None` for a column that only its default fills.
    pub field: Option<FieldId>,
    /// Its SQL type, checked when the configuration is read; `None` means inferred from the first values.
    pub sql_type: Option<String>,
    /// Whether a row without a value is rejected.
    pub required: bool,
    /// The expression of a check constraint, in SQL from the configuration.
    pub check: Option<String>,
    /// A default, in SQL.
    pub default: Option<&'static str>,
    /// What happens to a value that the column cannot hold.
    pub on_mismatch: OnMismatch,
}

impl ColumnSpec {
    /// Creates a column for the values at `field`, with an inferred type.
    pub fn new(name: Identifier, field: FieldId) -> Self {
        let on_mismatch = OnMismatch::Overflow;
        Self { name, field: Some(field), sql_type: None, required: false, check: None, default: None, on_mismatch }
    }

    /// Sets the type of the column.
    pub fn with_type(self, sql_type: &str) -> Self {
        Self { sql_type: Some(sql_type.to_owned()), ..self }
    }

    /// Makes the column required: a row without a value is rejected.
    pub fn required(self) -> Self {
        Self { required: true, on_mismatch: OnMismatch::Reject, ..self }
    }
}

/// A key column of a replicated table, as its source describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyColumn {
    /// Its name at the source.
    pub name: String,
    /// Its type when the table is created; `None` means inferred from its first value.
    pub sql_type: Option<&'static str>,
}

/// What happens to a value that its column cannot hold exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnMismatch {
    /// The record becomes a dead letter.
    Reject,
    /// The value goes to the overflow column, and its own column is NULL.
    Overflow,
    /// Like `Overflow`, and a value of another type is never converted.
    OverflowUnlessExact,
}

/// What a second change of the same key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteMode {
    /// Nothing: the row already exists.
    Append,
    /// It is merged into the row; the newest change wins.
    Merge(MergeBy),
}

/// What happens to a row that its source deletes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeleteMode {
    /// The source deletes nothing.
    Never,
    /// It is deleted, and its key is remembered so that an older change cannot restore it.
    Hard,
    /// It is kept, and [`DELETED_AT`] records when it was deleted.
    Soft,
}

/// What happens to a column that is missing from a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissingColumns {
    /// It keeps its value: a change holds part of the row.
    Keep,
    /// It is set to NULL: a change holds the whole row.
    SetNull,
}

impl MissingColumns {
    /// The default for a declared table with this write mode.
    pub fn default_for(write_mode: WriteMode) -> Self {
        match write_mode {
            WriteMode::Append | WriteMode::Merge(MergeBy::Row) => Self::SetNull,
            WriteMode::Merge(MergeBy::Column) => Self::Keep,
        }
    }
}

/// How the changes of one key are merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeBy {
    /// A change holds the whole row; the newest wins.
    Row,
    /// A change holds some columns; for each column, the newest change that holds it wins.
    Column,
}

/// What happens to fields without a declared column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SchemaMode {
    /// A column is added.
    Evolve,
    /// They go to the overflow column.
    Fixed,
    /// The record becomes a dead letter.
    Strict,
}

/// What happens to the records of a table that cannot be written as it is defined, whatever the records hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnUnwritable {
    /// They become dead letters, and other tables are written.
    DeadLetter,
    /// The source waits until the table can be written.
    Stop,
}

/// What happens to nested objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nested {
    /// Each member is a column, named after its path.
    Flatten,
    /// An object is one `jsonb` column.
    Jsonb,
}

/// Which values are converted to the type of a column, if Millstream chose that type. A column whose type its owner
/// chose accepts every value that it can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coercion {
    /// All that the type can hold: `"12"` is stored in a numeric column as a number.
    Convert,
    /// None: other types go to the overflow column, so that the value stays exactly as the source sent it.
    Exact,
}

/// The type of a new column for arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrays {
    /// `text`, holding the array's JSON.
    Text,
    /// `jsonb`.
    Jsonb,
}

/// How a table is partitioned, and its time limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionSpec {
    /// The partition column, as an index into [`TableSpec::columns`].
    pub column: usize,
    /// The width of partitions and the time limits.
    pub policy: PartitionPolicy,
}

/// The width of partitions, and the time that a table covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionPolicy {
    /// The width of a partition.
    pub width: PartitionWidth,
    /// How many partitions are created in advance.
    pub partitions_ahead: u32,
    /// How long a row is kept, in microseconds; older rows are not written. `None` keeps everything.
    pub retention_micros: Option<i64>,
    /// How far ahead of the clock a row may be, in microseconds; a later one is rejected.
    pub future_limit_micros: i64,
}

impl PartitionPolicy {
    /// Rows before this timestamp have expired.
    pub fn retention_cutoff(&self, now: Timestamp) -> Option<Timestamp> {
        self.retention_micros.map(|retention| now.saturating_add(-retention))
    }

    /// Rows after this timestamp are rejected.
    pub fn future_cutoff(&self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.future_limit_micros)
    }
}

/// The tables seen so far, each with its number.
#[derive(Default, Debug)]
pub struct TableRegistry {
    specs: Vec<TableSpec>,
    by_name: HashMap<TableName, TableId>,
}

impl TableRegistry {
    /// Returns the number of the table, and adds the table if its name is new. Two replicated tables whose names become
    /// the same stay separate; [`crate::plan::resolve_keys_and_names`] finds a name for the second.
    pub fn add(&mut self, spec: TableSpec) -> TableId {
        let is_same = |id: &&TableId| !spec.replicated || self.get(**id).source_label == spec.source_label;
        if let Some(&id) = self.by_name.get(&spec.name).filter(is_same) {
            return id;
        }
        let id = TableId(u32::try_from(self.specs.len()).unwrap_or(u32::MAX));
        self.by_name.insert(spec.name.clone(), id);
        self.specs.push(spec);
        id
    }

    /// Replaces the specification of a table. Several events may share a table: its previous name still finds it.
    pub fn replace(&mut self, id: TableId, spec: TableSpec) {
        let previous = std::mem::replace(&mut self.specs[id.0 as usize], spec);
        if previous.replicated {
            self.by_name.remove(&previous.name);
        }
        self.by_name.insert(self.get(id).name.clone(), id);
    }

    /// The specification of the table.
    pub fn get(&self, id: TableId) -> &TableSpec {
        &self.specs[id.0 as usize]
    }

    /// The specification of the table with this name.
    pub fn by_name(&self, name: &TableName) -> Option<&TableSpec> {
        self.by_name.get(name).map(|&id| self.get(id))
    }

    /// Whether every table is merged by row.
    pub fn all_merge_by_row(&self) -> bool {
        self.specs.iter().all(|spec| spec.write_mode == WriteMode::Merge(MergeBy::Row))
    }

    /// Whether any table satisfies the predicate.
    pub fn any(&self, predicate: impl FnMut(&TableSpec) -> bool) -> bool {
        self.specs.iter().any(predicate)
    }

    /// How many numbers are in use; every [`TableId`] is less than this.
    pub fn count(&self) -> usize {
        self.specs.len()
    }
}
