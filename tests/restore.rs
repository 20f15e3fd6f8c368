//! A replica on real parts: tables change, functions replicate them, and a lost schema is restored.

use std::time::Duration;

use millstream::aws::Aws;
use millstream::backfill::{Backfill, BackfillTask, run};
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::dead_letter::DeadLetters;
use millstream::dynamodb_tables::DynamodbTables;
use millstream::ingest::Ingest;
use millstream::object_store::ObjectStore;
use millstream::task::{Deadline, TaskCall};
use millstream_tests::dynamodb::export;
use millstream_tests::event_source::Progress;
use millstream_tests::kinesis::put;
use millstream_tests::local_aws::REGION;
use millstream_tests::pgbouncer::Admission;
use millstream_tests::process::workspace;
use millstream_tests::replica::{BANK, BUCKET, Replica};
use millstream_tests::shop::{Bank, Shop, TABLES};
use serde_json::json;

use crate::support::{client, cluster, database, pooler, rows};

/// The differences between a table and its replica as text; empty if there are none.
async fn differences(replica: &Replica) -> String {
    let mut told = String::new();
    for (table, _) in TABLES {
        let verified = replica.backfill(&json!({"source": "shop", "verify": {"table": table}})).await.unwrap();
        if let Some(found) = verified.progress.differences {
            told.push_str(&format!("{table}: {found:?}\n"));
        }
    }
    told
}

