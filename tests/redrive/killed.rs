//! The real function: it returns its task, and may be killed at any time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millstream::redrive::RedriveTask;
use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::random::Random;
use serde_json::{Value, json};

use super::{Desk, NARROW, counted, documents, ingest_event, widened};
use crate::support::rows;

/// Dead letters of which the first can be fixed and the last cannot; their positions in the stream start at `first`.
async fn refuse(desk: &Desk, queue: &str, first: u64, mendable: u64, malformed: u64) {
    let numbers = first..first + mendable;
    let mut records: Vec<String> = numbers.map(|number| format!("{{\"n\":{}}}", number + 10)).collect();
    records.extend((0..malformed).map(|number| format!("hunter{number}")));
    let report = ingest_event(&mut desk.ingest_into(NARROW, &desk.url, queue), &documents(first, &records)).await;
    assert_eq!(report.counts.dead_lettered, mendable + malformed);
}

async fn function(desk: &Desk, timeout: Duration) -> Function {
    let mut environment = desk.aws.environment();
    let config = widened().into_bytes();
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

async fn invoke(function: &mut Function, task: &Value) -> Option<RedriveTask> {
    let answer = function.invoke(task.to_string()).await.ok()?;
    Some(serde_json::from_slice(&answer).unwrap())
}

#[tokio::test]
async fn the_function_answers_with_its_task_and_logs_no_value() {
    let desk = Desk::open().await;
    refuse(&desk, &desk.queue, 1, 3, 2).await;
    desk.fix_cause().await;
    desk.put(&[r#""hunter2""#.to_owned(), r#"{"version":1,"source":"hunter3"}"#.to_owned()]).await;
    let mut function = function(&desk, Duration::from_secs(20)).await;
    let task = json!({"only": {"source": "log"}, "limit": 5});
    let answer = invoke(&mut function, &task).await.unwrap();
    assert_eq!((answer.only.source.as_deref(), answer.limit), (Some("log"), Some(5)));
    let progress = answer.progress;
    assert_eq!((progress.done, progress.redriven, progress.kept), (true, 5, counted(&[("unreadable", 2)])));
    assert_eq!((progress.records.applied, progress.records.dead_lettered), (3, 2));
    let refused = function.invoke(r#"{"onyl": {}}"#).await.unwrap_err().to_string();
    assert!(refused.contains("onyl"), "{refused}");
    let log = std::fs::read_to_string(function.log()).unwrap();
    assert!(log.contains("\"message\":\"redrive\"") && log.contains("dead letter left on queue"), "{log}");
    assert!(!log.contains("hunter"), "{log}");
}

#[tokio::test]
async fn a_function_killed_at_random_points_loses_nothing_and_doubles_nothing() {
    let desk = Desk::open().await;
    // The local AWS needs more time per message the more messages there are.
    let mut queues = VecDeque::new();
    for number in 0..6 {
        let queue = desk.aws.queue(&format!("{}-{number}", desk.bucket)).await.unwrap();
        refuse(&desk, &queue, 1 + 50 * number, 48, 2).await;
        queues.push_back(queue);
    }
    desk.fix_cause().await;
    // After an invocation is killed, its messages stay invisible for as long as it could have run.
    let mut function = function(&desk, Duration::from_secs(4)).await;
    let (mut random, mut kills, mut whole) = (Random::new(11), 0, None);
    let began = Instant::now();
    while let Some(queue) = queues.pop_front() {
        // The first is not killed, to measure how long one takes.
        let killer = whole.filter(|_| kills < 4).map(|whole: Duration| {
            let (pid, moment) = (function.pid().to_string(), whole.mul_f64(random.below(100) as f64 / 100.0));
            tokio::spawn(async move {
                tokio::time::sleep(moment).await;
                std::process::Command::new("kill").args(["-KILL", &pid]).output().map(drop)
            })
        });
        let since = Instant::now();
        let outcome = invoke(&mut function, &json!({"queue": queue, "limit": 50})).await;
        whole.get_or_insert_with(|| since.elapsed());
        kills += u32::from(outcome.is_none());
        if let Some(killer) = killer {
            killer.await.unwrap().unwrap();
        }
        if desk.counts_of(&queue).await != (0, 0) {
            queues.push_back(queue);
        }
        assert!(began.elapsed() < Duration::from_secs(120), "it does not come to its end");
    }
    assert!(kills >= 3, "{kills}");
    let found = "SELECT count(*), count(DISTINCT n) AS \"all\" FROM log.log";
    assert_eq!(rows(&desk.client().await, found).await, [r#"{"count":288,"all":288}"#]);
    // A process that is killed between sending a dead letter and deleting the previous one leaves both.
    let mut refused = desk.letters().await;
    assert!(refused.iter().all(|letter| letter.error.class == "malformed" && letter.attempts == 2));
    refused.dedup_by_key(|letter| letter.position.sequence_number.clone());
    assert_eq!(refused.len(), 12);
}
