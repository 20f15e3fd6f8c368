//! Replicated tables: what the formats of change records have in common.
//!
//! Each table of a source becomes a table in PostgreSQL, with normalised names of table and columns and the source's
//! key. A change describes the whole row, and its version follows the order of the source.

use std::collections::HashMap;

use super::flatten::{hash_value, hashed_json, redact, redact_text, value};
use super::json_objects::{JsonWriter, append};
use super::{SourcePrivacy, check_name};
use crate::change::{Change, Changes, Operation, Value, Version};
use crate::config::{self, DeletedRows, SourceConfig};
use crate::field::{FieldId, FieldTree, Privacy};
use crate::json_scanner::JsonScanner;
use crate::names::{Identifier, TableName};
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{
    Arrays, Coercion, ColumnSpec, DELETED_AT, DeleteMode, KeyColumn, MergeBy, MissingColumns, Nested, OnMismatch,
    RESERVED, TableId, TableRegistry, TableSpec, WriteMode,
};
use crate::timestamp::Timestamp;

/// The synthetic field of [`DELETED_AT`].
const DELETED_AT_FIELD: &str = "(deleted at)";

/// Where a decoder of change records writes what it reads.
pub struct DecodeOutput<'o, 'a> {
    /// The paths seen so far.
    pub fields: &'o mut FieldTree,
    /// The tables seen so far.
    pub tables: &'o mut TableRegistry,
    /// The batch's changes.
    pub changes: &'o mut Changes<'a>,
}

/// The tables of a source.
#[derive(Debug)]
pub struct ReplicaTables {
    source: SourceConfig,
    /// What a table's source label calls it, for example `DynamoDB table`.
    kind: &'static str,
    merge_by: MergeBy,
    /// What precedes a column's name for its value before the change, which is as private as the column.
    before_prefix: Option<&'static str>,
    by_name: HashMap<String, ReplicaTable>,
    /// The keys that the source provided, by table.
    source_keys: HashMap<String, Vec<KeyColumn>>,
}

/// A replicated table that has been seen.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaTable {
    /// The field whose members are its columns.
    pub root_field: FieldId,
    /// Its id in the registry.
    pub table: TableId,
}

/// A version of a row, whose values were pushed from `start` on.
#[derive(Clone, Copy, Debug)]
pub struct RowVersion {
    /// The row's table.
    pub table: ReplicaTable,
    /// The index of the record.
    pub record: usize,
    /// Its version.
    pub version: Version,
    /// The index of its first value.
    pub start: usize,
}

impl ReplicaTables {
    /// The tables of a source whose changes may omit unchanged columns (`merge_by` column) or never do (row).
    pub fn new(source: &SourceConfig, kind: &'static str, merge_by: MergeBy) -> Self {
        let (by_name, source_keys) = (HashMap::new(), HashMap::new());
        Self { source: source.clone(), kind, merge_by, before_prefix: None, by_name, source_keys }
    }

    /// Adds the prefix of columns that hold a value before the change.
    pub fn with_before_prefix(self, prefix: &'static str) -> Self {
        Self { before_prefix: Some(prefix), ..self }
    }

    /// Whether the source has private fields.
    pub fn privacy(&self) -> SourcePrivacy {
        SourcePrivacy::new(&self.source)
    }

    /// The table that the source calls `name`, added if it is new. An empty `key` means that the record does not
    /// provide it: then the existing table's key is used, or the configuration's.
    pub fn table(
        &mut self,
        name: &str,
        key: &[KeyColumn],
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
    ) -> Result<ReplicaTable, Rejection> {
        if let Some(existing) = self.by_name.get(name) {
            if !key.is_empty() && tables.get(existing.table).key.is_empty() {
                check_key_names(key)?;
                let spec = self.spec(name, existing.root_field, key, fields);
                tables.replace(existing.table, spec);
                self.source_keys.insert(name.to_owned(), key.to_vec());
            }
            return Ok(*existing);
        }
        if !self.source.replicates_table(name) {
            return Err(Rejection::new(RejectionReason::Excluded(name.to_owned())));
        }
        check_name(name)?;
        check_key_names(key)?;
        let root_field = fields.intern_table(name);
        self.mark_private_columns(name, root_field, fields);
        let table = tables.add(self.spec(name, root_field, key, fields));
        let added = ReplicaTable { root_field, table };
        self.by_name.insert(name.to_owned(), added);
        if !key.is_empty() {
            self.source_keys.insert(name.to_owned(), key.to_vec());
        }
        Ok(added)
    }

    /// The keys that the source provided, by table, for a decoder that replaces this one.
    pub fn take_source_keys(&mut self) -> HashMap<String, Vec<KeyColumn>> {
        std::mem::take(&mut self.source_keys)
    }

    /// The table that the source calls `name`, if it has been seen and its key is known.
    pub fn table_with_key(&self, name: &str, tables: &TableRegistry) -> Option<ReplicaTable> {
        self.by_name.get(name).copied().filter(|existing| !tables.get(existing.table).key.is_empty())
    }

