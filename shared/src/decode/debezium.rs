//! Changes of relational tables, from Debezium:
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html>.
//!
//! Accepts envelopes with and without their schema, and rows flattened by `ExtractNewRecordState` that still carry
//! the table and the order (`add.fields=op,table,schema,lsn`). The key is read from the record's partition key, as
//! Debezium Server's Kinesis sink writes it. For a value that Debezium does not have (a large one that has not
//! changed), the stored value is kept. A new row, as after a change of its key, has no stored value; then only REPLICA
//! IDENTITY FULL helps.

mod event;
mod types;
mod unavailable;

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::json_objects::{
    JsonWriter, copy_value, for_each_member, rewrite_document, rewrite_object, skip_value, write_null,
};
use super::malformed;
use super::replica::{DecodeOutput, ReplicaTable, ReplicaTables, RowVersion, read_unless_private, redact_column};
use crate::change::Value;
use crate::config::SourceConfig;
use crate::field::{FieldId, FieldTree};
use crate::json_scanner::JsonScanner;
use crate::record::Record;
use crate::rejection::Rejection;
use crate::spec::{KeyColumn, MergeBy, TableRegistry};
use event::{DebeziumEvent, DebeziumOperation, is_metadata, payload};
use types::{ColumnTypes, LogicalType};
use unavailable::UnavailableValue;

/// A table has only a few schemas; at this many in total, the cached ones are dropped.
const SCHEMAS_MAX: usize = 10_000;

/// The tables of a Debezium connector.
#[derive(Debug)]
pub struct Debezium {
    /// The tables seen so far.
    pub replica_tables: ReplicaTables,
    /// The column types of known schemas, by the hash of the schema's text, which is often longer than the row.
    types: HashMap<u64, Arc<ColumnTypes>>,
    unavailable: UnavailableValue,
}

impl Debezium {
    /// The tables of a source.
    pub fn new(source: &SourceConfig) -> Self {
        Self {
            replica_tables: ReplicaTables::new(source, "Debezium table", MergeBy::Column),
            types: HashMap::new(),
            unavailable: UnavailableValue::new(source.unavailable_value.as_deref()),
        }
    }

    /// Appends the change that a record describes.
    pub fn document<'a>(
        &mut self,
        index: usize,
        record: &Record,
        json: &'a str,
        output: &mut DecodeOutput<'_, 'a>,
    ) -> Result<(), Rejection> {
        let Some(event) = DebeziumEvent::read(json)? else {
            output.changes.control_records.push(index);
            return Ok(());
        };
        let types = self.types(event.schema)?;
        let key = key(&record.partition_key, &types);
        let table = self.replica_tables.table(&event.table_name()?, &key, output.fields, output.tables)?;
        let privacy = self.replica_tables.privacy();
        let digest = privacy
            .document_digest(record, json, || self.redact_event(json, &event, table.root_field, output.fields))?;
        let version = event.version(digest)?;
        let row = RowVersion { table, record: index, version, start: output.changes.values.len() };
        self.columns(&event, &types, table, output)?;
        match event.operation {
            DebeziumOperation::Read | DebeziumOperation::Write => self.replica_tables.put(row, output),
            DebeziumOperation::Delete => {
                let deleted_at = event.event_time().unwrap_or(record.arrival);
                self.replica_tables.delete(row, deleted_at, output);
            }
        }
        Ok(())
    }

    /// Appends the columns of the event's row.
    fn columns<'a>(
        &self,
        event: &DebeziumEvent<'a>,
        types: &ColumnTypes,
        table: ReplicaTable,
        output: &mut DecodeOutput<'_, 'a>,
    ) -> Result<(), Rejection> {
        let mut previous = None;
        for_each_member(&mut JsonScanner::new(event.row), |name, scanner| {
            let json = scanner.skip_value()?;
            if event.flattened && is_metadata(name) {
                return Ok(());
            }
            let field = output.fields.child_after(table.root_field, previous, name)?;
            previous = Some(field);
            let logical_type = types.logical_type(name);
            let is_unavailable = self.unavailable.is_unavailable(json);
            let has_no_value = |json: &str| json == "null" || is_unavailable;
            let stored =
                read_unless_private(output.fields, field, json, has_no_value, |fields| match is_unavailable {
                    true => Ok(Value::Unchanged),
                    false => column(fields, field, name, json, logical_type),
                })?;
            output.changes.values.extend(stored.map(|value| (field, value)));
            Ok(())
        })
    }

    fn types(&mut self, schema: Option<&str>) -> Result<Arc<ColumnTypes>, Rejection> {
        let Some(schema) = schema else { return Ok(Arc::default()) };
        let hash = xxh3_64(schema.as_bytes());
        if let Some(types) = self.types.get(&hash) {
            return Ok(types.clone());
        }
        if self.types.len() >= SCHEMAS_MAX {
            self.types.clear();
        }
        let types = Arc::new(ColumnTypes::read(schema)?);
        self.types.insert(hash, types.clone());
        Ok(types)
    }

    /// The record without its private columns; other members that may hold values (the statement, a message) are left
    /// out.
    pub fn redact(
        &mut self,
        json: &str,
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
    ) -> Result<String, Rejection> {
        let event = DebeziumEvent::read(json)?.ok_or_else(|| malformed("event contains no row"))?;
        let root_field = self.replica_tables.table(&event.table_name()?, &[], fields, tables)?.root_field;
        self.redact_event(json, &event, root_field, fields)
    }

    fn redact_event(
        &self,
        json: &str,
        event: &DebeziumEvent<'_>,
        root_field: FieldId,
        fields: &mut FieldTree,
    ) -> Result<String, Rejection> {
        let row = RowRedaction { root_field, flattened: event.flattened, unavailable: &self.unavailable };
        if !event.has_schema_and_payload {
            return rewrite_document(json, |scanner, out| row.payload(scanner, fields, out));
        }
        let mut member = |key: &str, scanner: &mut JsonScanner<'_>, out: &mut String| match key {
            "payload" => row.payload(scanner, fields, out),
            _ => copy_value(scanner, out),
        };
        rewrite_document(json, |scanner, out| rewrite_object(scanner, out, &mut member))
    }
}

