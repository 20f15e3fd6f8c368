//! What is around the sections: the document with its style and script, the page as JSON, what changed since the last time, and
//! the login.
//!
//! A client that has a page sends the tags of its sections in a header of its own, and receives those that differ, or 304. A
//! section's tag is a hash of its content without the ages, which the script counts itself. Nothing is cached, so what one role
//! has seen never reaches another.

use std::sync::LazyLock;

use base64_simd::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use super::text::{self, AGE_END, AGE_START};
use super::{BoardSection, Page, SectionWidth, View, attention};
use crate::board::auth::{Denial, Role};
use crate::board::http::BoardResponse;
use crate::board::snapshot::ReadFailure;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Seconds between two requests of a browser that runs no script.
const REFRESH_SECONDS: u32 = 10;

/// The policy of every response: nothing but this style and this script, no other host, no frame.
pub fn content_security_policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'",
            source_hash(STYLE),
            source_hash(SCRIPT)
        )
    });
    &POLICY
}

fn source_hash(source: &str) -> String {
    format!("sha256-{}", STANDARD.encode_to_string(Sha256::digest(source)))
}

/// A page as HTML.
pub fn document(page: &Page, view: &View<'_>, sections: &[BoardSection], has_logout: bool) -> BoardResponse {
    let items = attention::items(view).len();
    let system = system_name(page, view);
    let title = format!(
        "{}{} · Millstream",
        if items > 0 { format!("({items}) ") } else { String::new() },
        text::plain(&system)
    );
    let body = html! {
        header {
            h1 { @if page.path == "/" || page.role == Role::User { (text::name(&system)) } @else { a href="/" { (text::name(&system)) } } }
            (freshness(view))
            nav aria-label="sections" {
                @for section in sections.iter().filter(|section| !section.heading.is_empty()) {
                    a href={ "#" (section.id) } { (text::name(&section.heading)) }
                }
            }
        }
        main { @for section in sections { (section_markup(section)) } }
        footer {
            p { "Millstream · " (page.title) " · times in UTC · figures of the last seconds, estimates where it says so · role " (view.viewer.role.as_str()) }
            @if has_logout { form method="post" action="/logout" { button type="submit" { "Sign out" } } }
        }
        script { (PreEscaped(SCRIPT)) }
    };
    BoardResponse::html(200, finished(&shell(&title, &body, true)))
        .with_header("x-board-now", now_millis(view))
        .with_header("x-board-layout", layout(sections))
}

/// What the page is about: for users, themselves; for all others, the system.
fn system_name(page: &Page, view: &View<'_>) -> String {
    if page.role == Role::User {
        return page.title.to_owned();
    }
    let sources: Vec<&str> = view.config.sources.iter().map(|source| source.name.as_str()).collect();
    if sources.len() > 3 { format!("{} sources", sources.len()) } else { sources.join(", ") }
}

fn shell(title: &str, body: &Markup, refreshes: bool) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                @if refreshes { noscript { meta http-equiv="refresh" content=(REFRESH_SECONDS); } }
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

/// How old the figures are: above everything else.
fn freshness(view: &View<'_>) -> Markup {
    let content = freshness_content(view);
    html! { p.fresh #fresh data-tag=(tag(&content)) { (content) } }
}

fn freshness_content(view: &View<'_>) -> Markup {
    let commits = view.snapshot.sources.value.as_deref().unwrap_or_default();
    let newest = commits.iter().filter_map(|source| source.last_commit).max();
    html! {
        @match (&view.not_refreshed_since, view.snapshot.at) {
            (Some(failure), Some(at)) => {
                b.stale { "not refreshed since " (text::clock(at, view.now)) ", " (text::ago(at, view.now)) }
                (cause(view, failure))
            }
            (Some(failure), None) => {
                b.stale { "the database could not be read" } (cause(view, failure))
            }
            (None, Some(at)) => {
                b { "as of " (text::clock(at, view.now)) } ", " (text::ago(at, view.now))
                @if let Some(newest) = newest { " · newest commit " (text::ago(newest, view.now)) }
            }
            (None, None) => { b { "nothing has been read yet" } }
        }
        span #polling role="status" {}
    }
}

/// Why the database could not be read. It names the database, which is none of a user's business.
fn cause(view: &View<'_>, failure: &ReadFailure) -> Markup {
    html! { @if view.viewer.role != Role::User { " · " (text::prose(&failure.reason)) } }
}

fn section_markup(section: &BoardSection) -> Markup {
    let content = html! {
        @if !section.heading.is_empty() { h2 { (text::name(&section.heading)) " " span.dim { (section.note) } } }
        (section.body)
    };
    html! {
        section id=(section.id) class=(width_class(section.width)) data-tag=(tag(&content)) { (content) }
    }
}

fn width_class(width: SectionWidth) -> &'static str {
    match width {
        SectionWidth::Half => "half",
        SectionWidth::Full => "full",
    }
}

/// A hash of what does not change by itself.
fn tag(content: &Markup) -> String {
    let mut lasting = String::with_capacity(content.0.len());
    let mut rest = content.0.as_str();
    while let Some((before, age)) = rest.split_once(AGE_START) {
        lasting.push_str(before);
        rest = age.split_once(AGE_END).map_or("", |(_, after)| after);
    }
    lasting.push_str(rest);
    format!("{:016x}", xxh3_64(lasting.as_bytes()))
}

