//! The README and the documentation are correct as far as a test can check: the example's tables, links, configuration keys.

mod configuration;
mod links;
mod psql;

use std::path::PathBuf;
use std::time::Duration;

use millstream_tests::process::workspace;

use crate::support::{client, database, ingest, rows};

/// The README's maximum length; details belong in docs/.
const README_LINES_MAX: usize = 150;

fn read(file: &str) -> String {
    std::fs::read_to_string(workspace().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The README, ARCHITECTURE.md, CONTRIBUTING.md where it exists, and the pages of docs/, relative to the workspace.
fn pages() -> Vec<PathBuf> {
    let top_level = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(PathBuf::from);
    let mut pages: Vec<_> = top_level.into_iter().filter(|page| workspace().join(page).exists()).collect();
    for entry in std::fs::read_dir(workspace().join("docs")).unwrap() {
        let page = PathBuf::from("docs").join(entry.unwrap().file_name());
        if page.extension().is_some_and(|extension| extension == "md") {
            pages.push(page);
        }
    }
    assert!(pages.len() >= 10, "{pages:?}");
    pages
}

/// The content of the first fenced block in `language`.
fn fenced<'p>(page: &'p str, language: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("\n```{language}\n")).expect("the page has such a block");
    rest.split_once("\n```").expect("the block ends").0
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines; move details to docs/");
}

#[tokio::test]
async fn the_readme_s_configuration_creates_the_tables_shown() {
    let readme = read("README.md");
    let event = read("events/sportsbook/bet-life.json");
    let url = database().await;
    let report =
        ingest(fenced(&readme, "toml"), &url).process_event(event.as_bytes(), Duration::from_secs(60)).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.duplicate), (3, 1));

    let client = client(&url).await;
    client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    let shown = fenced(&readme, "text");
    let queries: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("=> ")).collect();
    assert!(!queries.is_empty(), "the README shows no query");
    let mut printed = Vec::new();
    for query in queries {
        printed.push(format!("=> {query}\n{}", psql::print(&client, query).await));
    }
    let printed = printed.join("\n\n");
    assert_eq!(shown, printed, "the README must show:\n\n{printed}\n");

    for table in ["bet_placed", "bet_changed", "bet_settled"] {
        let found = rows(&client, &format!("SELECT count(*) FROM sportsbook.{table}")).await;
        assert_eq!(found, [r#"{"count":1}"#], "sportsbook.{table}");
    }
}