/// The key's columns from the record's partition key, `{"id":1}` with or without a schema around it; none if the
/// partition key is something else, as for a table without a key.
fn key(partition_key: &str, types: &ColumnTypes) -> Vec<KeyColumn> {
    let Ok(payload) = payload(partition_key) else { return Vec::new() };
    let key_types = payload.schema.and_then(|schema| ColumnTypes::read(schema).ok()).unwrap_or_default();
    let mut key = Vec::new();
    let read = for_each_member(&mut JsonScanner::new(payload.json), |name, scanner| {
        key.push(KeyColumn { name: name.to_owned(), sql_type: types.sql_type(name).or(key_types.sql_type(name)) });
        skip_value(scanner)
    });
    if read.is_ok() { key } else { Vec::new() }
}

/// The partition key with its columns' names and types but no values; empty if it names no columns.
pub fn key_without_values(partition_key: &str) -> String {
    let Ok(payload) = payload(partition_key) else { return String::new() };
    let mut names = String::new();
    let written = rewrite_object(&mut JsonScanner::new(payload.json), &mut names, &mut |_, scanner, out| {
        write_null(scanner, out)
    });
    match (written, payload.schema) {
        (Err(_), _) => String::new(),
        (Ok(()), None) => names,
        (Ok(()), Some(schema)) => format!("{{\"schema\":{schema},\"payload\":{names}}}"),
    }
}

fn column<'a>(
    fields: &mut FieldTree,
    field: FieldId,
    name: &str,
    json: &'a str,
    logical_type: &LogicalType,
) -> Result<Value<'a>, Rejection> {
    logical_type
        .value(fields, field, json)?
        .ok_or_else(|| malformed(format!("column {name:?}: expected {logical_type}")))
}

/// Rewrites the rows of an event without their private columns.
struct RowRedaction<'u> {
    root_field: FieldId,
    /// Whether the row's columns and its metadata are members of the same object.
    flattened: bool,
    unavailable: &'u UnavailableValue,
}

impl RowRedaction<'_> {
    fn payload(
        &self,
        scanner: &mut JsonScanner<'_>,
        fields: &mut FieldTree,
        out: &mut String,
    ) -> Result<(), Rejection> {
        if self.flattened {
            return self.columns(scanner, fields, out);
        }
        rewrite_object(scanner, out, &mut |key, scanner, out| match key {
            "before" | "after" if scanner.peek() == Some(b'{') => self.columns(scanner, fields, out),
            "source" => rewrite_object(scanner, out, &mut |key, scanner, out| match key {
                "query" => write_null(scanner, out),
                _ => copy_value(scanner, out),
            }),
            "op" | "ts_ms" | "ts_us" | "ts_ns" | "transaction" => copy_value(scanner, out),
            _ => write_null(scanner, out),
        })
    }

    fn columns(
        &self,
        scanner: &mut JsonScanner<'_>,
        fields: &mut FieldTree,
        out: &mut String,
    ) -> Result<(), Rejection> {
        let has_no_value = |json: &str| json == "null" || self.unavailable.is_unavailable(json);
        let mut object = JsonWriter::object(out);
        for_each_member(scanner, |key, scanner| {
            if self.flattened && matches!(key, "__query" | "__source_query") {
                return skip_value(scanner);
            }
            if self.flattened && is_metadata(key) {
                return copy_value(scanner, object.member(key));
            }
            let field = fields.find_private(self.root_field, key);
            redact_column((key, field), scanner, fields, has_no_value, &mut object)
        })?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_key_gives_the_key_with_and_without_a_schema() {
        let types = ColumnTypes::default();
        let key_columns = |partition_key| -> Vec<(String, Option<&str>)> {
            key(partition_key, &types).into_iter().map(|column| (column.name, column.sql_type)).collect()
        };
        assert_eq!(key_columns(r#"{"a":1,"b":"x"}"#), [("a".to_owned(), None), ("b".to_owned(), None)]);
        let schema = r#"{"schema":{"type":"struct","fields":[{"type":"int64","field":"id"}]},"payload":{"id":1}}"#;
        assert_eq!(key_columns(schema), [("id".to_owned(), Some("bigint"))]);
        for other in ["default", "", "7", r#"{"id":1"#, r#"{"schema":null,"payload":null}"#] {
            assert_eq!(key_columns(other), [], "{other}");
        }
    }
}
