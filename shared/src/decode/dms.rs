//! Changes of relational tables, from AWS DMS:
//! <https://docs.aws.amazon.com/dms/latest/userguide/CHAP_Target.Kinesis.html>.
//!
//! A data record describes the whole row: a missing column is NULL (DMS omits NULLs unless the target's
//! `IncludeNullAndEmpty` is set). Control records provide the table's key and change nothing: what is dropped at the
//! source stays in PostgreSQL. The before-image is read from its default member, `before-image`, or from `BI_` columns.

use std::borrow::Cow;
use std::collections::HashMap;

use super::json_objects::{
    JsonWriter, copy_value, for_each_member, read_raw, read_string, rewrite_document, rewrite_object, skip_value,
    write_null,
};
use super::malformed;
use super::replica::{
    DecodeOutput, ReplicaTable, ReplicaTables, RowVersion, read_column, read_unless_private, redact_column,
};
use crate::change::Version;
use crate::config::SourceConfig;
use crate::field::{FieldId, FieldTree};
use crate::json_scanner::JsonScanner;
use crate::record::Record;
use crate::rejection::Rejection;
use crate::spec::{KeyColumn, MergeBy, TableRegistry};
use crate::timestamp::Timestamp;

/// Where a `map-record-to-document` rule puts the columns.
const DOCUMENT: &str = "_doc";

/// The prefix that a transformation rule gives to the columns of a before-image.
const BEFORE_PREFIX: &str = "BI_";

/// The prefix of DMS's own tables; their `schema-name` is empty.
const SYSTEM_TABLE_PREFIX: &str = "awsdms_";

/// Bits of an order below the microsecond: the change's position in its transaction.
const RECORD_ID_BITS: u32 = 64;

/// The tables of a DMS task.
#[derive(Debug)]
pub struct Dms {
    /// The tables seen so far.
    pub replica_tables: ReplicaTables,
    /// The keys from control records, by table.
    pub keys: HashMap<String, Vec<KeyColumn>>,
}

/// The parts of a record; its images are raw JSON.
#[derive(Default)]
struct DmsRecord<'a> {
    data: Option<&'a str>,
    before: Option<&'a str>,
    control: Option<&'a str>,
    record_type: Option<Cow<'a, str>>,
    operation: Option<Cow<'a, str>>,
    schema: Option<Cow<'a, str>>,
    table: Option<Cow<'a, str>>,
    timestamp: Option<Cow<'a, str>>,
    committed: Option<Cow<'a, str>>,
    record_id: Option<&'a str>,
}

/// What a data record says about its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DmsOperation {
    /// The full load read it.
    Load,
    /// It was inserted or updated.
    Write,
    /// It was deleted.
    Delete,
}

/// A row: its columns, and the previous values of some of them.
struct RowImages<'a> {
    columns: Vec<(Cow<'a, str>, &'a str)>,
    before: Vec<(Cow<'a, str>, &'a str)>,
}

impl Dms {
    /// The tables of a source.
    pub fn new(source: &SourceConfig) -> Self {
        let replica_tables = ReplicaTables::new(source, "DMS table", MergeBy::Row).with_before_prefix(BEFORE_PREFIX);
        Self { replica_tables, keys: HashMap::new() }
    }

    /// Stores the key that a control record provides. Errors in the record are left to [`Self::document`].
    pub fn scan_for_keys(&mut self, bytes: &[u8]) {
        // Searched for before anything is parsed: nearly all records are data.
        if memchr::memmem::find(bytes, b"\"table-def\"").is_none() {
            return;
        }
        let Some(Ok(parts)) = str::from_utf8(bytes).ok().map(DmsRecord::read) else { return };
        if let (Ok(true), Ok(name), Some(Ok(key))) =
            (parts.is_control(), parts.table_name(), parts.control.map(primary_key))
            && !key.is_empty()
        {
            self.keys.insert(name, key);
        }
    }

