//! `[report.NAME]`: what the board shows each user about themselves.

use super::section::Section;
use super::{ConfigErrors, SourceConfig};
use crate::names::{Identifier, TableName};

/// A longer name does not fit the anchor of its section.
const NAME_BYTES_MAX: usize = 40;
/// More columns do not fit a page.
const COLUMNS_MAX: usize = 12;

/// A report about one user: the rows of a function with one argument, the user.
#[derive(Clone, PartialEq, Debug)]
pub struct ReportConfig {
    /// Its name.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// The function: schema and name.
    pub function: TableName,
    /// The columns that are shown, in the order of the file.
    pub columns: Vec<ReportColumn>,
}

/// A column of a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportColumn {
    /// Its name in the function's result.
    pub name: Identifier,
    /// How its values are shown.
    pub format: ColumnFormat,
}

/// How the values of a column are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnFormat {
    /// As text.
    Text,
    /// As a number.
    Number,
    /// As a share of one, in percent.
    Percent,
    /// As a time in UTC, with its age.
    Time,
}

const FORMATS: [(&str, ColumnFormat); 4] = [
    ("text", ColumnFormat::Text),
    ("number", ColumnFormat::Number),
    ("percent", ColumnFormat::Percent),
    ("time", ColumnFormat::Time),
];

/// Checks a report and returns it.
pub(super) fn check(raw: Section<'_>, sources: &[SourceConfig], errors: &mut ConfigErrors) -> Option<ReportConfig> {
    let name = raw.name().to_owned();
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
        let message = format!("names of reports are 1 to {NAME_BYTES_MAX} lower-case letters, digits and underscores");
        raw.error(errors, "", message);
    }
    let title = raw.string(errors, "title").map_or_else(|| name.replace('_', " "), str::to_owned);
    let function = function(&raw, sources, errors);
    let columns = columns(&raw, errors);
    raw.reject_unknown_keys(errors);
    Some(ReportConfig { name, title, function: function?, columns })
}

/// `function = "portfolio.user_holdings"`
fn function(raw: &Section<'_>, sources: &[SourceConfig], errors: &mut ConfigErrors) -> Option<TableName> {
    let text = raw.required(errors, "function", "the function that returns a user's rows, as schema.name")?;
    let name = text.split_once('.').and_then(|(schema, name)| {
        Some(TableName { schema: Identifier::exact(schema)?, table: Identifier::exact(name)? })
    });
    let Some(name) = name else {
        raw.error(errors, "function", "must be schema.name, each of 1 to 63 bytes");
        return None;
    };
    if !sources.iter().any(|source| source.schema == name.schema) {
        let message =
            format!("no source fills the schema `{}`; a report reads a schema of the system", name.schema.as_str());
        raw.error(errors, "function", message);
    }
    Some(name)
}

/// `columns = { company = "text", weight = "percent" }`
fn columns(raw: &Section<'_>, errors: &mut ConfigErrors) -> Vec<ReportColumn> {
    let expected = "required: the columns to show, each with its format: text, number, percent or time";
    let Some(section) = raw.section(errors, "columns") else {
        if raw.value("columns").is_none() {
            raw.error(errors, "columns", expected);
        }
        return Vec::new();
    };
    let mut entries: Vec<_> = section.entries().collect();
    entries.sort_by_key(|(_, value)| value.span().start);
    if entries.is_empty() || entries.len() > COLUMNS_MAX {
        raw.error(errors, "columns", format!("1 to {COLUMNS_MAX} columns"));
    }
    let mut columns = Vec::new();
    for (key, value) in entries {
        let format = value.get_ref().as_str().and_then(|text| FORMATS.iter().find(|(name, _)| *name == text));
        match (Identifier::exact(key), format) {
            (Some(name), Some((_, format))) => columns.push(ReportColumn { name, format: *format }),
            (None, _) => errors.add(value.span(), &section.key(key), "names of columns are 1 to 63 bytes"),
            (Some(_), None) => {
                errors.add(value.span(), &section.key(key), "must be \"text\", \"number\", \"percent\" or \"time\"");
            }
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const SOURCE: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n";

    #[test]
    fn reports_and_their_columns_are_in_the_order_of_the_file() {
        let text = "[report.own_news]\nfunction = \"s.news\"\n\
                    columns = { published_at = \"time\", company = \"text\", a = \"percent\", b = \"number\" }\n";
        let second = "[report.a]\nfunction = \"s.a\"\ncolumns = { a = \"text\" }\n";
        let config = Config::parse("m.toml", &format!("{SOURCE}{text}{second}")).unwrap();
        assert_eq!(config.reports.iter().map(|report| &*report.name).collect::<Vec<_>>(), ["own_news", "a"]);
        let report = &config.reports[0];
        assert_eq!((&*report.title, report.function.unquoted()), ("own news", "s.news".to_owned()));
        let columns: Vec<_> = report.columns.iter().map(|column| (column.name.as_str(), column.format)).collect();
        let expected = [
            ("published_at", ColumnFormat::Time),
            ("company", ColumnFormat::Text),
            ("a", ColumnFormat::Percent),
            ("b", ColumnFormat::Number),
        ];
        assert_eq!(columns, expected);
    }

    #[test]
    fn mistakes_are_reported_with_their_position() {
        let columns = "columns = { a = \"text\" }\n";
        for (report, part) in [
            (format!("[report.\"A b\"]\nfunction = \"s.f\"\n{columns}"), "m.toml:4:9: report.A b: names of reports"),
            (format!("[report.r]\n{columns}"), "report.r.function: required"),
            (format!("[report.r]\nfunction = \"f\"\n{columns}"), "m.toml:5:12: report.r.function: must be schema.name"),
            (format!("[report.r]\nfunction = \"t.f\"\n{columns}"), "no source fills the schema `t`"),
            ("[report.r]\nfunction = \"s.f\"\n".to_owned(), "report.r.columns: required"),
            ("[report.r]\nfunction = \"s.f\"\ncolumns = {}\n".to_owned(), "report.r.columns: 1 to 12"),
            ("[report.r]\nfunction = \"s.f\"\ncolumns = { a = \"date\" }\n".to_owned(), "report.r.columns.a: must be"),
        ] {
            let message = Config::parse("m.toml", &format!("{SOURCE}{report}")).map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(part), "{part} is missing in:\n{message}");
        }
    }
}
