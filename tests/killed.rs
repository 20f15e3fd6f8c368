//! The real process, killed at any time: an unanswered batch is delivered again, and nothing is duplicated.

use std::time::Duration;

use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::process::{target, workspace};
use millstream_tests::random::Random;
use millstream_tests::sportsbook::{Mixture, evening};

use crate::support::{client, database, rows};

#[tokio::test]
async fn a_process_killed_at_random_points_loses_nothing_and_doubles_nothing() {
    let url = database().await;
    let config = workspace().join("events/sportsbook/millstream.toml");
    let environment = vec![
        ("DATABASE_URL".to_owned(), url.clone()),
        ("MILLSTREAM_CONFIG".to_owned(), config.to_string_lossy().into_owned()),
    ];
    let settings =
        Settings { binary: binary("kinesis-ingest").unwrap(), environment, timeout: Duration::from_secs(30) };
    let mut function = Function::start(settings).await.unwrap();
    let evening = evening(3_000, 3, Mixture::CLEAN, millstream::clock::now());
    let records: Vec<ShardRecord> =
        (1..).zip(&evening.records).map(|(number, (_, data))| ShardRecord::numbered(number, data.clone())).collect();
    let mut random = Random::new(5);
    let mut kills = 0;
    // Small batches, and a large one, which is written while it is still being decoded.
    let (small, large) = records.split_at(1_000);
    for batch in small.chunks(250).chain([large]) {
        let payload = event("sportsbook", "shardId-000000000000", batch);
        // The first attempts are killed within the time that a complete one takes; the last one is not.
        for _ in 0..4 {
            let moment = Duration::from_millis(random.below(60 * batch.len() as u64 / 250));
            let pid = function.pid().to_string();
            let killer = tokio::spawn(async move {
                tokio::time::sleep(moment).await;
                std::process::Command::new("kill").args(["-KILL", &pid]).output().map(drop)
            });
            let outcome = function.invoke(payload.clone()).await;
            killer.await.unwrap().unwrap_or_default();
            kills += u32::from(outcome.is_err());
            if outcome.is_ok() {
                // It finished before the kill, which then hits the next invocation or no process.
                break;
            }
        }
        while function.invoke(payload.clone()).await.is_err() {}
    }
    assert!(kills > 3, "only {kills} invocations were cut off; is {} that fast?", target().display());
    let client = client(&url).await;
    let count = "SELECT (SELECT count(*) FROM sportsbook.tracks) + (SELECT count(*) FROM sportsbook.pages) \
                 + (SELECT count(*) FROM sportsbook.identifies) AS n, \
                 (SELECT count(*) = count(DISTINCT id) FROM sportsbook.tracks) AS once";
    assert_eq!(rows(&client, count).await, [r#"{"n":3000,"once":true}"#]);
    let bets =
        "SELECT count(*) = (SELECT count(DISTINCT bet_id) FROM sportsbook.bet_placed) AS same FROM sportsbook.bet";
    assert_eq!(rows(&client, bets).await, [r#"{"same":true}"#]);
}
