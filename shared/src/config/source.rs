//! `[source.NAME]`: a stream and the defaults of its tables.

use super::section::Section;
use super::{ConfigErrors, DeletedRows, Format, PartitionConfig, SchemaPolicy, SourceConfig};
use crate::field::Privacy;
use crate::names::{Identifier, Naming, SYSTEM_SCHEMA};
use crate::partition::PartitionWidth;
use crate::spec::{Arrays, Nested, OnUnwritable, PartitionPolicy, SchemaMode};

/// The default handling of undeclared fields, and of tables that cannot be written.
pub(super) const SCHEMA_POLICY_DEFAULT: SchemaPolicy = SchemaPolicy {
    mode: SchemaMode::Evolve,
    nested: Nested::Flatten,
    arrays: Arrays::Text,
    text_characters_max: None,
    // PostgreSQL allows 1,600 columns, fewer if they are wide; a tuple with this many still fits a page.
    columns_max: 1_000,
    on_unwritable: OnUnwritable::DeadLetter,
};

/// Rows further than this in the future are considered errors.
const FUTURE_DEFAULT: i64 = 7 * 24 * 3_600_000_000;

const AHEAD_DEFAULT: u32 = 3;

/// Kinesis keeps records for at most 365 days; retries may take another month.
const TOMBSTONE_RETENTION_DEFAULT: i64 = 400 * 24 * 3_600_000_000;

/// Checks a source. Returns one even if it has errors, so that its tables are checked too.
pub(super) fn check(raw: Section<'_>, errors: &mut ConfigErrors) -> SourceConfig {
    let name = raw.name().to_owned();
    let streams = raw.string_or_list(errors, "stream", "the name or ARN of the stream, or a list of them");
    let formats = [
        ("segment", Format::Segment),
        ("json", Format::Json),
        ("dynamodb", Format::Dynamodb),
        ("dms", Format::Dms),
        ("debezium", Format::Debezium),
    ];
    let format = raw.one_of(errors, "format", &formats).unwrap_or(Format::Segment);
    let defaults = default_for_format(&name, format);
    let schema = schema(&raw, errors).unwrap_or(defaults.schema);
    let namings = [
        ("segment", Naming::Segment),
        ("rudder", Naming::Rudder),
        ("snake_case", Naming::Snake),
        ("exact", Naming::Exact),
    ];
    let naming = raw.one_of(errors, "naming", &namings).unwrap_or(defaults.naming);
    let partition = match raw.section(errors, "partition") {
        Some(section) => partition(section, errors),
        None => defaults.partition,
    };
    let private = private(&raw, errors);
    let shape = schema_policy(&raw, defaults.schema_policy, errors);
    let only = raw.string_list(errors, "only");
    let exclude = raw.string_list(errors, "exclude");
    let backup = raw.boolean(errors, "backup").unwrap_or(defaults.backup);
    let tombstone_retention_micros =
        raw.duration(errors, "remember_deletes").unwrap_or(defaults.tombstone_retention_micros);
    let deletes = raw.one_of(errors, "deletes", &[("hard", DeletedRows::Hard), ("soft", DeletedRows::Soft)]);
    if !format.replicates() {
        let given = [(!only.is_empty(), "only"), (!exclude.is_empty(), "exclude"), (deletes.is_some(), "deletes")];
        for (_, key) in given.iter().filter(|(is_set, _)| *is_set) {
            raw.error(errors, key, "only valid for dynamodb, dms and debezium sources");
        }
    }
    let unavailable_value = unavailable_value(&raw, format, errors);
    raw.reject_unknown_keys(errors);
    SourceConfig {
        name,
        streams,
        format,
        schema,
        naming,
        partition,
        private,
        schema_policy: shape,
        only,
        exclude,
        deletes: deletes.unwrap_or(defaults.deletes),
        backup,
        tombstone_retention_micros,
        unavailable_value,
        tables: defaults.tables,
        shares_with: Vec::new(),
    }
}

/// The schema that the source fills, if it is given. The name of the source is the default.
fn schema(raw: &Section<'_>, errors: &mut ConfigErrors) -> Option<Identifier> {
    let given = raw.identifier(errors, "schema");
    let name = given.as_ref().map_or(raw.name(), Identifier::as_str);
    let owner = match name {
        SYSTEM_SCHEMA => "Millstream's own tables",
        name if name.starts_with("pg_") || name == "information_schema" => "PostgreSQL",
        _ => return given,
    };
    raw.error(errors, "schema", format!("the schema `{name}` is reserved for {owner}; set `schema` to another name"));
    given
}

/// A source that reads every stream, with only default settings; the schema has the source's name.
pub(super) fn default_for_format(name: &str, format: Format) -> SourceConfig {
    SourceConfig {
        name: name.to_owned(),
        streams: vec!["*".to_owned()],
        format,
        schema: Identifier::truncated(name, name),
        naming: if format.replicates() { Naming::Snake } else { Naming::Segment },
        partition: default_partition(format),
        private: Vec::new(),
        schema_policy: SCHEMA_POLICY_DEFAULT,
        only: Vec::new(),
        exclude: Vec::new(),
        deletes: DeletedRows::Hard,
        backup: format.replicates(),
        tombstone_retention_micros: TOMBSTONE_RETENTION_DEFAULT,
        unavailable_value: None,
        tables: Vec::new(),
        shares_with: Vec::new(),
    }
}

