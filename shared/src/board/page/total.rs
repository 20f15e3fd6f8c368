//! A total by itself: its worst groups, each part as a row.

use maud::{Markup, html};

use super::money::{PartRow, is_over_limit, part_rows};
use super::{BoardSection, Page, SectionWidth, View, money, text};
use crate::board::auth::Role;
use crate::config::TotalConfig;

/// The page.
pub const PAGE: Page = Page { path: "/totals/*", title: "total", role: Role::Decision, sections };

/// So many rows keep the page under 40 kB.
const ROWS_MAX: usize = 120;

fn sections(view: &View<'_>) -> Option<Vec<BoardSection>> {
    let name = view.argument?;
    let total = view.config.totals.iter().find(|total| total.name.as_str() == name && total.board.is_some())?;
    Some(vec![section(view, total)])
}

fn section(view: &View<'_>, total: &TotalConfig) -> BoardSection {
    let figures = money::panel(view, total).and_then(|panel| panel.value.as_ref());
    let rows: Vec<PartRow<'_>> = figures.map(part_rows).unwrap_or_default();
    let group_count = figures.map_or(0, |figures| figures.group_count);
    let listed = rows.iter().take(ROWS_MAX).map(|row| row.group).fold(Vec::new(), |mut groups: Vec<&str>, group| {
        if groups.last() != Some(&group) {
            groups.push(group);
        }
        groups
    });
    BoardSection {
        id: "total".to_owned(),
        heading: total.name.as_str().to_owned(),
        note: html! { (money::meaning(total)) "; the worst " (listed.len()) " of " (text::count(group_count)) },
        body: html! { (money::problem(view, total)) (table(total, &rows)) },
        width: SectionWidth::Full,
        data: money::data(view, total),
    }
}

fn table(total: &TotalConfig, rows: &[PartRow<'_>]) -> Markup {
    let has_kept = total.board.as_ref().is_some_and(|board| board.worst.is_some());
    html! {
        div.scroll tabindex="0" role="region" aria-label="groups and their parts" {
            table {
                thead { tr {
                    th { "group" } th { "part" } th.n { (money::value_name(total)) } th.n { "share" }
                    @if has_kept { th.n { "kept if it wins" } }
                } }
                tbody {
                    @for row in rows.iter().take(ROWS_MAX) {
                        tr {
                            th scope="row" {
                                (text::name(row.group))
                                @if is_over_limit(total, row.part) { " " strong.tag.act { "over its limit" } }
                            }
                            td { (text::name(&row.part.name)) }
                            td.n { (money::figure(row.part.value.as_deref())) }
                            td.n { (money::percent(row.share)) }
                            @if has_kept { td.n { (money::kept(row.part)) } }
                        }
                    }
                }
            }
        }
    }
}
