//! Many writers at once, wanting the same tables, columns and keys.

use millstream_tests::random::Random;

use super::{CONFIG, put, remove, send, sent};
use crate::support::{client, database, ingest, rows};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_bring_one_table_and_its_columns_at_once() {
    let url = database().await;
    let tasks: Vec<_> = (0..8u64)
        .map(|writer| {
            let url = url.clone();
            tokio::spawn(async move {
                let mut ingest = ingest(CONFIG, &url);
                for round in 0..5 {
                    let key = |number: u64| format!(r#""id":{{"S":"{writer}-{number}"}}"#);
                    let more = format!(r#""new{round}":{{"N":"{writer}"}},"New{round}":{{"S":"second"}}"#);
                    let records: Vec<String> = (0..10).map(|number| put("T", round, &key(number), &more)).collect();
                    sent(&mut ingest, &records).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let client = client(&url).await;
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'shop'";
    // The key, the version, the overflow, and two columns of each of five rounds.
    assert_eq!(rows(&client, columns).await, [r#"{"count":13}"#]);
    assert_eq!(rows(&client, "SELECT count(*) FROM shop.t").await, [r#"{"count":80}"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_with_the_same_keys_in_other_orders_do_not_deadlock() {
    for (config, owned) in [
        (CONFIG.to_owned(), ""),
        (CONFIG.to_owned(), "v numeric NOT NULL,"),
        (format!("{CONFIG}deletes = \"soft\"\n"), ""),
    ] {
        let url = database().await;
        let owner = client(&url).await;
        owner
            .batch_execute(&format!("CREATE SCHEMA shop; CREATE TABLE shop.t ({owned} id text PRIMARY KEY)"))
            .await
            .unwrap();
        let change = |number: u64| {
            let key = format!(r#""id":{{"S":"{}"}}"#, number % 40);
            // Every third change of a key deletes it; the last change of each leaves it.
            if number % 3 == 1 && number < 760 {
                remove("T", number, &key)
            } else {
                put("T", number, &key, &format!(r#""v":{{"N":"{number}"}}"#))
            }
        };
        let tasks: Vec<_> = (0..8)
            .map(|writer| {
                let (url, config) = (url.clone(), config.clone());
                let mut changes: Vec<String> = (0..800).map(change).collect();
                Random::new(writer).shuffle(&mut changes);
                tokio::spawn(async move {
                    let mut ingest = ingest(&config, &url);
                    for batch in changes.chunks(50).take(6) {
                        let report = send(&mut ingest, batch).await;
                        let report = report.unwrap_or_else(|error| panic!("{config}{owned}: {error}"));
                        assert_eq!(report.counts.retry, 0, "{report}");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        sent(&mut ingest(&config, &url), &(0..800).map(change).collect::<Vec<_>>()).await;
        let found = rows(&owner, "SELECT count(*), min(v), max(v) FROM shop.t").await;
        assert_eq!(found, [r#"{"count":40,"min":760,"max":799}"#], "{config}{owned}");
    }
}