    /// Appends the changes that a record describes: one, or two if the row's key has changed.
    pub fn document<'a>(
        &mut self,
        index: usize,
        record: &Record,
        json: &'a str,
        output: &mut DecodeOutput<'_, 'a>,
    ) -> Result<(), Rejection> {
        let parts = DmsRecord::read(json)?;
        if parts.is_control()? {
            output.changes.control_records.push(index);
            return Ok(());
        }
        let operation = parts.operation()?;
        let table = self.table_for(&parts, output.fields, output.tables)?;
        let privacy = self.replica_tables.privacy();
        let digest =
            privacy.document_digest(record, json, || self.redact_row(json, table.root_field, output.fields))?;
        let version = parts.version(operation, digest)?;
        let changed_at = parts.commit_time().unwrap_or(record.arrival);
        let image = RowImages::read(&parts)?;
        match operation {
            DmsOperation::Delete => self.delete(table, index, version, changed_at, &image.columns, output),
            DmsOperation::Load => self.put(table, index, version, &image, output),
            DmsOperation::Write => {
                if image.key_changed(table, output) {
                    // Older than the put by the order's last bit: if the key is not known yet and turns out to be
                    // unchanged, the put wins.
                    let version = Version { order: version.order - 1, ..version };
                    self.delete(table, index, version, changed_at, &image.previous_row(), output)?;
                }
                self.put(table, index, version, &image, output)
            }
        }
    }

    fn table_for(
        &mut self,
        parts: &DmsRecord<'_>,
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
    ) -> Result<ReplicaTable, Rejection> {
        let name = parts.table_name()?;
        let key = self.keys.get(&name).map(Vec::as_slice).unwrap_or_default();
        self.replica_tables.table(&name, key, fields, tables)
    }

    fn put<'a>(
        &self,
        table: ReplicaTable,
        index: usize,
        version: Version,
        image: &RowImages<'a>,
        output: &mut DecodeOutput<'_, 'a>,
    ) -> Result<(), Rejection> {
        let start = output.changes.values.len();
        columns(&image.columns, table.root_field, output)?;
        self.replica_tables.put(RowVersion { table, record: index, version, start }, output);
        Ok(())
    }

    fn delete<'a>(
        &self,
        table: ReplicaTable,
        index: usize,
        version: Version,
        deleted_at: Timestamp,
        row: &[(Cow<'a, str>, &'a str)],
        output: &mut DecodeOutput<'_, 'a>,
    ) -> Result<(), Rejection> {
        let start = output.changes.values.len();
        columns(row, table.root_field, output)?;
        self.replica_tables.delete(RowVersion { table, record: index, version, start }, deleted_at, output);
        Ok(())
    }

    /// The record without its private columns. If any column is private, the key's value in the metadata is removed as
    /// well: it may be that column. Any other object counts as a row; everything else but `control` becomes null.
    pub fn redact(
        &mut self,
        json: &str,
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
    ) -> Result<String, Rejection> {
        let parts = DmsRecord::read(json)?;
        if parts.is_control()? && parts.data.is_none() && parts.before.is_none() {
            return Ok(json.to_owned());
        }
        let root_field = self.table_for(&parts, fields, tables)?.root_field;
        self.redact_row(json, root_field, fields)
    }

    fn redact_row(&self, json: &str, root_field: FieldId, fields: &mut FieldTree) -> Result<String, Rejection> {
        let mut member = |key: &str, scanner: &mut JsonScanner<'_>, out: &mut String| match key {
            "control" => copy_value(scanner, out),
            "metadata" => rewrite_object(scanner, out, &mut |key, scanner, out| match key {
                "partition-key-value" if fields.has_private_descendant(root_field) => write_null(scanner, out),
                _ => copy_value(scanner, out),
            }),
            _ if scanner.peek() == Some(b'{') => redact_columns(scanner, root_field, fields, out),
            _ => write_null(scanner, out),
        };
        rewrite_document(json, |scanner, out| rewrite_object(scanner, out, &mut member))
    }
}

