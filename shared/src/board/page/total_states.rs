//! The totals: whether they are exact, and by how much the last recompute found them to be off.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{BoardSection, SectionWidth, View, text};
use crate::board::snapshot::totals::TotalStatus;

/// The section; `None` if no total is configured.
pub fn section(view: &View<'_>) -> Option<BoardSection> {
    if view.config.totals.is_empty() {
        return None;
    }
    let panel = &view.snapshot.total_states;
    let state = |name: &str| panel.value.as_ref().and_then(|states| states.get(name));
    let totals = || view.config.totals.iter().map(|total| total.name.as_str());
    Some(BoardSection {
        id: "totals".to_owned(),
        heading: "Totals".to_owned(),
        note: html! {},
        body: html! {
            @if let Some(error) = &panel.error { p.problem { "Not refreshed: " (text::prose(error)) } }
            div.scroll tabindex="0" role="region" aria-label="totals" {
                table {
                    thead { tr { th { "total" } th { "was off by" } th { "recomputed" } th.n { "groups, about" } th.n { "pending" } } }
                    tbody { @for name in totals() { (row(view, name, state(name))) } }
                }
            }
        },
        width: SectionWidth::Half,
        data: totals().map(|name| data(name, state(name))).collect(),
    })
}

fn row(view: &View<'_>, name: &str, state: Option<&TotalStatus>) -> Markup {
    html! {
        tr {
            th scope="row" { (text::name(name)) }
            @match state {
                None => td colspan="4" { span.dim { "not ready" } },
                Some(state) => {
                    td { (off_by(state)) }
                    td {
                        @match state.recomputed_at {
                            Some(at) => { (text::time(at, view.now)) }
                            None => { span.dim { "never" } }
                        }
                        @if let Some(seconds) = state.recompute_seconds { ", took " (format!("{seconds:.1} s")) }
                    }
                    td.n { (text::count(state.groups)) }
                    td.n { (text::count(state.pending)) }
                }
            }
        }
    }
}

fn off_by(state: &TotalStatus) -> Markup {
    html! {
        @if !state.is_ready {
            strong.tag.note { "being built" }
        } @else if state.broken > 0 {
            strong.tag.act { "waits for a recompute" }
        } @else {
            @match state.off_by {
                Some(0) => span.ok { "✓ nothing" },
                Some(groups) => strong.tag.note { (text::plural(groups, "group")) " (corrected)" },
                None => span.dim { "not checked yet" },
            }
        }
    }
}

fn data(name: &str, state: Option<&TotalStatus>) -> Value {
    json!({
        "name": name,
        "ready": state.is_some_and(|state| state.is_ready),
        "broken": state.map(|state| state.broken),
        "off_by": state.and_then(|state| state.off_by),
        "recomputed_at": state.and_then(|state| state.recomputed_at).map(|at| at.to_string()),
        "recompute_seconds": state.and_then(|state| state.recompute_seconds),
        "groups": state.map(|state| state.groups),
        "pending": state.map(|state| state.pending),
    })
}
