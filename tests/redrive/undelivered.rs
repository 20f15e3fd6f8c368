//! Lambda's on-failure records: the records that they refer to are read back from the stream.

use std::time::Duration;

use millstream_tests::dynamodb::{create_table, delete_item, put_item};
use millstream_tests::event_source::{Environments, Mapping, deliver_or_discard};
use millstream_tests::function::{Settings, binary};
use millstream_tests::kinesis::{arn, create_stream, put};
use serde_json::{Value, json};

use super::{DYNAMODB_SHARD, Desk, counted, dynamodb_sequence, everything};
use crate::support::{database, rows};
use millstream_tests::packed::aggregate;

/// Lambda's on-failure record of a batch, as AWS documents it; `info` is `KinesisBatchInfo` or `DDBStreamBatchInfo`.
fn message(info: &str, stream: &str, shard: &str, (first, last): (&str, &str), records: u64) -> Value {
    let batch = json!({
        "shardId": shard, "startSequenceNumber": first, "endSequenceNumber": last,
        "approximateArrivalOfFirstRecord": "2026-02-08T23:30:00.835Z", "approximateArrivalOfLastRecord": "2026-02-08T23:30:05Z",
        "batchSize": records, "streamArn": stream,
    });
    let mut message = json!({
        "requestContext": {
            "requestId": "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5", "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:f",
            "condition": "RetryAttemptsExhausted", "approximateInvokeCount": 1,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0", "timestamp": "2026-02-08T23:38:06.021Z",
    });
    message[info] = batch;
    message
}

fn kinesis(stream: &str, range: (&str, &str), records: u64) -> Value {
    message("KinesisBatchInfo", &arn(stream), "shardId-000000000000", range, records)
}

fn config(stream: &str) -> String {
    format!("[source.log]\nstream = \"{stream}\"\nformat = \"json\"\n")
}

/// A desk with a stream of the same name with this many records; the hundredth and the last are special.
async fn desk(records: u64) -> Desk {
    let desk = Desk::open().await;
    create_stream(&desk.aws, &desk.bucket, 1).await.unwrap();
    let record = |number: u64| match number {
        100 => aggregate(&[br#"{"n":100}"#, br#"{"n":100.5}"#]),
        _ if number == records => b"no".to_vec(),
        _ => format!("{{\"n\":{number}}}").into_bytes(),
    };
    let records: Vec<_> = (1..=records).map(|number| (format!("k{number}"), record(number))).collect();
    put(&desk.aws, &desk.bucket, &records).await.unwrap();
    desk
}

#[tokio::test]
async fn a_range_of_a_kinesis_shard_is_written_whatever_it_holds_and_the_message_gone() {
    let desk = desk(1_200).await;
    let stream = &desk.bucket;
    // Several pages; an aggregate, and a record that is rejected.
    desk.put(&[kinesis(stream, ("50", "1200"), 1_151).to_string()]).await;
    let progress = desk.redrive(&config(stream), json!({"limit": 1})).await.unwrap();
    assert_eq!(progress.selected, counted(&[("log - undelivered", 1)]));
    assert_eq!((progress.redriven, progress.kept), (1, counted(&[])));
    assert_eq!((progress.records.applied, progress.records.dead_lettered), (1_151, 1));
    let found = "SELECT count(*), min(n), max(n), count(DISTINCT n) AS \"all\" FROM log.log";
    assert_eq!(rows(&desk.client().await, found).await, [r#"{"count":1151,"min":50,"max":1199,"all":1151}"#]);
    // It had been tried before.
    assert_eq!(desk.account().await, [("malformed 2".to_owned(), 1)].into());
    let place = &desk.letters().await[0].position;
    assert_eq!(
        (&*place.stream, &*place.shard, &*place.sequence_number),
        (&*arn(stream), "shardId-000000000000", "1200")
    );
}

#[tokio::test]
async fn lambda_s_message_is_read_however_it_came_about() {
    let desk = desk(150).await;
    let stream = &desk.bucket;
    let mut never_invoked = kinesis(stream, ("1", "1"), 1);
    never_invoked["responseContext"].take();
    never_invoked["requestContext"]["condition"] = "SomethingNew".into();
    let mut pipes = kinesis(stream, ("2", "2"), 1);
    pipes["context"] = json!({"partnerResourceArn": "arn:aws:pipes:::pipe/p", "condition": "RetryAttemptsExhausted"});
    for member in ["requestContext", "responseContext", "version", "timestamp"] {
        pipes.as_object_mut().unwrap().remove(member);
    }
    let mut unknown = kinesis(stream, ("3", "4"), 2);
    unknown["KinesisBatchInfo"]["newMember"] = json!([1]);
    unknown["version"] = "2.0".into();
    // An enhanced fan-out consumer: its ARN starts with the stream's.
    let mut consumer = kinesis(stream, ("5", "5"), 1);
    consumer["KinesisBatchInfo"]["streamArn"] = format!("{}/consumer/c:1770593400", arn(stream)).into();
    // A filter dropped other records in between.
    let filtered = kinesis(stream, ("6", "10"), 2);
    let messages = [never_invoked, pipes, unknown, consumer, filtered].map(|message| message.to_string());
    desk.put(&messages).await;
    let progress = desk.redrive(&config(stream), json!({"limit": 5})).await.unwrap();
    assert_eq!((progress.redriven, progress.records.applied, progress.kept), (5, 10, counted(&[])));
    assert_eq!(desk.counts().await, (0, 0));
}

#[tokio::test]
async fn a_range_that_is_not_all_there_is_kept_and_what_is_left_of_it_written() {
    let desk = desk(150).await;
    let stream = &desk.bucket;
    let nowhere = |shard: &str| message("KinesisBatchInfo", &arn(stream), shard, ("1", "1"), 1);
    let mut incomplete = kinesis(stream, ("1", "2"), 2);
    incomplete["KinesisBatchInfo"].as_object_mut().unwrap().remove("endSequenceNumber");
    let messages = [
        incomplete,
        // The oldest records have expired, also in a batch from which a filter dropped records, where counting is not enough.
        kinesis(stream, ("0", "20"), 21),
        kinesis(stream, ("0", "22"), 5),
        // All records have expired.
        kinesis(stream, ("500", "600"), 101),
        kinesis(stream, ("30", "20"), 0),
        kinesis("unheard-of", ("1", "2"), 2),
        nowhere("shardId-000000000007"),
    ];
    desk.put(&messages.map(|message| message.to_string())).await;
    let both = format!("{}[source.lost]\nstream = \"unheard-of\"\nformat = \"json\"\n", config(stream));
    for applied in [22, 0] {
        let progress = desk.redrive(&both, json!({"limit": 6})).await.unwrap();
        assert_eq!((progress.redriven, progress.records.applied), (0, applied), "{progress:?}");
        assert_eq!(progress.kept, counted(&[("gone", 4), ("unavailable", 2), ("unreadable", 1)]));
        assert_eq!(desk.counts().await, (7, 0));
    }
    // No configured source reads the stream.
    let progress = desk.redrive("[source.log]\nstream = \"x\"\nformat = \"json\"\n", json!({})).await.unwrap();
    assert_eq!(progress.kept, counted(&[("unknown_source", 6), ("unreadable", 1)]));
}

#[tokio::test]
async fn what_is_left_of_a_range_is_written_once_and_its_letters_do_not_multiply() {
    let desk = desk(150).await;
    let stream = &desk.bucket;
    // One that can be written, one that is rejected, two that do not exist.
    desk.put(&[kinesis(stream, ("149", "152"), 4).to_string()]).await;
    for (run, redriven, applied) in [(1, 0, 1), (2, 1, 0), (3, 1, 0)] {
        let progress = desk.redrive(&config(stream), json!({})).await.unwrap();
        assert_eq!((progress.redriven, progress.records.applied), (redriven, applied), "run {run}: {progress:?}");
        assert_eq!((progress.records.dead_lettered, progress.kept), (1, counted(&[("gone", 1)])), "run {run}");
        assert_eq!(desk.counts().await, (2, 0), "run {run}");
        let noted = desk.bodies().await.into_iter().filter(|body| body.contains("\"readBack\":{"));
        assert_eq!(noted.filter(|body| body.contains("KinesisBatchInfo")).count(), 1, "run {run}");
    }
}

/// What `dynamodb-sync` does without a configuration.
const DYNAMODB: &str = "[source.dynamodb]\nstream = \"*\"\nformat = \"dynamodb\"\n";

/// Every type of attribute, with numbers and texts that are easily altered.
fn items() -> [Value; 3] {
    [
        json!({
            "id": {"S": "every"}, "text": {"S": "a\"b\\u0041 ü 🏈\n"}, "empty": {"S": ""}, "number": {"N": "12345678901234567890.123456789012345678"},
            "small": {"N": "1E-100"}, "bytes": {"B": "AAEC/w=="}, "yes": {"BOOL": true}, "nothing": {"NULL": true},
            "list": {"L": [{"N": "1.50"}, {"S": "x"}, {"M": {"deep": {"N": "100000000000000000000000001"}}}]},
            "map": {"M": {"a": {"L": []}, "b": {"B": "AQ=="}}}, "texts": {"SS": ["a", "b"]}, "numbers": {"NS": ["1", "2.5"]},
            "blobs": {"BS": ["AQ==", "Ag=="]},
        }),
        json!({"id": {"S": "gone"}, "text": {"S": "soon"}}),
        json!({"id": {"S": "every"}, "text": {"S": "later"}, "number": {"N": "-0.0"}}),
    ]
}

/// The rows that the real function writes from the stream.
async fn synced(desk: &Desk, stream: &str) -> String {
    let url = database().await;
    let mut environment = desk.aws.environment();
    environment.push(("DATABASE_URL".to_owned(), url.clone()));
    let settings = Settings { binary: binary("dynamodb-sync").unwrap(), environment, timeout: Duration::from_secs(30) };
    deliver_or_discard(&desk.aws, Mapping::new(stream), Environments::new(settings)).await.unwrap();
    url
}

#[tokio::test]
async fn a_range_of_a_dynamodb_stream_becomes_the_rows_that_the_stream_makes() {
    let desk = Desk::open().await;
    let table = &desk.bucket;
    let stream = create_table(&desk.aws, table, &[("id", "S")]).await.unwrap();
    for item in items() {
        put_item(&desk.aws, table, &item).await.unwrap();
    }
    delete_item(&desk.aws, table, &json!({"id": {"S": "gone"}})).await.unwrap();
    // Four changes, in two batches.
    let range = |from: u64, to: u64| {
        let (first, last) = (dynamodb_sequence(from), dynamodb_sequence(to));
        message("DDBStreamBatchInfo", &stream, DYNAMODB_SHARD, (&first, &last), to - from + 1)
    };
    desk.put(&[range(2, 4).to_string(), range(1, 1).to_string()]).await;
    let progress = desk.redrive(DYNAMODB, json!({"limit": 2})).await.unwrap();
    assert_eq!(
        (progress.redriven, progress.kept.clone(), progress.records.total()),
        (2, counted(&[]), 4),
        "{progress:?}"
    );
    let twin = synced(&desk, &stream).await;
    let found = everything(&desk.url).await;
    assert_eq!(found, everything(&twin).await);
    assert!(found.len() == 2 && found.iter().any(|row| row.contains("later")), "{found:?}");
    // The content of a deleted stream is unknown.
    let lost = stream.replace(table, "never");
    desk.put(&[message("DDBStreamBatchInfo", &lost, DYNAMODB_SHARD, ("1", "2"), 2).to_string()]).await;
    let progress = desk.redrive(DYNAMODB, json!({"limit": 1})).await.unwrap();
    assert_eq!((progress.redriven, progress.kept), (0, counted(&[("unavailable", 1)])));
}