    /// The table that the source calls `name`, if it has been seen.
    pub fn table_id(&self, name: &str) -> Option<TableId> {
        self.by_name.get(name).map(|existing| existing.table)
    }

    /// Marks the table's private columns: `table.column`, or `*.column` for those of every table. Dots in a table's
    /// name need no backslash.
    fn mark_private_columns(&self, name: &str, root_field: FieldId, fields: &mut FieldTree) {
        let mut private = Vec::new();
        for (path, privacy) in &self.source.private {
            let steps = crate::field::split_path(path);
            let Some([column, members @ ..]) = column_steps(&steps, name) else { continue };
            let before = self.before_prefix.map(|prefix| format!("{prefix}{column}"));
            for column in before.iter().chain([column]) {
                let field = fields.child(root_field, column);
                let field = members.iter().fold(field, |field, step| fields.child(field, step));
                private.push((field, *privacy));
            }
        }
        fields.set_private(&private);
        for column in self.declared(name).iter().flat_map(|table| &table.columns) {
            let field = fields.intern_path_under(root_field, &column.path);
            fields.set_private_column(field, column.name.as_str());
        }
    }

    /// The table's section in the configuration.
    fn declared(&self, name: &str) -> Option<&config::TableConfig> {
        let has_source_name =
            |table: &&config::TableConfig| table.from.as_deref().unwrap_or(table.name.as_str()) == name;
        self.source.tables.iter().find(has_source_name)
    }

    fn spec(&self, name: &str, root_field: FieldId, key: &[KeyColumn], fields: &mut FieldTree) -> TableSpec {
        let declared = self.declared(name);
        let declared_name = declared.map(|table| table.name.clone());
        let base_name =
            name.rsplit_once('.').map_or(name, |(_, table)| if self.kind == "DynamoDB table" { name } else { table });
        let table =
            declared_name.unwrap_or_else(|| Identifier::truncated(&self.source.naming.normalise(base_name), name));
        let mut columns = declared.map(|table| declared_columns(table, root_field, fields)).unwrap_or_default();
        let soft_deletes = self.source.deletes == DeletedRows::Soft;
        if soft_deletes {
            let field = fields.intern_synthetic(DELETED_AT_FIELD);
            columns
                .push(ColumnSpec::new(Identifier::truncated(DELETED_AT, DELETED_AT), field).with_type("timestamptz"));
        }
        let key = key_columns(declared, key)
            .into_iter()
            .map(|column| key_column_index(&column, root_field, &mut columns, fields))
            .collect();
        let shape = declared.map_or(self.source.schema_policy, |table| table.schema_policy);
        TableSpec {
            name: TableName { schema: self.source.schema.clone(), table },
            source_label: format!("{} {name}", self.kind),
            filled_with: Vec::new(),
            columns,
            scope: vec![root_field],
            key,
            write_mode: WriteMode::Merge(if soft_deletes { MergeBy::Column } else { self.merge_by }),
            deletes: if soft_deletes { DeleteMode::Soft } else { DeleteMode::Hard },
            missing_columns: MissingColumns::SetNull,
            replicated: true,
            own_name: None,
            declared: declared.is_some(),
            coercion: Coercion::Exact,
            text_characters_max: shape.text_characters_max,
            partition: None,
            schema_mode: shape.mode,
            nested: Nested::Jsonb,
            arrays: Arrays::Jsonb,
            columns_max: shape.columns_max,
            on_unwritable: shape.on_unwritable,
        }
    }

    /// Adds a change that puts the row.
    pub fn put(&self, row: RowVersion, output: &mut DecodeOutput<'_, '_>) {
        self.push(row, Operation::Put, Value::Null, output);
    }

    /// Adds a change that deletes the row, of which only the key is needed.
    pub fn delete(&self, row: RowVersion, deleted_at: Timestamp, output: &mut DecodeOutput<'_, '_>) {
        self.push(row, Operation::Delete, Value::Time(deleted_at), output);
    }

    /// `deleted_at` is the value of [`DELETED_AT`].
    fn push(
        &self,
        RowVersion { table, record, version, start }: RowVersion,
        operation: Operation,
        deleted_at: Value<'static>,
        output: &mut DecodeOutput<'_, '_>,
    ) {
        if self.source.deletes == DeletedRows::Soft {
            output.changes.values.push((output.fields.intern_synthetic(DELETED_AT_FIELD), deleted_at));
        }
        let values = start..output.changes.values.len();
        output.changes.list.push(Change { record, table: table.table, operation, version: Some(version), values });
    }
}

fn check_key_names(key: &[KeyColumn]) -> Result<(), Rejection> {
    key.iter().try_for_each(|column| check_name(&column.name))
}

/// The steps of a private path within the table; `None` if the path belongs to another table.
fn column_steps<'s>(steps: &'s [String], table: &str) -> Option<&'s [String]> {
    let is_table = |end: &usize| (*end == 1 && steps[0] == "*") || steps[..*end].join(".") == table;
    (1..steps.len()).find(is_table).map(|end| &steps[end..])
}

