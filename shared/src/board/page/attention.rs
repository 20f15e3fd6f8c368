//! One sentence: what needs attention, most urgent first. Each item leads to its section.

use maud::html;
use serde_json::{Value, json};

use super::sources::SourceState;
use super::{BoardSection, SectionWidth, View, money, text};
use crate::board::auth::Role;
use crate::board::snapshot::Panel;

/// So many items are listed; the others are counted.
const ITEMS_MAX: usize = 8;

/// Something that needs attention.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttentionItem {
    /// The section that it leads to.
    pub section: String,
    /// What or who.
    pub subject: String,
    /// What is the matter.
    pub problem: String,
}

fn item(section: &str, subject: &str, problem: impl Into<String>) -> AttentionItem {
    AttentionItem { section: section.to_owned(), subject: subject.to_owned(), problem: problem.into() }
}

/// What needs the viewer's attention, most urgent first.
pub fn items(view: &View<'_>) -> Vec<AttentionItem> {
    let mut items = Vec::new();
    totals_over_limit(view, &mut items);
    if view.has_role(Role::Operator) {
        late_sources(view, &mut items);
        rejections(view, &mut items);
        inexact_totals(view, &mut items);
        tables_without_partitions_ahead(view, &mut items);
        failed_panels(view, &mut items);
    }
    items
}

fn totals_over_limit(view: &View<'_>, items: &mut Vec<AttentionItem>) {
    for total in &view.config.totals {
        let figures = money::panel(view, total).and_then(|panel| panel.value.as_ref());
        for group in figures.map(|figures| money::groups_over_limit(total, figures)).unwrap_or_default() {
            items.push(item(&format!("total-{}", total.name.as_str()), group, "is over its limit"));
        }
    }
}

fn late_sources(view: &View<'_>, items: &mut Vec<AttentionItem>) {
    for source in view.snapshot.sources.value.as_deref().unwrap_or_default() {
        if let Some(problem) = SourceState::new(source, view.now).problem() {
            items.push(item("sources", &source.name, problem));
        }
    }
}

/// Those of the last 24 hours: whether they have been redriven is known to the queue alone.
fn rejections(view: &View<'_>, items: &mut Vec<AttentionItem>) {
    let Some(summary) = &view.snapshot.rejections.value else { return };
    let count: i64 = summary.counts.values().sum();
    if count > 0 {
        let problem = if count == 1 { "was rejected" } else { "were rejected" };
        items.push(item("rejections", &text::plural(count, "record"), problem));
    }
}

fn inexact_totals(view: &View<'_>, items: &mut Vec<AttentionItem>) {
    for (name, state) in view.snapshot.total_states.value.iter().flatten() {
        match state.off_by {
            _ if state.broken > 0 => items.push(item("totals", name, "waits for a recompute")),
            Some(groups) if groups > 0 => {
                items.push(item("totals", name, format!("was off by {}", text::plural(groups, "group"))));
            }
            Some(_) | None => {}
        }
    }
}

fn tables_without_partitions_ahead(view: &View<'_>, items: &mut Vec<AttentionItem>) {
    let mut names = Vec::new();
    for table in view.snapshot.tables.value.as_deref().unwrap_or_default() {
        if table.partitions.is_some_and(|partitions| partitions > 0) && table.partitions_ahead == 0 {
            names.push(format!("{}.{}", table.schema, table.name));
        }
    }
    let problem = "without a partition ahead: is maintain running?";
    match &names[..] {
        [] => {}
        [name] => items.push(item("tables", name, format!("is {problem}"))),
        [_, _, ..] => {
            let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
            items.push(item("tables", &text::plural(count, "table"), format!("are {problem}")));
        }
    }
}

fn failed_panels(view: &View<'_>, items: &mut Vec<AttentionItem>) {
    fn failed<T>(panel: &Panel<T>) -> bool {
        panel.error.is_some() && panel.value.is_some()
    }
    let snapshot = view.snapshot;
    let panels = [
        ("sources", failed(&snapshot.sources)),
        ("rejections", failed(&snapshot.rejections)),
        ("totals", failed(&snapshot.total_states)),
        ("tables", failed(&snapshot.tables) || failed(&snapshot.changes)),
    ];
    for (section, _) in panels.iter().filter(|(_, failed)| *failed) {
        items.push(item(section, section, "could not be refreshed"));
    }
    for (name, panel) in &snapshot.totals {
        if failed(panel) {
            items.push(item(&format!("total-{name}"), name, "could not be refreshed"));
        }
    }
}

/// The section.
pub fn section(view: &View<'_>) -> BoardSection {
    let items = items(view);
    let more = items.len().saturating_sub(ITEMS_MAX);
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let as_json = |item: &AttentionItem| -> Value {
        json!({"section": item.section, "subject": item.subject, "problem": item.problem})
    };
    BoardSection {
        id: "attention".to_owned(),
        heading: String::new(),
        note: html! {},
        body: html! {
            @if view.snapshot.at.is_none() {
                p { "Nothing has been read from the database yet." }
            } @else if items.is_empty() {
                p { span.ok { "✓" } " Nothing needs attention." }
            } @else {
                p.todo {
                    strong { (text::plural(count, "thing")) @if count == 1 { " needs" } @else { " need" } " attention: " }
                    @for (index, item) in items.iter().take(ITEMS_MAX).enumerate() {
                        @if index > 0 { " · " }
                        a href={ "#" (item.section) } { (text::name(&item.subject)) " " (item.problem) }
                    }
                    @if more > 0 { " · and " (more) " more" }
                }
            }
        },
        width: SectionWidth::Full,
        data: items.iter().map(as_json).collect(),
    }
}
