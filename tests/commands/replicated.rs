//! `millstream backfill` and `millstream verify`, with DynamoDB tables and a bucket; and the queues in `status`.

use millstream_tests::dynamodb::{export, put_item};
use millstream_tests::process::workspace;
use millstream_tests::program::millstream;
use millstream_tests::replica::{BUCKET, Replica};
use serde_json::{Value, json};

use super::{assert_golden, assert_refused};
use crate::support::{client, database, rows};

#[tokio::test]
async fn golden_tables_are_filled_and_verified() {
    let url = database().await;
    let mut replica = Replica::start(&workspace().join("events/replica"), url.clone()).await.unwrap();
    for (sku, quantity) in [("a", "1"), ("b", "2"), ("c", "3")] {
        let item = json!({"sku": {"S": sku}, "quantity": {"N": quantity}});
        put_item(&replica.aws, "Stock", &item).await.unwrap();
    }
    let scan = replica.run(&["backfill", "scan", "--source", "shop", "--table", "Stock"]).await.unwrap();
    assert_golden("backfill-scan", &scan, 0);
    let manifest = export(&replica.aws, "Stock", BUCKET, 1).await.unwrap();
    let export = ["backfill", "export", "--source", "shop", "--manifest", &manifest, "--key", "sku", "--json"];
    let loaded: Value = serde_json::from_str(&replica.run(&export).await.unwrap().out).unwrap();
    assert_eq!((&loaded["progress"]["done"], &loaded["progress"]["records"]), (&json!(true), &json!(3)), "{loaded}");
    let times = ["--from", "2026-01-01T00:00:00Z", "--to", "2027-01-01T00:00:00Z"];
    let reapply = [&["backfill", "reapply", "--source", "shop"], &times[..]].concat();
    assert_golden("backfill-reapply", &replica.run(&reapply).await.unwrap(), 0);

    let same = replica.run(&["verify"]).await.unwrap();
    assert_golden("verify", &same, 0);
    let client = client(&url).await;
    client
        .batch_execute("UPDATE shop.stock SET quantity = 7 WHERE sku = 'a'; DELETE FROM shop.stock WHERE sku = 'b'")
        .await
        .unwrap();
    let verify = ["verify", "--source", "shop", "--table", "Stock"];
    assert_golden("verify-differing", &replica.run(&verify).await.unwrap(), 3);
    let json = replica.run(&[&verify[..], &["--json"]].concat()).await.unwrap();
    let found: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (json.code, &found[0]["differences"]["missing"], &found[0]["items"]),
        (3, &json!(1), &json!(3)),
        "{found}"
    );

    // Dead letters need attention.
    let queue = aws_sdk_sqs::Client::new(replica.aws.config());
    queue.send_message().queue_url(&replica.queue).message_body("{}").send().await.unwrap();
    let undelivered = replica.aws.queue("on-failure").await.unwrap();
    replica.set("ON_FAILURE_QUEUE_URL", &undelivered);
    client.batch_execute("ANALYZE shop.stock").await.unwrap();
    assert_golden("status-queues", &replica.run(&["status"]).await.unwrap(), 3);
    // Loaded rows do not count as a stream's commits.
    let absent = "SELECT to_regclass('millstream.freshness') IS NULL AS absent";
    assert_eq!(rows(&client, absent).await, [r#"{"absent":true}"#]);
}

#[tokio::test]
async fn invalid_tasks_are_reported_in_clear_words() {
    let config = workspace().join("events/replica/millstream.toml").to_string_lossy().into_owned();
    let url = database().await;
    let environment = [("DATABASE_URL".to_owned(), url)];
    let cases: [(&[&str], &str); 6] = [
        (&["backfill", "{\"source\": \"shop\"}"], "or a task such as"),
        (&["backfill", "exprot"], "expected export, scan, reapply or a task"),
        (&["backfill", "scan", "--source", "nobody", "--table", "T"], "unknown source `nobody`"),
        (&["backfill", "scan", "--source", "shop"], "--table <TABLE>"),
        (&["verify", "--source", "bank"], "source bank: not a DynamoDB source"),
        (&["verify", "--table", "Stock"], "--source <NAME>"),
    ];
    for (arguments, words) in cases {
        let ran = millstream(&environment, &[&["--config", &config], arguments].concat()).await.unwrap();
        assert_refused(&ran, 2, words);
    }
    let reapply =
        ["backfill", "reapply", "--source", "shop", "--from", "yesterday", "--to", "today", "--config", &config];
    assert_refused(
        &millstream(&environment, &reapply).await.unwrap(),
        1,
        "invalid timestamp `yesterday`; expected e.g.",
    );
}
