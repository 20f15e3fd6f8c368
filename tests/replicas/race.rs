//! Many concurrent writers that need the same tables, columns and keys.

use millstream_tests::random::Random;

use super::{CONFIG, put, remove, send, sent};
use crate::support::{adopt, client, database, ingest, rows};

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
        adopt(&owner, "shop.t", "DynamoDB table T", "id|v").await;
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

#[tokio::test]
async fn a_large_batch_is_written_in_slices_and_ends_as_if_it_were_not() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let element = |number: u64| {
        let key = format!(r#""id":{{"S":"k{}"}}"#, number % 2_900);
        match number {
            // A column that is new in the last slice, a record that no slice can write, and a repeated key.
            2_950 => put("T", number, &key, r#""late":{"S":"x"}"#),
            1_500 => put("T", number, &key, r#""bad":{"N":"no"}"#),
            _ => put("T", number, &key, &format!(r#""n":{{"N":"{number}"}}"#)),
        }
    };
    let first = sent(&mut ingest, &[put("T", 0, r#""id":{"S":"k0"}"#, r#""n":{"N":"0"}"#)]).await;
    assert_eq!(first.counts.applied, 1);
    let elements: Vec<String> = (1..=3_000).map(element).collect();
    for round in 0..3 {
        let report = sent(&mut ingest, &elements).await;
        assert_eq!((report.counts.total(), report.counts.retry), (3_000, 1), "{report}");
        assert_eq!(round > 0, report.counts.applied == 0, "{report}");
    }
    // Newer changes in one batch: no DDL is needed.
    let newer: Vec<String> = (0..2_900)
        .map(|key| put("T", 10_000 + key, &format!(r#""id":{{"S":"k{key}"}}"#), r#""n":{"N":"-1"}"#))
        .collect();
    sent(&mut ingest, &newer).await;
    let report = sent(&mut ingest, &newer).await;
    assert_eq!(report.counts.duplicate, 2_900, "{report}");
    let client = client(&url).await;
    let sums = "SELECT count(*) AS keys, sum(n), count(late) AS late FROM shop.t";
    assert_eq!(rows(&client, sums).await, [r#"{"keys":2900,"sum":-2900,"late":0}"#]);
}