impl<'a> DmsRecord<'a> {
    fn read(json: &'a str) -> Result<Self, Rejection> {
        let mut parts = Self::default();
        let mut scanner = JsonScanner::new(json);
        for_each_member(&mut scanner, |key, scanner| match key {
            "data" => read_raw(scanner, &mut parts.data),
            "before-image" => read_raw(scanner, &mut parts.before),
            "control" => read_raw(scanner, &mut parts.control),
            "metadata" => for_each_member(scanner, |key, scanner| match key {
                "record-type" => read_string(scanner, &mut parts.record_type),
                "operation" => read_string(scanner, &mut parts.operation),
                "schema-name" => read_string(scanner, &mut parts.schema),
                "table-name" => read_string(scanner, &mut parts.table),
                "timestamp" => read_string(scanner, &mut parts.timestamp),
                "commit-timestamp" => read_string(scanner, &mut parts.committed),
                "transaction-record-id" => read_raw(scanner, &mut parts.record_id),
                _ => skip_value(scanner),
            }),
            _ => skip_value(scanner),
        })?;
        scanner.expect_end()?;
        let is_object = |image: &&str| image.starts_with('{');
        parts.data = parts.data.filter(is_object);
        parts.before = parts.before.filter(is_object);
        Ok(parts)
    }

    /// Whether the record concerns the task and not a row: a control record, or one for DMS's own tables.
    fn is_control(&self) -> Result<bool, Rejection> {
        match self.record_type.as_deref() {
            Some("control") => Ok(true),
            Some("data") => Ok(self.table.as_deref().is_some_and(|table| table.starts_with(SYSTEM_TABLE_PREFIX))),
            Some(other) => Err(unknown_value("metadata.record-type", other)),
            None => Err(malformed("metadata.record-type is missing")),
        }
    }

    fn operation(&self) -> Result<DmsOperation, Rejection> {
        match self.operation.as_deref() {
            Some("load") => Ok(DmsOperation::Load),
            Some("insert" | "update") => Ok(DmsOperation::Write),
            Some("delete") => Ok(DmsOperation::Delete),
            Some(other) => Err(unknown_value("metadata.operation", other)),
            None => Err(malformed("metadata.operation is missing")),
        }
    }

    /// `schema-name.table-name`.
    fn table_name(&self) -> Result<String, Rejection> {
        let table = self.table.as_deref().filter(|table| !table.is_empty());
        let table = table.ok_or_else(|| malformed("metadata.table-name is missing"))?;
        let schema = self.schema.as_deref().filter(|schema| !schema.is_empty());
        Ok(schema.map_or_else(|| table.to_owned(), |schema| format!("{schema}.{table}")))
    }

    /// When the change was made, if the record says so.
    fn commit_time(&self) -> Option<Timestamp> {
        Timestamp::parse(self.committed.as_deref().or(self.timestamp.as_deref())?)
    }

    /// Changes are ordered by their commit and their position in the transaction, if the task has
    /// `IncludeTransactionDetails`. Without it, only the timestamp at which DMS wrote the record is available: within
    /// one microsecond, two changes are ordered by their digests, which is not the source's order but always the same.
    /// Loaded rows are older.
    fn version(&self, operation: DmsOperation, digest: u64) -> Result<Version, Rejection> {
        let text = match (operation, &self.committed) {
            (DmsOperation::Load, _) | (_, None) => self.timestamp.as_deref(),
            (DmsOperation::Write | DmsOperation::Delete, Some(committed)) => Some(&**committed),
        };
        let timestamp = text.and_then(Timestamp::parse);
        let timestamp = timestamp.ok_or_else(|| malformed("the timestamp in metadata is missing or invalid"))?;
        if operation == DmsOperation::Load {
            return Ok(Version { origin: Version::SNAPSHOT, order: i128::from(timestamp.0), digest });
        }
        let record_id =
            self.committed.as_ref().and(self.record_id).map_or(Some(0), |text| text.trim_matches('"').parse().ok());
        let record_id: u32 =
            record_id.ok_or_else(|| malformed("metadata.transaction-record-id is not a 32-bit number"))?;
        // The last bit is for the delete of a key that has changed.
        let order = (i128::from(timestamp.0) << RECORD_ID_BITS) + (i128::from(record_id) << 1) + 1;
        Ok(Version { origin: Version::STREAM, order, digest })
    }
}

impl<'a> RowImages<'a> {
    fn read(parts: &DmsRecord<'a>) -> Result<Self, Rejection> {
        let row = parts.data.or(parts.before).ok_or_else(|| malformed("data is missing"))?;
        let (mut all, mut before) = (Vec::new(), Vec::new());
        members(row, &mut all)?;
        parts.before.map(|image| members(image, &mut before)).transpose()?;
        let is_before: Vec<bool> = all.iter().map(|(name, _)| before_column_name(name, &all).is_some()).collect();
        let mut columns = Vec::with_capacity(all.len());
        for ((name, json), is_before) in all.into_iter().zip(is_before) {
            match (is_before, name.strip_prefix(BEFORE_PREFIX)) {
                (true, Some(bare)) => before.push((Cow::Owned(bare.to_owned()), json)),
                (true | false, _) => columns.push((name, json)),
            }
        }
        Ok(Self { columns, before })
    }

