//! Which transforms a task runs, in which order, and what becomes of the others.

use std::time::Duration;

use millstream::aws::Aws;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::task::{Deadline, Resumable, TaskCall};
use millstream::transform::TransformSet;
use millstream::transform::task::{TransformOutcome, TransformTask, list, run_task};

use super::{client, database, set};
use crate::support::rows;

const SOURCE: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n";

async fn task(url: &str, set: &TransformSet, task: TransformTask) -> TransformTask {
    task_of(SOURCE, url, set, task, Duration::from_secs(60)).await
}

async fn task_of(config: &str, url: &str, set: &TransformSet, task: TransformTask, time: Duration) -> TransformTask {
    let config = Config::parse("test.toml", config).unwrap();
    let database = Database::new(&DatabaseAddress::from_url(url), Aws::default()).unwrap();
    run_task(&config, set, &database, task, &TaskCall::unwatched(Deadline::after(time))).await.unwrap()
}

/// The outcomes, in the order of the runs.
fn outcomes(task: &TransformTask) -> Vec<String> {
    let outcome = |result: &millstream::transform::task::TransformResult| {
        let name = &result.transform;
        match &result.outcome {
            TransformOutcome::Succeeded(_) => name.clone(),
            TransformOutcome::Failed { reason } => format!("{name} failed: {reason}"),
            TransformOutcome::Waiting { reason } => format!("{name} waits: {reason}"),
            TransformOutcome::Skipped { reason } => format!("{name} skipped: {reason}"),
        }
    };
    task.progress.results.iter().map(outcome).collect()
}

fn file(name: &str, header: &str) -> (String, String) {
    (name.to_owned(), format!("-- target: t.{name}\n{header}\nSELECT 1 AS id"))
}

