//! Specs of the tables that the configuration declares.

use crate::config::{ColumnConfig, PartitionConfig, SourceConfig, TableConfig, TableKind};
use crate::field::{FieldId, FieldTree};
use crate::names::{Identifier, TableName};
use crate::spec::{Coercion, ColumnSpec, DeleteMode, MissingColumns, OnMismatch, PartitionSpec, TableSpec, WriteMode};

/// The field that holds a record's stream position; a document with a key of this name is rejected.
pub const POSITION_FIELD: &str = "(place)";

/// The column that holds it, in event tables without an id.
pub const POSITION_COLUMN: &str = "_id";

/// Collects a table's columns while its spec is built.
pub struct TableSpecBuilder<'f> {
    pub fields: &'f mut FieldTree,
    pub columns: Vec<ColumnSpec>,
}

impl TableSpecBuilder<'_> {
    /// Adds a declared column.
    fn add_declared(&mut self, column: &ColumnConfig) {
        let field = self.fields.intern_path(&column.path);
        self.fields.request_whole_object(field);
        // A declared column replaces the format's column for the same field.
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

    /// The index of the column called `name`, added for the path `name` if it is missing. The column becomes required
    /// and gets `sql_type` if it has no type.
    pub fn required(&mut self, name: &str, sql_type: &str) -> usize {
        let index = self.columns.iter().position(|column| column.name.as_str() == name).unwrap_or_else(|| {
            let field = self.fields.intern_path(name);
            let name = Identifier::truncated(&self.fields.column(field), name);
            self.columns.push(ColumnSpec::new(name, field));
            self.columns.len() - 1
        });
        let column = &mut self.columns[index];
        column.required = true;
        column.on_mismatch = OnMismatch::Reject;
        column.sql_type.get_or_insert_with(|| sql_type.to_owned());
        index
    }

    /// The partitioning; its column becomes required.
    pub fn partition(&mut self, partition: Option<&PartitionConfig>) -> Option<PartitionSpec> {
        let partition = partition?;
        Some(PartitionSpec { column: self.required(&partition.column, "timestamptz"), policy: partition.policy })
    }
}

/// The spec of a table that the source declares, and the field that holds the version of its changes. `inherited` are the
/// columns that the format gives to every event table.
pub fn table(
    source: &SourceConfig,
    table: &TableConfig,
    source_label: String,
    scope: Vec<FieldId>,
    inherited: Vec<ColumnSpec>,
    fields: &mut FieldTree,
) -> (TableSpec, Option<FieldId>) {
    let mut builder = TableSpecBuilder { fields, columns: inherited };
    for column in &table.columns {
        builder.add_declared(column);
    }
    let default_partition = source.partition.as_ref();
    let (key, write_mode, version, default_partition) = match &table.kind {
        TableKind::Event { id: Some(id) } => {
            (vec![builder.required(id, "text")], WriteMode::Append, None, default_partition)
        }
        TableKind::Event { id: None } => (vec![event_id(&mut builder)], WriteMode::Append, None, default_partition),
        TableKind::Entity { key, version, merge } => {
            let partitioned_by = table.partition.as_ref().map(|partition| &partition.column);
            let key_type = |name: &String| if partitioned_by == Some(name) { "timestamptz" } else { "text" };
            let key = key.iter().map(|name| builder.required(name, key_type(name))).collect();
            let version = version.as_ref().map(|version| builder.fields.intern_path(version));
            (key, WriteMode::Merge(*merge), version, None)
        }
    };
    let partition = builder.partition(table.partition.as_ref().or(default_partition));
    let columns = builder.columns;
    let shape = table.schema_policy;
    let spec = TableSpec {
        name: TableName { schema: source.schema.clone(), table: table.name.clone() },
        source_label,
        filled_with: vec![source.name.clone()],
        columns,
        scope,
        key,
        write_mode,
        deletes: DeleteMode::Never,
        missing_columns: MissingColumns::default_for(write_mode),
        replicated: false,
        own_name: None,
        declared: true,
        coercion: Coercion::Convert,
        text_characters_max: shape.text_characters_max,
        partition,
        schema_mode: shape.mode,
        nested: shape.nested,
        arrays: shape.arrays,
        columns_max: shape.columns_max,
        on_unwritable: shape.on_unwritable,
    };
    (spec, version)
}

/// The id of an event table whose configuration names none: the format's own, or else the record's stream position.
fn event_id(builder: &mut TableSpecBuilder<'_>) -> usize {
    if let Some(index) = builder.columns.iter().position(|column| column.name.as_str() == "id" && column.required) {
        return index;
    }
    let field = builder.fields.intern_synthetic(POSITION_FIELD);
    let column =
        ColumnSpec::new(Identifier::truncated(POSITION_COLUMN, POSITION_FIELD), field).with_type("text").required();
    builder.columns.push(column);
    builder.columns.len() - 1
}
