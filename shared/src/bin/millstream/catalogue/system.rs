//! A system as its configuration and its template have it: what the page tells.

use millstream::config::{Config, DeletedRows, Format, SourceConfig, TableKind};
use millstream::decode::Decoder;
use millstream::field::Privacy;
use millstream::partition::PartitionWidth;
use millstream::spec::{MergeBy, TableId, TableSpec, WriteMode};
use serde::Serialize;

use super::template::{Deployment, Function, Start};

const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// The order that Segment's calls of one user or group are brought into.
const SEGMENT_VERSION: &str = "timestamp";

/// A system.
#[derive(Serialize)]
pub struct System {
    /// What it is called.
    pub name: String,
    /// What this was read from.
    pub files: Vec<String>,
    /// Its sources.
    pub sources: Vec<SourceEntry>,
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

/// A stream, and the functions that it feeds, by their places in [`System::functions`].
#[derive(Serialize)]
pub struct StreamEntry {
    pub name: String,
    /// Kinesis or DynamoDB, where it is known.
    pub kind: Option<&'static str>,
    pub functions: Vec<usize>,
}

/// A table that a source fills.
#[derive(Serialize)]
pub struct TableEntry {
    /// `schema.table`.
    pub name: String,
    /// What goes into it.
    pub takes: String,
    /// What a row is known by; empty where the source says.
    pub key: Vec<String>,
    /// Which change of a row wins; none where a row is written once.
    pub newest: Option<String>,
    /// What becomes of deleted rows, where the source deletes.
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
    /// How long rows are kept; none is for ever.
    pub keep: Option<String>,
}

/// A field that does not reach the database as it is.
#[derive(Serialize)]
pub struct PrivateEntry {
    pub path: String,
    pub becomes: &'static str,
}

/// A function.
#[derive(Serialize)]
pub struct FunctionEntry {
    pub name: String,
    /// What the template says that it does.
    pub description: String,
    /// What starts it, for people.
    pub starts: Vec<String>,
    /// Whether the clock does.
    pub scheduled: bool,
    /// Whether it may run at all.
    pub on: bool,
    pub dead_letters: bool,
}

impl System {
    /// Puts the configuration and what is deployed together.
    pub fn of(name: String, files: Vec<String>, config: &Config, deployment: &Deployment) -> Self {
        let functions = deployment.functions.iter().map(|function| FunctionEntry::of(function, config)).collect();
        let sources = config.sources.iter().map(|one| source(one, config, deployment)).collect();
        Self { name, files, sources, functions }
    }
}

impl FunctionEntry {
    fn of(function: &Function, config: &Config) -> Self {
        Self {
            name: function.name.clone(),
            description: function.description.clone(),
            starts: function.starts.iter().map(|start| started_by(start, config)).collect(),
            scheduled: function.starts.iter().any(|start| matches!(start, Start::Schedule(_))),
            on: function.on,
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

/// What the source calls the stream.
fn stream_name<'s>(source: &'s SourceConfig, arn: &str) -> &'s str {
    let only = |name: &&str| SourceConfig { streams: vec![(*name).to_owned()], ..source.clone() }.reads_stream(arn);
    source.stream_names().find(only).unwrap_or("*")
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
    // Where two sources name a stream, the first one reads it.
    let is_read = |arn: &str| config.source_by_stream(arn).is_some_and(|(_, first)| first.name == source.name);
    let mut stream = StreamEntry { name: name.to_owned(), kind: None, functions: Vec::new() };
    for (place, function) in deployment.functions.iter().enumerate() {
        for start in &function.starts {
            if let Start::Stream { kind, arn } = start
                && is_read(arn)
                && stream_name(source, arn) == name
            {
                stream.kind = Some(kind);
                stream.functions.push(place);
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

/// The tables that a source of tables makes as it meets them.
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

/// The tables that Segment's events make as they are met: like `tracks`.
fn every_event(source: &SourceConfig, tables: &[TableEntry]) -> Option<TableEntry> {
    let name = format!("{}.tracks", source.schema.as_str());
    let like = tables.iter().find(|table| table.name == name)?;
    Some(TableEntry {
        name: format!("{}.*", source.schema.as_str()),
        takes: "track events, one table per event".to_owned(),
        key: like.key.clone(),
        newest: None,
        deletes: None,
        partition: like.partition.as_ref().map(|partition| PartitionEntry {
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
    let origin = spec.source_label.strip_prefix(&format!("source {}", source.name)).unwrap_or(&spec.source_label);
    let takes = match (origin.trim_start_matches(", "), when) {
        (_, Some((path, text))) => format!("documents whose `{path}` is `{text}`"),
        ("", None) => "all documents".to_owned(),
        (origin, None) => origin.to_owned(),
    };
    TableEntry {
        name: spec.name.unquoted(),
        takes: takes,
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
            ahead: partition.policy.ahead,
            keep: partition.policy.retention_micros.map(format_retention),
        }),
    }
}

/// As the configuration writes it.
fn format_retention(micros: i64) -> String {
    let hours = micros / MICROS_PER_HOUR;
    if hours % 24 == 0 { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}