fn files(list: &[(String, String)]) -> TransformSet {
    set(&list.iter().map(|(name, text)| (&**name, &**text)).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_failure_skips_what_depends_on_it_and_nothing_else() {
    let url = database().await;
    let client = client(&url).await;
    let set = files(&[
        file("a", "-- every: 1 hour"),
        ("b".to_owned(), "-- target: t.b\n-- depends: a\nSELECT\n  1 / 0 AS id".to_owned()),
        file("c", "-- depends: b"),
        file("d", "-- depends: c, a"),
        file("e", "-- depends: a"),
        file("f", "-- every: 1 day\n-- changes: t.missing\n-- key: id"),
        file("g", "-- depends: f"),
        file("h", "-- depends: nobody"),
        file("i", "-- depends: j"),
        file("j", "-- depends: i"),
        ("k".to_owned(), "SELECT 1".to_owned()),
    ]);
    let done = task(&url, &set, TransformTask { all: true, ..TransformTask::default() }).await;
    assert!(done.is_done());
    let waits = "f waits: table t.missing does not exist yet, or has no partition yet";
    assert_eq!(
        outcomes(&done),
        [
            "k failed: transforms/k.sql:1:1: the header names no target; add a line such as `-- target: schema.table`; transforms/k.sql:1:1: nothing \
             runs it; set `-- every: 5 minutes`, `-- after: load.NAME` or `-- depends: NAME` in its header",
            "a",
            "b failed: transforms/b.sql:3:1: division_by_zero [SQLSTATE 22012]",
            "c skipped: it depends on b, which failed",
            "d skipped: it depends on c, which was skipped",
            "e",
            waits,
            "g skipped: it depends on f, which waits",
            "h failed: transforms/h.sql:2:13: unknown transform `nobody`; transforms: a, b, c, d, e, f, g, h, i, j",
            "i failed: transforms/i.sql: depends on itself: i → j → i",
            "j failed: transforms/j.sql: depends on itself: j → i → j",
        ]
    );
    let recorded = "SELECT name, status, failures FROM millstream.transform ORDER BY name";
    let recorded = rows(&client, recorded).await;
    for (index, (name, status, failures)) in [
        ("a", "succeeded", 0),
        ("b", "failed", 1),
        ("c", "skipped", 0),
        ("d", "skipped", 0),
        ("e", "succeeded", 0),
        ("f", "waiting", 0),
        ("g", "skipped", 0),
        ("h", "failed", 1),
        ("i", "failed", 1),
        ("j", "failed", 1),
        ("k", "failed", 1),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(recorded[index], format!(r#"{{"name":"{name}","status":"{status}","failures":{failures}}}"#));
    }
    // A second failure counts; a success ends the count and keeps nothing of the reason.
    task(&url, &set, TransformTask { transform: Some("b".to_owned()), ..TransformTask::default() }).await;
    let b = "SELECT failures, reason FROM millstream.transform WHERE name = 'b'";
    assert!(rows(&client, b).await[0].starts_with(r#"{"failures":2,"reason":"transforms/b.sql:3:1"#));
    let healed = files(&[file("a", "-- every: 1 hour"), file("b", "-- depends: a")]);
    let done = task(&url, &healed, TransformTask { transform: Some("b".to_owned()), ..TransformTask::default() }).await;
    assert_eq!(outcomes(&done), ["b"], "only the one that is named");
    assert_eq!(rows(&client, b).await, [r#"{"failures":0,"reason":null}"#]);
}

#[tokio::test]
async fn a_task_runs_what_is_due_and_what_depends_on_it() {
    let url = database().await;
    let client = client(&url).await;
    let set = files(&[
        file("daily", "-- every: 1 day"),
        file("loaded", "-- after: load.users, load.payments"),
        file("follows", "-- depends: loaded"),
        file("report", "-- depends: daily, follows"),
        file("other", "-- after: load.other"),
    ]);
    assert_eq!(outcomes(&task(&url, &set, TransformTask::default()).await), ["daily", "report"]);
    assert_eq!(outcomes(&task(&url, &set, TransformTask::default()).await), [""; 0], "nothing is due");
    let after = task(&url, &set, TransformTask::after_load("payments")).await;
    assert_eq!(outcomes(&after), ["loaded", "follows", "report"]);
    assert_eq!(outcomes(&task(&url, &set, TransformTask::after_load("nothing")).await), [""; 0]);
    client
        .batch_execute("UPDATE millstream.transform SET attempted_at = attempted_at - interval '1 day'")
        .await
        .unwrap();
    assert_eq!(outcomes(&task(&url, &set, TransformTask::default()).await), ["daily", "report"]);
    // The same event form as a load's state machine sends.
    let event: TransformTask = serde_json::from_str(r#"{"after": "load.other"}"#).unwrap();
    assert_eq!(outcomes(&task(&url, &set, event).await), ["other"]);
}

#[tokio::test]
async fn a_task_goes_on_in_the_next_call() {
    let url = database().await;
    let set = files(&[file("a", "-- every: 1 hour"), file("b", "-- depends: a")]);
    let all = TransformTask { all: true, ..TransformTask::default() };
    let begun = task_of(SOURCE, &url, &set, all, Duration::ZERO).await;
    assert!(!begun.is_done() && begun.progress.results.is_empty());
    let event = serde_json::to_string(&begun).unwrap();
    let mut begun: TransformTask = serde_json::from_str(&event).unwrap();
    let first = task(&url, &set, TransformTask { transform: Some("a".to_owned()), ..TransformTask::default() }).await;
    begun.progress.results = first.progress.results;
    let done = task(&url, &set, begun).await;
    assert_eq!((outcomes(&done), done.is_done()), (vec!["a".to_owned(), "b".to_owned()], true));
}

#[tokio::test]
async fn a_transform_without_a_file_is_forgotten_and_its_table_stays() {
    let url = database().await;
    let client = client(&url).await;
    client.batch_execute("CREATE SCHEMA t; CREATE TABLE t.source (id bigint PRIMARY KEY)").await.unwrap();
    let reads = (
        "reads".to_owned(),
        "-- target: t.reads\n-- key: id\n-- changes: t.source\n-- every: 1 hour\nSELECT id FROM millstream.changes(NULL::t.source)".to_owned(),
    );
    let before = files(&[file("a", "-- every: 1 hour"), reads]);
    assert_eq!(outcomes(&task(&url, &before, TransformTask::default()).await), ["a", "reads"]);
    let after = files(&[file("a", "-- every: 1 hour")]);
    let config = Config::parse("test.toml", SOURCE).unwrap();
    let listed = list(&client, &config, &after).await.unwrap();
    assert_eq!(listed.iter().map(|state| &*state.name).collect::<Vec<_>>(), ["a", "reads"]);
    // Another configuration of the same database does not know these, and leaves them alone.
    let other = SOURCE.replace("source.s", "source.other");
    task_of(&other, &url, &files(&[]), TransformTask::default(), Duration::from_secs(60)).await;
    assert_eq!(rows(&client, "SELECT name FROM millstream.transform ORDER BY 1").await.len(), 2);
    let done = task(&url, &after, TransformTask::default()).await;
    assert_eq!(done.progress.removed, ["reads"]);
    assert_eq!(rows(&client, "SELECT name FROM millstream.transform").await, [r#"{"name":"a"}"#]);
    let left = "SELECT (SELECT count(*) FROM millstream.feed) AS logs, (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'millstream_feed_%') AS triggers, \
        to_regclass('t.reads') IS NOT NULL AS target";
    assert_eq!(rows(&client, left).await, [r#"{"logs":0,"triggers":0,"target":true}"#]);
}
