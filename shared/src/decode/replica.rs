//! Tables that are replicated: what the formats of change records have in common.
//!
//! A source is a set of tables; each becomes a table here, its name and its columns' names normalised, its key the source's.
//! A change tells the whole row, and its version is source order.

use std::borrow::Cow;
use std::collections::HashMap;

use super::flatten::{hash_value, redact, value};
use super::json_objects::{JsonWriter, append};
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

/// The field of [`DELETED_AT`].
const DELETED: &str = "(deleted at)";

/// Where a decoder of changes puts what it reads.
pub struct DecodeOutput<'p, 'a> {
    /// The paths met so far.
    pub fields: &'p mut FieldTree,
    /// The tables met so far.
    pub tables: &'p mut TableRegistry,
    /// The batch's changes.
    pub changes: &'p mut Changes<'a>,
}

/// The tables of a source.
#[derive(Debug)]
pub struct ReplicaTables {
    source: SourceConfig,
    /// What its records call a table: `DynamoDB table`.
    kind: &'static str,
    merge: MergeBy,
    by_name: HashMap<String, ReplicaTable>,
}

/// A table that has been met.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaTable {
    /// What its columns are members of.
    pub root_field: FieldId,
    /// The table here.
    pub table: TableId,
}

impl ReplicaTables {
    /// The tables of a source whose changes may leave columns out that have not changed (`merge` by column) or never do.
    pub fn new(source: &SourceConfig, kind: &'static str, merge: MergeBy) -> Self {
        Self { source: source.clone(), kind, merge, by_name: HashMap::new() }
    }

    /// The table that the source calls `name`. An empty key is one that the source does not tell: then the table's own is
    /// taken, or the configuration's.
    pub fn table(
        &mut self,
        name: &str,
        key: &[KeyColumn],
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
    ) -> Result<ReplicaTable, Rejection> {
        if let Some(known) = self.by_name.get(name) {
            if !key.is_empty() && tables.get(known.table).key.is_empty() {
                let spec = self.spec(name, known.root_field, key, fields);
                tables.replace(known.table, spec);
            }
            return Ok(*known);
        }
        if !self.source.replicates_table(name) {
            return Err(Rejection::new(RejectionReason::Excluded(name.to_owned())));
        }
        let node = fields.table(name);
        self.mark_private_columns(name, node, fields);
        let table = tables.add(self.spec(name, node, key, fields));
        let known = ReplicaTable { root_field: node, table };
        self.by_name.insert(name.to_owned(), known);
        Ok(known)
    }

    /// The table that the source calls `name`, if it has been met and its key is known.
    pub fn table_with_key(&self, name: &str, tables: &TableRegistry) -> Option<ReplicaTable> {
        self.by_name.get(name).copied().filter(|known| !tables.get(known.table).key.is_empty())
    }

    /// The table that the source calls `name`, if it has been met.
    pub fn table_id(&self, name: &str) -> Option<TableId> {
        self.by_name.get(name).map(|known| known.table)
    }

    /// Marks the table's private columns: `table.column`, or `*.column` for those of every table. The dots of a table's
    /// name need no backslash.
    fn mark_private_columns(&self, name: &str, node: FieldId, fields: &mut FieldTree) {
        for (path, privacy) in &self.source.private {
            let steps = crate::field::split_path(path);
            if let Some(column) = column_steps(&steps, name) {
                let field = column.iter().fold(node, |field, step| fields.child(field, step));
                fields.set_privacy(field, *privacy);
            }
        }
    }

    fn spec(&self, name: &str, node: FieldId, key: &[KeyColumn], fields: &mut FieldTree) -> TableSpec {
        let called = |table: &&config::TableConfig| table.from.as_deref().unwrap_or(table.name.as_str()) == name;
        let declared = self.source.tables.iter().find(called);
        let table = declared.map(|table| table.name.clone());
        let base =
            name.rsplit_once('.').map_or(name, |(_, table)| if self.kind == "DynamoDB table" { name } else { table });
        let table = table.unwrap_or_else(|| Identifier::truncated(&self.source.naming.normalise(base), name));
        let mut columns = declared.map(|table| declared_columns(table, node, fields)).unwrap_or_default();
        let soft = self.source.deletes == DeletedRows::Soft;
        if soft {
            let field = fields.synthetic(DELETED);
            columns.push(ColumnSpec::new(Identifier::truncated(DELETED_AT, DELETED_AT), field).typed("timestamptz"));
        }
        let key = key_columns(declared, key)
            .into_iter()
            .map(|column| key_column_index(&column, node, &mut columns, fields))
            .collect();
        let shape = declared.map_or(self.source.shape, |table| table.shape);
        TableSpec {
            name: TableName { schema: self.source.schema.clone(), table },
            source_label: format!("{} {name}", self.kind),
            columns,
            scope: vec![node],
            key,
            write_mode: WriteMode::Merge(if soft { MergeBy::Column } else { self.merge }),
            deletes: if soft { DeleteMode::Soft } else { DeleteMode::Hard },
            missing_columns: MissingColumns::SetNull,
            replicated: true,
            coercion: Coercion::Exact,
            text_characters_max: shape.text_characters_max,
            partition: None,
            schema_mode: shape.evolution,
            nested: Nested::Jsonb,
            arrays: Arrays::Jsonb,
            columns_max: shape.columns_max,
        }
    }

    /// Adds a change that tells the row whose values were pushed from `start` on.
    pub fn put(
        &self,
        known: ReplicaTable,
        record: usize,
        version: Version,
        start: usize,
        page: &mut DecodeOutput<'_, '_>,
    ) {
        if self.source.deletes == DeletedRows::Soft {
            page.changes.values.push((page.fields.synthetic(DELETED), Value::Null));
        }
        self.push(known, record, Operation::Put, version, start, page);
    }

