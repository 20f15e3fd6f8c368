//! A user's own page: the configured reports about that user, and about nobody else. No address names a user; who it is, the
//! verified token or session says.

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::{BoardSection, Page, SectionWidth, View, text};
use crate::board::auth::Role;
use crate::board::snapshot::Panel;
use crate::board::snapshot::reports::ReportRows;
use crate::config::{ColumnFormat, ReportColumn, ReportConfig};
use crate::timestamp::Timestamp;

/// The page.
pub const PAGE: Page = Page { path: "/me", title: "your reports", role: Role::User, sections };

/// The rows of all reports together take so many bytes of markup, which keeps the page under 40 kB.
const ROWS_BYTES_MAX: usize = 26_000;

fn sections(view: &View<'_>) -> Option<Vec<BoardSection>> {
    let reports = &view.config.reports;
    let share = ROWS_BYTES_MAX / reports.len().max(1);
    (!reports.is_empty()).then(|| reports.iter().map(|report| section(view, report, share)).collect())
}

fn section(view: &View<'_>, report: &ReportConfig, bytes_max: usize) -> BoardSection {
    let panel = view.snapshot.reports.get(&report.name);
    let found = panel.and_then(|panel| panel.value.as_ref());
    let (rows, shown) = found.map_or_else(Default::default, |found| rows(view, report, found, bytes_max));
    let is_cut = found.is_some_and(|found| found.has_more || shown < found.rows.len());
    BoardSection {
        id: format!("report-{}", report.name),
        heading: report.title.clone(),
        note: html! { @if is_cut { "the first " (shown) } },
        body: html! {
            (problem(panel))
            @if shown > 0 { (table(report, &rows)) }
        },
        width: SectionWidth::Full,
        data: data(report, panel),
    }
}

/// Why rows are missing or may be old. The cause is for operators, and in the log.
fn problem(panel: Option<&Panel<ReportRows>>) -> Markup {
    let found = panel.and_then(|panel| panel.value.as_ref());
    let has_failed = panel.is_some_and(|panel| panel.error.is_some());
    html! {
        @match (found, has_failed) {
            (Some(_), true) => p.problem { "This could not be refreshed; it is tried again." },
            (None, true) => p.problem { "This cannot be read at the moment; it is tried again." },
            (None, false) => p.dim { "Nothing has been read yet." },
            (Some(found), false) => @if found.rows.is_empty() { p.dim { "Nothing to show." } },
        }
    }
}

/// The rows that fit, and how many they are.
fn rows(view: &View<'_>, report: &ReportConfig, found: &ReportRows, bytes_max: usize) -> (Vec<Markup>, usize) {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for values in &found.rows {
        let row = html! {
            tr { @for (column, value) in report.columns.iter().zip(values) { (cell(view, column, value.as_deref())) } }
        };
        bytes += row.0.len();
        if bytes > bytes_max && !rows.is_empty() {
            break;
        }
        rows.push(row);
    }
    let shown = rows.len();
    (rows, shown)
}

fn table(report: &ReportConfig, rows: &[Markup]) -> Markup {
    let is_figure = |column: &ReportColumn| matches!(column.format, ColumnFormat::Number | ColumnFormat::Percent);
    html! {
        div.scroll tabindex="0" role="region" aria-label=(text::plain(&report.title)) {
            table {
                thead { tr {
                    @for column in &report.columns {
                        th.n[is_figure(column)] { (text::name(&column.name.as_str().replace('_', " "))) }
                    }
                } }
                tbody { @for row in rows { (row) } }
            }
        }
    }
}

fn cell(view: &View<'_>, column: &ReportColumn, value: Option<&str>) -> Markup {
    let Some(value) = value else { return html! { td { span.dim { "—" } } } };
    match column.format {
        ColumnFormat::Text => html! { td { (text::prose(value)) } },
        ColumnFormat::Number => html! { td.n { (text::decimal(value)) } },
        ColumnFormat::Percent => html! { td.n { (text::percent(value)) } },
        ColumnFormat::Time => match value.parse() {
            Ok(micros) => html! { td { (text::time(Timestamp(micros), view.now)) } },
            Err(_) => html! { td { (text::prose(value)) } },
        },
    }
}

/// A report as JSON: numbers exact, as strings; times in UTC.
fn data(report: &ReportConfig, panel: Option<&Panel<ReportRows>>) -> Value {
    let value = |column: &ReportColumn, value: &Option<String>| match (column.format, value) {
        (_, None) => Value::Null,
        (ColumnFormat::Time, Some(value)) => match value.parse() {
            Ok(micros) => json!(Timestamp(micros).to_string()),
            Err(_) => json!(value),
        },
        (ColumnFormat::Text | ColumnFormat::Number | ColumnFormat::Percent, Some(value)) => json!(value),
    };
    let row = |values: &Vec<Option<String>>| -> Map<String, Value> {
        let columns = report.columns.iter().zip(values);
        columns.map(|(column, found)| (column.name.as_str().to_owned(), value(column, found))).collect()
    };
    let found = panel.and_then(|panel| panel.value.as_ref());
    json!({
        "report": report.name,
        "read_at": panel.and_then(|panel| panel.read_at).map(|at| at.to_string()),
        "could_not_be_refreshed": panel.is_some_and(|panel| panel.error.is_some()),
        "has_more": found.is_some_and(|found| found.has_more),
        "rows": found.map(|found| found.rows.iter().map(row).collect::<Vec<_>>()),
    })
}
