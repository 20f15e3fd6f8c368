//! Tables that the configuration declares, as what they should be.

use crate::config::{Column, Kind, Partition, Table};
use crate::field::{Field, Fields};
use crate::names::{Identifier, TableName};
use crate::spec::{Absent, ColumnSpec, Deletes, MisfitRule, PartitionSpec, Rule, TableSpec, Typing};

/// The field that holds a record's place in its stream; a document with a key of this name is refused.
pub const PLACE: &str = "(place)";

/// The column that holds it, in event tables without an id.
pub const PLACE_COLUMN: &str = "_id";

/// A table's columns while it is being put together.
pub struct Declaration<'f> {
    pub fields: &'f mut Fields,
    pub columns: Vec<ColumnSpec>,
}

impl Declaration<'_> {
    /// Adds a declared column.
    fn declare(&mut self, column: &Column) {
        let field = self.fields.at(&column.path);
        self.fields.capture(field);
        // The configuration's word for a field replaces the format's.
        self.columns.retain(|inherited| inherited.field != Some(field));
        self.columns.push(ColumnSpec {
            name: column.name.clone(),
            field: Some(field),
            sql_type: column.sql_type.clone(),
            required: column.required,
            check: column.check.clone(),
            default: None,
            misfit: MisfitRule::Reject,
        });
    }

    /// The column called `name`, or else one for the path `name`, of the given type; it is made required.
    pub fn required(&mut self, name: &str, sql_type: &str) -> usize {
        let index = self.columns.iter().position(|column| column.name.as_str() == name).unwrap_or_else(|| {
            let field = self.fields.at(name);
            let name = Identifier::fitting(self.fields.column(field), name);
            self.columns.push(ColumnSpec::of(name, field));
            self.columns.len() - 1
        });
        let column = &mut self.columns[index];
        column.required = true;
        column.misfit = MisfitRule::Reject;
        column.sql_type.get_or_insert_with(|| sql_type.to_owned());
        index
    }

    /// The partitioning, its column made required.
    pub fn partition(&mut self, partition: Option<&Partition>) -> Option<PartitionSpec> {
        let partition = partition?;
        Some(PartitionSpec { column: self.required(&partition.by, "timestamptz"), period: partition.period })
    }
}

/// What a declared table should be, and where the version of its changes is found. `inherited` are the columns that the
/// format gives to every event table, `partition` the source's default.
pub fn table(
    table: &Table,
    name: TableName,
    origin: String,
    scope: Vec<Field>,
    inherited: Vec<ColumnSpec>,
    default_partition: Option<&Partition>,
    fields: &mut Fields,
) -> (TableSpec, Option<Field>) {
    let mut declaration = Declaration { fields, columns: inherited };
    for column in &table.columns {
        declaration.declare(column);
    }
    let (key, rule, version, default_partition) = match &table.kind {
        Kind::Event { id: Some(id) } => (vec![declaration.required(id, "text")], Rule::Append, None, default_partition),
        Kind::Event { id: None } => (vec![event_id(&mut declaration)], Rule::Append, None, default_partition),
        Kind::Entity { key, version, merge } => {
            let key = key.iter().map(|name| declaration.required(name, "text")).collect();
            let version = version.as_ref().map(|version| declaration.fields.at(version));
            (key, Rule::Merge(*merge), version, None)
        }
    };
    let partition = declaration.partition(table.partition.as_ref().or(default_partition));
    let columns = declaration.columns;
    let shape = table.shape;
    let spec = TableSpec {
        name,
        origin,
        columns,
        scope,
        key,
        rule,
        deletes: Deletes::Never,
        absent: Absent::of(rule),
        replicated: false,
        typing: Typing::Converting,
        text_characters_max: shape.text_characters_max,
        partition,
        evolution: shape.evolution,
        nested: shape.nested,
        arrays: shape.arrays,
        columns_max: shape.columns_max,
    };
    (spec, version)
}

/// The id of an event table whose configuration names none: the format's own, or else the record's place.
fn event_id(declaration: &mut Declaration<'_>) -> usize {
    if let Some(index) = declaration.columns.iter().position(|column| column.name.as_str() == "id" && column.required) {
        return index;
    }
    let field = declaration.fields.synthetic(PLACE);
    let column = ColumnSpec::of(Identifier::fitting(PLACE_COLUMN, PLACE), field).typed("text").required();
    declaration.columns.push(column);
    declaration.columns.len() - 1
}