/// Segment's events are partitioned by the day of their arrival at Segment, unless the configuration says otherwise.
fn default_partition(format: Format) -> Option<PartitionConfig> {
    let period = PartitionPolicy {
        width: PartitionWidth::Day,
        partitions_ahead: AHEAD_DEFAULT,
        retention_micros: None,
        future_limit_micros: FUTURE_DEFAULT,
    };
    (format == Format::Segment).then(|| PartitionConfig { column: "received_at".to_owned(), policy: period })
}

/// `partition = { by = "received_at", every = "day", ahead = 3, keep = "90 days", future = "7 days" }`
pub(super) fn partition(raw: Section<'_>, errors: &mut ConfigErrors) -> Option<PartitionConfig> {
    let by = raw.required(errors, "by", "the column to partition the table by");
    let widths = [
        ("hour", PartitionWidth::Hour),
        ("day", PartitionWidth::Day),
        ("week", PartitionWidth::Week),
        ("month", PartitionWidth::Month),
    ];
    let width = raw.one_of(errors, "every", &widths).unwrap_or(PartitionWidth::Day);
    let ahead = raw.integer(errors, "ahead", 0..1_001).unwrap_or(AHEAD_DEFAULT);
    let retention_micros = raw.duration(errors, "keep");
    let future_limit_micros = raw.duration(errors, "future").unwrap_or(FUTURE_DEFAULT);
    raw.reject_unknown_keys(errors);
    Some(PartitionConfig {
        column: by?.to_owned(),
        policy: PartitionPolicy { width, partitions_ahead: ahead, retention_micros, future_limit_micros },
    })
}

/// Reads the keys for undeclared fields and for tables that cannot be written. Missing keys keep their value from `inherited`: a table inherits from its source.
pub(super) fn schema_policy(raw: &Section<'_>, inherited: SchemaPolicy, errors: &mut ConfigErrors) -> SchemaPolicy {
    let modes = [("evolve", SchemaMode::Evolve), ("fixed", SchemaMode::Fixed), ("strict", SchemaMode::Strict)];
    let evolution = raw.one_of(errors, "schema_mode", &modes);
    let nested = raw.one_of(errors, "nested", &[("flatten", Nested::Flatten), ("jsonb", Nested::Jsonb)]);
    let arrays = raw.one_of(errors, "arrays", &[("text", Arrays::Text), ("jsonb", Arrays::Jsonb)]);
    let text = raw.read(errors, "text", "\"text\" or \"varchar(n)\"", |value| match value.as_str()? {
        "text" => Some(None),
        other => Some(Some(other.strip_prefix("varchar(")?.strip_suffix(')')?.parse().ok().filter(|n| *n > 0)?)),
    });
    let columns_max = raw.integer(errors, "max_columns", 1..1_601).map(|count| count as usize);
    let on_unwritable = [("dead_letter", OnUnwritable::DeadLetter), ("stop", OnUnwritable::Stop)];
    SchemaPolicy {
        mode: evolution.unwrap_or(inherited.mode),
        nested: nested.unwrap_or(inherited.nested),
        arrays: arrays.unwrap_or(inherited.arrays),
        text_characters_max: text.unwrap_or(inherited.text_characters_max),
        columns_max: columns_max.unwrap_or(inherited.columns_max),
        on_unwritable: raw.one_of(errors, "on_unwritable", &on_unwritable).unwrap_or(inherited.on_unwritable),
    }
}

/// `unavailable_value = "__unchanged"`, as the connector's `unavailable.value.placeholder`.
fn unavailable_value(raw: &Section<'_>, format: Format, errors: &mut ConfigErrors) -> Option<Vec<u8>> {
    let expected = "a non-empty string, or \"hex:\" and hexadecimal digits";
    let placeholder =
        raw.read(errors, "unavailable_value", expected, |value| value.as_str().and_then(placeholder_bytes));
    if placeholder.is_some() && format != Format::Debezium {
        raw.error(errors, "unavailable_value", "only valid for debezium sources");
    }
    placeholder
}

/// The bytes of a placeholder as its connector is configured; `None` if it is empty or not hexadecimal after `hex:`.
fn placeholder_bytes(placeholder: &str) -> Option<Vec<u8>> {
    let bytes = match placeholder.strip_prefix("hex:") {
        None => placeholder.as_bytes().to_vec(),
        Some(digits) => {
            let is_hexadecimal = digits.len().is_multiple_of(2) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let pairs = (0..digits.len()).step_by(2).filter(|_| is_hexadecimal);
            pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect::<Option<_>>()?
        }
    };
    (!bytes.is_empty()).then_some(bytes)
}

/// `private = ["context.ip", { path = "traits.email", as = "sha256" }]`
fn private(raw: &Section<'_>, errors: &mut ConfigErrors) -> Vec<(String, Privacy)> {
    let expected = "a list of paths or of { path = \"…\", as = \"sha256\" }";
    let list = raw.read(errors, "private", expected, |value| {
        let field = |element: &toml::de::DeValue<'_>| match element.as_table() {
            None => Some((element.as_str()?.to_owned(), Privacy::Drop)),
            Some(table) => {
                let text = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
                let privacy = match text("as")? {
                    "sha256" => Privacy::Sha256,
                    _ => return None,
                };
                (table.len() == 2).then_some((text("path")?.to_owned(), privacy))
            }
        };
        value.as_array()?.iter().map(|element| field(element.get_ref())).collect()
    });
    list.unwrap_or_default()
}
