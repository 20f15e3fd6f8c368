//! What a table should be: the meeting point of configuration and decoding on one side, planning on the other.
//!
//! Decoders make a [`TableSpec`] for each table that they name; [`crate::catalog`] says what the database has; the plan
//! is the difference.

use std::collections::HashMap;

use crate::field::FieldId;
use crate::names::{Identifier, TableName};
use crate::partition::PartitionWidth;
use crate::timestamp::Timestamp;

/// Where fields go that have no column of their own.
pub const OVERFLOW: &str = "_overflow";
/// The version of a row whose newest change wins whole.
pub const VERSION: &str = "_version";
/// The version of each column of a row that is merged by column.
pub const VERSIONS: &str = "_versions";
/// Columns that no field of a source can have: the writer's own, and those that every table of PostgreSQL has
/// (<https://www.postgresql.org/docs/current/ddl-system-columns.html>).
pub const RESERVED: &[&str] = &[OVERFLOW, VERSION, VERSIONS, "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
/// When a row was deleted at its source, for tables that keep deleted rows.
pub const DELETED_AT: &str = "_deleted_at";

/// A table of this process, as a small number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableId(pub u32);

/// What a table should be.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Schema and table.
    pub name: TableName,
    /// What fills it, kept as the table's comment.
    pub source_label: String,
    /// Columns that are known beforehand, declared by the format or the configuration.
    pub columns: Vec<ColumnSpec>,
    /// Undeclared fields within these become columns, as `evolution` says.
    pub scope: Vec<FieldId>,
    /// Indexes into `columns`: what a row is known by. For event tables, within its partition.
    pub key: Vec<usize>,
    /// What a second change of a key does.
    pub write_mode: WriteMode,
    /// What becomes of a row whose source is deleted.
    pub deletes: DeleteMode,
    /// What a column takes that a change does not carry.
    pub missing_columns: MissingColumns,
    /// How the table is partitioned, if it is.
    pub partition: Option<PartitionSpec>,
    /// What becomes of undeclared fields.
    pub schema_mode: SchemaMode,
    /// What becomes of nested objects.
    pub nested: Nested,
    /// The type that a new column gets for arrays.
    pub arrays: Arrays,
    /// Whether it replicates a table of its source, whose name and key are the source's.
    pub replicated: bool,
    /// How values and the types that the writer chose go together.
    pub coercion: Coercion,
    /// New columns for text are `varchar` of this many characters; `None` is `text`.
    pub text_characters_max: Option<usize>,
    /// With this many columns the table grows no more; PostgreSQL's own limit is 1,600.
    pub columns_max: usize,
}

impl TableSpec {
    /// The key's columns.
    pub fn key_columns(&self) -> impl Iterator<Item = &ColumnSpec> {
        self.key.iter().map(|&index| &self.columns[index])
    }

    /// The column that the writer itself keeps, for entities.
    pub fn version_column(&self) -> Option<&'static str> {
        match self.write_mode {
            WriteMode::Append => None,
            WriteMode::Merge(MergeBy::Row) => Some(VERSION),
            WriteMode::Merge(MergeBy::Column) => Some(VERSIONS),
        }
    }
}

/// A column that is known beforehand.
#[derive(Clone, Debug)]
pub struct ColumnSpec {
    /// Its name.
    pub name: Identifier,
    /// Where its values are found; `None` for a column that only the database fills, by its default.
    pub field: Option<FieldId>,
    /// Its type as SQL, checked by the configuration's reader; `None` is inferred from the first values.
    pub sql_type: Option<String>,
    /// Whether a row without a value is refused.
    pub required: bool,
    /// A check constraint's expression, in the owner's SQL.
    pub check: Option<String>,
    /// A default, in SQL.
    pub default: Option<&'static str>,
    /// What becomes of a value that the column cannot hold.
    pub on_mismatch: OnMismatch,
}

impl ColumnSpec {
    /// A column for the values at `field`, its type inferred.
    pub fn new(name: Identifier, field: FieldId) -> Self {
        let on_mismatch = OnMismatch::Overflow;
        Self { name, field: Some(field), sql_type: None, required: false, check: None, default: None, on_mismatch }
    }

    /// The column with a type.
    pub fn typed(self, sql_type: &str) -> Self {
        Self { sql_type: Some(sql_type.to_owned()), ..self }
    }

    /// The column, without which a row is refused.
    pub fn required(self) -> Self {
        Self { required: true, on_mismatch: OnMismatch::Reject, ..self }
    }
}

/// A column of a replicated table's key, as its source tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyColumn {
    /// What the source calls it.
    pub name: String,
    /// The type that it gets where the table is made; `None` is inferred from its first value.
    pub sql_type: Option<&'static str>,
}