    /// Whether a column of the key had another value before. If the key is not known yet, any column may be part of it.
    fn key_changed(&self, table: ReplicaTable, output: &DecodeOutput<'_, '_>) -> bool {
        let key: Vec<&str> = output
            .tables
            .get(table.table)
            .key_columns()
            .filter_map(|c| c.field)
            .map(|f| output.fields.key(f))
            .collect();
        self.before.iter().any(|(name, previous)| {
            let changed = || self.columns.iter().any(|(column, current)| column == name && current != previous);
            (key.is_empty() || key.contains(&&**name)) && changed()
        })
    }

    /// The row before the change, as far as the record describes it.
    fn previous_row(&self) -> Vec<(Cow<'a, str>, &'a str)> {
        let previous = |name: &str| self.before.iter().find(|(column, _)| column == name).map(|(_, json)| *json);
        self.columns.iter().map(|(name, json)| (name.clone(), previous(name).unwrap_or(json))).collect()
    }
}

/// The column whose previous value `name` holds, if the row has that column.
fn before_column_name<'n>(name: &'n str, all: &[(Cow<'_, str>, &str)]) -> Option<&'n str> {
    name.strip_prefix(BEFORE_PREFIX).filter(|bare| all.iter().any(|(other, _)| other == bare))
}

/// Appends the members of a row, including those of its `_doc` object.
fn members<'a>(image: &'a str, into: &mut Vec<(Cow<'a, str>, &'a str)>) -> Result<(), Rejection> {
    JsonScanner::new(image).each_member(|name, scanner| {
        let json = scanner.skip_value()?;
        if name == DOCUMENT && json.starts_with('{') {
            members(json, into)?;
        } else {
            into.push((name, json));
        }
        Ok(())
    })
}

fn columns<'a>(
    row: &[(Cow<'a, str>, &'a str)],
    root_field: FieldId,
    output: &mut DecodeOutput<'_, 'a>,
) -> Result<(), Rejection> {
    let mut previous = None;
    for (name, json) in row {
        let field = output.fields.child_after(root_field, previous, name)?;
        previous = Some(field);
        let stored =
            read_unless_private(output.fields, field, json, has_no_value, |fields| read_column(fields, field, json))?;
        output.changes.values.extend(stored.map(|value| (field, value)));
    }
    Ok(())
}

fn has_no_value(json: &str) -> bool {
    json == "null"
}

fn redact_columns(
    scanner: &mut JsonScanner<'_>,
    root_field: FieldId,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    let mut object = JsonWriter::object(out);
    for_each_member(scanner, |key, scanner| {
        if key == DOCUMENT && scanner.peek() == Some(b'{') {
            return redact_columns(scanner, root_field, fields, object.member(key));
        }
        let field = fields.find_private(root_field, key);
        redact_column((key, field), scanner, fields, has_no_value, &mut object)
    })?;
    object.end()
}

/// The columns of the key, and the types that they get when the table is created.
fn primary_key(control: &str) -> Result<Vec<KeyColumn>, Rejection> {
    let mut types = HashMap::new();
    let mut key = Vec::new();
    for_each_member(&mut JsonScanner::new(control), |member, scanner| match member {
        "table-def" => for_each_member(scanner, |member, scanner| match member {
            "columns" => for_each_member(scanner, |name, scanner| {
                let mut dms_type = None;
                for_each_member(scanner, |member, scanner| match member {
                    "type" => read_string(scanner, &mut dms_type),
                    _ => skip_value(scanner),
                })?;
                types.insert(name.to_owned(), dms_type.as_deref().and_then(sql_type));
                Ok(())
            }),
            "primary-key" => scanner.each_element(|scanner| {
                key.push(scanner.string_value()?.into_owned());
                Ok(())
            }),
            _ => skip_value(scanner),
        }),
        _ => skip_value(scanner),
    })?;
    let typed = |name: String| KeyColumn { sql_type: types.get(&name).copied().flatten(), name };
    Ok(key.into_iter().map(typed).collect())
}

