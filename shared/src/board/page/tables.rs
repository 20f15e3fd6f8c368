//! The tables with their sizes and partitions, and the latest schema changes.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{BoardSection, SectionWidth, View, text};
use crate::board::snapshot::activity::ChangeEvent;
use crate::board::snapshot::tables::SourceTable;

/// So many tables are listed, the largest ones.
const TABLES_MAX: usize = 25;

/// The section.
pub fn section(view: &View<'_>) -> BoardSection {
    let panel = &view.snapshot.tables;
    let tables = panel.value.as_deref().unwrap_or_default();
    let changes = view.snapshot.changes.value.as_deref().unwrap_or_default();
    BoardSection {
        id: "tables".to_owned(),
        heading: "Tables and schema".to_owned(),
        note: html! {
            @if let Some(at) = panel.read_at { "estimates, read " (text::ago(at, view.now)) }
            @if tables.len() > TABLES_MAX { "; the largest " (TABLES_MAX) }
        },
        body: html! {
            @if let Some(error) = &panel.error {
                p.problem { "Not refreshed: " (text::prose(error)) }
            } @else if tables.is_empty() {
                p.dim { "No tables yet." }
            }
            @if !tables.is_empty() {
                div.scroll tabindex="0" role="region" aria-label="tables" {
                    table {
                        thead { tr { th { "table" } th.n { "rows, about" } th.n { "size" } th { "partitions" } } }
                        tbody { @for table in tables.iter().take(TABLES_MAX) { (row(table)) } }
                    }
                }
            }
            (changes_list(view, changes))
        },
        width: SectionWidth::Half,
        data: json!({
            "tables": tables.iter().map(table_json).collect::<Vec<_>>(),
            "changes": changes.iter().map(change_json).collect::<Vec<_>>(),
            "error": panel.error,
        }),
    }
}

fn row(table: &SourceTable) -> Markup {
    html! {
        tr {
            th scope="row" { (text::name(&format!("{}.{}", table.schema, table.name))) }
            td.n { (text::count(table.rows)) }
            td.n { @match table.bytes {
                Some(bytes) => { (text::bytes(bytes)) }
                None => { span.dim { "not known" } }
            } }
            td { @match table.partitions {
                Some(partitions) => { (text::count(partitions)) ", " (text::count(table.partitions_ahead)) " ahead" }
                None => { span.dim { "not partitioned" } }
            } }
        }
    }
}

fn changes_list(view: &View<'_>, changes: &[ChangeEvent]) -> Markup {
    html! {
        details {
            summary { "Latest changes of the schema" }
            @if let Some(error) = &view.snapshot.changes.error { p.problem { "Not refreshed: " (text::prose(error)) } }
            @if changes.is_empty() { p.dim { "None recorded." } }
            ul.changes {
                @for change in changes {
                    li {
                        (text::time(change.at, view.now)) " "
                        @if let Some(relation) = &change.relation { (text::name(relation)) " " }
                        code { (text::prose(&change.detail)) }
                    }
                }
            }
        }
    }
}

fn table_json(table: &SourceTable) -> Value {
    json!({
        "schema": table.schema, "name": table.name, "rows": table.rows, "bytes": table.bytes,
        "partitions": table.partitions, "partitions_ahead": table.partitions_ahead,
    })
}

fn change_json(change: &ChangeEvent) -> Value {
    json!({"at": change.at.to_string(), "kind": change.kind, "relation": change.relation, "detail": change.detail})
}
