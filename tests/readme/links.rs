//! Links lead to files and headings that exist, and to tests that exist.

use std::collections::HashMap;
use std::path::Path;

use millstream_tests::process::workspace;

use super::{pages, read};

struct Link {
    text: String,
    target: String,
}

/// A page's lines outside of fenced blocks.
fn prose(page: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            lines.push(line);
        }
    }
    lines
}

/// The links `[text](target)` of a page that are not web addresses.
fn relative_links(page: &str) -> Vec<Link> {
    let mut links = Vec::new();
    for (start, _) in page.match_indices("](") {
        let text = page[..start].rsplit('[').next().unwrap_or_default().to_owned();
        let target = page[start + 2..].split(')').next().unwrap_or_default().to_owned();
        if !target.starts_with("https://") && !target.starts_with("http://") {
            links.push(Link { text, target });
        }
    }
    links
}

/// A heading in lower case, without punctuation, with hyphens for blanks.
fn anchor(heading: &str) -> String {
    let mut anchor = String::new();
    for character in heading.to_lowercase().chars() {
        match character {
            ' ' => anchor.push('-'),
            '-' | '_' => anchor.push(character),
            _ if character.is_alphanumeric() => anchor.push(character),
            _ => {}
        }
    }
    anchor
}

/// The anchors that GitHub gives to a page's headings.
fn anchors(page: &str) -> Vec<String> {
    let mut counts: HashMap<String, u32> = HashMap::new();
    let mut anchors = Vec::new();
    for heading in prose(page).into_iter().filter(|line| line.starts_with('#')) {
        let anchor = anchor(heading.trim_start_matches('#').trim());
        let count = counts.entry(anchor.clone()).or_default();
        anchors.push(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    anchors
}

/// Why a link of `page` leads nowhere.
fn problem_of(page: &Path, link: &Link) -> Option<String> {
    let (path, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
    let file = if path.is_empty() { page.to_owned() } else { page.parent().unwrap().join(path) };
    let is_test = file.extension().is_some_and(|extension| extension == "rs");
    let is_page = file.extension().is_some_and(|extension| extension == "md");
    let exists = workspace().join(&file).exists();
    let content = if exists && (is_test || is_page) { read(&file.to_string_lossy()) } else { String::new() };
    let problem = if !exists {
        "no such file"
    } else if !anchor.is_empty() && !anchors(&content).iter().any(|found| found == anchor) {
        "no such heading"
    } else if is_test && !content.contains(&format!("fn {}(", link.text)) {
        "no such test"
    } else {
        return None;
    };
    Some(format!("{}: [{}]({}): {problem}", page.display(), link.text, link.target))
}

#[test]
fn links_lead_to_files_headings_and_tests_that_exist() {
    let mut problems = Vec::new();
    let mut count = 0;
    for page in pages() {
        for link in relative_links(&prose(&read(&page.to_string_lossy())).join("\n")) {
            count += 1;
            problems.extend(problem_of(&page, &link));
        }
    }
    assert!(count > 100, "only {count} links were found");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_readme_links_to_every_page() {
    let links = relative_links(&read("README.md"));
    for page in pages().into_iter().filter(|page| page != Path::new("README.md")) {
        let target = page.to_string_lossy();
        assert!(links.iter().any(|link| link.target == target), "README.md does not link to {target}");
    }
}

#[test]
fn a_wrong_link_is_found() {
    let page = Path::new("docs/guarantees.md");
    for (text, target, problem) in [
        ("x", "nowhere.md", "no such file"),
        ("x", "#nowhere", "no such heading"),
        ("x", "../README.md#nowhere", "no such heading"),
        ("no_such_test", "../tests/readme.rs", "no such test"),
    ] {
        let link = Link { text: text.to_owned(), target: target.to_owned() };
        assert!(problem_of(page, &link).is_some_and(|found| found.ends_with(problem)), "{target}");
    }
}
