//! Dead letters: what was rejected within a day, by reason, with the newest example of each. No payloads.

use maud::{Markup, html};
use serde_json::json;

use super::{BoardSection, SectionWidth, View, text};
use crate::board::snapshot::activity::RejectionExample;

/// The section.
pub fn section(view: &View<'_>) -> BoardSection {
    let panel = &view.snapshot.rejections;
    let summary = panel.value.clone().unwrap_or_default();
    let total: i64 = summary.counts.values().sum();
    let examples = || {
        let newest =
            |reason: &str| summary.newest.iter().filter(|example| example.reason == reason).collect::<Vec<_>>();
        summary.counts.iter().map(|(reason, count)| (reason.as_str(), *count, newest(reason))).collect::<Vec<_>>()
    };
    let example_json = |example: &RejectionExample| {
        json!({
            "reason": example.reason, "at": example.at.to_string(), "source": example.source, "table": example.relation,
            "detail": example.detail, "position": example.position,
        })
    };
    BoardSection {
        id: "rejections".to_owned(),
        heading: "Dead letters".to_owned(),
        note: html! { @if panel.value.is_some() { (text::count(total)) " in 24 hours" } },
        body: html! {
            @if let Some(error) = &panel.error {
                p.problem { "Not refreshed: " (text::prose(error)) }
            } @else if panel.value.is_none() {
                p.dim { "Nothing has been read yet." }
            } @else if total == 0 {
                p { span.ok { "✓ none" } }
            }
            @if total > 0 {
                div.scroll tabindex="0" role="region" aria-label="dead letters" {
                    table.cards {
                        thead { tr { th { "reason" } th.n { "24 h" } th { "newest" } th { "table" } th { "where and why" } } }
                        tbody { @for (reason, count, newest) in examples() { (rows(view, reason, count, &newest)) } }
                    }
                }
                p.dim { "Payloads are not shown here: " code { "millstream redrive --dry-run" } }
            }
        },
        width: SectionWidth::Full,
        data: json!({
            "counts": summary.counts,
            "newest": summary.newest.iter().map(example_json).collect::<Vec<_>>(),
            "error": panel.error,
        }),
    }
}

/// One row per table that rejected records for this reason; the count is that of the reason.
fn rows(view: &View<'_>, reason: &str, count: i64, newest: &[&RejectionExample]) -> Markup {
    html! {
        @if newest.is_empty() {
            tr { th scope="row" { (text::name(reason)) } td.n { (text::count(count)) } td colspan="3" { span.dim { "no example kept" } } }
        }
        @for (index, example) in newest.iter().enumerate() {
            tr {
                th scope="row" { (text::name(reason)) }
                td.n { @if index == 0 { (text::count(count)) } }
                td.when { (text::time(example.at, view.now)) }
                td { @match &example.relation {
                    Some(relation) => { (text::name(relation)) }
                    None => { span.dim { "none" } }
                } }
                td.why {
                    (text::prose(&example.detail))
                    @if let Some(position) = &example.position { br; span.dim { (text::name(position)) } }
                }
            }
        }
    }
}