/// The PostgreSQL type for a key column of a DMS type: one that holds every value that DMS may write, exactly.
fn sql_type(dms_type: &str) -> Option<&'static str> {
    match dms_type {
        "INT8" | "UINT8" | "INT16" => Some("smallint"),
        "UINT16" | "INT32" => Some("integer"),
        "UINT32" | "INT64" => Some("bigint"),
        // A float's text may have more digits than PostgreSQL's floats return.
        "UINT64" | "NUMERIC" | "REAL4" | "REAL8" => Some("numeric"),
        "BOOLEAN" => Some("boolean"),
        "DATE" => Some("date"),
        "DATETIME" => Some("timestamptz"),
        // Bytes come as a text whose encoding (base64, hexadecimal) is the endpoint's setting; a time may have a zone.
        "STRING" | "WSTRING" | "CLOB" | "NCLOB" | "BYTES" | "BLOB" | "TIME" => Some("text"),
        _ => None,
    }
}

fn unknown_value(member: &str, value: &str) -> Rejection {
    malformed(format!("unknown {member} {:?}", value.chars().take(20).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(operation: &str, extra: &str) -> String {
        format!(
            r#"{{"data":{{"id":1}},"metadata":{{"timestamp":"2026-02-08T10:00:00.000001Z","record-type":"data","operation":"{operation}","schema-name":"public","table-name":"t"{extra}}}}}"#
        )
    }

    fn version(operation: &str, extra: &str) -> Result<Version, Rejection> {
        let json = record(operation, extra);
        let parts = DmsRecord::read(&json)?;
        parts.version(parts.operation()?, xxhash_rust::xxh3::xxh3_64(json.as_bytes()))
    }

    fn committed(timestamp: &str, record_id: u32) -> Version {
        version("update", &format!(r#","commit-timestamp":"{timestamp}","transaction-record-id":{record_id}"#)).unwrap()
    }

    #[test]
    fn versions_order_by_commit_then_by_record_id_and_loaded_rows_are_older() {
        let (early, late) = ("2026-02-08T09:00:00.000001Z", "2026-02-08T09:00:00.000002Z");
        let versions = [
            version("load", "").unwrap(),
            committed(early, 1),
            committed(early, 2),
            committed(early, u32::MAX),
            committed(late, 1),
            version("insert", "").unwrap(),
        ];
        assert!(versions.is_sorted(), "{versions:?}");
    }

    #[test]
    fn a_version_needs_a_time_and_a_numeric_record_id() {
        let extra = r#","commit-timestamp":"2026-02-08T09:00:00Z","transaction-record-id":"x""#;
        assert!(version("update", extra).is_err());
        assert!(version("update", r#","commit-timestamp":"soon""#).is_err());
        assert!(version("upsert", "").is_err());
    }

    #[test]
    fn previous_values_are_not_columns_and_give_the_old_key() {
        let json = r#"{"data":{"_doc":{"id":2,"BI_id":1,"BI_only":3,"n":null}},"before-image":{"n":5}}"#;
        let image = RowImages::read(&DmsRecord::read(json).unwrap()).unwrap();
        let format_row = |row: &[(Cow<'_, str>, &str)]| {
            row.iter().map(|(name, json)| format!("{name}={json}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(format_row(&image.columns), "id=2 BI_only=3 n=null");
        assert_eq!(format_row(&image.previous_row()), "id=1 BI_only=3 n=5");
    }

    #[test]
    fn control_records_give_the_key_and_its_types() {
        let control = r#"{"table-def":{"columns":{"b":{"type":"NUMERIC","precision":5},"a":{"type":"INT64"},"c":{"type":"GEO"}},
            "primary-key":["a","b","c"]}}"#;
        let key = primary_key(control).unwrap();
        let key: Vec<_> = key.iter().map(|column| (&*column.name, column.sql_type)).collect();
        assert_eq!(key, [("a", Some("bigint")), ("b", Some("numeric")), ("c", None)]);
        assert!(primary_key(r#"{"table-def":{"primary-key":[1]}}"#).is_err());
    }
}