    /// Adds a change that deletes the row whose key was pushed from `start` on.
    pub fn delete(
        &self,
        known: ReplicaTable,
        record: usize,
        version: Version,
        at: Timestamp,
        start: usize,
        page: &mut DecodeOutput<'_, '_>,
    ) {
        if self.source.deletes == DeletedRows::Soft {
            page.changes.values.push((page.fields.synthetic(DELETED), Value::Time(at)));
        }
        self.push(known, record, Operation::Delete, version, start, page);
    }

    fn push(
        &self,
        known: ReplicaTable,
        record: usize,
        operation: Operation,
        version: Version,
        start: usize,
        page: &mut DecodeOutput<'_, '_>,
    ) {
        let values = start..page.changes.values.len();
        page.changes.list.push(Change { record, table: known.table, operation, version: Some(version), values });
    }
}

/// The steps of a private path within the table; `None` where it belongs to another table.
fn column_steps<'s>(steps: &'s [String], table: &str) -> Option<&'s [String]> {
    let is_table = |end: &usize| (*end == 1 && steps[0] == "*") || steps[..*end].join(".") == table;
    (1..steps.len()).find(is_table).map(|end| &steps[end..])
}

/// What is stored of a column's value, which `read` reads: nothing of a dropped one, the hash of a hashed one. What
/// `says_nothing` (a null) is no value, and is not hashed.
pub fn read_unless_private<'a>(
    fields: &mut FieldTree,
    field: FieldId,
    json: &'a str,
    says_nothing: fn(&str) -> bool,
    read: impl FnOnce(&mut FieldTree) -> Result<Value<'a>, Rejection>,
) -> Result<Option<Value<'a>>, Rejection> {
    match fields.privacy(field) {
        Some(Privacy::Drop) => Ok(None),
        Some(Privacy::Sha256) if !says_nothing(json) => {
            Ok(Some(Value::Text(Cow::Owned(hash_value(fields, &mut JsonScanner::new(json))?))))
        }
        Some(Privacy::Sha256) | None => read(fields).map(Some),
    }
}

/// A value as it is. Databases keep JSON that DMS and Debezium tell as a text: private members are taken out of that, too.
pub fn read_column<'a>(fields: &mut FieldTree, field: FieldId, json: &'a str) -> Result<Value<'a>, Rejection> {
    if json.starts_with('"') && fields.private_within(field) {
        let text = JsonScanner::new(json).string_value()?;
        return Ok(Value::Text(redacted_text(fields, field, text)));
    }
    value(fields, field, json)
}

/// A text that holds JSON, without what is private in it; any other text as it is.
fn redacted_text<'a>(fields: &mut FieldTree, field: FieldId, text: Cow<'a, str>) -> Cow<'a, str> {
    redact(fields, field, &text).map_or(text, Cow::Owned)
}

/// Writes the member `key` of an image again, without what is private in it: the counterpart of [`guarded`].
pub fn redact_column(
    (key, field): (&str, FieldId),
    scanner: &mut JsonScanner<'_>,
    fields: &mut FieldTree,
    says_nothing: fn(&str) -> bool,
    object: &mut JsonWriter<'_>,
) -> Result<(), Rejection> {
    let json = scanner.skip_value()?;
    let written = match fields.privacy(field) {
        Some(Privacy::Drop) => return Ok(()),
        Some(Privacy::Sha256) if !says_nothing(json) => {
            format!("\"{}\"", hash_value(fields, &mut JsonScanner::new(json))?)
        }
        Some(Privacy::Sha256) | None if json.starts_with('"') && fields.private_within(field) => {
            let text = JsonScanner::new(json).string_value()?;
            serde_json::Value::from(redacted_text(fields, field, text)).to_string()
        }
        Some(Privacy::Sha256) | None => redact(fields, field, json)?,
    };
    append(object.member(key), &written)
}

/// The key as the source tells it, or as the configuration does.
fn key_columns(declared: Option<&config::TableConfig>, told: &[KeyColumn]) -> Vec<KeyColumn> {
    match declared.map(|table| &table.kind) {
        Some(config::TableKind::Entity { key, .. }) if !key.is_empty() => {
            let known = |name: &str| told.iter().find(|column| column.name == name).and_then(|column| column.sql_type);
            key.iter().map(|name| KeyColumn { name: name.clone(), sql_type: known(name) }).collect()
        }
        _ => told.to_vec(),
    }
}

/// The place of a key's column among the columns, to which it is added if it is not declared.
fn key_column_index(key: &KeyColumn, node: FieldId, columns: &mut Vec<ColumnSpec>, fields: &mut FieldTree) -> usize {
    let field = fields.child(node, &key.name);
    let place = columns.iter().position(|column| column.field == Some(field)).unwrap_or_else(|| {
        let name = Identifier::truncated(fields.column(field), &key.name);
        let taken = RESERVED.contains(&name.as_str()) || columns.iter().any(|column| column.name == name);
        let name = if taken { Identifier::with_hash_suffix(fields.column(field), &key.name) } else { name };
        columns.push(ColumnSpec::new(name, field));
        columns.len() - 1
    });
    let hash = (fields.privacy(field) == Some(Privacy::Sha256)).then_some("text");
    let column = &mut columns[place];
    column.required = true;
    column.on_mismatch = OnMismatch::Reject;
    column.sql_type = column.sql_type.take().or(hash.or(key.sql_type).map(str::to_owned));
    place
}

fn declared_columns(table: &config::TableConfig, node: FieldId, fields: &mut FieldTree) -> Vec<ColumnSpec> {
    let column = |column: &config::ColumnConfig| ColumnSpec {
        name: column.name.clone(),
        field: Some(fields.intern_path_under(node, &column.path)),
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
