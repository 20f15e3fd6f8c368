//! `millstream.toml`: what a system is. Read raw, checked whole, every mistake reported at once with its place.
//!
//! What comes out is valid: names fit PostgreSQL, keys hold their partition column, types are types. Unknown keys are
//! refused. Nothing here touches the network; secrets never stand in the file, the environment names where they are
//! ([`Environment`]).

mod environment;
mod errors;
mod section;
mod source;
mod table;

pub use environment::{Credentials, DatabaseAddress, Environment, EnvironmentError, config_location};
pub use errors::ConfigErrors;

use toml::de::DeTable;

use crate::field::Privacy;
use crate::names::{Identifier, Naming};
use crate::spec::{Arrays, MergeBy, Nested, PartitionPolicy, SchemaMode};
use section::Section;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The streams, each with the tables it fills.
    pub sources: Vec<SourceConfig>,
}

/// A stream and how it is read.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// What the configuration calls it.
    pub name: String,
    /// The names or ARNs of its streams; `*` stands for every one.
    pub streams: Vec<String>,
    /// The format of its records.
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
    pub shape: SchemaPolicy,
    /// Of a source of tables: those that are replicated, as it calls them; empty takes all.
    pub only: Vec<String>,
    /// Of a source of tables: those that are not.
    pub exclude: Vec<String>,
    /// Of a source of tables: what becomes of a row that is deleted there.
    pub deletes: DeletedRows,
    /// Whether its records are kept on S3, to be applied again.
    pub backup: bool,
    /// Microseconds for which deletes are remembered: longer than any older change may still arrive, or be applied again.
    pub tombstone_retention_micros: i64,
    /// The tables that the configuration declares.
    pub tables: Vec<TableConfig>,
}

/// What becomes of a row that its source has deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeletedRows {
    /// It is deleted.
    Hard,
    /// It stays, and `_deleted_at` says since when.
    Soft,
}

impl SourceConfig {
    /// Whether records with this `eventSourceARN` are the source's.
    pub fn reads_stream(&self, arn: &str) -> bool {
        let names = ["*", arn, stream_name_from_arn(arn)];
        self.streams.iter().any(|stream| names.contains(&&**stream))
    }

    /// What its streams (or DynamoDB tables) are called, without the rest of an ARN; `*` stands for every one.
    pub fn stream_names(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().map(|stream| stream_name_from_arn(stream))
    }

    /// Whether a table that the source calls so is replicated.
    pub fn replicates_table(&self, table: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|listed| listed == table);
        (self.only.is_empty() || listed(&self.only)) && !listed(&self.exclude)
    }
}

/// The name in the ARN of a Kinesis stream, a DynamoDB table or a table's stream; what is no ARN is a name.
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
    /// Whether the source is a set of tables, and each of them becomes one here.
    pub fn replicates(self) -> bool {
        match self {
            Self::Segment | Self::Json => false,
            Self::Dynamodb | Self::Dms | Self::Debezium => true,
        }
    }
}

/// How undeclared fields are treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SchemaPolicy {
    /// What becomes of fields that no column is declared for.
    pub evolution: SchemaMode,
    /// What becomes of nested objects.
    pub nested: Nested,
    /// The type of a new column for arrays.
    pub arrays: Arrays,
    /// New columns for text are `varchar` of this many characters; `None` is `text`.
    pub text_characters_max: Option<usize>,
    /// With this many columns a table grows no more.
    pub columns_max: usize,
}

/// Partitioning as configured: by a column's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionConfig {
    /// The column that the table is partitioned by, or the path of the field that fills it.
    pub column: String,
    /// Width and time limits.
    pub period: PartitionPolicy,
}

/// A declared table.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// Its name in the source's schema.
    pub name: Identifier,
    /// What its source calls it, where the source is a set of tables.
    pub from: Option<String>,
    /// The events that it takes (Segment); empty takes all.
    pub events: Vec<String>,
    /// The documents that it takes: a path and the string to compare it with.
    pub when: Option<(String, String)>,
    /// Whether a row is an event or an entity.
    pub kind: TableKind,
    /// Declared columns.
    pub columns: Vec<ColumnConfig>,
    /// Its own partitioning.
    pub partition: Option<PartitionConfig>,
    /// How undeclared fields are treated.
    pub shape: SchemaPolicy,
}

