//! `millstream.toml`: the configuration of a system. Parsed, then checked as a whole; all errors are reported at once with
//! their position.
//!
//! A checked configuration is valid: names fit PostgreSQL, keys include their partition column, SQL types are types. Unknown
//! keys are rejected. Only [`Files`] uses the network, to read what is next to the file. Secrets are never in the file; the environment says where they are
//! ([`Environment`]).

mod environment;
mod errors;
mod files;
mod report;
mod section;
mod sharing;
mod source;
mod sql;
mod table;
mod total;

pub use environment::{BoardAccess, Credentials, DatabaseAddress, Environment, EnvironmentError, config_location};
pub use errors::ConfigErrors;
pub use files::{FileError, FilePath, FilePathError, Files};
pub use report::{ColumnFormat, ReportColumn, ReportConfig};
pub use sharing::{FormatTable, SharingSource};
pub use total::{BucketConfig, BucketWidth, Expression, NamedExpression, SumConfig, TotalBoard, TotalConfig};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::field::Privacy;
use crate::names::{Identifier, Naming};
use crate::spec::{Arrays, MergeBy, Nested, OnUnwritable, PartitionPolicy, SchemaMode};
use section::Section;
pub(crate) use section::edit_distance;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The streams, each with the tables it fills.
    pub sources: Vec<SourceConfig>,
    /// Sums over the rows of tables.
    pub totals: Vec<TotalConfig>,
    /// What the board shows each user.
    pub reports: Vec<ReportConfig>,
}

/// A source: its streams, and how they are read.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its name in the configuration.
    pub name: String,
    /// Names or ARNs of its streams; `*` matches every stream.
    pub streams: Vec<String>,
    /// Format of its records.
    pub format: Format,
    /// The PostgreSQL schema that it fills.
    pub schema: Identifier,
    /// How names are normalised.
    pub naming: Naming,
    /// The default partitioning of its event tables.
    pub partition: Option<PartitionConfig>,
    /// Fields that are dropped or hashed before anything is stored.
    pub private: Vec<(String, Privacy)>,
    /// The defaults of its tables.
    pub schema_policy: SchemaPolicy,
    /// For a source of tables: names of the source tables to replicate; empty means all.
    pub only: Vec<String>,
    /// For a source of tables: names of the source tables to exclude.
    pub exclude: Vec<String>,
    /// For a source of tables: how a row deleted in the source is handled.
    pub deletes: DeletedRows,
    /// Whether its records are backed up to S3, so that they can be reapplied.
    pub backup: bool,
    /// Microseconds for which tombstones are kept: longer than any older change can still arrive or be reapplied.
    pub tombstone_retention_micros: i64,
    /// For Debezium: the bytes of the connector's placeholder for values that it does not have, if it is not the default.
    pub unavailable_value: Option<Vec<u8>>,
    /// The tables that the configuration declares.
    pub tables: Vec<TableConfig>,
    /// The other sources whose tables it fills as well.
    pub shares_with: Vec<SharingSource>,
}

/// How a row deleted in its source is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeletedRows {
    /// The row is deleted.
    Hard,
    /// The row is kept, and `_deleted_at` is set.
    Soft,
}

impl SourceConfig {
    /// Whether the source reads records with this `eventSourceARN`.
    pub fn reads_stream(&self, arn: &str) -> bool {
        let names = ["*", arn, stream_name_from_arn(arn)];
        self.streams.iter().any(|stream| names.contains(&&**stream))
    }

    /// Names of its streams (or DynamoDB tables), without the rest of an ARN; `*` matches every one.
    pub fn stream_names(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().map(|stream| stream_name_from_arn(stream))
    }

    /// Whether the source table with this name is replicated.
    pub fn replicates_table(&self, table: &str) -> bool {
        let contains = |list: &[String]| list.iter().any(|name| name == table);
        (self.only.is_empty() || contains(&self.only)) && !contains(&self.exclude)
    }
}

/// Returns the name in the ARN of a Kinesis stream, a DynamoDB table or a table's stream. Text that is not an ARN is returned
/// unchanged.
pub fn stream_name_from_arn(arn: &str) -> &str {
    if let Some((_, name)) = arn.rsplit_once(":stream/") {
        return name;
    }
    arn.split_once(":table/").map_or(arn, |(_, rest)| rest.split('/').next().unwrap_or(rest))
}

/// The format of a stream's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Segment's calls: track, identify, page, screen, group, alias.
    Segment,
    /// Any JSON object.
    Json,
    /// Changes of DynamoDB tables: from their streams, through Kinesis, from exports and scans.
    Dynamodb,
    /// Changes of relational tables, by AWS DMS.
    Dms,
    /// Changes of relational tables, by Debezium.
    Debezium,
}

impl Format {
    /// Whether the source is a set of tables that are replicated one to one.
    pub fn replicates(self) -> bool {
        match self {
            Self::Segment | Self::Json => false,
            Self::Dynamodb | Self::Dms | Self::Debezium => true,
        }
    }
}

