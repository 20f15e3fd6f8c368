//! Tables that the configuration declares, as what they should be.

use crate::config::{ColumnConfig, PartitionConfig, TableConfig, TableKind};
use crate::field::{FieldId, FieldTree};
use crate::names::{Identifier, TableName};
use crate::spec::{Coercion, ColumnSpec, DeleteMode, MissingColumns, OnMismatch, PartitionSpec, TableSpec, WriteMode};

/// The field that holds a record's place in its stream; a document with a key of this name is refused.
pub const POSITION_FIELD: &str = "(place)";

/// The column that holds it, in event tables without an id.
pub const POSITION_COLUMN: &str = "_id";

/// A table's columns while it is being put together.
pub struct TableSpecBuilder<'f> {
    pub fields: &'f mut FieldTree,
    pub columns: Vec<ColumnSpec>,
}

impl TableSpecBuilder<'_> {
    /// Adds a declared column.
    fn add_declared(&mut self, column: &ColumnConfig) {
        let field = self.fields.intern_path(&column.path);
        self.fields.request_whole_object(field);
        // The configuration's word for a field replaces the format's.
        self.columns.retain(|inherited| inherited.field != Some(field));
        self.columns.push(ColumnSpec {
            name: column.name.clone(),
            field: Some(field),
            sql_type: column.sql_type.clone(),
            required: column.required,
            check: column.check.clone(),
            default: None,
            on_mismatch: OnMismatch::Reject,
        });
    }

    /// The column called `name`, or else one for the path `name`, of the given type; it is made required.
    pub fn required(&mut self, name: &str, sql_type: &str) -> usize {
        let index = self.columns.iter().position(|column| column.name.as_str() == name).unwrap_or_else(|| {
            let field = self.fields.intern_path(name);
            let name = Identifier::truncated(self.fields.column(field), name);
            self.columns.push(ColumnSpec::new(name, field));
            self.columns.len() - 1
        });
        let column = &mut self.columns[index];
        column.required = true;
        column.on_mismatch = OnMismatch::Reject;
        column.sql_type.get_or_insert_with(|| sql_type.to_owned());
        index
    }

    /// The partitioning, its column made required.
    pub fn partition(&mut self, partition: Option<&PartitionConfig>) -> Option<PartitionSpec> {
        let partition = partition?;
        Some(PartitionSpec { column: self.required(&partition.column, "timestamptz"), policy: partition.period })
    }
}

/// What a declared table should be, and where the version of its changes is found. `inherited` are the columns that the
/// format gives to every event table, `partition` the source's default.
pub fn table(
    table: &TableConfig,
    name: TableName,
    origin: String,
    scope: Vec<FieldId>,
    inherited: Vec<ColumnSpec>,
    default_partition: Option<&PartitionConfig>,
    fields: &mut FieldTree,
) -> (TableSpec, Option<FieldId>) {
    let mut declaration = TableSpecBuilder { fields, columns: inherited };
    for column in &table.columns {
        declaration.add_declared(column);
    }
    let (key, rule, version, default_partition) = match &table.kind {
        TableKind::Event { id: Some(id) } => {
            (vec![declaration.required(id, "text")], WriteMode::Append, None, default_partition)
        }
        TableKind::Event { id: None } => (vec![event_id(&mut declaration)], WriteMode::Append, None, default_partition),
        TableKind::Entity { key, version, merge } => {
            let key = key.iter().map(|name| declaration.required(name, "text")).collect();
            let version = version.as_ref().map(|version| declaration.fields.intern_path(version));
            (key, WriteMode::Merge(*merge), version, None)
        }
    };
    let partition = declaration.partition(table.partition.as_ref().or(default_partition));
    let columns = declaration.columns;
    let shape = table.shape;
    let spec = TableSpec {
        name,
        source_label: origin,
        columns,
        scope,
        key,
        write_mode: rule,
        deletes: DeleteMode::Never,
        missing_columns: MissingColumns::for_mode(rule),
        replicated: false,
        coercion: Coercion::Convert,
        text_characters_max: shape.text_characters_max,
        partition,
        schema_mode: shape.evolution,
        nested: shape.nested,
        arrays: shape.arrays,
        columns_max: shape.columns_max,
    };
    (spec, version)
}

/// The id of an event table whose configuration names none: the format's own, or else the record's place.
fn event_id(declaration: &mut TableSpecBuilder<'_>) -> usize {
    if let Some(index) = declaration.columns.iter().position(|column| column.name.as_str() == "id" && column.required) {
        return index;
    }
    let field = declaration.fields.synthetic(POSITION_FIELD);
    let column =
        ColumnSpec::new(Identifier::truncated(POSITION_COLUMN, POSITION_FIELD), field).typed("text").required();
    declaration.columns.push(column);
    declaration.columns.len() - 1
}
