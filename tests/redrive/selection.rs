//! Which messages a run selects, and which it leaves on the queue.

use millstream::redrive::{RedriveError, RedriveTask};
use serde_json::{Value, json};

use super::{Desk, counted, documents, ingest_event};
use crate::support::rows;

const CONFIG: &str = r#"
[source.log]
stream = "s"
format = "json"
[table.bet]
source = "log"
when = { path = "kind", is = "bet" }
columns = { n = { path = "n", type = "numeric(3)", check = "n > 0" } }
[table.note]
source = "log"
when = { path = "kind", is = "note" }
columns = { n = { path = "n", type = "numeric(3)", check = "n > 0" } }
[source.other]
stream = "o"
format = "json"
[table.extra]
source = "other"
columns = { n = { path = "n", type = "numeric(3)" } }
"#;

/// A desk with seven dead letters: from two sources, three tables, three reasons, two hours.
async fn desk() -> Desk {
    let desk = Desk::open().await;
    let mut ingest = desk.ingest(CONFIG);
    let log =
        documents(1, &[r#"{"kind":"bet","n":-1}"#, r#"{"kind":"bet","n":1000}"#, r#"{"kind":"note","n":-1}"#, "no"]);
    assert_eq!(ingest_event(&mut ingest, &log).await.counts.dead_lettered, 4);
    let later = documents(7, &[r#"{"kind":"note","n":-2}"#, r#"{"kind":"note","n":-3}"#]);
    let later = String::from_utf8(later).unwrap().replace("1770593400.98", "1770597000");
    ingest_event(&mut ingest, later.as_bytes()).await;
    let other = String::from_utf8(documents(1, &[r#"{"n":1000}"#])).unwrap().replace(":stream/s\"", ":stream/o\"");
    ingest_event(&mut ingest, other.as_bytes()).await;
    desk
}

#[tokio::test]
async fn a_dry_run_reports_the_selection_and_changes_nothing() {
    let desk = desk().await;
    let before = desk.letters().await;
    let all: &[(&str, u64)] = &[
        ("log - malformed", 1),
        ("log log.bet does_not_fit", 1),
        ("log log.bet refused", 1),
        ("log log.note refused", 3),
        ("other other.extra does_not_fit", 1),
    ];
    let cases: [(Value, &[(&str, u64)]); 9] = [
        (json!({}), all),
        (json!({"source": "other"}), &all[4..]),
        (json!({"source": "nobody"}), &[]),
        (json!({"table": "log.bet"}), &all[1..3]),
        (json!({"reason": "refused"}), &all[2..4]),
        (json!({"reason": "refused", "table": "log.bet"}), &all[2..3]),
        (json!({"from": "2026-02-09T00:00:00Z"}), &[("log log.note refused", 2)]),
        (
            json!({"from": "2026-02-08T23:30:00.98Z", "to": "2026-02-08T23:30:01Z", "table": "log.note"}),
            &[("log log.note refused", 1)],
        ),
        (json!({"to": "2026-02-08T23:30:00.98Z"}), &[]),
    ];
    // Each on a queue of its own, all at once, because each run waits a second at its end.
    let bodies = desk.bodies().await;
    let runs = cases.iter().enumerate().map(async |(number, (only, expected))| {
        let queue = desk.aws.queue(&format!("{}-{number}", desk.bucket)).await.unwrap();
        let (aws, sdk) = (desk.aws.for_this_runtime().await, desk.sdk.clone());
        let copy = Desk { aws, sdk, url: desk.url.clone(), queue, bucket: desk.bucket.clone() };
        copy.put(&bodies).await;
        let progress = copy.redrive(CONFIG, json!({"only": only, "dry_run": true})).await.unwrap();
        assert_eq!(progress.selected, counted(expected), "{only}");
        let selected: u64 = progress.selected.values().sum();
        let kept = |class: &str| progress.kept.get(class).copied().unwrap_or_default();
        assert_eq!((kept("dry_run"), kept("not_selected"), progress.redriven), (selected, 7 - selected, 0), "{only}");
        assert_eq!((progress.done, progress.records.total()), (true, 0), "{only}");
        // They are visible at once and unchanged.
        assert_eq!(copy.counts().await, (7, 0), "{only}");
        if number == 0 {
            assert_eq!(copy.letters().await, before);
        }
    });
    futures_util::future::join_all(runs).await;
    assert_eq!(rows(&desk.client().await, "SELECT count(*) FROM log.bet").await, [r#"{"count":0}"#]);
}

#[tokio::test]
async fn what_is_selected_is_redriven_up_to_the_limit_and_nothing_else() {
    let desk = desk().await;
    let mended = CONFIG.replace("type = \"numeric(3)\", check = \"n > 0\"", "type = \"numeric\"");
    let mend = "ALTER TABLE log.note DROP CONSTRAINT note_n_check";
    let owner = desk.client().await;
    let constraint =
        rows(&owner, "SELECT conname FROM pg_constraint WHERE conrelid = 'log.note'::regclass AND contype = 'c'").await;
    let constraint = constraint[0].split('"').nth(3).unwrap_or_default().to_owned();
    owner.batch_execute(&mend.replace("note_n_check", &constraint)).await.unwrap();
    let notes = json!({"table": "log.note"});
    let progress = desk.redrive(&mended, json!({"only": notes, "limit": 2})).await.unwrap();
    assert_eq!((progress.done, progress.redriven, progress.records.applied), (true, 2, 2), "{progress:?}");
    let progress = desk.redrive(&mended, json!({"only": notes, "limit": 0})).await.unwrap();
    assert_eq!((progress.done, progress.redriven), (true, 0));
    let progress = desk.redrive(&mended, json!({"only": notes, "limit": 1})).await.unwrap();
    assert_eq!((progress.redriven, progress.kept), (1, counted(&[("not_selected", 4)])));
    assert_eq!(rows(&owner, "SELECT count(*) FROM log.note").await, [r#"{"count":3}"#]);
    assert_eq!(desk.counts().await, (4, 0));
    assert!(desk.letters().await.iter().all(|letter| letter.attempts == 1));
}

#[tokio::test]
async fn a_misspelt_member_or_timestamp_is_rejected() {
    for task in [
        json!({"onyl": {"table": "log.bet"}}),
        json!({"only": {"tabel": "log.bet"}}),
        json!({"only": {"table": 7}}),
        json!({"dryrun": true}),
        json!({"limit": -1}),
        json!({"limit": "10"}),
        // A schedule without an input.
        json!({"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}),
    ] {
        assert!(serde_json::from_value::<RedriveTask>(task.clone()).is_err(), "{task}");
    }
    let desk = Desk::open().await;
    desk.put(&["a message".to_owned()]).await;
    for task in [
        json!({"only": {"from": "yesterday"}}),
        json!({"only": {"to": "2026-02-30T00:00:00Z"}}),
        json!({"progress": {"started": "then"}}),
    ] {
        let error = desk.redrive(CONFIG, task.clone()).await.unwrap_err();
        assert!(matches!(error, RedriveError::Time(_)) && error.needs_operator(), "{task}: {error}");
    }
    assert_eq!(desk.counts().await, (1, 0));
}