/// How undeclared fields, and tables that cannot be written, are treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SchemaPolicy {
    /// How fields without a declared column are handled.
    pub mode: SchemaMode,
    /// How nested objects are stored.
    pub nested: Nested,
    /// Type of new columns for arrays.
    pub arrays: Arrays,
    /// New columns for text are `varchar` of this many characters; `None` is `text`.
    pub text_characters_max: Option<usize>,
    /// A table with this many columns gets no new ones.
    pub columns_max: usize,
    /// What happens to the records of a table that cannot be written.
    pub on_unwritable: OnUnwritable,
}

/// Partitioning as configured: by a column's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionConfig {
    /// The partition column, or the path of the field that fills it.
    pub column: String,
    /// Width and time limits.
    pub policy: PartitionPolicy,
}

/// A declared table.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// Its name in the source's schema.
    pub name: Identifier,
    /// Its name in the source, if the source is a set of tables.
    pub from: Option<String>,
    /// The events that it accepts (Segment); empty accepts all.
    pub events: Vec<String>,
    /// The documents that it accepts: a path, and the string that its value must equal.
    pub when: Option<(String, String)>,
    /// Whether a row is an event or an entity.
    pub kind: TableKind,
    /// Declared columns.
    pub columns: Vec<ColumnConfig>,
    /// Its own partitioning.
    pub partition: Option<PartitionConfig>,
    /// How undeclared fields are treated.
    pub schema_policy: SchemaPolicy,
}

/// What a row of a table represents.
#[derive(Clone, Debug)]
pub enum TableKind {
    /// An event, written once.
    Event {
        /// Column or path of the event's ID; `None` uses the record's position in the stream.
        id: Option<String>,
    },
    /// An entity with a key, which changes.
    Entity {
        /// Columns or paths of the key.
        key: Vec<String>,
        /// Path of the value that orders the changes of a key: a timestamp or an integer. `None` if the format determines it.
        version: Option<String>,
        /// How changes of the same key are merged.
        merge: MergeBy,
    },
}

/// A declared column.
#[derive(Clone, Debug)]
pub struct ColumnConfig {
    /// Its name.
    pub name: Identifier,
    /// Path of its values.
    pub path: String,
    /// SQL type; `None` infers it from the first value.
    pub sql_type: Option<String>,
    /// Whether a row without a value is rejected.
    pub required: bool,
    /// A check constraint's expression.
    pub check: Option<String>,
}

