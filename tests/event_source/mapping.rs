//! Mappings that Lambda would reject, and the environments of a function.

use std::path::PathBuf;
use std::time::Duration;

use millstream::timestamp::Timestamp;
use millstream_tests::event_source::response::Response;
use millstream_tests::event_source::{Environments, Mapping, SourceKind, StartingPosition};
use millstream_tests::function::Settings;

use super::defaults;

const TABLE: &str = "arn:aws:dynamodb:us-east-1:123456789012:table/Orders/stream/2026-02-01T00:00:00.000";

#[test]
fn the_defaults_are_lambda_s() {
    let mapping = defaults();
    assert_eq!((mapping.batch_size, mapping.parallelization_factor), (100, 1));
    assert_eq!((mapping.maximum_retry_attempts, mapping.maximum_record_age), (None, None));
    assert!(mapping.maximum_batching_window.is_zero());
    assert!(!mapping.bisect_batch_on_function_error && !mapping.report_batch_item_failures);
    assert_eq!((mapping.check(), Mapping::new(TABLE).check()), (Ok(()), Ok(())));
    assert_eq!((mapping.kind(), Mapping::new(TABLE).kind()), (Ok(SourceKind::Kinesis), Ok(SourceKind::Dynamodb)));
}

#[test]
fn what_lambda_rejects_is_rejected() {
    let seconds = Duration::from_secs;
    let at = StartingPosition::AtTimestamp(Timestamp(0));
    let refused = [
        (Mapping { batch_size: 0, ..defaults() }, "BatchSize is 0: it must be 1 to 10000"),
        (Mapping { batch_size: 10_001, ..defaults() }, "BatchSize is 10001"),
        (Mapping { maximum_batching_window: seconds(301), ..defaults() }, "MaximumBatchingWindowInSeconds is 301"),
        (Mapping { parallelization_factor: 0, ..defaults() }, "ParallelizationFactor is 0"),
        (Mapping { parallelization_factor: 11, ..defaults() }, "ParallelizationFactor is 11"),
        (Mapping { maximum_retry_attempts: Some(10_001), ..defaults() }, "MaximumRetryAttempts is 10001"),
        (Mapping { maximum_record_age: Some(seconds(59)), ..defaults() }, "MaximumRecordAgeInSeconds is 59"),
        (Mapping { maximum_record_age: Some(seconds(604_801)), ..defaults() }, "MaximumRecordAgeInSeconds is 604801"),
        (Mapping { starting_position: at, ..Mapping::new(TABLE) }, "AT_TIMESTAMP is for Kinesis only"),
        (Mapping { on_failure: Some("http://q/letters.fifo".to_owned()), ..defaults() }, "must be a standard one"),
        (Mapping::new("arn:aws:sqs:us-east-1:123456789012:queue"), "neither a Kinesis nor a DynamoDB stream"),
    ];
    for (mapping, expected) in refused {
        let error = mapping.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let kept = Mapping { starting_position: at, ..defaults() };
    assert_eq!(kept.check(), Ok(()));
}

#[tokio::test]
async fn an_invocation_beyond_the_reserved_concurrency_never_begins() {
    let settings =
        Settings { binary: PathBuf::from("/nowhere"), environment: Vec::new(), timeout: Duration::from_secs(1) };
    let invocation = Environments::with_concurrency(settings, 0).invoke("{}").await;
    assert!(matches!(invocation.response, Response::NotInvoked(reason) if reason == "Rate Exceeded."));
}
