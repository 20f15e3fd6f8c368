//! `[table.NAME]`: an event table or an entity, added to its source.

use toml::Spanned;
use toml::de::DeValue;

use super::section::Section;
use super::source::{SCHEMA_POLICY_DEFAULT, partition, schema_policy};
use super::{ColumnConfig, ConfigErrors, Format, SourceConfig, TableConfig, TableKind};
use crate::names::Identifier;
use crate::spec::{MergeBy, OVERFLOW, VERSION, VERSIONS};

pub(super) fn check(raw: Section<'_>, sources: &mut [SourceConfig], mistakes: &mut ConfigErrors) {
    let source = raw.required(mistakes, "source", "the source that fills the table");
    let found = source.and_then(|name| sources.iter_mut().find(|source| source.name == name));
    if let (Some(name), None) = (source, &found) {
        raw.error(mistakes, "source", format!("unknown source `{name}`"));
    }
    let name = Identifier::exact(raw.name());
    if name.is_none() {
        raw.error(mistakes, "", "table names are 1 to 63 bytes");
    }
    let from = raw.string(mistakes, "from").map(str::to_owned);
    let events = raw.string_list(mistakes, "events");
    let when = when(&raw, mistakes);
    let replicated = found.as_ref().is_some_and(|source| source.format.replicates());
    let kind = table_kind(&raw, replicated, mistakes);
    let columns = columns(&raw, mistakes);
    let own_partition = raw.section(mistakes, "partition").and_then(|section| partition(section, mistakes));
    let shape = schema_policy(&raw, found.as_ref().map_or(SCHEMA_POLICY_DEFAULT, |source| source.shape), mistakes);
    if let (Some(TableKind::Entity { key, .. }), Some(partition)) = (&kind, &own_partition)
        && !key.contains(&partition.column)
    {
        let message = format!(
            "`{}` must be part of the key: PostgreSQL enforces uniqueness within a partition only, so each could hold the same key",
            partition.column
        );
        raw.error(mistakes, "partition.by", message);
    }
    if let Some(source) = &found {
        check_against_source(&raw, source, &events, from.is_some(), mistakes);
    }
    raw.reject_unknown_keys(mistakes);
    if let (Some(source), Some(name), Some(kind)) = (found, name, kind) {
        source.tables.push(TableConfig { name, from, events, when, kind, columns, partition: own_partition, shape });
    }
}

fn check_against_source(
    raw: &Section<'_>,
    source: &SourceConfig,
    events: &[String],
    from: bool,
    mistakes: &mut ConfigErrors,
) {
    if from && !source.format.replicates() {
        raw.error(mistakes, "from", "only valid for tables of dynamodb, dms and debezium sources");
    }
    match source.format {
        Format::Segment if events.is_empty() => {
            raw.error(mistakes, "events", "required: the names of the track events that go into the table");
        }
        Format::Json | Format::Dynamodb | Format::Dms | Format::Debezium if !events.is_empty() => {
            raw.error(mistakes, "events", "only valid for segment sources; use `when` to select documents");
        }
        Format::Segment | Format::Json | Format::Dynamodb | Format::Dms | Format::Debezium => {}
    }
}

/// `when = { path = "kind", is = "reading" }`
fn when(raw: &Section<'_>, mistakes: &mut ConfigErrors) -> Option<(String, String)> {
    let section = raw.section(mistakes, "when")?;
    let path = section.required(mistakes, "path", "the path of the field to compare");
    let is = section.required(mistakes, "is", "the string to compare it with");
    section.reject_unknown_keys(mistakes);
    Some((path?.to_owned(), is?.to_owned()))
}

/// A replicated table's key and versions are its source's to say; the configuration may say the key where the source does not.
fn table_kind(raw: &Section<'_>, replicated: bool, mistakes: &mut ConfigErrors) -> Option<TableKind> {
    let id = raw.string(mistakes, "id").map(str::to_owned);
    let key = raw.string_list(mistakes, "key");
    let version = raw.string(mistakes, "version").map(str::to_owned);
    let merge = raw.one_of(mistakes, "merge", &[("column", MergeBy::Column), ("row", MergeBy::Row)]);
    if replicated {
        for (there, name) in [(id.is_some(), "id"), (version.is_some(), "version"), (merge.is_some(), "merge")] {
            if there {
                raw.error(mistakes, name, "not valid for a replicated table: its source determines it");
            }
        }
        return Some(TableKind::Entity { key, version: None, merge: MergeBy::Row });
    }
    if key.is_empty() {
        for (there, name) in [(version.is_some(), "version"), (merge.is_some(), "merge")] {
            if there {
                raw.error(mistakes, name, "only valid together with `key`");
            }
        }
        return Some(TableKind::Event { id });
    }
    if id.is_some() {
        raw.error(mistakes, "id", "set either `id` (one row per event) or `key` (one row per key), not both");
    }
    if version.is_none() {
        raw.error(mistakes, "version", "required: the path of the value that orders the changes of a key");
    }
    Some(TableKind::Entity { key, version: Some(version?), merge: merge.unwrap_or(MergeBy::Row) })
}

fn columns(raw: &Section<'_>, mistakes: &mut ConfigErrors) -> Vec<ColumnConfig> {
    let Some(section) = raw.section(mistakes, "columns") else { return Vec::new() };
    section.entries().filter_map(|(name, value)| column(&section, name, value, mistakes)).collect()
}

/// `stake = "properties.stake"` or `stake = { path = "properties.stake", type = "numeric(12,2)", check = "stake > 0" }`
fn column<'a>(
    section: &Section<'a>,
    key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
    mistakes: &mut ConfigErrors,
) -> Option<ColumnConfig> {
    let name = Identifier::exact(key).filter(|name| ![OVERFLOW, VERSION, VERSIONS].contains(&name.as_str()));
    if name.is_none() {
        mistakes.add(
            value.span(),
            &section.key(key),
            "column names are 1 to 63 bytes and may not be _overflow, _version or _versions",
        );
    }
    if let Some(path) = value.get_ref().as_str().filter(|path| !path.is_empty()) {
        return Some(ColumnConfig { name: name?, path: path.to_owned(), sql_type: None, required: false, check: None });
    }
    let Some(own) = section.entry(key, value) else {
        mistakes.add(value.span(), &section.key(key), "must be a path, or { path = \"…\", type = \"…\" }");
        return None;
    };
    let path = own.required(mistakes, "path", "the path of the column's values");
    let sql_type = own.read(mistakes, "type", "an SQL type such as \"numeric(12,2)\"", |value| {
        value.as_str().filter(|text| is_type(text)).map(str::to_owned)
    });
    let required = own.boolean(mistakes, "required").unwrap_or(false);
    let check = own.string(mistakes, "check").map(str::to_owned);
    own.reject_unknown_keys(mistakes);
    Some(ColumnConfig { name: name?, path: path?.to_owned(), sql_type, required, check })
}

/// Words, perhaps qualified, then perhaps numbers in parentheses, then perhaps `[]`: nothing that could end a statement.
fn is_type(text: &str) -> bool {
    let text = text.strip_suffix("[]").unwrap_or(text);
    let (words, modifier) = text.split_once('(').unwrap_or((text, "0)"));
    let numbers = modifier.strip_suffix(')');
    let is_word = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !word.is_empty();
    words.trim_end().split([' ', '.']).all(is_word)
        && numbers.is_some_and(|list| list.split(',').all(|number| number.trim().parse::<u32>().is_ok()))
}