impl Config {
    /// Parses and checks a configuration; `file` is only used in messages.
    ///
    /// # Errors
    /// Returns every error, each with its line, column and key.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::new(file, text);
        let (document, syntax_errors) = DeTable::parse_recoverable(text);
        for error in syntax_errors {
            errors.add(error.span().unwrap_or_default(), "", error.message());
        }
        reject_nul(document.get_ref(), &mut errors);
        let mut root = Section::root(&document);
        let sources = root.sections("source");
        let mut tables = root.sections("table");
        let totals = root.sections("total");
        let mut reports = root.sections("report");
        reports.sort_by_key(Section::start);
        root.reject_unknown_keys(&mut errors);
        if sources.is_empty() {
            errors.add(0..0, "", "no source is configured; add a [source.NAME] section with the stream's name");
        }
        let mut checked: Vec<SourceConfig> = sources.into_iter().map(|raw| source::check(raw, &mut errors)).collect();
        for raw in tables.drain(..) {
            table::check(raw, &mut checked, &mut errors);
        }
        sharing::find(&mut checked);
        let totals = totals.into_iter().filter_map(|raw| total::check(raw, &checked, &mut errors)).collect();
        let reports = reports.into_iter().filter_map(|raw| report::check(raw, &checked, &mut errors)).collect();
        errors.or(Self { sources: checked, totals, reports })
    }

    /// The configuration of a function without a configuration file: replicates every DynamoDB table whose stream it receives
    /// into the schema `dynamodb`.
    pub fn default_replica() -> Self {
        Self {
            sources: vec![source::default_for_format("dynamodb", Format::Dynamodb)],
            totals: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// Returns the source that reads the stream, and its index.
    pub fn source_by_stream(&self, arn: &str) -> Option<(usize, &SourceConfig)> {
        self.sources.iter().enumerate().find(|(_, source)| source.reads_stream(arn))
    }
}

/// Rejects U+0000, which TOML can write as an escape and PostgreSQL cannot store, in any key or string.
fn reject_nul(table: &DeTable<'_>, errors: &mut ConfigErrors) {
    for (key, value) in table.iter() {
        if key.get_ref().contains('\0') {
            errors.add(key.span(), "", "a key contains U+0000");
        }
        reject_nul_value(value, errors);
    }
}

fn reject_nul_value(value: &Spanned<DeValue<'_>>, errors: &mut ConfigErrors) {
    match value.get_ref() {
        DeValue::String(text) if text.contains('\0') => errors.add(value.span(), "", "a string contains U+0000"),
        DeValue::Array(elements) => elements.iter().for_each(|element| reject_nul_value(element, errors)),
        DeValue::Table(table) => reject_nul(table, errors),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> String {
        Config::parse("millstream.toml", text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_stream_name_is_a_sufficient_configuration() {
        let config = Config::parse("", "[source.sportsbook]\nstream = \"sportsbook\"").unwrap();
        let (_, source) = config.source_by_stream("arn:aws:kinesis:us-east-1:123456789012:stream/sportsbook").unwrap();
        assert_eq!((source.format, source.schema.as_str()), (Format::Segment, "sportsbook"));
        assert!(config.source_by_stream("arn:aws:kinesis:us-east-1:123456789012:stream/other-sportsbook").is_none());
    }

    #[test]
    fn all_errors_are_reported_at_once_with_their_position() {
        let message = errors(
            "[source.a]\nstream = 5\nformt = \"segment\"\n\n[table.t]\nsource = \"b\"\n\n[table.u]\nsource = \"a\"\n\
             key = [\"k\"]\npartition = { by = \"at\", every = \"fortnight\", keep = \"soon\" }\n",
        );
        for part in [
            "millstream.toml:2:10: source.a.stream",
            "millstream.toml:3:1: source.a.formt: unknown key; did you mean `format`?",
            "millstream.toml:6:10: table.t.source: unknown source `b`",
            "millstream.toml:11:34: table.u.partition.every",
            "table.u.partition.keep",
            "table.u.version",
        ] {
            assert!(message.contains(part), "{part} is missing in:\n{message}");
        }
    }

    #[test]
    fn no_text_contains_u0000() {
        let message = errors(
            "[source.a]\nstream = \"a\\u0000\"\nprivate = [\"x\\u0000\"]\n[table.\"t\\u0000\"]\nsource = \"a\"\n\
             columns = { x = { path = \"x\", check = \"x <> '\\u0000'\" } }\n",
        );
        for part in [":2:10: a string", ":3:12: a string", ":4:8: a key", ":6:39: a string"] {
            assert!(message.contains(part), "{part} is missing in:\n{message}");
        }
    }

    #[test]
    fn the_unavailable_value_is_a_text_or_bytes_of_a_debezium_source() {
        let config = |format: &str, value: &str| {
            format!("[source.a]\nstream = \"a\"\nformat = \"{format}\"\nunavailable_value = \"{value}\"\n")
        };
        for (value, bytes) in [("hex:00fF", &[0, 255][..]), ("gone", b"gone"), ("hex", b"hex")] {
            let parsed = Config::parse("", &config("debezium", value)).unwrap();
            assert_eq!(parsed.sources[0].unavailable_value.as_deref(), Some(bytes), "{value}");
        }
        for (format, value) in
            [("debezium", ""), ("debezium", "hex:"), ("debezium", "hex:0"), ("debezium", "hex:+1é"), ("dms", "x")]
        {
            assert!(errors(&config(format, value)).contains("source.a.unavailable_value"), "{format} {value}");
        }
    }

    #[test]
    fn reserved_schemas_are_rejected() {
        let message = errors(
            "[source.millstream]\nstream = \"a\"\n[source.b]\nstream = \"b\"\nschema = \"pg_temp\"\n\
             [source.information_schema]\nstream = \"c\"\n[source.pg_stat]\nstream = \"d\"\nschema = \"stat\"\n",
        );
        for part in [
            "source.millstream.schema: the schema `millstream` is reserved for Millstream's own tables; set `schema` to another name",
            "millstream.toml:5:10: source.b.schema: the schema `pg_temp` is reserved for PostgreSQL",
            "source.information_schema.schema: the schema `information_schema` is reserved for PostgreSQL",
        ] {
            assert!(message.contains(part), "{part} is missing in:\n{message}");
        }
        assert!(!message.contains("pg_stat"), "{message}");
    }

    #[test]
    fn an_entity_must_be_partitioned_by_a_key_column() {
        let message = errors(
            "[source.a]\nstream = \"a\"\n[table.t]\nsource = \"a\"\nkey = [\"k\"]\nversion = \"v\"\n\
             partition = { by = \"at\", every = \"day\" }\n",
        );
        assert!(message.contains("table.t.partition.by: `at` must be part of the key"), "{message}");
    }

    #[test]
    fn the_example_configuration_is_valid() {
        let text = include_str!("../../events/sportsbook/millstream.toml");
        let config = Config::parse("millstream.toml", text).unwrap();
        assert_eq!(config.sources[0].tables.len(), 1);
    }

    #[test]
    fn column_types_cannot_inject_sql() {
        let message = errors(
            "[source.a]\nstream = \"a\"\n[table.t]\nsource = \"a\"\ncolumns = { x = { path = \"x\", type = \"text); DROP TABLE y; --\" } }\n",
        );
        assert!(message.contains("table.t.columns.x.type"), "{message}");
    }
}
