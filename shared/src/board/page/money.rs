//! A total on the board: per group (a game) the figure of each part (a side), its share, and what is kept if that part wins. The worst
//! group comes first, and one beyond its limit says so.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::chart::{self, Line};
use super::{BoardSection, SectionWidth, View, text};
use crate::board::snapshot::Panel;
use crate::board::snapshot::totals::{GroupFigures, MinuteSeries, PartFigures, TotalFigures};
use crate::config::{TotalBoard, TotalConfig};
use crate::timestamp::Timestamp;

/// So many groups are on the first page.
const GROUPS_MAX: usize = 12;
/// So many parts of a group are on the first page.
const PARTS_MAX: usize = 6;
/// So many lines fit a chart.
const LINES_MAX: usize = 3;

const HOUR_MICROS: i64 = 3_600_000_000;

/// A part of a group with its share.
pub struct PartRow<'f> {
    /// The group.
    pub group: &'f str,
    /// The part.
    pub part: &'f PartFigures,
    /// Its share of the group, if all parts are positive.
    pub share: Option<f64>,
}

/// The panel of a total.
pub fn panel<'a>(view: &View<'a>, total: &TotalConfig) -> Option<&'a Panel<TotalFigures>> {
    view.snapshot.totals.get(total.name.as_str())
}

fn number(figure: Option<&str>) -> Option<f64> {
    figure.and_then(|figure| figure.parse().ok())
}

/// An exact figure, rounded for display.
pub fn figure(exact: Option<&str>) -> Markup {
    match number(exact) {
        Some(value) => html! { (text::amount(value)) },
        None => html! { span.dim { "none" } },
    }
}

/// A share in percent.
pub fn percent(share: Option<f64>) -> Markup {
    match share {
        Some(share) => html! { (format!("{:.0} %", share * 100.0)) },
        None => html! { span.dim { "—" } },
    }
}

/// What is kept if a part wins, with its sign.
pub fn kept(part: &PartFigures) -> Markup {
    match number(part.kept.as_deref()) {
        Some(value) if value < 0.0 => html! { b.neg { (text::signed_amount(value)) } },
        Some(value) => html! { b.pos { (text::signed_amount(value)) } },
        None => html! { span.dim { "not known" } },
    }
}

fn board(total: &TotalConfig) -> Option<&TotalBoard> {
    total.board.as_ref()
}

/// The value's name with its unit.
pub fn value_name(total: &TotalConfig) -> String {
    let value = board(total).map_or("", |board| &board.value);
    match board(total).and_then(|board| board.unit.as_deref()) {
        Some(unit) => format!("{value}, {unit}"),
        None => value.to_owned(),
    }
}

/// What the figures mean, in a few words.
pub fn meaning(total: &TotalConfig) -> Markup {
    let worst = board(total).is_some_and(|board| board.worst.is_some());
    let unit = board(total).and_then(|board| board.unit.as_deref());
    html! {
        (text::name(board(total).map_or("", |board| &board.value)))
        @if let Some(unit) = unit { " in " (text::name(unit)) }
        @if worst { ", and what is kept if it wins; worst first" } @else { "; largest first" }
    }
}

/// Whether what is kept is less than the limit.
pub fn is_over_limit(total: &TotalConfig, part: &PartFigures) -> bool {
    let limit = board(total).and_then(|board| board.limit);
    limit.zip(number(part.kept.as_deref())).is_some_and(|(limit, kept)| kept < limit)
}

/// The groups beyond their limit, worst first.
pub fn groups_over_limit<'f>(total: &TotalConfig, figures: &'f TotalFigures) -> Vec<&'f str> {
    let over = |group: &&GroupFigures| group.parts.iter().any(|part| is_over_limit(total, part));
    figures.groups.iter().filter(over).map(|group| group.name.as_str()).collect()
}

/// Every part with its share.
pub fn part_rows(figures: &TotalFigures) -> Vec<PartRow<'_>> {
    let mut rows = Vec::new();
    for group in &figures.groups {
        for part in &group.parts {
            rows.push(PartRow { group: &group.name, part, share: share(group, part) });
        }
    }
    rows
}

/// A share says nothing where figures are negative.
fn share(group: &GroupFigures, part: &PartFigures) -> Option<f64> {
    let values: Vec<f64> = group.parts.iter().map(|part| number(part.value.as_deref()).unwrap_or(0.0)).collect();
    let whole: f64 = values.iter().sum();
    let is_share = whole.is_finite() && whole > 0.0 && values.iter().all(|value| *value >= 0.0);
    number(part.value.as_deref()).filter(|_| is_share).map(|value| value / whole)
}

/// Why a total's figures are missing or may be old.
pub fn problem(view: &View<'_>, total: &TotalConfig) -> Markup {
    let panel = panel(view, total);
    let states = view.snapshot.total_states.value.as_ref();
    let is_known = states.is_some_and(|states| states.get(total.name.as_str()).is_some_and(|state| state.is_ready));
    html! {
        @match panel {
            None => p.problem { "No figures have been read yet." }
            Some(panel) => {
                @if let Some(error) = &panel.error {
                    p.problem {
                        @if is_known { "These figures could not be refreshed: " } @else { "This total is not ready: " }
                        (text::prose(error))
                    }
                } @else if panel.value.as_ref().is_some_and(|figures| figures.groups.is_empty()) {
                    p.dim { "No rows yet." }
                }
            }
        }
    }
}

