//! The real function: it answers its task, and may be killed at any moment.

use std::time::{Duration, Instant};

use millstream::redrive::Task;
use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::random::Random;
use serde_json::{Value, json};

use super::{Desk, counted, documents, ingest_event};
use crate::support::rows;

const REFUSING: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.log]\nsource = \"log\"\n\
    columns = { n = { path = \"n\", type = \"numeric(1)\" } }\n";

/// So many letters that can be mended, and so many that cannot.
async fn desk(mendable: usize, malformed: usize) -> Desk {
    let desk = Desk::open().await;
    let mut records: Vec<String> = (0..mendable).map(|number| format!("{{\"n\":{}}}", number + 10)).collect();
    records.extend((0..malformed).map(|number| format!("hunter{number}")));
    records.push(r#"{"n":1}"#.to_owned());
    ingest_event(&mut desk.ingest(REFUSING).await, &documents(1, &records)).await;
    desk.client().await.batch_execute("ALTER TABLE log.log ALTER n TYPE numeric").await.unwrap();
    desk
}

async fn function(desk: &Desk, timeout: Duration) -> Function {
    let mut environment = desk.aws.environment();
    let config = REFUSING.replace("numeric(1)", "numeric").into_bytes();
    let s3 = aws_sdk_s3::Client::new(desk.aws.config());
    s3.put_object().bucket(&desk.bucket).key("millstream.toml").body(config.into()).send().await.unwrap();
    environment.extend([
        ("DATABASE_URL".to_owned(), desk.url.clone()),
        ("DEAD_LETTER_QUEUE_URL".to_owned(), desk.queue.clone()),
        ("ARCHIVE_BUCKET".to_owned(), desk.bucket.clone()),
        ("MILLSTREAM_CONFIG".to_owned(), format!("s3://{}/millstream.toml", desk.bucket)),
    ]);
    Function::start(Settings { binary: binary("redrive").unwrap(), environment, timeout }).await.unwrap()
}

async fn invoke(function: &mut Function, task: &Value) -> Option<Task> {
    let answer = function.invoke(task.to_string()).await.ok()?;
    Some(serde_json::from_slice(&answer).unwrap())
}

#[tokio::test]
async fn the_function_answers_with_its_task_and_logs_no_value() {
    let desk = desk(3, 2).await;
    desk.put(&[r#""hunter2""#.to_owned(), r#"{"version":1,"source":"hunter3"}"#.to_owned()]).await;
    let mut function = function(&desk, Duration::from_secs(20)).await;
    let task = json!({"only": {"source": "log"}, "limit": 100});
    let answer = invoke(&mut function, &task).await.unwrap();
    assert_eq!((answer.only.source.as_deref(), answer.limit), (Some("log"), Some(100)));
    let progress = answer.progress;
    assert_eq!((progress.done, progress.redriven, progress.kept), (true, 5, counted(&[("unreadable", 2)])));
    assert_eq!((progress.records.applied, progress.records.dead_lettered), (3, 2));
    let refused = function.invoke(r#"{"onyl": {}}"#).await.unwrap_err().to_string();
    assert!(refused.contains("onyl"), "{refused}");
    let log = std::fs::read_to_string(function.log()).unwrap();
    assert!(log.contains("\"message\":\"redrive\"") && log.contains("dead letter kept"), "{log}");
    assert!(!log.contains("hunter"), "{log}");
}

#[tokio::test]
async fn a_function_killed_at_random_points_loses_nothing_and_doubles_nothing() {
    let desk = desk(270, 30).await;
    let mut function = function(&desk, Duration::from_secs(4)).await;
    let mut random = Random::new(11);
    let (mut kills, began, mut whole) = (0, Instant::now(), None);
    // Each invocation takes a part, so that a kill leaves something to be seen; all are one run.
    let task = json!({"limit": 50, "progress": {"started": millstream::ingest::now().to_string()}});
    loop {
        let (_, hidden) = desk.counts().await;
        // The first is left alone, to know how long one takes.
        let killer = whole.filter(|_| kills < 6).map(|whole: Duration| {
            let (pid, moment) = (function.pid().to_string(), whole.mul_f64(random.below(100) as f64 / 100.0));
            tokio::spawn(async move {
                tokio::time::sleep(moment).await;
                std::process::Command::new("kill").args(["-KILL", &pid]).output().map(drop)
            })
        });
        let since = Instant::now();
        let outcome = invoke(&mut function, &task).await;
        whole.get_or_insert_with(|| since.elapsed());
        kills += u32::from(outcome.is_none());
        if let Some(killer) = killer {
            killer.await.unwrap().unwrap();
        }
        if hidden == 0 && outcome.is_some_and(|task| task.progress.done && task.progress.redriven == 0) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it does not come to its end");
    }
    assert!(kills >= 6, "{kills}");
    let found = "SELECT count(*), count(DISTINCT n) AS \"all\" FROM log.log";
    assert_eq!(rows(&desk.client().await, found).await, [r#"{"count":271,"all":271}"#]);
    // Whoever is killed between sending a letter and deleting its forerunner leaves both.
    let mut refused = desk.letters().await;
    assert!(refused.iter().all(|letter| letter.error.class == "malformed" && letter.attempts == 2));
    refused.dedup_by_key(|letter| letter.place.sequence_number.clone());
    assert_eq!(refused.len(), 30);
}
