//! Lambda's message to the on-failure destination about a discarded batch: the position of the records, not their data.
//!
//! The form: <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html> and
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html>.

use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use super::mapping::SourceKind;

/// Why records are discarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Condition {
    /// `MaximumRetryAttempts` is exhausted. It is the only documented condition, so it is also used for records that no
    /// invocation can carry.
    RetryAttemptsExhausted,
    /// `MaximumRecordAgeInSeconds` is exceeded. Not documented; as in messages from AWS and LocalStack.
    RecordAgeExceeded,
}

/// Discarded records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discarded {
    /// Why.
    pub condition: Condition,
    /// The first of them, and when it arrived.
    pub first: (SequenceNumber, Timestamp),
    /// The last of them, and when it arrived.
    pub last: (SequenceNumber, Timestamp),
    /// Their number. There may be more records between the first and the last, from other lanes.
    pub records: usize,
    /// How often the function was invoked with them.
    pub invocations: u32,
    /// Whether the last of these invocations failed or reported failures; `None` if there was none.
    pub failed: Option<bool>,
}

/// The message, field by field as Lambda writes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnFailure {
    /// About the invocation.
    pub request_context: RequestContext,
    /// About the function's response; absent if it was never invoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_context: Option<ResponseContext>,
    /// `1.0`.
    pub version: String,
    /// When the records were discarded.
    pub timestamp: String,
    /// Where the records are.
    #[serde(flatten)]
    pub batch: Batch,
}

/// About the invocation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestContext {
    /// The last invocation's.
    pub request_id: String,
    /// The function.
    pub function_arn: String,
    /// Why.
    pub condition: Condition,
    /// How often the function was invoked with the records.
    pub approximate_invoke_count: u32,
}

/// About the function's response.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseContext {
    /// 200, for failed functions too.
    pub status_code: u16,
    /// `$LATEST`.
    pub executed_version: String,
    /// `Unhandled`; absent if the function responded and reported failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_error: Option<String>,
}

/// Where the records are, by the kind of stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Batch {
    /// In a Kinesis stream.
    #[serde(rename = "KinesisBatchInfo")]
    Kinesis(BatchInfo),
    /// In a DynamoDB table's stream.
    #[serde(rename = "DDBStreamBatchInfo")]
    Dynamodb(BatchInfo),
}

impl Batch {
    /// The range, of whichever kind of stream.
    pub fn into_info(self) -> BatchInfo {
        match self {
            Self::Kinesis(info) | Self::Dynamodb(info) => info,
        }
    }
}

/// A range of a shard, both ends included.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchInfo {
    /// The shard.
    pub shard_id: String,
    /// The first record's sequence number.
    pub start_sequence_number: String,
    /// The last record's sequence number.
    pub end_sequence_number: String,
    /// When the first arrived.
    pub approximate_arrival_of_first_record: String,
    /// When the last arrived.
    pub approximate_arrival_of_last_record: String,
    /// The number of discarded records.
    pub batch_size: usize,
    /// The stream.
    pub stream_arn: String,
}

/// Where the records come from, and the function that could not process them.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The kind of stream.
    pub kind: SourceKind,
    /// The stream.
    pub stream_arn: &'a str,
    /// The shard.
    pub shard: &'a str,
    /// The function.
    pub function_arn: &'a str,
    /// The last invocation's id.
    pub request_id: &'a str,
}

impl OnFailure {
    /// The message for records discarded at this time.
    pub fn new(discarded: &Discarded, origin: Origin<'_>, now: Timestamp) -> Self {
        let Discarded { condition, first, last, records, invocations, failed } = discarded;
        let info = BatchInfo {
            shard_id: origin.shard.to_owned(),
            start_sequence_number: first.0.0.to_string(),
            end_sequence_number: last.0.0.to_string(),
            approximate_arrival_of_first_record: to_the_millisecond(first.1),
            approximate_arrival_of_last_record: to_the_millisecond(last.1),
            batch_size: *records,
            stream_arn: origin.stream_arn.to_owned(),
        };
        Self {
            request_context: RequestContext {
                request_id: origin.request_id.to_owned(),
                function_arn: origin.function_arn.to_owned(),
                condition: *condition,
                approximate_invoke_count: *invocations,
            },
            response_context: failed.map(|failed| ResponseContext {
                status_code: 200,
                executed_version: "$LATEST".to_owned(),
                function_error: failed.then(|| "Unhandled".to_owned()),
            }),
            version: "1.0".to_owned(),
            timestamp: to_the_millisecond(now),
            batch: match origin.kind {
                SourceKind::Kinesis => Batch::Kinesis(info),
                SourceKind::Dynamodb => Batch::Dynamodb(info),
            },
        }
    }
}

fn to_the_millisecond(moment: Timestamp) -> String {
    Timestamp(moment.0.div_euclid(1_000) * 1_000).to_string()
}
