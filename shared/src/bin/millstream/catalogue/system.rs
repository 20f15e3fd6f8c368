//! The system as its configuration and template describe it: the content of the page.

use millstream::config::{Config, DeletedRows, Format, SourceConfig, SumConfig, TableKind, TotalConfig};
use millstream::decode::Decoder;
use millstream::field::Privacy;
use millstream::partition::PartitionWidth;
use millstream::spec::{MergeBy, TableId, TableSpec, WriteMode};
use serde::Serialize;

use super::template::{Deployment, Function, Start};

const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// The field that orders Segment's calls for a user or group.
const SEGMENT_VERSION: &str = "timestamp";

/// A system.
#[derive(Serialize)]
pub struct System {
    /// Its name.
    pub name: String,
    /// The files that it was read from.
    pub files: Vec<String>,
    /// Its sources.
    pub sources: Vec<SourceEntry>,
    /// Its totals.
    pub totals: Vec<TotalEntry>,
    /// The functions that the template deploys.
    pub functions: Vec<FunctionEntry>,
}

/// A source.
#[derive(Serialize)]
pub struct SourceEntry {
    pub name: String,
    pub format: &'static str,
    pub schema: String,
    pub backup: bool,
    pub streams: Vec<StreamEntry>,
    pub tables: Vec<TableEntry>,
    pub private: Vec<PrivateEntry>,
}

/// A stream, and the functions that it feeds, as indexes into [`System::functions`].
#[derive(Serialize)]
pub struct StreamEntry {
    pub name: String,
    /// Kinesis or DynamoDB, if known.
    pub kind: Option<&'static str>,
    pub functions: Vec<usize>,
}

/// A table that a source fills.
#[derive(Serialize)]
pub struct TableEntry {
    /// `schema.table`.
    pub name: String,
    /// The events, documents or source tables that it accepts.
    pub takes: String,
    /// Key columns; empty if the source determines them.
    pub key: Vec<String>,
    /// What decides which change of a row wins; `None` if a row is written once.
    pub newest: Option<String>,
    /// How deletes are handled, if the source has deletes.
    pub deletes: Option<&'static str>,
    /// How it is partitioned.
    pub partition: Option<PartitionEntry>,
}

/// How a table is partitioned.
#[derive(Serialize)]
pub struct PartitionEntry {
    pub by: String,
    pub every: &'static str,
    pub ahead: u32,
    /// How long rows are kept; `None` means forever.
    pub keep: Option<String>,
}

/// A total.
#[derive(Serialize)]
pub struct TotalEntry {
    /// The source that fills the table.
    pub source: String,
    /// The view, as `schema.name`.
    pub view: String,
    /// The table whose rows are summed, as `schema.name`.
    pub table: String,
    /// The expressions that rows are grouped by, with the names of their columns.
    pub groups: Vec<NamedSql>,
    /// How long buckets are kept, if they are dropped.
    pub keep: Option<String>,
    /// What is summed.
    pub sums: Vec<SumEntry>,
    /// The condition that a row must meet.
    pub condition: Option<String>,
}

/// An expression with the name of its column.
#[derive(Serialize)]
pub struct NamedSql {
    pub name: String,
    pub sql: String,
}

/// A sum.
#[derive(Serialize)]
pub struct SumEntry {
    pub name: String,
    pub sql: String,
    /// The condition that a row must meet to be part of this sum.
    pub condition: Option<String>,
}

/// A field that does not reach the database unchanged.
#[derive(Serialize)]
pub struct PrivateEntry {
    pub path: String,
    pub becomes: &'static str,
}

/// A function.
#[derive(Serialize)]
pub struct FunctionEntry {
    pub name: String,
    /// Its description in the template.
    pub description: String,
    /// What starts it, human-readable.
    pub starts: Vec<String>,
    /// Whether it runs on a schedule.
    pub scheduled: bool,
    /// Whether it is enabled.
    pub on: bool,
    pub dead_letters: bool,
}

impl System {
    /// Combines the configuration with what is deployed.
    pub fn new(name: String, files: Vec<String>, config: &Config, deployment: &Deployment) -> Self {
        let functions = deployment.functions.iter().map(|function| FunctionEntry::new(function, config)).collect();
        let sources = config.sources.iter().map(|config_source| source(config_source, config, deployment)).collect();
        let totals = config.totals.iter().map(total).collect();
        Self { name, files, sources, totals, functions }
    }
}