/// A page as text, without the marks around ages.
fn finished(markup: &Markup) -> String {
    markup.0.chars().filter(|c| !matches!(*c, AGE_START | AGE_END)).collect()
}

fn layout(sections: &[BoardSection]) -> String {
    let ids: Vec<&str> = sections.iter().map(|section| section.id.as_str()).collect();
    format!("{:016x}", xxh3_64(ids.join(" ").as_bytes()))
}

fn now_millis(view: &View<'_>) -> String {
    (view.now.0 / 1000).to_string()
}

/// The sections that a client does not have, as HTML. `have` is what it has: `id=tag`, separated by commas.
pub fn changed_sections(view: &View<'_>, sections: &[BoardSection], have: &str) -> BoardResponse {
    let has = |id: &str, markup: &Markup| {
        let tag = markup.0.split_once("data-tag=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(tag, _)| tag);
        tag.is_some_and(|tag| have.split(',').any(|item| item.strip_prefix(id) == Some(&format!("={tag}"))))
    };
    let mut changed = Vec::new();
    let fresh = freshness(view);
    if !has("fresh", &fresh) {
        changed.push(fresh);
    }
    for section in sections {
        let markup = section_markup(section);
        if !has(&section.id, &markup) {
            changed.push(markup);
        }
    }
    let response = if changed.is_empty() {
        BoardResponse::not_modified()
    } else {
        let items = attention::items(view).len();
        let body = html! { @for markup in &changed { (markup) } };
        BoardResponse::html(200, finished(&body)).with_header("x-board-attention", items.to_string())
    };
    response.with_header("x-board-now", now_millis(view)).with_header("x-board-layout", layout(sections))
}

/// A page as JSON.
pub fn json(page: &Page, view: &View<'_>, sections: &[BoardSection]) -> BoardResponse {
    let by_id: Map<String, Value> = sections.iter().map(|section| (section.id.clone(), section.data.clone())).collect();
    let failure = view.not_refreshed_since.as_ref();
    let document = json!({
        "page": page.title,
        "as_of": view.snapshot.at.map(|at| at.to_string()),
        "not_refreshed": failure.map(|failure| match view.viewer.role {
            Role::User => "the database could not be read",
            Role::Operator | Role::Decision => &failure.reason,
        }),
        "sections": by_id,
    });
    BoardResponse::json(200, &document)
}

/// The form that exchanges a token for a session.
pub fn login(status: u16, denial: Denial) -> BoardResponse {
    let message = match denial {
        Denial::NotSignedIn => None,
        Denial::WrongCredentials | Denial::Throttled | Denial::Unavailable => Some(denial.to_string()),
    };
    let body = html! {
        main.login {
            section {
                h1 { "Millstream" }
                form method="post" action="/login" {
                    label for="token" { "Token" }
                    input #token name="token" type="password" autocomplete="current-password" required autofocus;
                    @if let Some(message) = message { p.problem role="alert" { (message) } }
                    button type="submit" { "Sign in" }
                }
            }
        }
    };
    BoardResponse::html(status, finished(&shell("Sign in · Millstream", &body, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;

    #[test]
    fn a_tag_ignores_ages_alone() {
        let at = |seconds: i64, now: i64| {
            let micros = |seconds: i64| Timestamp(seconds * 1_000_000);
            html! { p { (text::ago(micros(seconds), micros(now))) } }
        };
        assert_eq!(tag(&at(5, 10)), tag(&at(5, 99)));
        assert_ne!(tag(&at(5, 10)), tag(&at(6, 10)));
        assert!(finished(&at(5, 10)).contains(">5 s ago<"));
    }

    /// The colours of a scheme, by name.
    fn colours(scheme: &str) -> std::collections::BTreeMap<String, f64> {
        let (_, rest) = STYLE.split_once(scheme).unwrap();
        let (block, _) = rest.split_once('}').unwrap();
        let variables = block.split(';').filter_map(|part| part.trim_start_matches(":root{").split_once(":#"));
        variables.map(|(name, hex)| (name.trim_start_matches("--").to_owned(), luminance(hex))).collect()
    }

    /// The relative luminance of a colour: <https://www.w3.org/TR/WCAG22/#dfn-relative-luminance>.
    fn luminance(hex: &str) -> f64 {
        let hex = if hex.len() == 3 { hex.chars().flat_map(|c| [c, c]).collect() } else { hex.to_owned() };
        let part = |start: usize| {
            let value = f64::from(u8::from_str_radix(&hex[start..start + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
    }

    #[test]
    fn text_has_enough_contrast_in_both_schemes() {
        for scheme in [":root{color-scheme:light dark;", "@media(prefers-color-scheme:dark){:root{"] {
            let colours = colours(scheme);
            assert!(colours.len() > 10, "{colours:?}");
            let pairs =
                ["ink", "dim", "act", "note", "ok", "link"].into_iter().flat_map(|text| [(text, "bg"), (text, "card")]);
            for (text, ground) in pairs.chain([("act", "act-bg"), ("note", "note-bg"), ("card", "link")]) {
                let (a, b) = (colours[text], colours[ground]);
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2} in {scheme}");
            }
        }
    }

    #[test]
    fn the_policy_names_the_hashes_of_what_is_sent() {
        let policy = content_security_policy();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        // Style and script end with the element, so they may not hold its end.
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</"));
    }
}
