//! The second step: decodes a record's document into changes, according to the format of its source.
//!
//! Pure: bytes in, changes or a rejection with its reason out. A [`Decoder`] caches only what makes the next document
//! cheaper to decode (known paths and tables), never a document's contents. A new format is a module here and a variant
//! of [`config::Format`].

mod debezium;
mod declared;
mod dms;
mod dynamodb;
mod flatten;
mod json;
mod json_objects;
mod replica;
mod segment;

use std::borrow::Cow;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::change::{Change, Changes, Operation, Value, Version};
use crate::config::{self, SourceConfig};
use crate::decimal::Decimal;
use crate::field::{FieldId, FieldTree, HashForm};
use crate::names::{Identifier, TableName};
use crate::record::{Batch, DOCUMENT_BYTES_MAX, Record};
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{KeyColumn, Nested, PartitionPolicy, TableId, TableRegistry};
use crate::timestamp::Timestamp;
use replica::{DecodeOutput, ReplicaTables};

/// Bounds the memory that the paths of hostile documents can take: past this many, what follows gets a new decoder. One
/// document can add 10,000.
const FIELDS_MAX: usize = 50_000;

/// What a change and a value take in [`Changes`], and what a path that is seen for the first time takes in the tree.
const CHANGE_BYTES: usize = size_of::<Change>();
const VALUE_BYTES: usize = size_of::<(FieldId, Value<'_>)>();
const FIELD_BYTES: usize = 256;

/// What a cell takes without its value, encoded and with its bounds.
const CELL_BYTES: usize = 16;

/// How often a value is in memory on its way to the database: encoded, as a statement's parameter, and as a message.
const COPIES: usize = 3;

/// Decodes the records of one source.
#[derive(Debug)]
pub struct Decoder {
    source: SourceConfig,
    /// The paths seen so far.
    pub fields: FieldTree,
    /// The tables seen so far.
    pub tables: TableRegistry,
    format: FormatDecoder,
}

#[derive(Debug)]
enum FormatDecoder {
    Segment(Box<segment::Segment>),
    Json(json::Json),
    Dynamodb(Box<dynamodb::Dynamodb>),
    Dms(Box<dms::Dms>),
    Debezium(Box<debezium::Debezium>),
}

impl FormatDecoder {
    /// The tables of a format that replicates tables.
    fn replica_tables(&mut self) -> Option<&mut ReplicaTables> {
        match self {
            Self::Dynamodb(dynamodb) => Some(&mut dynamodb.replica_tables),
            Self::Dms(dms) => Some(&mut dms.replica_tables),
            Self::Debezium(debezium) => Some(&mut debezium.replica_tables),
            Self::Segment(_) | Self::Json(_) => None,
        }
    }
}

/// A table that a document goes to, and the field that holds its version.
#[derive(Clone, Copy, Debug)]
struct TargetTable {
    table: TableId,
    version: Option<FieldId>,
}

impl Decoder {
    /// Creates a decoder for the source.
    pub fn new(source: SourceConfig) -> Self {
        let mut fields = FieldTree::new(source.naming);
        let stores_objects = |shape: &config::SchemaPolicy| shape.nested == Nested::Jsonb;
        if stores_objects(&source.schema_policy)
            || source.tables.iter().any(|table| stores_objects(&table.schema_policy))
        {
            fields.request_whole_objects();
        }
        let mut tables = TableRegistry::default();
        let format = match source.format {
            config::Format::Segment => {
                FormatDecoder::Segment(Box::new(segment::Segment::new(&source, &mut fields, &mut tables)))
            }
            config::Format::Json => FormatDecoder::Json(json::Json::new(&source, &mut fields, &mut tables)),
            config::Format::Dynamodb => FormatDecoder::Dynamodb(Box::new(dynamodb::Dynamodb::new(&source))),
            config::Format::Dms => FormatDecoder::Dms(Box::new(dms::Dms::new(&source))),
            config::Format::Debezium => FormatDecoder::Debezium(Box::new(debezium::Debezium::new(&source))),
        };
        // This must follow the format's own naming of fields. Replicated tables mark theirs when they are first seen.
        if !source.format.replicates() {
            mark_private_fields(&source, &mut fields);
        }
        Self { source, fields, tables, format }
    }

    /// Clears the cached paths and tables if there are too many. The keys that the source provided are kept: its records need
    /// not repeat them.
    pub fn reset_if_too_large(&mut self) {
        if self.fields.count() > FIELDS_MAX {
            let mut keys = self.format.replica_tables().map(ReplicaTables::take_source_keys).unwrap_or_default();
            if let FormatDecoder::Dms(dms) = &mut self.format {
                keys.extend(std::mem::take(&mut dms.keys));
            }
            *self = Self::new(self.source.clone());
            for (table, key) in keys {
                // The table was not excluded before.
                self.set_table_key(&table, &key).unwrap_or_default();
            }
        }
    }

    /// Decodes all records of a batch; each rejection comes with its record's index.
    pub fn decode<'a>(&mut self, batch: &'a Batch) -> (Changes<'a>, Vec<(usize, Rejection)>) {
        let (mut changes, mut rejected) = (Changes::default(), Vec::new());
        self.scan_for_keys(batch);
        self.decode_some(batch, 0..batch.records.len(), &mut changes, &mut rejected);
        (changes, rejected)
    }

    /// Whether all records of a batch must be scanned for keys before any of them is decoded.
    pub fn needs_key_scan(&self) -> bool {
        matches!(self.format, FormatDecoder::Dms(_))
    }

    /// Collects the table keys that records of a batch provide. Must precede the decoding of any of them.
    pub fn scan_for_keys(&mut self, batch: &Batch) {
        if let FormatDecoder::Dms(dms) = &mut self.format {
            // The record with a table's key may follow the data records that need it.
            batch.records.iter().for_each(|record| dms.scan_for_keys(batch.payload(record)));
        }
    }

    /// Decodes a range of a batch's records.
    pub fn decode_some<'a>(
        &mut self,
        batch: &'a Batch,
        records: Range<usize>,
        changes: &mut Changes<'a>,
        rejected: &mut Vec<(usize, Rejection)>,
    ) {
        self.decode_within(batch, records, usize::MAX, changes, rejected);
    }

    /// Decodes records until the changes take about `bytes_max` bytes, at least one. Returns the index of the next record.
    pub fn decode_within<'a>(
        &mut self,
        batch: &'a Batch,
        records: Range<usize>,
        bytes_max: usize,
        changes: &mut Changes<'a>,
        rejected: &mut Vec<(usize, Rejection)>,
    ) -> usize {
        for index in records.clone() {
            let record = &batch.records[index];
            let before = (changes.list.len(), changes.values.len(), self.fields.count());
            if let Err(rejection) = self.decode_record(index, record, batch.payload(record), changes) {
                changes.list.truncate(before.0);
                changes.values.truncate(before.1);
                rejected.push((index, rejection));
            }
            changes.estimated_bytes +=
                self.estimated_bytes(record, changes, before) + CELL_BYTES * count_cells(changes, before.0);
            if changes.estimated_bytes >= bytes_max {
                return index + 1;
            }
        }
        records.end
    }

    /// Estimates what the changes of a record take until they are written. If no field has a column, all paths are stored with
    /// their values.
    fn estimated_bytes(&self, record: &Record, changes: &Changes<'_>, before: (usize, usize, usize)) -> usize {
        let (list, values) = (changes.list.len() - before.0, changes.values.len() - before.1);
        let stored = record.payload.len() + self.fields.document_path_bytes();
        let fields = self.fields.count() - before.2;
        CHANGE_BYTES * (list + 1) + VALUE_BYTES * values + COPIES * list * stored + FIELD_BYTES * fields
    }

    fn decode_record<'a>(
        &mut self,
        index: usize,
        record: &Record,
        bytes: &'a [u8],
        changes: &mut Changes<'a>,
    ) -> Result<(), Rejection> {
        if let Some(unpack_error) = &record.unpack_error {
            return Err(Rejection::new((**unpack_error).clone().into()));
        }
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(Rejection::new(RejectionReason::DocumentTooLarge));
        }
        let json =
            str::from_utf8(bytes).map_err(|e| malformed(format!("invalid UTF-8 at byte {}", e.valid_up_to())))?;
        self.set_hash_forms(record, HashForm::Plain);
        self.fields.begin_document();
        let start = changes.values.len();
        let targets = match &mut self.format {
            FormatDecoder::Segment(segment) => {
                segment.document(record, json, &mut self.fields, &mut self.tables, &mut changes.values)?
            }
            FormatDecoder::Json(json_decoder) => {
                json_decoder.document(record, json, &mut self.fields, &mut changes.values)?
            }
            FormatDecoder::Dynamodb(dynamodb) => {
                let mut output = DecodeOutput { fields: &mut self.fields, tables: &mut self.tables, changes };
                return dynamodb.document(index, record, json, &mut output);
            }
            FormatDecoder::Dms(dms) => {
                let mut output = DecodeOutput { fields: &mut self.fields, tables: &mut self.tables, changes };
                return dms.document(index, record, json, &mut output);
            }
            FormatDecoder::Debezium(debezium) => {
                let mut output = DecodeOutput { fields: &mut self.fields, tables: &mut self.tables, changes };
                return debezium.document(index, record, json, &mut output);
            }
        };
        let values = start..changes.values.len();
        let mut digest = None;
        for target in targets.iter() {
            let version = match target.version {
                None => None,
                Some(field) => {
                    let digest = match digest {
                        Some(digest) => digest,
                        None => *digest.insert(self.document_digest(record, json)?),
                    };
                    Some(self.version(field, &changes.values[values.clone()], digest, target.table)?)
                }
            };
            changes.list.push(Change {
                record: index,
                table: target.table,
                operation: Operation::Put,
                version,
                values: values.clone(),
            });
        }
        Ok(())
    }

    /// Sets how hashes are written in the document and in the output. The hashes of an archived record are kept; fields
    /// that became private later are still hashed or dropped.
    fn set_hash_forms(&mut self, record: &Record, output: HashForm) {
        let input = if record.archived_digest.is_some() { HashForm::Prefixed } else { HashForm::Plain };
        self.fields.set_hash_forms(input, output);
    }

    /// The version at `field`: a timestamp or an integer.
    fn version(
        &self,
        field: FieldId,
        values: &[(FieldId, Value<'_>)],
        digest: u64,
        table: TableId,
    ) -> Result<Version, Rejection> {
        let order = match values.iter().rev().find(|(candidate, _)| *candidate == field).map(|(_, value)| value) {
            Some(Value::Time(timestamp)) => Some(i128::from(timestamp.0)),
            Some(Value::Text(text)) => Timestamp::parse(text).map(|timestamp| i128::from(timestamp.0)),
            Some(Value::Number(text)) => Decimal::parse(text).and_then(|number| number.to_integer()),
            Some(Value::Null | Value::TypedNull | Value::Unchanged | Value::Bool(_)) | None => None,
            Some(Value::Date(_) | Value::Json(_) | Value::Bytes(_) | Value::List(_)) => None,
        };
        order.map(|order| Version { origin: Version::STREAM, order, digest }).ok_or_else(|| {
            let path = self.fields.path(field);
            Rejection::for_table(
                self.tables.get(table).name.unquoted(),
                RejectionReason::Missing { path, role: "the version (a timestamp or an integer)" },
            )
        })
    }

    /// Sets the key of a source's table, for records that do not provide it.
    pub fn set_table_key(&mut self, table: &str, key: &[KeyColumn]) -> Result<(), Rejection> {
        match self.format.replica_tables() {
            Some(replica_tables) => replica_tables.table(table, key, &mut self.fields, &mut self.tables).map(drop),
            None => Ok(()),
        }
    }

    /// The table that the source calls `name`, added if it is new; `None` if it is excluded or not replicated.
    pub fn replicated_table(&mut self, name: &str) -> Option<TableId> {
        self.set_table_key(name, &[]).ok()?;
        self.format.replica_tables()?.table_id(name)
    }

    /// The tables that the configuration declares, or the default table of a JSON source that declares none.
    pub fn declared_tables(&mut self) -> Vec<TableId> {
        let tables = self.source.tables.clone();
        if self.source.format.replicates() {
            let source_name =
                |table: &config::TableConfig| table.from.clone().unwrap_or_else(|| table.name.as_str().to_owned());
            return tables.iter().filter_map(|table| self.replicated_table(&source_name(table))).collect();
        }
        let has_default_table = tables.is_empty() && self.source.format == config::Format::Json;
        let is_declared = |id: &TableId| {
            let name = &self.tables.get(*id).name.table;
            has_default_table || tables.iter().any(|table| table.name == *name)
        };
        (0..self.tables.count() as u32).map(TableId).filter(is_declared).collect()
    }

    /// The name of the source in the configuration.
    pub fn source_name(&self) -> &str {
        &self.source.name
    }

    /// How the source partitions a table that it fills, and by which column. A table that no specification describes, for
    /// example of a Segment event that has not been seen, has the source's default partitioning.
    pub fn partitioning(&mut self, table: &TableName) -> Option<(Identifier, PartitionPolicy)> {
        if let Some(spec) = self.tables.by_name(table) {
            let partition = spec.partition?;
            return Some((spec.columns[partition.column].name.clone(), partition.policy));
        }
        let mut builder = declared::TableSpecBuilder { fields: &mut self.fields, columns: Vec::new() };
        let partition = builder.partition(self.source.partition.as_ref())?;
        Some((builder.columns[partition.column].name.clone(), partition.policy))
    }

    /// A record's partition key in the form that may be stored. Producers use what identifies a person or a row as the key, so
    /// that it is withheld if the source has private fields. Of Debezium's, which is the row's key, the names and types of
    /// the columns stay: decoding needs them.
    pub fn partition_key<'r>(&self, record: &'r Record) -> Cow<'r, str> {
        match &self.format {
            _ if self.source.private.is_empty() => Cow::Borrowed(&record.partition_key),
            FormatDecoder::Debezium(_) => debezium::key_without_values(&record.partition_key).into(),
            FormatDecoder::Dms(_) | FormatDecoder::Dynamodb(_) => "".into(),
            FormatDecoder::Json(_) | FormatDecoder::Segment(_) => "".into(),
        }
    }

    /// A document without its private fields and its digest, for a dead letter or a backup; `None` if the private fields
    /// cannot be identified. The digest is the same as in the document's version.
    pub fn redact(&mut self, record: &Record, bytes: &[u8]) -> Option<(Vec<u8>, u64)> {
        if self.source.private.is_empty() {
            return Some((bytes.to_vec(), record.digest(bytes)));
        }
        let json = self.readable(record, bytes)?;
        self.set_hash_forms(record, HashForm::Prefixed);
        let redacted = self.redact_json(record, json).ok()?;
        let digest = match self.fields.without_hash_prefixes(&redacted) {
            Some(plain) => redacted_digest(&plain),
            None => self.digest(record, bytes)?,
        };
        Some((redacted.into_bytes(), digest))
    }

    /// The digest of a document as it may be stored, with hashes in their plain form; `None` if the private fields cannot be
    /// identified.
    pub fn digest(&mut self, record: &Record, bytes: &[u8]) -> Option<u64> {
        if self.source.private.is_empty() {
            return Some(record.digest(bytes));
        }
        self.set_hash_forms(record, HashForm::Plain);
        self.document_digest(record, self.readable(record, bytes)?).ok()
    }

    /// The text of a document. A record that was not unpacked may hold anything, even if it is valid JSON: an element's data is
    /// one string.
    fn readable<'r>(&self, record: &Record, bytes: &'r [u8]) -> Option<&'r str> {
        str::from_utf8(bytes).ok().filter(|_| record.unpack_error.is_none())
    }

    fn document_digest(&mut self, record: &Record, json: &str) -> Result<u64, Rejection> {
        SourcePrivacy::new(&self.source).document_digest(record, json, || self.redact_json(record, json))
    }

    fn redact_json(&mut self, record: &Record, json: &str) -> Result<String, Rejection> {
        let (fields, tables) = (&mut self.fields, &mut self.tables);
        match &mut self.format {
            FormatDecoder::Segment(_) | FormatDecoder::Json(_) => flatten::redact(fields, FieldId::ROOT, json),
            FormatDecoder::Dynamodb(dynamodb) => dynamodb.redact(record, json, fields, tables),
            FormatDecoder::Dms(dms) => dms.redact(json, fields, tables),
            FormatDecoder::Debezium(debezium) => debezium.redact(json, fields, tables),
        }
    }
}