fn total(total: &TotalConfig) -> TotalEntry {
    let groups = total.groups.iter().map(|group| NamedSql {
        name: group.name.as_str().to_owned(),
        // A column that is not renamed is quoted.
        sql: group.expression.sql.trim_matches('"').to_owned(),
    });
    let bucket = total.bucket.as_ref().map(|bucket| NamedSql {
        name: bucket.every.as_str().to_owned(),
        sql: format!("{} of {}", bucket.every.as_str(), bucket.at.sql),
    });
    let sum = |sum: &SumConfig| SumEntry {
        name: sum.name.as_str().to_owned(),
        sql: sum.expression.sql.clone(),
        condition: sum.condition.as_ref().map(|condition| condition.sql.clone()),
    };
    TotalEntry {
        source: total.source.clone(),
        view: total.view().unquoted(),
        table: total.table.unquoted(),
        groups: groups.chain(bucket).collect(),
        keep: total.bucket.as_ref().and_then(|bucket| bucket.retention_micros).map(format_retention),
        sums: total.sums.iter().map(sum).collect(),
        condition: total.condition.as_ref().map(|condition| condition.sql.clone()),
    }
}

impl FunctionEntry {
    fn new(function: &Function, config: &Config) -> Self {
        Self {
            name: function.name.clone(),
            description: function.description.clone(),
            starts: function.starts.iter().map(|start| started_by(start, config)).collect(),
            scheduled: function.starts.iter().any(|start| matches!(start, Start::Schedule(_))),
            on: function.enabled,
            dead_letters: function.dead_letters,
        }
    }
}

fn started_by(start: &Start, config: &Config) -> String {
    match start {
        Start::Stream { kind, arn } => match config.source_by_stream(arn) {
            Some((_, source)) => format!("{kind} `{}`", stream_name(source, arn)),
            None => format!("{kind} `{arn}` (no configured source reads it)"),
        },
        Start::Schedule(expression) => format!("`{expression}`"),
        Start::Other(kind) => kind.clone(),
    }
}

/// Returns the source's name for the stream.
fn stream_name<'s>(source: &'s SourceConfig, arn: &str) -> &'s str {
    let matches = |name: &&str| SourceConfig { streams: vec![(*name).to_owned()], ..source.clone() }.reads_stream(arn);
    source.stream_names().find(matches).unwrap_or("*")
}

fn source(source: &SourceConfig, config: &Config, deployment: &Deployment) -> SourceEntry {
    let private = source.private.iter().map(|(path, privacy)| {
        let becomes = match privacy {
            Privacy::Drop => "dropped",
            Privacy::Sha256 => "hashed (SHA-256)",
        };
        PrivateEntry { path: path.clone(), becomes }
    });
    SourceEntry {
        name: source.name.clone(),
        format: match source.format {
            Format::Segment => "segment",
            Format::Json => "json",
            Format::Dynamodb => "dynamodb",
            Format::Dms => "dms",
            Format::Debezium => "debezium",
        },
        schema: source.schema.as_str().to_owned(),
        backup: source.backup,
        streams: source.stream_names().map(|name| stream(source, name, config, deployment)).collect(),
        tables: tables(source),
        private: private.collect(),
    }
}

fn stream(source: &SourceConfig, name: &str, config: &Config, deployment: &Deployment) -> StreamEntry {
    // If two sources name the same stream, the first one reads it.
    let is_read = |arn: &str| config.source_by_stream(arn).is_some_and(|(_, first)| first.name == source.name);
    let mut stream = StreamEntry { name: name.to_owned(), kind: None, functions: Vec::new() };
    for (index, function) in deployment.functions.iter().enumerate() {
        for start in &function.starts {
            if let Start::Stream { kind, arn } = start
                && is_read(arn)
                && stream_name(source, arn) == name
            {
                stream.kind = Some(kind);
                stream.functions.push(index);
            }
        }
    }
    stream.functions.dedup();
    stream
}

