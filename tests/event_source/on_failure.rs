//! The on-failure messages, byte for byte in Lambda's form, and the events in theirs.

use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;
use millstream_tests::dynamodb;
use millstream_tests::event_source::on_failure::{Condition, Discarded, Origin};
use millstream_tests::event_source::{OnFailure, SourceKind};
use serde_json::json;

fn position(sequence: &str, arrival: &str) -> (SequenceNumber, Timestamp) {
    (SequenceNumber(sequence.into()), Timestamp::parse(arrival).unwrap())
}

fn kinesis() -> (Discarded, Origin<'static>) {
    let discarded = Discarded {
        condition: Condition::RetryAttemptsExhausted,
        first: position("49601189658422359378836298521827638475320189012309704722", "2019-11-14T00:38:04.835999Z"),
        last: position("49601189658422359378836298522902373528957594348623495186", "2019-11-14T00:38:05.580Z"),
        records: 500,
        invocations: 1,
        failed: Some(true),
    };
    let origin = Origin {
        kind: SourceKind::Kinesis,
        stream_arn: "arn:aws:kinesis:us-east-2:123456789012:stream/mystream",
        shard: "shardId-000000000001",
        function_arn: "arn:aws:lambda:us-east-2:123456789012:function:myfunction",
        request_id: "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
    };
    (discarded, origin)
}

/// The expected message.
fn message(discarded: &Discarded, origin: Origin<'_>) -> String {
    let now = Timestamp::parse("2019-11-14T00:38:06.021Z").unwrap();
    serde_json::to_string(&OnFailure::new(discarded, origin, now)).unwrap()
}

#[test]
fn kinesis_batches_are_reported_as_lambda_reports_them() {
    let (discarded, origin) = kinesis();
    let expected = concat!(
        r#"{"requestContext":{"requestId":"c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5","#,
        r#""functionArn":"arn:aws:lambda:us-east-2:123456789012:function:myfunction","#,
        r#""condition":"RetryAttemptsExhausted","approximateInvokeCount":1},"#,
        r#""responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},"#,
        r#""version":"1.0","timestamp":"2019-11-14T00:38:06.021Z","KinesisBatchInfo":{"shardId":"shardId-000000000001","#,
        r#""startSequenceNumber":"49601189658422359378836298521827638475320189012309704722","#,
        r#""endSequenceNumber":"49601189658422359378836298522902373528957594348623495186","#,
        r#""approximateArrivalOfFirstRecord":"2019-11-14T00:38:04.835Z","#,
        r#""approximateArrivalOfLastRecord":"2019-11-14T00:38:05.580Z","batchSize":500,"#,
        r#""streamArn":"arn:aws:kinesis:us-east-2:123456789012:stream/mystream"}}"#,
    );
    assert_eq!(message(&discarded, origin), expected);
}

#[test]
fn dynamodb_batches_are_reported_as_lambda_reports_them() {
    let (discarded, origin) = kinesis();
    let item = position("800000000003126276362", "2019-11-14T00:13:19Z");
    let discarded = Discarded { first: item.clone(), last: item, records: 1, ..discarded };
    let stream_arn = "arn:aws:dynamodb:us-east-2:123456789012:table/mytable/stream/2019-11-14T00:04:06.388";
    let origin =
        Origin { kind: SourceKind::Dynamodb, shard: "shardId-00000001573689847184-864758bb", stream_arn, ..origin };
    let told = message(&discarded, origin);
    let expected = concat!(
        r#""DDBStreamBatchInfo":{"shardId":"shardId-00000001573689847184-864758bb","#,
        r#""startSequenceNumber":"800000000003126276362","endSequenceNumber":"800000000003126276362","#,
        r#""approximateArrivalOfFirstRecord":"2019-11-14T00:13:19Z","approximateArrivalOfLastRecord":"2019-11-14T00:13:19Z","#,
        r#""batchSize":1,"streamArn":"arn:aws:dynamodb:us-east-2:123456789012:table/mytable/stream/2019-11-14T00:04:06.388"}}"#,
    );
    assert!(told.ends_with(expected) && !told.contains("KinesisBatchInfo"), "{told}");
}

#[test]
fn the_response_is_reported_if_there_was_one() {
    let (discarded, origin) = kinesis();
    let never =
        Discarded { condition: Condition::RecordAgeExceeded, invocations: 0, failed: None, ..discarded.clone() };
    let told = message(&never, origin);
    assert!(!told.contains("responseContext"), "{told}");
    assert!(told.contains(r#""condition":"RecordAgeExceeded","approximateInvokeCount":0"#), "{told}");
    let reported = message(&Discarded { failed: Some(false), ..discarded }, origin);
    assert!(reported.contains(r#""responseContext":{"statusCode":200,"executedVersion":"$LATEST"}"#), "{reported}");
}

#[test]
fn dynamodb_records_are_delivered_in_whole_seconds_with_their_stream() {
    let mut record = json!({"eventID": "f07f", "eventName": "REMOVE", "eventVersion": "1.0", "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1", "dynamodb": {"ApproximateCreationDateTime": 1480642020.987654, "Keys": {"id": {"S": "a"}},
            "SequenceNumber": "1405400000000002063282832", "SizeBytes": 54, "StreamViewType": "NEW_AND_OLD_IMAGES"}});
    let handed = dynamodb::stream_record("arn:of:the:stream", &mut record);
    let json: serde_json::Value = serde_json::from_str(&handed.json).unwrap();
    assert_eq!(json["dynamodb"]["ApproximateCreationDateTime"], json!(1480642020));
    assert_eq!((&json["eventSourceARN"], &json["eventVersion"]), (&json!("arn:of:the:stream"), &json!("1.1")));
    assert_eq!(handed.arrival, Timestamp::parse("2016-12-02T01:27:00Z").unwrap());
    assert_eq!(&*handed.sequence.0, "1405400000000002063282832");
}
