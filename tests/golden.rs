//! An event in; the plan and the report out, compared with reviewed files.
//!
//! Each `tests/golden/NAME.json` is planned with its `NAME.toml`, or as a sample of a system with the system's, first against
//! an empty catalog and then a real database. `make accept` accepts the texts found as the expected ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream::catalog::Catalog;
use millstream::config::Config;
use millstream::decode::Decoder;
use millstream::plan::plan;
use millstream::record::unpack;
use millstream::timestamp::Timestamp;
use millstream_tests::process::workspace;

use crate::support::{client, database, ingest};

/// Plans depend on the clock only for rows that have expired or are too far in the future.
const NOW: &str = "2026-02-09T12:00:00Z";

#[tokio::test]
async fn golden_events_become_the_expected_plans_and_reports() {
    let systems = ["sportsbook", "replica", "portfolio"].map(|system| workspace().join("events").join(system));
    let own = workspace().join("tests/golden");
    let mut events: Vec<PathBuf> = systems.iter().chain([&own]).flat_map(|folder| json_files(folder)).collect();
    events.sort();
    assert!(events.len() >= 6, "{events:?}");
    let mut differing = Vec::new();
    for event in events {
        let name = event.file_stem().unwrap().to_string_lossy().into_owned();
        let found = outcome(&event, &std::fs::read_to_string(config_beside(&event)).unwrap()).await;
        if !is_expected(&name, &found) {
            differing.push(name);
        }
    }
    assert_eq!(differing, [""; 0], "{HOW_TO_ACCEPT}");
}

/// The configuration of a sample event: its own, or its folder's.
pub fn config_beside(event: &Path) -> PathBuf {
    let candidates = [event.with_extension("toml"), event.with_file_name("millstream.toml")];
    candidates.into_iter().find(|path| path.exists()).unwrap()
}

/// The advice for texts that differ.
pub const HOW_TO_ACCEPT: &str = "compare tests/golden/*.found with *.expected, and run `make accept` if they are right";

/// Whether a text equals the reviewed one; if not, it is written next to it.
pub fn is_expected(name: &str, found: &str) -> bool {
    let file = workspace().join("tests/golden").join(name);
    let same = std::fs::read_to_string(file.with_extension("expected")).unwrap_or_default() == found;
    if !same {
        std::fs::write(file.with_extension("found"), found).unwrap();
    }
    same
}

/// The JSON files of a folder.
pub fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

/// The DDL for an empty database, the rows once it has run, and the report of the real run.
async fn outcome(event: &Path, config: &str) -> String {
    let event = std::fs::read(event).unwrap();
    let url = database().await;
    let report = ingest(config, &url).process_event(&event, Duration::from_secs(60)).await.unwrap();

    let batch = unpack(&event).unwrap();
    let config = Config::parse("golden", config).unwrap();
    let stream =
        batch.records.iter().find(|record| !record.position.stream.is_empty()).map(|record| &record.position.stream);
    let source =
        stream.and_then(|stream| config.source_by_stream(stream)).map_or(&config.sources[0], |(_, source)| source);
    let mut decoder = Decoder::new(source.clone());
    let (changes, rejected) = decoder.decode(&batch);
    let now = Timestamp::parse(NOW).unwrap();
    let mut catalog = Catalog::default();
    let lacks = plan(&changes, &decoder.fields, &decoder.tables, &catalog, now);
    let client = client(&url).await;
    client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    let names: Vec<_> = lacks.diffs.iter().map(|lack| lack.table.clone()).collect();
    millstream::catalog::load(&client, &mut catalog, &names).await.unwrap();
    let rows = plan(&changes, &decoder.fields, &decoder.tables, &catalog, now);
    let rejected: String =
        rejected.iter().map(|(record, error)| format!("record {record} rejected: {error}\n")).collect();
    format!("{lacks}\n{rejected}{rows}\n{report}")
}
