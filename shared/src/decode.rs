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
use crate::record::{Batch, Record};
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{KeyColumn, Nested, PartitionPolicy, TableId, TableRegistry};
use crate::timestamp::Timestamp;
use replica::{DecodeOutput, ReplicaTables};

/// Bounds the memory that the paths of hostile documents can take: past this many, the next batch gets a new decoder.
const FIELDS_MAX: usize = 100_000;

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

    /// Clears the cached paths and tables if there are too many.
    pub fn reset_if_too_large(&mut self) {
        if self.fields.count() > FIELDS_MAX {
            *self = Self::new(self.source.clone());
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
        for index in records {
            let record = &batch.records[index];
            let (changes_before, values_before) = (changes.list.len(), changes.values.len());
            if let Err(rejection) = self.decode_record(index, record, batch.payload(record), changes) {
                changes.list.truncate(changes_before);
                changes.values.truncate(values_before);
                rejected.push((index, rejection));
            }
        }
    }

    fn decode_record<'a>(
        &mut self,
        index: usize,
        record: &Record,
        bytes: &'a [u8],
        changes: &mut Changes<'a>,
    ) -> Result<(), Rejection> {
        if let Some(unpack_error) = &record.unpack_error {
            return Err(Rejection::new(unpack_error.clone().into()));
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

    /// A document without its private fields, for a dead letter or a backup; `None` if they cannot be identified.
    pub fn redact(&mut self, record: &Record, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.source.private.is_empty() {
            return Some(bytes.to_vec());
        }
        self.set_hash_forms(record, HashForm::Prefixed);
        self.redact_json(record, self.readable(record, bytes)?).ok().map(String::into_bytes)
    }

    /// The digest of a document, for a dead letter or a backup: the same as in its version. `None` if the private fields
    /// cannot be identified.
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

    /// The digest of a document as it may be stored, with hashes in their plain form. Taken over the document itself, a digest
    /// would reveal private values to anyone who can try all possible ones.
    fn document_digest(&mut self, record: &Record, json: &str) -> Result<u64, Rejection> {
        if self.source.private.is_empty() {
            return Ok(record.digest(json.as_bytes()));
        }
        Ok(redacted_digest(&self.redact_json(record, json)?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::record::{SequenceNumber, StreamPosition};

    fn batch(document: &[u8], archived_digest: Option<u64>) -> Batch {
        let sequence = SequenceNumber("1".into());
        let position =
            StreamPosition { stream: "s".into(), shard: "0".into(), sequence_number: sequence, sub_sequence_number: 0 };
        let partition_key = r#"{"id":1}"#.into();
        let payload = 0..document.len();
        let record = Record { archived_digest, ..Record::new(position, Timestamp(0), partition_key, payload) };
        Batch { records: vec![record], bytes: document.to_vec(), empty_records: 0 }
    }

    fn values(decoder: &mut Decoder, batch: &Batch) -> Vec<String> {
        let (changes, rejected) = decoder.decode(batch);
        assert!(rejected.is_empty(), "{rejected:?}");
        changes.values.iter().map(|(field, value)| format!("{} {value:?}", decoder.fields.path(*field))).collect()
    }

    #[test]
    fn a_document_beyond_a_limit_is_rejected_alone_and_its_dead_letter_holds_nothing_private() {
        let config = "[source.s]\nstream = \"s\"\nformat = \"json\"\nprivate = [\"who.email\"]\n";
        let config = Config::parse("test.toml", config).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let mut decoder = Decoder::new(config.sources[0].clone());
        let members: Vec<String> = (0..=crate::field::FIELDS_PER_DOCUMENT_MAX).map(|n| format!("\"{n}\":1")).collect();
        let long = "k".repeat(crate::field::KEY_BYTES_MAX + 1);
        for (member, limit) in [
            (format!("\"{long}\":1"), "more than 1024 bytes (at `who.kkk"),
            (members.join(","), "more than 10000 fields (at `who.99"),
        ] {
            let text = |email: &str| format!("{{\"who\":{{{member}{email}}}}}");
            let hostile = batch(text(",\"email\":\"private@x\"").as_bytes(), None);
            let (changes, rejected) = decoder.decode(&hostile);
            assert!(changes.list.is_empty() && rejected.len() == 1);
            let (_, rejection) = &rejected[0];
            assert_eq!(rejection.reason.class(), "limit_exceeded");
            assert!(rejection.to_string().contains(limit), "{rejection}");
            let redacted = decoder.redact(&hostile.records[0], &hostile.bytes).unwrap();
            assert_eq!(String::from_utf8(redacted).unwrap(), text(""));
            assert_eq!(values(&mut decoder, &batch(br#"{"n":1}"#, None)).last().unwrap(), r#"n Number("1")"#);
        }
        assert!(decoder.fields.count() < 2 * crate::field::FIELDS_PER_DOCUMENT_MAX as usize);
    }

    /// A dead letter contains nothing private and decodes into the same values.
    #[test]
    fn replicas_dead_letters_hold_nothing_private_and_can_be_redriven() {
        let row = r#"{"id":1,"ssn":"private","email":"private@x","no_mail":null,"doc":"{\"ip\":\"private\",\"n\":1}"}"#;
        let metadata = r#"{"timestamp":"2026-02-08T10:00:00Z","record-type":"data","operation":"update","schema-name":"public","table-name":"t","partition-key-value":"public.t.private"}"#;
        let source = r#"{"schema":"public","table":"t","lsn":7,"query":"private"}"#;
        let schema = r#"{"type":"struct","fields":[{"field":"op"},{"field":"after","fields":[{"type":"bytes","field":"email"}]}]}"#;
        let flat = row.replace(
            "{\"id\"",
            r#"{"__op":"c","__source_query":"private","__table":"t","__schema":"public","__lsn":7,"id""#,
        );
        for (format, document) in [
            ("dms", format!(r#"{{"data":{row},"before-image":{row},"metadata":{metadata}}}"#)),
            ("dms", format!(r#"{{"data":{{"_doc":{row},"BI_ssn":"private"}},"old":{row},"metadata":{metadata}}}"#)),
            ("debezium", format!(r#"{{"before":{row},"after":{row},"source":{source},"op":"u","message":"private"}}"#)),
            ("debezium", format!(r#"{{"schema":{schema},"payload":{{"after":{row},"source":{source},"op":"c"}}}}"#)),
            ("debezium", flat),
        ] {
            let config = format!(
                "[source.s]\nstream = \"s\"\nformat = \"{format}\"\nprivate = [\"public.t.ssn\", \"*.doc.ip\", \
                 {{ path = \"*.email\", as = \"sha256\" }}, {{ path = \"*.no_mail\", as = \"sha256\" }}]\n"
            );
            let mut decoder = Decoder::new(Config::parse("", &config).unwrap().sources.remove(0));
            let original = batch(document.as_bytes(), None);
            let before = values(&mut decoder, &original);
            assert!(before.len() >= 4 && !before.join(" ").contains("private"), "{before:?}");
            let redacted = decoder.redact(&original.records[0], document.as_bytes()).unwrap();
            let text = String::from_utf8(redacted.clone()).unwrap();
            assert!(!text.contains("private"), "{text}");
            assert_eq!(values(&mut decoder, &batch(&redacted, Some(0))), before, "{text}");
        }
    }

    /// A value archived before it became private is hashed even if it looks like a hash; one that was already private
    /// is hashed only once.
    #[test]
    fn a_value_that_looks_like_a_hash_is_hashed_once_it_is_private() {
        let token = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let json = format!(r#"{{"id":1,"email":"a@x","token":"{token}"}}"#);
        let dynamodb = format!(
            r#"{{"tableName":"t","eventName":"INSERT","dynamodb":{{"SequenceNumber":"1","Keys":{{"id":{{"N":"1"}}}},
            "NewImage":{{"id":{{"N":"1"}},"email":{{"S":"a@x"}},"token":{{"S":"{token}"}}}}}}}}"#
        );
        for (format, document, table) in [("json", json, ""), ("dynamodb", dynamodb, "t.")] {
            let decoder_hashing = |hashed: &[&str]| {
                let path = |name: &&str| format!("{{ path = \"{table}{name}\", as = \"sha256\" }}");
                let private = hashed.iter().map(path).collect::<Vec<_>>().join(", ");
                let config = format!("[source.s]\nstream = \"s\"\nformat = \"{format}\"\nprivate = [{private}]");
                Decoder::new(Config::parse("", &config).unwrap().sources.remove(0))
            };
            let original = batch(document.as_bytes(), None);
            let archived = decoder_hashing(&["email"]).redact(&original.records[0], document.as_bytes()).unwrap();
            let archived_twice = {
                let batch = batch(&archived, Some(0));
                decoder_hashing(&["email"]).redact(&batch.records[0], &archived).unwrap()
            };
            assert_eq!(String::from_utf8(archived_twice).unwrap(), String::from_utf8(archived.clone()).unwrap());
            let both = ["email", "token"];
            let stored = values(&mut decoder_hashing(&both), &batch(&archived, Some(0)));
            assert_eq!(stored, values(&mut decoder_hashing(&both), &original));
            assert!(!stored.join(" ").contains(token), "{stored:?}");
        }
    }

    #[test]
    fn a_key_is_known_from_a_control_record_after_its_data() {
        let metadata = |record_type: &str| {
            format!(
                r#""metadata":{{"timestamp":"2026-02-08T10:00:00Z","record-type":"{record_type}","operation":"load","schema-name":"s","table-name":"t"}}"#
            )
        };
        let data = format!(r#"{{"data":{{"id":1}},{}}}"#, metadata("data"));
        let control = format!(r#"{{"control":{{"table-def":{{"primary-key":["id"]}}}},{}}}"#, metadata("control"));
        let mut both = batch(format!("{data}{control}").as_bytes(), None);
        both.records.push(Record { payload: data.len()..data.len() + control.len(), ..both.records[0].clone() });
        both.records[0].payload = 0..data.len();
        let mut decoder =
            Decoder::new(Config::parse("", "[source.s]\nstream = \"s\"\nformat = \"dms\"").unwrap().sources.remove(0));
        let (changes, rejected) = decoder.decode(&both);
        assert_eq!((changes.list.len(), &changes.control_records[..], rejected.len()), (1, &[1][..], 0));
        let spec = decoder.tables.get(changes.list[0].table);
        assert_eq!(spec.key_columns().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id"]);
    }
}
