//! Faults during a redrive, and messages that are not dead letters.

use std::time::Duration;

use base64_simd::STANDARD;
use millstream::aws::Aws;
use millstream::redrive::Queues;
use millstream_tests::local_aws::REGION;
use millstream_tests::proxy::{Fault, Proxy};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Desk, NARROW, PLENTY, counted, documents, ingest_event, widened};
use crate::support::{cluster, rows, through};

/// Creates this many dead letters, and fixes their table.
async fn desk(count: usize) -> Desk {
    let desk = Desk::open().await;
    let mut records: Vec<String> = (0..count).map(|number| format!("{{\"n\":{}}}", number + 10)).collect();
    records.push(r#"{"n":1}"#.to_owned());
    ingest_event(&mut desk.ingest(NARROW), &documents(1, &records)).await;
    desk.fix_cause().await;
    desk
}

async fn assert_whole(desk: &Desk, count: usize) {
    let found = rows(&desk.client().await, "SELECT count(*), count(DISTINCT n) AS \"all\" FROM log.log").await;
    assert_eq!(found, [format!(r#"{{"count":{0},"all":{0}}}"#, count + 1)]);
    assert_eq!(desk.counts().await, (0, 0));
}

/// Cuts every connection at the text, until it is ended.
fn cut_forever(proxy: std::sync::Arc<Proxy>, fault: Fault, text: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            proxy.cut(fault, text);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

#[tokio::test]
async fn a_database_that_is_cut_off_fails_the_run_and_every_message_is_there_again() {
    for fault in [Fault::Before, Fault::After] {
        let desk = desk(25).await;
        let proxy = std::sync::Arc::new(Proxy::start(cluster().port()).await.unwrap());
        let through = through(&desk.url, &proxy);
        let cutting = cut_forever(proxy.clone(), fault, "COMMIT");
        let ingest = desk.ingest_into(&widened(), &through, &desk.queue);
        let error = desk.redrive_with(ingest, json!({"limit": 25}), PLENTY).await.unwrap_err();
        cutting.abort();
        assert!(!error.needs_operator() && proxy.cuts() > 0, "{error}");
        assert_eq!(desk.counts().await, (25, 0), "{fault:?}");
        // A single cut has no effect or costs one more run.
        proxy.cut(fault, "COMMIT");
        let mut redriven = 0;
        while redriven < 25 {
            let ingest = desk.ingest_into(&widened(), &through, &desk.queue);
            redriven +=
                desk.redrive_with(ingest, json!({"limit": 25}), PLENTY).await.map_or(0, |progress| progress.redriven);
        }
        assert_whole(&desk, 25).await;
    }
}

#[tokio::test]
async fn a_queue_that_fails_in_the_middle_costs_nothing() {
    let desk = desk(25).await;
    // A record that is rejected again cannot be stored: no message of its batch is deleted.
    let nowhere = desk.queue.replace(&desk.bucket, "nowhere");
    let ingest = desk.ingest_into(NARROW, &desk.url, &nowhere);
    let narrowed = "ALTER TABLE log.log ALTER n TYPE numeric(1)";
    let owner = desk.client().await;
    owner.batch_execute(narrowed).await.unwrap();
    let error = desk.redrive_with(ingest, json!({}), PLENTY).await.unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert_eq!(desk.counts().await, (25, 0));
    desk.fix_cause().await;

    // A message cannot be deleted after its record was written: it is processed twice and written once.
    let port = desk.aws.endpoint().rsplit(':').next().unwrap().parse().unwrap();
    let proxy = std::sync::Arc::new(Proxy::start(port).await.unwrap());
    let through = Aws::local(&format!("http://127.0.0.1:{}", proxy.port()), REGION).await;
    let queues = Queues::new(through, [desk.queue.clone()]);
    let cutting = cut_forever(proxy.clone(), Fault::Before, "DeleteMessageBatch");
    let error =
        desk.redrive_from(queues.clone(), desk.ingest(&widened()), json!({"limit": 12}), PLENTY).await.unwrap_err();
    cutting.abort();
    assert!(!error.needs_operator() && proxy.cuts() > 0, "{error}");
    assert_eq!(desk.counts().await, (25, 0));
    let written = rows(&owner, "SELECT count(*) FROM log.log").await;
    assert_eq!(written, [r#"{"count":13}"#]);
    // The message is deleted, and the response is lost.
    proxy.cut(Fault::After, "DeleteMessageBatch");
    let progress = desk.redrive_from(queues, desk.ingest(&widened()), json!({"limit": 25}), PLENTY).await.unwrap();
    assert_eq!((progress.redriven, progress.records.duplicate, progress.records.applied), (25, 12, 13));
    assert_whole(&desk, 25).await;
}

#[tokio::test]
async fn two_runs_over_one_queue_do_not_disturb_each_other() {
    let desk = desk(80).await;
    let config = widened();
    let (one, other) = tokio::join!(desk.redrive(&config, json!({})), desk.redrive(&config, json!({})));
    let (one, other) = (one.unwrap(), other.unwrap());
    // SQS may deliver a message to both.
    assert!(one.redriven + other.redriven >= 80, "{one:?} {other:?}");
    assert_eq!(one.records.applied + other.records.applied, 80, "{one:?} {other:?}");
    assert!(one.kept.is_empty() && other.kept.is_empty(), "{one:?} {other:?}");
    assert_whole(&desk, 80).await;
}

/// A valid dead letter, except for some members.
pub fn letter(changed: &Value) -> String {
    let mut letter = json!({
        "version": 1, "source": "log",
        "place": {"stream": "arn:aws:kinesis:us-east-1:123456789012:stream/s", "shard": "shardId-000000000000", "sequence_number": "77", "sub_sequence_number": 0},
        "arrival": "2026-02-08T23:30:00.98Z", "partition_key": "k", "payload": {"base64": STANDARD.encode_to_string(r#"{"n":77}"#)},
        "redacted": true, "digest": "00000000000000ff",
        "error": {"class": "refused", "table": null, "sqlstate": null, "message": ""}, "attempts": 1, "function": "f",
    });
    for (member, value) in changed.as_object().unwrap() {
        letter[member] = value.clone();
    }
    letter.to_string()
}

#[tokio::test]
async fn what_is_not_a_dead_letter_is_kept_and_reported() {
    let desk = desk(1).await;
    let unreadable = [
        " ".to_owned(),
        "no json".to_owned(),
        "null".to_owned(),
        "7".to_owned(),
        r#""hunter2""#.to_owned(),
        "[]".to_owned(),
        r#"[null,1]"#.to_owned(),
        "{}".to_owned(),
        "[".repeat(100_000),
        r#"{"version":1}"#.to_owned(),
        r#"{"version":"1","source":"log"}"#.to_owned(),
        r#"{"version":99,"shape":"another"}"#.to_owned(),
        r#"{"version":-1}"#.to_owned(),
        r#"{"version":1,"version":1}"#.to_owned(),
        r#"{"KinesisBatchInfo":7}"#.to_owned(),
        r#"{"KinesisBatchInfo":{"shardId":"s","streamArn":"arn:aws:kinesis:us-east-1:123456789012:stream/s"}}"#
            .to_owned(),
        r#"{"Records":[{"body":"an event, not a message"}]}"#.to_owned(),
        letter(&json!({"version": 99})),
        letter(
            &json!({"place": {"stream": "arn:aws:kinesis:us-east-1:123456789012:stream/s", "shard": "", "sequence_number": "1", "sub_sequence_number": 4_294_967_296_u64}}),
        ),
        letter(&json!({"payload": {"base64": "not base64!"}})),
        letter(&json!({"payload": {"carrier_pigeon": "x"}})),
        letter(&json!({"digest": "not hexadecimal"})),
        letter(&json!({"digest": "10000000000000000"})),
        letter(&json!({"arrival": "yesterday"})),
        letter(&json!({"attempts": -1})),
    ];
    let unavailable = [
        letter(&json!({"payload": {"s3": "hunter2"}})),
        letter(&json!({"payload": {"s3": "s3://"}})),
        letter(&json!({"payload": {"s3": "s3://nobody-s-bucket/key"}})),
    ];
    let unknown = [letter(
        &json!({"source": "nobody", "place": {"stream": "", "shard": "", "sequence_number": "", "sub_sequence_number": 0}}),
    )];
    let bodies: Vec<String> = unreadable.iter().chain(&unavailable).chain(&unknown).cloned().collect();
    desk.put(&bodies).await;
    let progress = desk.redrive(&widened(), json!({})).await.unwrap();
    let kept = [("unavailable", 3), ("unknown_source", 1), ("unreadable", unreadable.len() as u64)];
    assert_eq!((progress.redriven, progress.records.applied, progress.kept), (1, 1, counted(&kept)));
    assert_eq!(desk.counts().await, (29, 0));
    let mut left = desk.bodies().await;
    let mut expected = bodies;
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
}

/// Messages that resemble dead letters are processed, however odd they are: no member is trusted.
#[tokio::test]
async fn an_odd_letter_is_written_or_refused_and_its_neighbours_written() {
    let desk = desk(10).await;
    let place = |sequence: &str, sub: u32| json!({"stream": "arn:aws:kinesis:us-east-1:123456789012:stream/s", "shard": "a/b:c", "sequence_number": sequence, "sub_sequence_number": sub});
    let packed = json!({"class": "unreadable", "table": null, "sqlstate": null, "message": ""});
    let odd = [
        letter(
            &json!({"place": place("77", u32::MAX), "error": packed, "payload": {"base64": STANDARD.encode_to_string("{\"n\":70}{\"n\":71}")}}),
        ),
        letter(&json!({"attempts": u32::MAX, "payload": {"base64": STANDARD.encode_to_string("no json")}})),
        letter(&json!({"payload": {"base64": ""}})),
        letter(&json!({"payload": {"base64": ""}, "error": packed})),
        letter(&json!({"place": place("", 0), "digest": "0"})),
        letter(&json!({"place": place("no number 'quoted' \"twice\"", 1), "partition_key": "\u{0}"})),
        letter(
            &json!({"place": place("78", 0), "payload": {"base64": STANDARD.encode_to_string("[1]")}, "error": packed}),
        ),
        letter(&json!({"place": place("79", 0), "arrival": "-4712-01-01T00:00:00Z"})),
        letter(
            &json!({"place": place("80", 0), "arrival": "+294246-12-31T23:59:59Z", "refused_at": "never", "unknown": 1}),
        ),
    ];
    desk.put(&odd).await;
    let progress = desk.redrive(&widened(), json!({"limit": 19})).await.unwrap();
    assert_eq!((progress.redriven, progress.kept.clone()), (19, counted(&[])), "{progress:?}");
    let written = rows(&desk.client().await, "SELECT count(*) FROM log.log WHERE n BETWEEN 10 AND 19").await;
    assert_eq!(written, [r#"{"count":10}"#]);
    assert!(desk.letters().await.iter().all(|letter| letter.attempts >= 2));
}

const TABLES: &str = r#"
[source.log]
stream = "s"
format = "json"
[table.note]
source = "log"
when = { path = "kind", is = "note" }
"#;

#[tokio::test]
async fn a_letter_whose_table_cannot_be_filled_does_not_keep_others() {
    let desk = Desk::open().await;
    let config = format!(
        "{TABLES}[table.item]\nsource = \"log\"\nwhen = {{ path = \"kind\", is = \"item\" }}\nkey = [\"id\"]\nversion = \"v\"\nmerge = \"row\"\non_unwritable = \"stop\"\n"
    );
    let refusing = TABLES.replace("is = \"note\"", "is = \"nothing\"");
    let records: Vec<String> = (0..23)
        .map(|number| match number % 7 {
            3 => format!(r#"{{"kind":"item","id":"{number}","v":1}}"#),
            _ => format!(r#"{{"kind":"note","n":{number}}}"#),
        })
        .collect();
    ingest_event(&mut desk.ingest(&refusing), &documents(1, &records)).await;
    let owner = desk.client().await;
    owner.batch_execute("CREATE SCHEMA log; CREATE TABLE log.item (id text, v bigint)").await.unwrap();
    let progress = desk.redrive(&config, json!({"limit": 23})).await.unwrap();
    assert_eq!((progress.redriven, progress.records.applied, progress.kept), (20, 20, counted(&[("failed", 3)])));
    assert_eq!(desk.account().await, [("unrouted 1".to_owned(), 3)].into());
    owner.batch_execute("ALTER TABLE log.item ADD PRIMARY KEY (id)").await.unwrap();
    let progress = desk.redrive(&config, json!({"limit": 3})).await.unwrap();
    assert_eq!((progress.redriven, progress.records.applied), (3, 3));
    assert_eq!(rows(&owner, "SELECT count(*) FROM log.item").await, [r#"{"count":3}"#]);
}

#[tokio::test]
async fn a_letter_whose_key_is_not_known_yet_waits_and_does_not_keep_others() {
    let desk = Desk::open().await;
    let config = |rule: &str| format!("[source.bank]\nstream = \"s\"\nformat = \"dms\"\n{rule}");
    let now = millstream::clock::now();
    let record = |table: &str, body: &str, kind: &str| {
        format!(
            r#"{{{body},"metadata":{{"timestamp":"{now}","record-type":"{kind}","operation":"insert","schema-name":"public","table-name":"{table}"}}}}"#
        )
    };
    let control = |table: &str| {
        record(table, r#""control":{"table-def":{"primary-key":["id"]}}"#, "control")
            .replace("\"insert\"", "\"create-table\"")
    };
    let row = |table: &str| record(table, r#""data":{"id":1}"#, "data");
    let young = |event: Vec<u8>| {
        let arrival = (now.0 / 1_000_000).to_string();
        String::from_utf8(event).unwrap().replace("1770593400.98", &arrival).into_bytes()
    };
    let mut ingest = desk.ingest(&config("only = [\"public.none\"]\n"));
    let refused = young(documents(1, &[row("unkeyed"), row("keyed")]));
    assert_eq!(ingest_event(&mut ingest, &refused).await.counts.dead_lettered, 2);
    let keyed = config("[table.keyed]\nsource = \"bank\"\nfrom = \"public.keyed\"\nkey = [\"id\"]\n");
    let progress = desk.redrive(&keyed, json!({"limit": 2})).await.unwrap();
    assert_eq!((progress.redriven, progress.kept.clone()), (1, counted(&[("failed", 1)])), "{progress:?}");
    // The other shard's control record has arrived and created the table.
    ingest_event(
        &mut desk.ingest(&keyed),
        &young(documents(9, &[control("unkeyed"), row("unkeyed").replace(":1}", ":2}")])),
    )
    .await;
    let progress = desk.redrive(&keyed, json!({"limit": 1})).await.unwrap();
    assert_eq!((progress.redriven, progress.records.applied), (1, 1));
    let found = rows(
        &desk.client().await,
        "SELECT (SELECT id FROM bank.keyed) AS keyed, (SELECT sum(id) FROM bank.unkeyed) AS unkeyed",
    )
    .await;
    assert_eq!(found, [r#"{"keyed":1,"unkeyed":3}"#]);
}