/// A column's value as it is stored, read by `read`: nothing for a dropped column, the hash for a hashed one. Where
/// `has_no_value` is true (for example for a null), nothing is hashed.
pub fn read_unless_private<'a>(
    fields: &mut FieldTree,
    field: FieldId,
    json: &'a str,
    has_no_value: impl Fn(&str) -> bool,
    read: impl FnOnce(&mut FieldTree) -> Result<Value<'a>, Rejection>,
) -> Result<Option<Value<'a>>, Rejection> {
    match fields.privacy(field) {
        Some(Privacy::Drop) => Ok(None),
        Some(Privacy::Sha256) if !has_no_value(json) => hash_value(fields, &mut JsonScanner::new(json)).map(Some),
        Some(Privacy::Sha256) | None => read(fields).map(Some),
    }
}

/// A value as it is. DMS and Debezium send a database's JSON as text: private members are removed from that, too.
pub fn read_column<'a>(fields: &mut FieldTree, field: FieldId, json: &'a str) -> Result<Value<'a>, Rejection> {
    if json.starts_with('"') && fields.has_private_descendant(field) {
        let text = JsonScanner::new(json).string_value()?;
        return Ok(Value::Text(redact_text(fields, field, text)));
    }
    value(fields, field, json)
}

/// Rewrites the member `key` of an image without private data: the counterpart of [`read_unless_private`]. A column without
/// a field is not private.
pub fn redact_column(
    (key, field): (&str, Option<FieldId>),
    scanner: &mut JsonScanner<'_>,
    fields: &mut FieldTree,
    has_no_value: impl Fn(&str) -> bool,
    object: &mut JsonWriter<'_>,
) -> Result<(), Rejection> {
    let json = scanner.skip_value()?;
    let Some(field) = field else { return append(object.member(key), json) };
    let redacted = match fields.privacy(field) {
        Some(Privacy::Drop) => return Ok(()),
        Some(Privacy::Sha256) if !has_no_value(json) => hashed_json(&hash_value(fields, &mut JsonScanner::new(json))?),
        Some(Privacy::Sha256) | None => redact(fields, field, json)?,
    };
    append(object.member(key), &redacted)
}

/// The key that the configuration declares, or else the key that the source provides.
fn key_columns(declared: Option<&config::TableConfig>, source_key: &[KeyColumn]) -> Vec<KeyColumn> {
    match declared.map(|table| &table.kind) {
        Some(config::TableKind::Entity { key, .. }) if !key.is_empty() => {
            let sql_type =
                |name: &str| source_key.iter().find(|column| column.name == name).and_then(|column| column.sql_type);
            key.iter().map(|name| KeyColumn { name: name.clone(), sql_type: sql_type(name) }).collect()
        }
        _ => source_key.to_vec(),
    }
}

/// The index of a key column in `columns`, to which it is added if it is not declared.
fn key_column_index(
    key: &KeyColumn,
    root_field: FieldId,
    columns: &mut Vec<ColumnSpec>,
    fields: &mut FieldTree,
) -> usize {
    let field = fields.child(root_field, &key.name);
    let column_index = columns.iter().position(|column| column.field == Some(field)).unwrap_or_else(|| {
        let name = Identifier::truncated(&fields.column(field), &key.name);
        let is_taken = RESERVED.contains(&name.as_str()) || columns.iter().any(|column| column.name == name);
        let name = if is_taken { Identifier::with_hash_suffix(&fields.column(field), &key.name) } else { name };
        columns.push(ColumnSpec::new(name, field));
        columns.len() - 1
    });
    let hash_type = (fields.privacy(field) == Some(Privacy::Sha256)).then_some("text");
    let column = &mut columns[column_index];
    column.required = true;
    column.on_mismatch = OnMismatch::Reject;
    column.sql_type = column.sql_type.take().or(hash_type.or(key.sql_type).map(str::to_owned));
    column_index
}

fn declared_columns(table: &config::TableConfig, root_field: FieldId, fields: &mut FieldTree) -> Vec<ColumnSpec> {
    let column = |column: &config::ColumnConfig| ColumnSpec {
        name: column.name.clone(),
        field: Some(fields.intern_path_under(root_field, &column.path)),
        sql_type: column.sql_type.clone(),
        required: column.required,
        check: column.check.clone(),
        default: None,
        on_mismatch: OnMismatch::Reject,
    };
    table.columns.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_paths_find_tables_with_dots_in_their_names() {
        let column = |path: &str| {
            let steps = crate::field::split_path(path);
            column_steps(&steps, "public.customers").map(|column| column.join("/"))
        };
        for path in ["public.customers.email", r"public\.customers.email", "*.email"] {
            assert_eq!(column(path).as_deref(), Some("email"), "{path}");
        }
        assert_eq!(column("public.customers.address.street").as_deref(), Some("address/street"));
        for path in ["public.customers", "customers.email", "public.orders.email", "*"] {
            assert_eq!(column(path), None, "{path}");
        }
    }
}