/// Marks the private fields of a source without replicated tables.
fn mark_private_fields(source: &SourceConfig, fields: &mut FieldTree) {
    let private: Vec<_> = source.private.iter().map(|(path, privacy)| (fields.intern_path(path), *privacy)).collect();
    fields.set_private(&private);
    for column in source.tables.iter().flat_map(|table| &table.columns) {
        let field = fields.intern_path(&column.path);
        fields.set_private_column(field, column.name.as_str());
    }
}

/// Whether a source has private fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SourcePrivacy {
    Public,
    Private,
}

impl SourcePrivacy {
    fn new(source: &SourceConfig) -> Self {
        if source.private.is_empty() { Self::Public } else { Self::Private }
    }

    /// The digest of a document as it may be stored, with hashes in their plain form. Taken over the document itself, a digest
    /// would reveal private values to anyone who can try all possible ones.
    fn document_digest(
        self,
        record: &Record,
        json: &str,
        redact: impl FnOnce() -> Result<String, Rejection>,
    ) -> Result<u64, Rejection> {
        match self {
            Self::Public => Ok(record.digest(json.as_bytes())),
            Self::Private => Ok(redacted_digest(&redact()?)),
        }
    }
}

/// The digest of a redacted document. A backup has one line per record, so line breaks count as spaces.
fn redacted_digest(redacted: &str) -> u64 {
    let one_line = redacted.trim_ascii().replace(['\n', '\r'], " ");
    xxh3_64(one_line.as_bytes())
}

fn malformed(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionReason::Malformed(message.into()))
}

/// Rejects the name of a table, event or key column that PostgreSQL cannot store: comments hold the source's names.
fn check_name(name: &str) -> Result<(), Rejection> {
    if name.contains('\0') { Err(Rejection::new(RejectionReason::nul_in_name(name))) } else { Ok(()) }
}

/// Counts the cells of the changes from `first` on.
fn count_cells(changes: &mut Changes<'_>, first: usize) -> usize {
    let Changes { list, values, cells, .. } = changes;
    list[first..].iter().map(|change| cells.add(change.table, &values[change.values.clone()])).sum()
}

#[cfg(test)]
mod tests;
