//! The pages: each is an address, the role that may open it, and a function from a view to sections. Pure: no client, no clock.
//!
//! To add a page, write a module with a [`Page`] and add it to [`PAGES`].

mod attention;
mod chart;
pub mod chrome;
mod money;
mod overview;
mod rejections;
mod reports;
mod sources;
mod tables;
mod text;
mod total;
mod total_states;

use maud::Markup;
use serde_json::Value;
use url::form_urlencoded;

use super::auth::{Role, Viewer};
use super::snapshot::{ReadFailure, Snapshot};
use crate::config::Config;
use crate::timestamp::Timestamp;

/// A page.
pub struct Page {
    /// Its address; one that ends in `/*` has an argument.
    pub path: &'static str,
    /// Its title.
    pub title: &'static str,
    /// The role that may open it.
    pub role: Role,
    /// Its sections; `None` if the argument names nothing.
    pub sections: fn(&View<'_>) -> Option<Vec<BoardSection>>,
}

/// All pages. The first one that a role may open is its home.
static PAGES: [&Page; 3] = [&overview::PAGE, &total::PAGE, &reports::PAGE];

/// What a page is made from.
pub struct View<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// What was read from the database.
    pub snapshot: &'a Snapshot,
    /// Who looks.
    pub viewer: &'a Viewer,
    /// What follows the page's address.
    pub argument: Option<&'a str>,
    /// The current time by the database's clock.
    pub now: Timestamp,
    /// Set if the figures are older than they should be.
    pub not_refreshed_since: Option<ReadFailure>,
}

/// A part of a page, which is replaced as a whole when it changes.
pub struct BoardSection {
    /// Its name within the page, and its anchor.
    pub id: String,
    /// Its heading.
    pub heading: String,
    /// What follows the heading, in small print.
    pub note: Markup,
    /// Its content.
    pub body: Markup,
    /// Whether it takes the whole width.
    pub width: SectionWidth,
    /// Its content as JSON.
    pub data: Value,
}

/// The width of a section on a wide screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SectionWidth {
    /// Half of the page.
    Half,
    /// All of it.
    Full,
}

impl View<'_> {
    /// Whether the viewer sees what a role sees.
    fn has_role(&self, role: Role) -> bool {
        self.viewer.role.may_open(role)
    }
}

/// The page at an address, and its argument.
pub fn find(path: &str) -> Option<(&'static Page, Option<String>)> {
    for page in PAGES {
        match page.path.strip_suffix('*') {
            None if page.path == path => return Some((page, None)),
            Some(prefix) => {
                let argument = path.strip_prefix(prefix).filter(|argument| !argument.is_empty());
                if let Some(argument) = argument {
                    return Some((page, decoded(argument)));
                }
            }
            None => {}
        }
    }
    None
}

/// A part of a path without its percent encoding.
fn decoded(part: &str) -> Option<String> {
    // A plus sign stands for itself in a path.
    let escaped = part.replace('+', "%2B").replace(['&', '='], "");
    form_urlencoded::parse(escaped.as_bytes()).next().map(|(name, _)| name.into_owned())
}

/// The page that a role sees first.
pub fn home(role: Role) -> Option<&'static str> {
    PAGES.iter().find(|page| !page.path.ends_with('*') && role.may_open(page.role)).map(|page| page.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_its_page_with_its_argument() {
        let found = |path: &str| find(path).map(|(page, argument)| (page.path, argument));
        assert_eq!(found("/"), Some(("/", None)));
        assert_eq!(found("/totals/a%20%2Fb+c"), Some(("/totals/*", Some("a /b+c".to_owned()))));
        for path in ["", "/totals/", "/totals", "/other", "//"] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn each_role_has_a_home() {
        assert_eq!(Role::ALL.map(home), [Some("/"), Some("/"), Some("/me")]);
    }
}
