//! The configuration of a replay: the given one, the one found, or else the smallest one that reads the file.

use std::path::{Path, PathBuf};

use millstream::config::{Config, Format, SourceConfig};
use millstream::names::Naming;

use crate::system::SystemResult;

/// PostgreSQL truncates longer names.
const NAME_BYTES_MAX: usize = 63;

/// A stream, and the configuration of the source that reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The text of the configuration, if it has to be written.
    pub generated: Option<String>,
    /// The stream's name or ARN.
    pub stream: String,
    /// The format of its records.
    pub format: Format,
}

/// The configuration for a file: the given one, or the nearest `millstream.toml` beside the file or above it.
pub fn find_config(file: &Path, given: Option<&Path>) -> Option<PathBuf> {
    let beside = || file.ancestors().skip(1).map(|folder| folder.join("millstream.toml")).find(|path| path.is_file());
    given.map(Path::to_owned).or_else(beside)
}

/// Reads and checks a configuration.
///
/// # Errors
/// Returns an error if the file cannot be read, or with every error in it.
pub fn read_config(path: &Path) -> SystemResult<Config> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Config::parse(&path.to_string_lossy(), &text)?)
}

/// The smallest configuration that reads a stream of the format; the source is named after the stream.
pub fn generate(stream: &str, format: Format) -> Settings {
    let (name, word) = (source_name(stream), format_word(format));
    // A JSON string is a TOML string, too.
    let quoted = serde_json::Value::from(stream);
    let text = format!("[source.{name}]\nstream = {quoted}\nformat = \"{word}\"\n");
    Settings { generated: Some(text), stream: stream.to_owned(), format }
}

/// The source of a configuration that a file of this name and format belongs to: the only one, the only one of the format,
/// or the one with the file's name.
///
/// # Errors
/// Returns an error if no source fits, or several do.
pub fn choose_source(config: &Config, name: &str, format: Format) -> SystemResult<Settings> {
    let of_format: Vec<&SourceConfig> = config.sources.iter().filter(|source| source.format == format).collect();
    let source = match (&config.sources[..], &of_format[..]) {
        ([only], _) => Some(only),
        (_, [only]) => Some(*only),
        _ => config.sources.iter().find(|source| source.name == name),
    };
    let source = source.ok_or_else(|| {
        let format_of = |source: &SourceConfig| format!("{} ({})", source.name, format_word(source.format));
        format!(
            "the file holds {}, and more than one source of the configuration could read it, or none: {}; name the file \
             after its source",
            format_name(format),
            config.sources.iter().map(format_of).collect::<Vec<_>>().join(", ")
        )
    })?;
    let stream = source.streams.iter().find(|stream| *stream != "*").unwrap_or(&source.name);
    Ok(Settings { generated: None, stream: stream.clone(), format: source.format })
}

/// A source's name made of a file's: without folders and extensions, in snake case, and free for a schema.
pub fn name_of_file(file: &Path) -> String {
    let mut stem = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for extension in [".gz", ".ndjson", ".jsonl", ".json", ".log", ".txt"] {
        if stem.to_ascii_lowercase().ends_with(extension) {
            stem.truncate(stem.len() - extension.len());
        }
    }
    source_name(&stem)
}

/// A name that needs no quotes in TOML and may be a schema's: `pg_…` are PostgreSQL's own, and `millstream` is taken.
fn source_name(text: &str) -> String {
    let mut name = Naming::Snake.normalise(text);
    let is_taken = name.starts_with("pg_") || ["millstream", "information_schema"].contains(&&*name);
    if is_taken || name.is_empty() {
        name = if name.is_empty() { "events".to_owned() } else { format!("events_{name}") };
    }
    name.truncate(NAME_BYTES_MAX);
    name
}

/// What documents of the format are called.
pub fn format_name(format: Format) -> &'static str {
    match format {
        Format::Segment => "Segment calls",
        Format::Json => "plain JSON documents",
        Format::Dynamodb => "changes of DynamoDB tables",
        Format::Dms => "changes captured by AWS DMS",
        Format::Debezium => "changes captured by Debezium",
    }
}

/// The format as the configuration writes it.
fn format_word(format: Format) -> &'static str {
    match format {
        Format::Segment => "segment",
        Format::Json => "json",
        Format::Dynamodb => "dynamodb",
        Format::Dms => "dms",
        Format::Debezium => "debezium",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_name_becomes_a_source_s() {
        for (file, name) in [
            ("data/my.ndjson", "my"),
            ("Web Orders-2026.01.json.gz", "web_orders_2026_01"),
            ("clickStream.JSONL", "click_stream"),
            ("pg_stat.txt", "events_pg_stat"),
            ("millstream.json", "events_millstream"),
            ("заказы.json", "events"),
            (".json", "events"),
        ] {
            assert_eq!(name_of_file(Path::new(file)), name, "{file}");
        }
        assert_eq!(name_of_file(Path::new(&"x".repeat(99))).len(), 63);
    }

    #[test]
    fn what_is_generated_is_a_valid_configuration_of_the_format() {
        for format in [Format::Segment, Format::Json, Format::Dynamodb, Format::Dms, Format::Debezium] {
            let settings = generate("2026 orders", format);
            let config = Config::parse("", &settings.generated.clone().unwrap()).unwrap();
            assert_eq!(choose_source(&config, "x", format).unwrap(), Settings { generated: None, ..settings });
        }
    }

    fn config(sources: &[(&str, &str)]) -> Config {
        let section = |(name, format): &(&str, &str)| {
            format!("[source.{name}]\nstream = \"stream-of-{name}\"\nformat = \"{format}\"\n")
        };
        Config::parse("", &sources.iter().map(section).collect::<String>()).unwrap()
    }

    #[test]
    fn the_only_source_the_format_and_the_name_choose() {
        let stream = |sources: &[(&str, &str)], name: &str, format| {
            choose_source(&config(sources), name, format).map(|settings| settings.stream).ok()
        };
        let three = [("a", "json"), ("b", "segment"), ("c", "json")];
        assert_eq!(stream(&three[..1], "x", Format::Segment).as_deref(), Some("stream-of-a"));
        assert_eq!(stream(&three, "x", Format::Segment).as_deref(), Some("stream-of-b"));
        assert_eq!(stream(&three, "c", Format::Json).as_deref(), Some("stream-of-c"));
        assert_eq!(stream(&three, "b", Format::Dms).as_deref(), Some("stream-of-b"));
        assert_eq!(stream(&three, "x", Format::Json), None);
        let error = choose_source(&config(&three), "x", Format::Json).unwrap_err().to_string();
        assert!(error.contains("or none: a (json), b (segment), c (json); name the file after"), "{error}");
    }
}