/// What a row of a table is.
#[derive(Clone, Debug)]
pub enum TableKind {
    /// Something that happened; written once.
    Event {
        /// The column or path of the event's id; `None` takes the record's place in the stream.
        id: Option<String>,
    },
    /// Something that has a key and changes.
    Entity {
        /// The key's columns, or paths.
        key: Vec<String>,
        /// The path that the changes of a key are ordered by: a time or a whole number; none where the format knows.
        version: Option<String>,
        /// How changes of one key come together.
        merge: MergeBy,
    },
}

/// A declared column.
#[derive(Clone, Debug)]
pub struct ColumnConfig {
    /// Its name.
    pub name: Identifier,
    /// Where its values are found.
    pub path: String,
    /// Its type in SQL; `None` infers it from the first value.
    pub sql_type: Option<String>,
    /// Whether a row without a value is refused.
    pub required: bool,
    /// A check constraint's expression.
    pub check: Option<String>,
}

impl Config {
    /// Reads and checks a configuration; `file` is only for the messages.
    ///
    /// # Errors
    /// Every mistake found, each with its line, column and key.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::new(file, text);
        let (document, faults) = DeTable::parse_recoverable(text);
        for fault in faults {
            errors.add(fault.span().unwrap_or_default(), "", fault.message());
        }
        let mut root = Section::root(&document);
        let sources = root.sections("source");
        let mut tables = root.sections("table");
        root.reject_unknown_keys(&mut errors);
        if sources.is_empty() {
            errors.add(0..0, "", "no source is configured; add a [source.NAME] section with the stream's name");
        }
        let mut checked: Vec<SourceConfig> = sources.into_iter().map(|raw| source::check(raw, &mut errors)).collect();
        for raw in tables.drain(..) {
            table::check(raw, &mut checked, &mut errors);
        }
        errors.or(Self { sources: checked })
    }

    /// What a function does to which no file says anything: every DynamoDB table whose stream arrives, into the schema
    /// `dynamodb`.
    pub fn default_replica() -> Self {
        Self { sources: vec![source::default_for_format("dynamodb", Format::Dynamodb)] }
    }

    /// The source that reads the stream.
    pub fn source_by_stream(&self, arn: &str) -> Option<(usize, &SourceConfig)> {
        self.sources.iter().enumerate().find(|(_, source)| source.reads_stream(arn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> String {
        Config::parse("millstream.toml", text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_stream_is_enough() {
        let config = Config::parse("", "[source.sportsbook]\nstream = \"sportsbook\"").unwrap();
        let (_, source) = config.source_by_stream("arn:aws:kinesis:us-east-1:123456789012:stream/sportsbook").unwrap();
        assert_eq!((source.format, source.schema.as_str()), (Format::Segment, "sportsbook"));
        assert!(config.source_by_stream("arn:aws:kinesis:us-east-1:123456789012:stream/other-sportsbook").is_none());
    }

    #[test]
    fn all_errors_are_reported_at_once_with_their_position() {
        let told = errors(
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
            assert!(told.contains(part), "{part} is missing in:\n{told}");
        }
    }

    #[test]
    fn an_entity_is_partitioned_by_a_part_of_its_key() {
        let told = errors(
            "[source.a]\nstream = \"a\"\n[table.t]\nsource = \"a\"\nkey = [\"k\"]\nversion = \"v\"\n\
             partition = { by = \"at\", every = \"day\" }\n",
        );
        assert!(told.contains("table.t.partition.by: `at` must be part of the key"), "{told}");
    }

    #[test]
    fn the_example_configuration_is_valid() {
        let text = include_str!("../../events/sportsbook/millstream.toml");
        let config = Config::parse("millstream.toml", text).unwrap();
        assert_eq!(config.sources[0].tables.len(), 1);
    }

    #[test]
    fn types_cannot_smuggle_sql() {
        let told = errors(
            "[source.a]\nstream = \"a\"\n[table.t]\nsource = \"a\"\ncolumns = { x = { path = \"x\", type = \"text); DROP TABLE y; --\" } }\n",
        );
        assert!(told.contains("table.t.columns.x.type"), "{told}");
    }
}