fn tables(source: &SourceConfig) -> Vec<TableEntry> {
    let mut decoder = Decoder::new(source.clone());
    let mut tables: Vec<TableEntry> = Vec::new();
    if source.format.replicates() {
        let listed = if source.format == Format::Dynamodb && source.only.is_empty() {
            source.stream_names().filter(|name| *name != "*").map(str::to_owned).collect()
        } else {
            source.only.clone()
        };
        for name in &listed {
            tables.extend(decoder.replicated_table(name).map(|id| table(source, decoder.tables.get(id))));
        }
        if listed.is_empty() {
            tables.push(every_table(source));
        }
        return tables;
    }
    tables.extend((0..decoder.tables.count() as u32).map(|id| table(source, decoder.tables.get(TableId(id)))));
    if source.format == Format::Segment {
        tables.extend(every_event(source, &tables));
    }
    tables
}

/// The entry for the tables that a source of tables creates on demand.
fn every_table(source: &SourceConfig) -> TableEntry {
    let except =
        if source.exclude.is_empty() { String::new() } else { format!(" except {}", source.exclude.join(", ")) };
    TableEntry {
        name: format!("{}.*", source.schema.as_str()),
        takes: format!("every table of the source{except}"),
        key: Vec::new(),
        newest: Some("source order".to_owned()),
        deletes: Some(deletes(source)),
        partition: None,
    }
}

/// The entry for the tables that Segment's track events create on demand: like `tracks`.
fn every_event(source: &SourceConfig, tables: &[TableEntry]) -> Option<TableEntry> {
    let name = format!("{}.tracks", source.schema.as_str());
    let tracks = tables.iter().find(|table| table.name == name)?;
    Some(TableEntry {
        name: format!("{}.*", source.schema.as_str()),
        takes: "track events, one table per event".to_owned(),
        key: tracks.key.clone(),
        newest: None,
        deletes: None,
        partition: tracks.partition.as_ref().map(|partition| PartitionEntry {
            by: partition.by.clone(),
            keep: partition.keep.clone(),
            ..*partition
        }),
    })
}

fn deletes(source: &SourceConfig) -> &'static str {
    match source.deletes {
        DeletedRows::Hard => "deleted",
        DeletedRows::Soft => "kept, with `_deleted_at`",
    }
}

fn table(source: &SourceConfig, spec: &TableSpec) -> TableEntry {
    let declared = source.tables.iter().find(|table| table.name == spec.name.table);
    let version = declared.and_then(|table| match &table.kind {
        TableKind::Entity { version, .. } => version.as_deref(),
        TableKind::Event { .. } => None,
    });
    let order =
        if spec.replicated { "source order".to_owned() } else { format!("`{}`", version.unwrap_or(SEGMENT_VERSION)) };
    let when = declared.and_then(|table| table.when.as_ref());
    let label = spec.source_label.strip_prefix(&format!("source {}", source.name)).unwrap_or(&spec.source_label);
    let takes = match (label.trim_start_matches(", "), when) {
        (_, Some((path, text))) => format!("documents whose `{path}` is `{text}`"),
        ("", None) => "all documents".to_owned(),
        (label, None) => label.to_owned(),
    };
    TableEntry {
        name: spec.name.unquoted(),
        takes,
        key: spec.key_columns().map(|column| column.name.as_str().to_owned()).collect(),
        newest: match spec.write_mode {
            WriteMode::Append => None,
            WriteMode::Merge(MergeBy::Row) => Some(format!("{order}, per row")),
            WriteMode::Merge(MergeBy::Column) => Some(format!("{order}, per column")),
        },
        deletes: spec.replicated.then(|| deletes(source)),
        partition: spec.partition.map(|partition| PartitionEntry {
            by: spec.columns[partition.column].name.as_str().to_owned(),
            every: match partition.policy.width {
                PartitionWidth::Hour => "hour",
                PartitionWidth::Day => "day",
                PartitionWidth::Week => "week",
                PartitionWidth::Month => "month",
            },
            ahead: partition.policy.partitions_ahead,
            keep: partition.policy.retention_micros.map(format_retention),
        }),
    }
}

/// Formats a retention as the configuration writes it.
fn format_retention(micros: i64) -> String {
    let hours = micros / MICROS_PER_HOUR;
    if hours % 24 == 0 { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}