/// The database behind a pooler, with fewer backends than functions.
#[tokio::test]
async fn a_lost_replica_comes_back_from_an_export_and_the_backup() {
    let url = database().await;
    let pooler = pooler(cluster().port(), 2, Admission::Anybody);
    let address = pooler.as_ref().map_or_else(|| url.clone(), |pooler| pooler.url(&url));
    let replica = Replica::start(&workspace().join("events/replica"), address).await.unwrap();
    let (mut shop, mut bank) = (Shop::new(7, 30), Bank::new(8, 30));
    let progress = Progress::default();
    let changing = async {
        // DMS sends a table's control record before its rows; both are in one shard.
        let records: Vec<_> = [bank.table()].into_iter().chain((0..200).map(|_| bank.change())).collect();
        put(&replica.aws, BANK, &records).await.unwrap();
        for _ in 0..300 {
            replica.change(shop.change()).await.unwrap();
        }
        let mut exports = Vec::new();
        for (table, _) in TABLES {
            exports.push(export(&replica.aws, table, BUCKET, 3).await.unwrap());
        }
        for _ in 0..300 {
            replica.change(shop.change()).await.unwrap();
        }
        progress.finish();
        exports
    };
    let (reported, exports) = tokio::join!(replica.consume(&progress), changing);
    let reported = reported.unwrap();
    assert_eq!((reported.dead_lettered, reported.duplicate), (0, 0), "{reported:?}");
    assert_eq!(differences(&replica).await, "");

    let client = client(&url).await;
    let accounts = "SELECT id, (balance * 100)::bigint AS cents FROM bank.account ORDER BY id";
    let expected: Vec<String> =
        bank.accounts.iter().map(|(id, cents)| format!(r#"{{"id":{id},"cents":{cents}}}"#)).collect();
    assert_eq!(rows(&client, accounts).await, expected);
    let private = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'holder'";
    assert_eq!(rows(&client, private).await, [r#"{"count":0}"#]);
    let hashed = "SELECT bool_and(length(email) = 64) AS hashed FROM shop.customers";
    assert_eq!(rows(&client, hashed).await, [r#"{"hashed":true}"#]);
    let before =
        rows(&client, "SELECT to_jsonb(c) - '_overflow' AS row FROM shop.customers c ORDER BY customer_id").await;
    client
        .batch_execute("DROP SCHEMA shop CASCADE; DROP SCHEMA bank CASCADE; DROP SCHEMA millstream CASCADE")
        .await
        .unwrap();
    for manifest in &exports {
        let task = replica.backfill(&json!({"source": "shop", "export": {"manifest": manifest}})).await.unwrap();
        assert_eq!((task.progress.dead_lettered, Some(task.progress.records)), (0, task.progress.total));
    }
    let mut again = 0;
    for source in ["shop", "bank", "shop"] {
        let all = json!({"source": source, "reapply": {"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}});
        let task = replica.backfill(&all).await.unwrap();
        assert!(task.progress.done && task.progress.dead_lettered == 0, "{task:?}");
        again += task.progress.records;
    }
    assert!(again > reported.records());
    assert_eq!(rows(&client, accounts).await, expected);
    assert_eq!(differences(&replica).await, "");
    let after =
        rows(&client, "SELECT to_jsonb(c) - '_overflow' AS row FROM shop.customers c ORDER BY customer_id").await;
    assert_eq!(before.len(), after.len());
    if let Some(pooler) = &pooler {
        assert_eq!(pooler.leftovers(&url).await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn verify_names_what_differs() {
    let url = database().await;
    let replica = Replica::start(&workspace().join("events/replica"), url.clone()).await.unwrap();
    let mut shop = Shop::new(3, 20);
    for _ in 0..120 {
        replica.change(shop.change()).await.unwrap();
    }
    for (table, _) in TABLES {
        let scan = json!({"source": "shop", "scan": {"table": table, "segment": 0, "segments": 1}});
        assert!(replica.backfill(&scan).await.unwrap().progress.done);
    }
    assert_eq!(differences(&replica).await, "");
    let client = client(&url).await;
    let change = "UPDATE shop.stock SET quantity = quantity + 1 WHERE sku = (SELECT min(sku) FROM shop.stock);\
                  DELETE FROM shop.stock WHERE sku = (SELECT max(sku) FROM shop.stock);\
                  INSERT INTO shop.stock (sku) VALUES ('nobody''s')";
    client.batch_execute(change).await.unwrap();
    let verified = replica.backfill(&json!({"source": "shop", "verify": {"table": "Stock"}})).await.unwrap();
    let found = verified.progress.differences.unwrap();
    assert_eq!((found.missing, found.differing, found.extra), (1, 1, 1), "{found:?}");
    let told: Vec<&str> = found.examples.iter().map(|example| &*example.what).collect();
    assert_eq!(told.iter().filter(|what| ["missing", "quantity", "extra"].contains(what)).count(), 3, "{found:?}");
}

/// Runs a task in steps without any time, each in a new process; returns the number of steps.
async fn in_pieces(replica: &Replica, task: serde_json::Value) -> usize {
    let aws = Aws::local(replica.aws.endpoint(), REGION).await;
    let config = std::fs::read_to_string(workspace().join("events/replica/millstream.toml")).unwrap();
    let mut task: BackfillTask = serde_json::from_value(task).unwrap();
    for pieces in 1..1_000 {
        let database = Database::new(&DatabaseAddress::from_url(&replica.url), aws.clone()).unwrap();
        let bucket = Some(BUCKET.to_owned());
        let dead_letters =
            DeadLetters::new(aws.clone(), Some(replica.queue.clone()), bucket.clone(), "test".to_owned());
        let mut ingest = Ingest::new(Config::parse("replica", &config).unwrap(), database, dead_letters);
        let (archive, tables) = (ObjectStore::new(aws.clone(), bucket), DynamodbTables::new(aws.clone()));
        let mut backfill = Backfill {
            ingest: &mut ingest,
            object_store: archive,
            tables,
            call: TaskCall::unwatched(Deadline::after(Duration::ZERO)),
        };
        let progress = run(&mut backfill, &task).await.unwrap();
        // The task is passed from step to step as JSON, as Step Functions does.
        let told = serde_json::to_string(&BackfillTask { progress, ..task }).unwrap();
        task = serde_json::from_str(&told).unwrap();
        if task.progress.done {
            assert_eq!(task.progress.differences, None);
            return pieces;
        }
    }
    panic!("the work does not come to its end: {task:?}");
}

#[tokio::test]
async fn every_task_resumes_where_its_last_step_ended() {
    let url = database().await;
    let replica = Replica::start(&workspace().join("events/replica"), url.clone()).await.unwrap();
    let mut shop = Shop::new(11, 25);
    let progress = Progress::default();
    let changing = async {
        for _ in 0..250 {
            replica.change(shop.change()).await.unwrap();
        }
        progress.finish();
    };
    let (consumed, ()) = tokio::join!(replica.consume(&progress), changing);
    consumed.unwrap();
    let client = client(&url).await;
    let all = json!({"source": "shop", "reapply": {"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}});
    let manifest = export(&replica.aws, "Orders", BUCKET, 5).await.unwrap();
    for task in [
        all,
        json!({"source": "shop", "export": {"manifest": manifest}}),
        json!({"source": "shop", "scan": {"table": "Orders"}}),
    ] {
        client.batch_execute("DROP SCHEMA shop CASCADE; DROP SCHEMA IF EXISTS millstream CASCADE").await.unwrap();
        let pieces = in_pieces(&replica, task.clone()).await;
        assert!(pieces > 1 || task.get("scan").is_some(), "{task} took {pieces}");
        in_pieces(&replica, json!({"source": "shop", "verify": {"table": "Orders"}})).await;
    }
}