/// The section of a total.
pub fn section(view: &View<'_>, total: &TotalConfig) -> BoardSection {
    let figures = panel(view, total).and_then(|panel| panel.value.as_ref());
    let name = total.name.as_str();
    let (groups, group_count) = figures.map_or((&[][..], 0), |figures| (&figures.groups[..], figures.group_count));
    let path = format!("/totals/{}", encoded(name));
    BoardSection {
        id: format!("total-{name}"),
        heading: name.to_owned(),
        note: html! { (meaning(total)) " · " a href=(path) { "all " (text::count(group_count)) } },
        body: html! {
            (problem(view, total))
            ol.groups { @for group in groups.iter().take(GROUPS_MAX) { (group_item(total, group)) } }
        },
        width: SectionWidth::Full,
        data: data(view, total),
    }
}

fn encoded(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn group_item(total: &TotalConfig, group: &GroupFigures) -> Markup {
    let values = group.parts.iter().filter_map(|part| number(part.value.as_deref()));
    let largest = values.fold(0.0, f64::max);
    let width = |part: &PartFigures| number(part.value.as_deref()).map_or(0.0, |value| value / largest);
    let has_kept = board(total).is_some_and(|board| board.worst.is_some());
    let more = group.parts.len().saturating_sub(PARTS_MAX);
    html! {
        li.group {
            h3 {
                (text::name(&group.name))
                @if group.parts.iter().any(|part| is_over_limit(total, part)) { " " strong.tag.act { "over its limit" } }
            }
            dl {
                @for (index, part) in group.parts.iter().take(PARTS_MAX).enumerate() {
                    div.row {
                        dt { (text::name(&part.name)) }
                        dd.bar { (chart::bar(index, width(part))) }
                        dd.n { (figure(part.value.as_deref())) " " span.dim { (percent(share(group, part))) } }
                        @if has_kept { dd.n { (kept(part)) } }
                    }
                }
            }
            @if more > 0 { p.dim { "and " (more) " more" } }
        }
    }
}

/// A total as JSON, its figures exact.
pub fn data(view: &View<'_>, total: &TotalConfig) -> Value {
    let panel = panel(view, total);
    let part = |part: &PartFigures| json!({"name": part.name, "value": part.value, "kept": part.kept, "over_limit": is_over_limit(total, part)});
    let group = |group: &GroupFigures| json!({"name": group.name, "whole": group.whole, "parts": group.parts.iter().map(part).collect::<Vec<_>>()});
    let figures = panel.and_then(|panel| panel.value.as_ref());
    json!({
        "total": total.name.as_str(),
        "value": board(total).map(|board| &board.value),
        "unit": board(total).and_then(|board| board.unit.as_deref()),
        "limit": board(total).and_then(|board| board.limit),
        "read_at": panel.and_then(|panel| panel.read_at).map(|at| at.to_string()),
        "error": panel.and_then(|panel| panel.error.as_deref()),
        "group_count": figures.map(|figures| figures.group_count),
        "groups": figures.map(|figures| figures.groups.iter().map(group).collect::<Vec<_>>()),
    })
}

/// What was added to the worst group in each of the last 60 minutes.
pub fn minutes(view: &View<'_>, total: &TotalConfig) -> Option<BoardSection> {
    let figures = panel(view, total)?.value.as_ref()?;
    let first = figures.groups.first()?;
    let history = view.snapshot.histories.get(total.name.as_str());
    let (series, since) = match &figures.minutes {
        Some(minutes) => (minutes.clone(), None),
        None => (history?.series(first, view.now), history?.since()),
    };
    let series: Vec<&MinuteSeries> = series.iter().take(LINES_MAX).collect();
    let is_known = series.iter().any(|series| series.added.iter().any(Option::is_some));
    let from = Timestamp(view.now.0 - HOUR_MICROS);
    let begins_late = since.filter(|since| *since > from);
    let lines: Vec<Line<'_>> = series.iter().map(|series| Line { name: &series.name, values: &series.added }).collect();
    let as_json = |series: &&MinuteSeries| json!({"part": series.name, "added": series.added});
    Some(BoardSection {
        id: format!("minutes-{}", total.name.as_str()),
        heading: "By minute".to_owned(),
        note: html! {
            (text::name(&first.name)) ", " (text::name(&value_name(total))) " a minute"
            @if let Some(since) = begins_late { ", recorded since " (text::clock_minute(since)) " UTC" }
        },
        body: html! {
            @if is_known {
                figure.chart { (chart::lines(&lines, &text::clock_minute(from), &text::clock_minute(view.now))) }
            } @else {
                p.dim { "Nothing is known yet: a minute has to pass first." }
            }
        },
        width: SectionWidth::Full,
        data: json!({"group": first.name, "series": series.iter().map(as_json).collect::<Vec<_>>()}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, value: &str, kept: &str) -> PartFigures {
        PartFigures { name: name.to_owned(), value: Some(value.to_owned()), kept: Some(kept.to_owned()) }
    }

    #[test]
    fn shares_add_up_and_say_nothing_of_negative_figures() {
        let group = |values: [&str; 2]| GroupFigures {
            name: "g".to_owned(),
            whole: None,
            parts: values.map(|value| part("p", value, "0")).into(),
        };
        let shares = |group: &GroupFigures| group.parts.iter().map(|part| share(group, part)).collect::<Vec<_>>();
        assert_eq!(shares(&group(["30", "10"])), [Some(0.75), Some(0.25)]);
        assert_eq!(shares(&group(["30", "-10"])), [None, None]);
        assert_eq!(shares(&group(["0", "0"])), [None, None]);
    }

    #[test]
    fn figures_that_are_not_known_are_words() {
        let unknown = PartFigures { name: String::new(), value: None, kept: Some("NaN".to_owned()) };
        assert_eq!(figure(None).into_string(), "<span class=\"dim\">none</span>");
        assert!(kept(&unknown).into_string().contains('—'));
    }
}