/// What becomes of a value that its column cannot hold exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnMismatch {
    /// The record is a dead letter.
    Reject,
    /// The value goes to the overflow column, and the column stays empty.
    Overflow,
    /// The same, and no value of another kind than the column's is ever converted.
    OverflowUnlessExact,
}

/// What a second change of a key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteMode {
    /// Nothing: the row is there already.
    Append,
    /// The row becomes what the newest changes say.
    Merge(MergeBy),
}

/// What becomes of a row that its source has deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeleteMode {
    /// The source deletes nothing.
    Never,
    /// It is deleted, and its key is remembered, so that an older change cannot bring it back.
    Hard,
    /// It stays, and [`DELETED_AT`] says since when.
    Soft,
}

/// What a column takes that a change does not carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissingColumns {
    /// It keeps its value: a change tells a part of the row.
    Keep,
    /// NULL: a change tells the whole row.
    SetNull,
}

impl MissingColumns {
    /// What a declared table means, by its rule.
    pub fn for_mode(rule: WriteMode) -> Self {
        match rule {
            WriteMode::Append | WriteMode::Merge(MergeBy::Row) => Self::SetNull,
            WriteMode::Merge(MergeBy::Column) => Self::Keep,
        }
    }
}

/// How changes of one key come together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MergeBy {
    /// A change is the whole row; the newest wins.
    Row,
    /// A change carries some columns; for each column the newest that carries it wins.
    Column,
}

/// What becomes of fields that no column is declared for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SchemaMode {
    /// A column is added.
    Evolve,
    /// They go to the overflow column.
    Fixed,
    /// The record is a dead letter.
    Strict,
}

/// What becomes of nested objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nested {
    /// Each member is a column, named after the path.
    Flatten,
    /// An object is one `jsonb` column.
    Jsonb,
}

/// Which values a column takes whose type the writer itself has chosen. A type of the owner's takes whatever it can
/// hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coercion {
    /// All that its type can hold: `"12"` is a number where numbers are kept.
    Convert,
    /// Those of the type's own kind; others go to the overflow, so that nothing is lost of how the source told them.
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

/// How a table is partitioned, and what its time limits are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionSpec {
    /// The column, as an index into the table's declared columns.
    pub column: usize,
    /// The rest.
    pub policy: PartitionPolicy,
}

/// A partition's width, and the time that a table spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionPolicy {
    /// The width of a partition.
    pub width: PartitionWidth,
    /// How many partitions are made ahead of time.
    pub ahead: u32,
    /// Microseconds that a row is kept; older ones are not written. `None` keeps everything.
    pub retention_micros: Option<i64>,
    /// Microseconds ahead of the clock from which a row is taken for an error.
    pub future_limit_micros: i64,
}

impl PartitionPolicy {
    /// Rows before this moment have expired.
    pub fn retention_cutoff(&self, now: Timestamp) -> Option<Timestamp> {
        self.retention_micros.map(|keep| now.saturating_add(-keep))
    }

    /// Rows after this moment are taken for errors.
    pub fn future_cutoff(&self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.future_limit_micros)
    }
}

/// The tables met so far, each with its number.
#[derive(Default, Debug)]
pub struct TableRegistry {
    specs: Vec<TableSpec>,
    by_name: HashMap<TableName, TableId>,
}

impl TableRegistry {
    /// The number of the table, which is added where its name is new. Two tables of a source that have one name here
    /// are two all the same, until [`crate::plan::settle`] has found a name for the second.
    pub fn add(&mut self, spec: TableSpec) -> TableId {
        let same = |id: &&TableId| !spec.replicated || self.get(**id).source_label == spec.source_label;
        if let Some(&id) = self.by_name.get(&spec.name).filter(same) {
            return id;
        }
        let id = TableId(u32::try_from(self.specs.len()).unwrap_or(u32::MAX));
        self.by_name.insert(spec.name.clone(), id);
        self.specs.push(spec);
        id
    }

    /// Puts another word about a table in the place of an earlier one.
    pub fn replace(&mut self, id: TableId, spec: TableSpec) {
        let before = std::mem::replace(&mut self.specs[id.0 as usize], spec);
        self.by_name.remove(&before.name);
        self.by_name.insert(self.get(id).name.clone(), id);
    }

    /// What the table should be.
    pub fn get(&self, id: TableId) -> &TableSpec {
        &self.specs[id.0 as usize]
    }

    /// Whether every table is one whose newest change is the whole row.
    pub fn all_merge_by_row(&self) -> bool {
        self.specs.iter().all(|spec| spec.write_mode == WriteMode::Merge(MergeBy::Row))
    }

    /// Whether there is a table of which something holds.
    pub fn any(&self, of: impl FnMut(&TableSpec) -> bool) -> bool {
        self.specs.iter().any(of)
    }

    /// How many numbers are in use; every [`TableId`] is below it.
    pub fn count(&self) -> usize {
        self.specs.len()
    }
}
