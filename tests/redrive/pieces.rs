//! A run in steps, as invocations of a function: each continues where the last one ended.

use std::time::Duration;

use millstream::redrive::RedriveProgress;
use serde_json::json;

use super::faults::letter;
use super::{Desk, NARROW, counted, documents, ingest_event, widened};
use crate::support::rows;

/// Dead letters of this many records that did not fit, with their table fixed; returns the fixed configuration.
async fn desk(count: usize, malformed: usize) -> (Desk, String) {
    let desk = Desk::open().await;
    let mut records: Vec<String> = (0..count).map(|number| format!("{{\"n\":{}}}", number + 10)).collect();
    records.extend((0..malformed).map(|number| format!("no {number}")));
    records.push(r#"{"n":1}"#.to_owned());
    ingest_event(&mut desk.ingest(NARROW), &documents(1, &records)).await;
    desk.fix_cause().await;
    (desk, widened())
}

async fn piece(desk: &Desk, config: &str, task: serde_json::Value) -> RedriveProgress {
    desk.redrive_with(desk.ingest(config), task, Duration::ZERO).await.unwrap()
}

#[tokio::test]
async fn pieces_without_any_time_come_to_the_end_and_the_sums_are_right() {
    let (desk, config) = desk(35, 3).await;
    // The first one: requested in every step, and never available.
    let error = json!({"class": "does_not_fit", "table": "log.log", "sqlstate": null, "message": ""});
    let lost = letter(&json!({"payload": {"s3": "s3://nobody-s-bucket/key"}, "error": error}));
    let others = desk.aws.drain(&desk.queue).await.unwrap();
    desk.put(&[lost]).await;
    desk.put(&others).await;
    let mut progress = RedriveProgress::default();
    let mut pieces = 0;
    while !progress.done {
        let task = json!({"only": {"reason": "does_not_fit"}, "progress": progress});
        let next = piece(&desk, &config, task).await;
        assert!(next.done || next.redriven > progress.redriven, "{next:?}");
        assert!(progress.started.is_none() || next.started == progress.started);
        assert_eq!(desk.counts().await.1, 0, "nothing is out of sight between pieces");
        (progress, pieces) = (next, pieces + 1);
    }
    assert!(pieces > 3, "{pieces}");
    assert_eq!((progress.redriven, progress.records.applied, progress.records.total()), (35, 35, 35));
    assert_eq!(progress.selected, counted(&[("log log.log does_not_fit", 36)]));
    assert_eq!(progress.kept, counted(&[("not_selected", 3), ("unavailable", 1)]));
    assert_eq!(rows(&desk.client().await, "SELECT count(*) FROM log.log").await, [r#"{"count":36}"#]);
}

/// Records rejected in an earlier step belong to the run as well.
#[tokio::test]
async fn no_step_processes_what_an_earlier_one_rejected() {
    let (desk, config) = desk(12, 12).await;
    let mut progress = RedriveProgress::default();
    while !progress.done {
        progress = piece(&desk, &config, json!({"progress": progress})).await;
    }
    assert_eq!((progress.redriven, progress.records.applied, progress.records.dead_lettered), (24, 12, 12));
    assert_eq!(desk.account().await, [("malformed 2".to_owned(), 12)].into());
}

#[tokio::test]
async fn a_run_that_finds_nothing_to_do_finishes_instead_of_being_repeated_forever() {
    let tasks = [json!({"only": {"source": "nobody"}}), json!({"dry_run": true})];
    let runs = tasks.iter().map(async |task| {
        let (desk, config) = desk(2, 12).await;
        let progress = piece(&desk, &config, task.clone()).await;
        let kept: u64 = progress.kept.values().sum();
        assert_eq!((progress.done, progress.redriven, kept), (true, 0, 14), "{task}");
        assert_eq!(desk.counts().await, (14, 0), "{task}");
    });
    futures_util::future::join_all(runs).await;
}
