//! `millstream transform`, and what `status` and `plan` say about transforms and change logs.

use std::path::PathBuf;

use millstream_tests::process::target;
use millstream_tests::program::millstream;
use serde_json::{Value, json};

use super::{assert_refused, environment};
use crate::support::{client, database, rows};

const CONFIG: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n";

const TABLES: &str = "CREATE SCHEMA s; CREATE TABLE s.created (id bigint PRIMARY KEY, day date)";

/// Counts created rows by day.
const BY_DAY: &str = "-- target: s.by_day\n-- key: day\n-- changes: s.created\n-- every: 5 minutes\n\
    SELECT day, count(*) AS created FROM s.created WHERE day IN (SELECT day FROM millstream.changes(NULL::s.created)) GROUP BY day\n";

/// A configuration with transforms, in a folder of its own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, transforms: &[(&str, &str)]) -> Self {
        let folder = target().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("transforms")).unwrap();
        std::fs::write(folder.join("millstream.toml"), CONFIG).unwrap();
        let folder = Self(folder);
        transforms.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(format!("transforms/{name}.sql")), text).unwrap();
    }

    fn environment(&self, url: &str) -> Vec<(String, String)> {
        environment(&self.0.join("millstream.toml").to_string_lossy(), url)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

#[tokio::test]
async fn transforms_are_planned_run_and_listed() {
    let url = database().await;
    let client = client(&url).await;
    let name: String = client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    client.batch_execute(&format!("ALTER DATABASE {name} SET synchronous_commit = on")).await.unwrap();
    let folder = Folder::new("transforms", &[("by_day", BY_DAY)]);
    let environment = folder.environment(&url);
    let run = async |arguments: &[&str]| millstream(&environment, arguments).await.unwrap();

    let planned = run(&["plan"]).await;
    assert!(planned.code == 0 && planned.out.contains("s.by_day (transform by_day), waiting:"), "{planned:?}");
    let waiting = run(&["transform", "run"]).await;
    assert_eq!(
        (waiting.code, &*waiting.out),
        (0, "by_day: waiting: table s.created does not exist yet, or has no partition yet\n"),
        "{waiting:?}"
    );
    client.batch_execute(TABLES).await.unwrap();
    client
        .batch_execute("INSERT INTO s.created VALUES (1, '2026-02-08'), (2, '2026-02-08'), (3, '2026-02-09')")
        .await
        .unwrap();
    let planned = run(&["plan"]).await;
    for part in [
        "s.by_day (transform by_day), on its next run:",
        "a change log of s.created is created, with triggers on it and its partitions",
    ] {
        assert!(planned.code == 0 && planned.out.contains(part), "{planned:?}");
    }
    let list = run(&["transform", "list"]).await;
    assert!(list.code == 0 && list.out.contains("waiting") && list.out.contains("never"), "{list:?}");

    let ran = run(&["transform", "run"]).await;
    assert!(ran.code == 0 && ran.out.starts_with("by_day: 2 rows written, 0 deleted ("), "{ran:?}");
    assert!(ran.out.contains("full run"), "{}", ran.out);
    let due = run(&["transform", "run", "--due"]).await;
    assert_eq!((due.code, &*due.out), (0, "No transform is due.\n"), "{due:?}");
    client.batch_execute("INSERT INTO s.created VALUES (4, '2026-02-09')").await.unwrap();
    let ran = run(&["--json", "transform", "run", "by_day"]).await;
    let result: Value = serde_json::from_str(&ran.out).unwrap();
    let first = &result["results"][0];
    assert_eq!(
        (&first["outcome"], &first["full_run"], &first["rows_written"]),
        (&json!("succeeded"), &json!(false), &json!(1)),
        "{result}"
    );
    assert_eq!(
        rows(&client, "SELECT * FROM s.by_day ORDER BY day").await,
        [r#"{"day":"2026-02-08","created":2}"#, r#"{"day":"2026-02-09","created":2}"#,]
    );
    let full = run(&["transform", "run", "by_day", "--full"]).await;
    assert!(full.out.contains("full run"), "{full:?}");
    let status = run(&["status"]).await;
    assert!(status.code == 0 && status.out.contains("TRANSFORM") && status.out.contains("s.by_day"), "{status:?}");
    let planned = run(&["--json", "plan"]).await;
    let planned: Value = serde_json::from_str(&planned.out).unwrap();
    assert_eq!((&planned["transforms"], &planned["change_logs"]), (&json!([]), &json!([])));
    assert_refused(&run(&["transform", "run", "nobody"]).await, 2, "unknown transform `nobody`; transforms: by_day");
}

#[tokio::test]
async fn what_is_wrong_with_transforms_and_change_logs_needs_attention() {
    let url = database().await;
    let client = client(&url).await;
    let name: String = client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    client.batch_execute(&format!("ALTER DATABASE {name} SET synchronous_commit = on")).await.unwrap();
    client.batch_execute(TABLES).await.unwrap();
    let folder = Folder::new(
        "transforms-wrong",
        &[
            ("by_day", BY_DAY),
            (
                "broken",
                "-- target: s.broken\n-- every: 1 hour\nSELECT day,\n  coutn(*) AS created FROM s.created GROUP BY day\n",
            ),
            ("headless", "SELECT 1"),
        ],
    );
    let environment = folder.environment(&url);
    let run = async |arguments: &[&str]| millstream(&environment, arguments).await.unwrap();
    let ran = run(&["transform", "run"]).await;
    let (broken, headless) = (
        "transforms/broken.sql:4:3: function coutn() does not exist",
        "transforms/headless.sql:1:1: the header names no target",
    );
    // Lines are broken to fit a terminal.
    let text = |out: &str| out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(ran.code, 3, "{ran:?}");
    for part in [broken, headless, "by_day: 0 rows written"] {
        assert!(text(&ran.out).contains(part), "{part} is missing in: {}", ran.out);
    }
    for command in [&["plan"][..], &["status"], &["transform", "list"]] {
        let found = run(command).await;
        assert_eq!(found.code, 3, "{command:?}: {found:?}");
        for part in [broken, headless] {
            assert!(text(&found.out).contains(part), "{command:?}: {part} is missing in: {}", found.out);
        }
    }
    folder.write(
        "broken",
        "-- target: s.broken\n-- every: 1 hour\nSELECT day, count(*) AS created FROM s.created GROUP BY day\n",
    );
    std::fs::remove_file(folder.0.join("transforms/headless.sql")).unwrap();
    let healed = run(&["transform", "run"]).await;
    assert_eq!(healed.code, 0, "{healed:?}");
    let planned = run(&["plan"]).await;
    assert!(
        planned.code == 0
            && text(&planned.out).contains("(transform headless), on the next run of `transform`: -- forgotten"),
        "{planned:?}"
    );
    assert_eq!(run(&["transform", "run", "--due"]).await.code, 0);
    assert_eq!(run(&["status"]).await.code, 0);

    client.batch_execute("ALTER TABLE s.created DISABLE TRIGGER ALL").await.unwrap();
    let problem = "change log of s.created: triggers on s.created do not always fire; the next run of a transform that reads it repairs them";
    for command in [&["plan"][..], &["status"]] {
        let found = run(command).await;
        assert!(found.code == 3 && text(&found.out).contains(problem), "{command:?}: {found:?}");
    }
    let repaired = run(&["transform", "run", "by_day"]).await;
    assert!(repaired.out.contains("full run"), "{repaired:?}");
    assert_eq!(run(&["status"]).await.code, 0);
}
