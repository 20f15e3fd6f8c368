//! `[source.NAME]`: a stream and the defaults of its tables.

use super::section::Section;
use super::{DeletedRows, Format, Mistakes, Partition, Shape, Source};
use crate::field::Privacy;
use crate::names::{Identifier, Naming};
use crate::partition::Every;
use crate::spec::{Arrays, Evolution, Nested, Period};

/// How undeclared fields are treated where nobody says so.
pub(super) const SHAPE_DEFAULT: Shape = Shape {
    evolution: Evolution::Evolve,
    nested: Nested::Flatten,
    arrays: Arrays::Text,
    text_characters_max: None,
    // PostgreSQL allows 1,600 columns, fewer if they are wide; a tuple of this many still fits its page.
    columns_max: 1_000,
};

/// Rows later than this ahead of the clock are taken for errors.
const FUTURE_DEFAULT: i64 = 7 * 24 * 3_600_000_000;

const AHEAD_DEFAULT: u32 = 3;

/// Kinesis keeps records for 365 days at most; a retry may take a month more.
const REMEMBER_DEFAULT: i64 = 400 * 24 * 3_600_000_000;

/// A source with mistakes is a source all the same: its tables are checked against it.
pub(super) fn check(raw: Section<'_>, mistakes: &mut Mistakes) -> Source {
    let name = raw.name().to_owned();
    let streams = raw.text_or_texts(mistakes, "stream", "the name or ARN of the stream, or a list of them");
    let formats = [
        ("segment", Format::Segment),
        ("json", Format::Json),
        ("dynamodb", Format::Dynamodb),
        ("dms", Format::Dms),
        ("debezium", Format::Debezium),
    ];
    let format = raw.one_of(mistakes, "format", &formats).unwrap_or(Format::Segment);
    let defaults = of_format(&name, format);
    let schema = raw.identifier(mistakes, "schema").unwrap_or(defaults.schema);
    let namings = [
        ("segment", Naming::Segment),
        ("rudder", Naming::Rudder),
        ("snake_case", Naming::Snake),
        ("exact", Naming::Exact),
    ];
    let naming = raw.one_of(mistakes, "naming", &namings).unwrap_or(defaults.naming);
    let partition = match raw.section(mistakes, "partition") {
        Some(section) => partition(section, mistakes),
        None => defaults.partition,
    };
    let private = private(&raw, mistakes);
    let shape = shape(&raw, defaults.shape, mistakes);
    let only = raw.texts(mistakes, "only");
    let exclude = raw.texts(mistakes, "exclude");
    let backup = raw.boolean(mistakes, "backup").unwrap_or(defaults.backup);
    let remember = raw.duration(mistakes, "remember_deletes").unwrap_or(defaults.remember);
    let deletes = raw.one_of(mistakes, "deletes", &[("hard", DeletedRows::Gone), ("soft", DeletedRows::Marked)]);
    if !format.replicates() {
        let given = [(!only.is_empty(), "only"), (!exclude.is_empty(), "exclude"), (deletes.is_some(), "deletes")];
        for (_, key) in given.iter().filter(|(there, _)| *there) {
            raw.mistake(mistakes, key, "only a source of tables has it: dynamodb, dms or debezium");
        }
    }
    raw.finish(mistakes);
    Source {
        name,
        streams,
        format,
        schema,
        naming,
        partition,
        private,
        shape,
        only,
        exclude,
        deletes: deletes.unwrap_or(defaults.deletes),
        backup,
        remember,
        tables: defaults.tables,
    }
}

/// A source of every stream, with nothing but defaults; its schema has its name.
pub(super) fn of_format(name: &str, format: Format) -> Source {
    Source {
        name: name.to_owned(),
        streams: vec!["*".to_owned()],
        format,
        schema: Identifier::fitting(name, name),
        naming: if format.replicates() { Naming::Snake } else { Naming::Segment },
        partition: default_partition(format),
        private: Vec::new(),
        shape: SHAPE_DEFAULT,
        only: Vec::new(),
        exclude: Vec::new(),
        deletes: DeletedRows::Gone,
        backup: format.replicates(),
        remember: REMEMBER_DEFAULT,
        tables: Vec::new(),
    }
}

/// Segment's events are partitioned by the day of their arrival at Segment, unless the configuration says otherwise.
fn default_partition(format: Format) -> Option<Partition> {
    let period = Period { every: Every::Day, ahead: AHEAD_DEFAULT, keep: None, future: FUTURE_DEFAULT };
    (format == Format::Segment).then(|| Partition { by: "received_at".to_owned(), period })
}

/// `partition = { by = "received_at", every = "day", ahead = 3, keep = "90 days", future = "7 days" }`
pub(super) fn partition(raw: Section<'_>, mistakes: &mut Mistakes) -> Option<Partition> {
    let by = raw.required(mistakes, "by", "the column that the table is partitioned by");
    let widths = [("hour", Every::Hour), ("day", Every::Day), ("week", Every::Week), ("month", Every::Month)];
    let every = raw.one_of(mistakes, "every", &widths).unwrap_or(Every::Day);
    let ahead = raw.integer(mistakes, "ahead", 0..1_001).unwrap_or(AHEAD_DEFAULT);
    let keep = raw.duration(mistakes, "keep");
    let future = raw.duration(mistakes, "future").unwrap_or(FUTURE_DEFAULT);
    raw.finish(mistakes);
    Some(Partition { by: by?.to_owned(), period: Period { every, ahead, keep, future } })
}

/// The keys that say how undeclared fields are treated; what they leave open is as `above`: a table takes its source's.
pub(super) fn shape(raw: &Section<'_>, above: Shape, mistakes: &mut Mistakes) -> Shape {
    let modes = [("evolve", Evolution::Evolve), ("fixed", Evolution::Fixed), ("strict", Evolution::Strict)];
    let evolution = raw.one_of(mistakes, "schema_mode", &modes);
    let nested = raw.one_of(mistakes, "nested", &[("flatten", Nested::Flatten), ("jsonb", Nested::Jsonb)]);
    let arrays = raw.one_of(mistakes, "arrays", &[("text", Arrays::Text), ("jsonb", Arrays::Jsonb)]);
    let text = raw.read(mistakes, "text", "\"text\" or \"varchar(n)\"", |value| match value.as_str()? {
        "text" => Some(None),
        other => Some(Some(other.strip_prefix("varchar(")?.strip_suffix(')')?.parse().ok().filter(|n| *n > 0)?)),
    });
    let columns_max = raw.integer(mistakes, "max_columns", 1..1_601).map(|count| count as usize);
    Shape {
        evolution: evolution.unwrap_or(above.evolution),
        nested: nested.unwrap_or(above.nested),
        arrays: arrays.unwrap_or(above.arrays),
        text_characters_max: text.unwrap_or(above.text_characters_max),
        columns_max: columns_max.unwrap_or(above.columns_max),
    }
}

/// `private = ["context.ip", { path = "traits.email", as = "sha256" }]`
fn private(raw: &Section<'_>, mistakes: &mut Mistakes) -> Vec<(String, Privacy)> {
    let wanted = "a list of paths, or of { path = \"…\", as = \"sha256\" }";
    let list = raw.read(mistakes, "private", wanted, |value| {
        let one = |element: &toml::de::DeValue<'_>| match element.as_table() {
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
        value.as_array()?.iter().map(|element| one(element.get_ref())).collect()
    });
    list.unwrap_or_default()
}
