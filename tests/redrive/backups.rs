//! Records that were first rejected are in the backup as well, and replace no other record there.

use std::time::Instant;

use millstream::backfill::{Backfill, BackfillTask, run};
use millstream::dynamodb_tables::DynamodbTables;
use serde_json::json;

use super::{
    Desk, PLENTY, dynamodb_change, dynamodb_event, dynamodb_sequence, dynamodb_stream, everything, ingest_event,
};

const SHOP: &str = "[source.shop]\nstream = \"*\"\nformat = \"dynamodb\"\n";

fn put(number: u64, text: &str) -> String {
    let id = format!(r#""id":{{"S":"{number}"}}"#);
    let images = format!(r#""Keys":{{{id}}},"NewImage":{{{id},"text":{{"S":"{text}"}}}}"#);
    dynamodb_change(&dynamodb_stream("Items"), "MODIFY", &dynamodb_sequence(number), &images)
}

#[tokio::test]
async fn a_batch_whose_first_and_last_were_refused_is_restored_whole() {
    let desk = Desk::open().await;
    let mut ingest = desk.ingest(SHOP);
    ingest_event(&mut ingest, &dynamodb_event(&[put(1, "a")])).await;
    let owner = desk.client().await;
    owner.batch_execute("ALTER TABLE shop.items ALTER text TYPE varchar(3)").await.unwrap();
    let batch = [put(2, "too long"), put(3, "b"), put(4, "c"), put(5, "too long")];
    let report = ingest_event(&mut ingest, &dynamodb_event(&batch)).await;
    assert_eq!((report.counts.applied, report.counts.dead_lettered), (2, 2), "{report}");
    owner.batch_execute("ALTER TABLE shop.items ALTER text TYPE text").await.unwrap();
    let before = desk.objects("backup/").await;

    let progress = desk.redrive(SHOP, json!({"limit": 2})).await.unwrap();
    assert_eq!(progress.records.applied, 2);
    let after = desk.objects("backup/").await;
    assert!(before.iter().all(|(key, text)| after.get(key) == Some(text)), "{:?}", after.keys());
    let new: Vec<&String> = after.keys().filter(|key| !before.contains_key(*key)).collect();
    let [new] = new[..] else { panic!("{new:?}") };
    assert_eq!(after[new].lines().count(), 2, "{new}");

    let rows = everything(&desk.url).await;
    assert_eq!(rows.len(), 5);
    owner.batch_execute("DROP SCHEMA shop CASCADE; DROP SCHEMA IF EXISTS millstream CASCADE").await.unwrap();
    let mut backfill = Backfill {
        ingest: &mut desk.ingest(SHOP),
        object_store: desk.archive(),
        tables: DynamodbTables::new(desk.sdk.clone()),
        deadline: Instant::now() + PLENTY,
        on_progress: &|_| (),
    };
    let all = json!({"source": "shop", "reapply": {"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}});
    let task: BackfillTask = serde_json::from_value(all).unwrap();
    assert!(run(&mut backfill, &task).await.unwrap().done);
    assert_eq!(everything(&desk.url).await, rows);
}
