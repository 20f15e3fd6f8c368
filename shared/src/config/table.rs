//! `[table.NAME]`: an event table or an entity table, added to its source.

use toml::Spanned;
use toml::de::DeValue;

use super::section::Section;
use super::source::{SCHEMA_POLICY_DEFAULT, partition, schema_policy};
use super::sql::{expression_mistake, is_type};
use super::{ColumnConfig, ConfigErrors, Format, SourceConfig, TableConfig, TableKind};
use crate::names::Identifier;
use crate::spec::{MergeBy, OVERFLOW, VERSION, VERSIONS};

pub(super) fn check(raw: Section<'_>, sources: &mut [SourceConfig], errors: &mut ConfigErrors) {
    let source_name = raw.required(errors, "source", "the source that fills the table");
    let source = source_name.and_then(|name| sources.iter_mut().find(|source| source.name == name));
    if let (Some(name), None) = (source_name, &source) {
        raw.error(errors, "source", format!("unknown source `{name}`"));
    }
    let name = Identifier::exact(raw.name());
    if name.is_none() {
        raw.error(errors, "", "table names are 1 to 63 bytes");
    }
    let from = raw.string(errors, "from").map(str::to_owned);
    let events = raw.string_list(errors, "events");
    let when = when(&raw, errors);
    let replicated = source.as_ref().is_some_and(|source| source.format.replicates());
    let kind = table_kind(&raw, replicated, errors);
    let columns = columns(&raw, errors);
    let partition_config = raw.section(errors, "partition").and_then(|section| partition(section, errors));
    let shape =
        schema_policy(&raw, source.as_ref().map_or(SCHEMA_POLICY_DEFAULT, |source| source.schema_policy), errors);
    if let (Some(TableKind::Entity { key, .. }), Some(partition)) = (&kind, &partition_config)
        && !key.contains(&partition.column)
    {
        let message = format!(
            "`{}` must be part of the key: PostgreSQL enforces uniqueness within a partition only, so each could hold the same key",
            partition.column
        );
        raw.error(errors, "partition.by", message);
    }
    if let Some(source) = &source {
        check_against_source(&raw, source, &events, from.is_some(), errors);
    }
    raw.reject_unknown_keys(errors);
    if let (Some(source), Some(name), Some(kind)) = (source, name, kind) {
        source.tables.push(TableConfig {
            name,
            from,
            events,
            when,
            kind,
            columns,
            partition: partition_config,
            schema_policy: shape,
        });
    }
}

fn check_against_source(
    raw: &Section<'_>,
    source: &SourceConfig,
    events: &[String],
    from: bool,
    errors: &mut ConfigErrors,
) {
    if from && !source.format.replicates() {
        raw.error(errors, "from", "only valid for tables of dynamodb, dms and debezium sources");
    }
    match source.format {
        Format::Segment if events.is_empty() => {
            raw.error(errors, "events", "required: the names of the track events that go into the table");
        }
        Format::Json | Format::Dynamodb | Format::Dms | Format::Debezium if !events.is_empty() => {
            raw.error(errors, "events", "only valid for segment sources; use `when` to select documents");
        }
        Format::Segment | Format::Json | Format::Dynamodb | Format::Dms | Format::Debezium => {}
    }
}

/// `when = { path = "kind", is = "reading" }`
fn when(raw: &Section<'_>, errors: &mut ConfigErrors) -> Option<(String, String)> {
    let section = raw.section(errors, "when")?;
    let path = section.required(errors, "path", "the path of the field to compare");
    let is = section.required(errors, "is", "the string to compare it with");
    section.reject_unknown_keys(errors);
    Some((path?.to_owned(), is?.to_owned()))
}

/// The source determines a replicated table's key and versions; the configuration may set the key if the source does not
/// provide it.
fn table_kind(raw: &Section<'_>, replicated: bool, errors: &mut ConfigErrors) -> Option<TableKind> {
    let id = raw.string(errors, "id").map(str::to_owned);
    let key = raw.string_list(errors, "key");
    let version = raw.string(errors, "version").map(str::to_owned);
    let merge = raw.one_of(errors, "merge", &[("column", MergeBy::Column), ("row", MergeBy::Row)]);
    if replicated {
        for (is_set, name) in [(id.is_some(), "id"), (version.is_some(), "version"), (merge.is_some(), "merge")] {
            if is_set {
                raw.error(errors, name, "not valid for a replicated table: its source determines it");
            }
        }
        return Some(TableKind::Entity { key, version: None, merge: MergeBy::Row });
    }
    if key.is_empty() {
        for (is_set, name) in [(version.is_some(), "version"), (merge.is_some(), "merge")] {
            if is_set {
                raw.error(errors, name, "only valid together with `key`");
            }
        }
        return Some(TableKind::Event { id });
    }
    if id.is_some() {
        raw.error(errors, "id", "set either `id` (one row per event) or `key` (one row per key), not both");
    }
    if version.is_none() {
        raw.error(errors, "version", "required: the path of the value that orders the changes of a key");
    }
    Some(TableKind::Entity { key, version: Some(version?), merge: merge.unwrap_or(MergeBy::Row) })
}

fn columns(raw: &Section<'_>, errors: &mut ConfigErrors) -> Vec<ColumnConfig> {
    let Some(section) = raw.section(errors, "columns") else { return Vec::new() };
    section.entries().filter_map(|(name, value)| column(&section, name, value, errors)).collect()
}

/// `stake = "properties.stake"` or `stake = { path = "properties.stake", type = "numeric(12,2)", check = "stake > 0" }`
fn column<'a>(
    section: &Section<'a>,
    key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
    errors: &mut ConfigErrors,
) -> Option<ColumnConfig> {
    let name = Identifier::exact(key).filter(|name| ![OVERFLOW, VERSION, VERSIONS].contains(&name.as_str()));
    if name.is_none() {
        errors.add(
            value.span(),
            &section.key(key),
            "column names are 1 to 63 bytes and may not be _overflow, _version or _versions",
        );
    }
    if let Some(path) = value.get_ref().as_str().filter(|path| !path.is_empty()) {
        return Some(ColumnConfig { name: name?, path: path.to_owned(), sql_type: None, required: false, check: None });
    }
    let Some(entry) = section.entry(key, value) else {
        errors.add(value.span(), &section.key(key), "must be a path, or { path = \"…\", type = \"…\" }");
        return None;
    };
    let path = entry.required(errors, "path", "the path of the column's values");
    let sql_type = entry.read(errors, "type", "an SQL type such as \"numeric(12,2)\"", |value| {
        value.as_str().filter(|text| is_type(text)).map(str::to_owned)
    });
    let required = entry.boolean(errors, "required").unwrap_or(false);
    let check = check_expression(&entry, errors);
    entry.reject_unknown_keys(errors);
    Some(ColumnConfig { name: name?, path: path?.to_owned(), sql_type, required, check })
}

/// `check = "stake > 0"`
fn check_expression(entry: &Section<'_>, errors: &mut ConfigErrors) -> Option<String> {
    let check = entry.string(errors, "check")?;
    if let Some(mistake) = expression_mistake(check) {
        entry.error(errors, "check", format!("must be one SQL expression, but {mistake}"));
    }
    Some(check.to_owned())
}
