//! The first page: for those who decide, the totals; for operators, also the state of the system.

use super::{BoardSection, Page, View, attention, money, rejections, sources, tables, total_states};
use crate::board::auth::Role;

/// The page.
pub const PAGE: Page = Page { path: "/", title: "overview", role: Role::Decision, sections };

fn sections(view: &View<'_>) -> Option<Vec<BoardSection>> {
    let mut all = vec![attention::section(view)];
    for total in view.config.totals.iter().filter(|total| total.board.is_some()) {
        all.push(money::section(view, total));
        all.extend(money::minutes(view, total));
    }
    if view.has_role(Role::Operator) {
        all.push(sources::section(view));
        all.push(rejections::section(view));
        all.extend(total_states::section(view));
        all.push(tables::section(view));
    }
    Some(all)
}
