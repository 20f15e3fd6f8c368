//! Records that were first rejected are in the backup as well, and replace no other record there.

use millstream::backfill::{Backfill, BackfillProgress, BackfillTask, run};
use millstream::dynamodb_tables::DynamodbTables;
use millstream::task::{Deadline, TaskCall};
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
    let all = json!({"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"});
    assert!(reapply(&desk, all).await.done);
    assert_eq!(everything(&desk.url).await, rows);
}

async fn reapply(desk: &Desk, task: serde_json::Value) -> BackfillProgress {
    let mut backfill = Backfill {
        ingest: &mut desk.ingest(SHOP),
        object_store: desk.archive(),
        tables: DynamodbTables::new(desk.sdk.clone()),
        call: TaskCall::unwatched(Deadline::after(PLENTY)),
    };
    let task: BackfillTask = serde_json::from_value(json!({"source": "shop", "reapply": task})).unwrap();
    run(&mut backfill, &task).await.unwrap()
}

/// A restore says what it could not restore, and restores everything else.
#[tokio::test]
async fn damaged_lines_are_reported_with_object_and_line_and_cost_only_themselves() {
    let desk = Desk::open().await;
    let mut ingest = desk.ingest(SHOP);
    ingest_event(&mut ingest, &dynamodb_event(&[put(1, "a"), put(2, "b"), put(3, "c"), put(4, "d")])).await;
    let rows = everything(&desk.url).await;
    let (key, text) = desk.objects("backup/").await.pop_first().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let arrival = lines[1].split("\"arrival\":\"").nth(1).unwrap().split('"').next().unwrap();
    let damaged = [
        lines[0],
        "",
        &lines[1].replace(arrival, "1.2.2026"),
        lines[2],
        "damaged",
        &lines[1][..lines[1].len() / 2],
        r#"{"Item":{}}"#,
        lines[3],
    ];
    let key_of_copy = key.replace(".ndjson.gz", ".ndjson");
    let archive = desk.archive();
    archive.put(&key_of_copy, damaged.join("\n").into_bytes()).await.unwrap();
    let s3 = aws_sdk_s3::Client::new(desk.aws.config());
    s3.delete_object().bucket(&desk.bucket).key(&key).send().await.unwrap();
    let owner = desk.client().await;
    owner.batch_execute("DROP SCHEMA shop CASCADE; DROP SCHEMA IF EXISTS millstream CASCADE").await.unwrap();

    let progress = reapply(&desk, json!({"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"})).await;
    assert_eq!((progress.done, progress.records), (true, 3), "{progress:?}");
    let unreadable = progress.unreadable.unwrap();
    let address = archive.address(&key_of_copy).unwrap();
    let found: Vec<_> = unreadable.examples.iter().map(|line| (&*line.object, line.line, &*line.error)).collect();
    assert_eq!((unreadable.count, found[0]), (4, (&*address, 3, "the arrival is not a timestamp")));
    assert_eq!(found[1], (&*address, 5, "not a backup record: invalid JSON at column 1"));
    assert!(found[2].1 == 6 && found[3].1 == 7, "{found:?}");
    let restored = everything(&desk.url).await;
    assert_eq!(restored.len(), 3);
    assert!(restored.iter().all(|row| rows.contains(row)), "{restored:?}");
}

/// DynamoDB may omit when a change was made.
#[tokio::test]
async fn a_record_that_arrived_at_an_unknown_time_is_restored_with_any_range() {
    let desk = Desk::open().await;
    let unknown = put(1, "a").replace("\"ApproximateCreationDateTime\":1770593461,", "");
    ingest_event(&mut desk.ingest(SHOP), &dynamodb_event(&[unknown, put(2, "b")])).await;
    assert!(desk.objects("backup/shop/items/1970-01-01/00/").await.len() == 1);
    let rows = everything(&desk.url).await;
    assert_eq!(rows.len(), 2);
    for (table, from, restored) in [
        (None, "2026-01-01T00:00:00Z", 2),
        (Some("items"), "2026-01-01T00:00:00Z", 2),
        (None, "1960-01-01T00:00:00Z", 2),
        (None, "2026-12-01T00:00:00Z", 1),
    ] {
        desk.client()
            .await
            .batch_execute("DROP SCHEMA shop CASCADE; DROP SCHEMA IF EXISTS millstream CASCADE")
            .await
            .unwrap();
        let progress = reapply(&desk, json!({"from": from, "to": "2027-01-01T00:00:00Z", "table": table})).await;
        assert_eq!((progress.done, progress.records), (true, restored), "{from}");
        assert_eq!(everything(&desk.url).await.len() as u64, restored);
    }
}
