//! An event source mapping, in Lambda's own terms and with Lambda's own defaults and limits.
//!
//! The parameters: <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html> and
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html>.

use std::ops::RangeInclusive;
use std::time::Duration;

use millstream::timestamp::Timestamp;

/// How a stream is delivered to a function.
#[derive(Clone, PartialEq, Debug)]
pub struct Mapping {
    /// `EventSourceArn`: a Kinesis stream's, or a DynamoDB stream's with its label.
    pub event_source_arn: String,
    /// `BatchSize`: records per invocation, 1 to 10,000.
    pub batch_size: usize,
    /// `MaximumBatchingWindowInSeconds`: how long records are gathered for a larger batch, at most 300 s.
    pub maximum_batching_window: Duration,
    /// `ParallelizationFactor`: concurrent batches per shard, 1 to 10.
    pub parallelization_factor: usize,
    /// `BisectBatchOnFunctionError`.
    pub bisect_batch_on_function_error: bool,
    /// `MaximumRetryAttempts`, at most 10,000; `None` is Lambda's −1, unlimited.
    pub maximum_retry_attempts: Option<u32>,
    /// `MaximumRecordAgeInSeconds`, 60 to 604,800; `None` is Lambda's −1. It ends with the stream's own retention in any case.
    pub maximum_record_age: Option<Duration>,
    /// `FunctionResponseTypes` holds `ReportBatchItemFailures`.
    pub report_batch_item_failures: bool,
    /// `StartingPosition`.
    pub starting_position: StartingPosition,
    /// `DestinationConfig.OnFailure`: a standard SQS queue, here by its URL.
    pub on_failure: Option<String>,
}

/// Where the reading of a stream starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartingPosition {
    /// With the oldest record.
    TrimHorizon,
    /// With records put after the mapping's first read.
    Latest,
    /// With records that arrived at or after this time; Kinesis only.
    AtTimestamp(Timestamp),
}

/// The two kinds of streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceKind {
    /// A Kinesis data stream.
    Kinesis,
    /// The stream of a DynamoDB table.
    Dynamodb,
}

/// Why Lambda would reject a mapping.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MappingError {
    /// Neither kind of stream.
    #[error("`{0}` is the ARN of neither a Kinesis nor a DynamoDB stream")]
    Source(String),
    /// A value outside its parameter's range.
    #[error("{parameter} is {found}: it must be {least} to {most}")]
    Range {
        /// The parameter, as Lambda calls it.
        parameter: &'static str,
        /// Its value; times in seconds.
        found: u64,
        /// The minimum.
        least: u64,
        /// The maximum.
        most: u64,
    },
    /// DynamoDB has no iterators by time.
    #[error("AT_TIMESTAMP is for Kinesis only")]
    Position,
    /// Lambda delivers to standard queues only.
    #[error("the on-failure destination `{0}` is a FIFO queue: it must be a standard one")]
    Destination(String),
}

impl Mapping {
    /// A mapping with Lambda's defaults, from the oldest record on.
    pub fn new(event_source_arn: impl Into<String>) -> Self {
        Self {
            event_source_arn: event_source_arn.into(),
            batch_size: 100,
            maximum_batching_window: Duration::ZERO,
            parallelization_factor: 1,
            bisect_batch_on_function_error: false,
            maximum_retry_attempts: None,
            maximum_record_age: None,
            report_batch_item_failures: false,
            starting_position: StartingPosition::TrimHorizon,
            on_failure: None,
        }
    }

    /// Which kind of stream it reads.
    ///
    /// # Errors
    /// Returns [`MappingError::Source`] for any other ARN.
    pub fn kind(&self) -> Result<SourceKind, MappingError> {
        // A DynamoDB stream's label is a timestamp and contains colons.
        match self.event_source_arn.splitn(6, ':').collect::<Vec<_>>()[..] {
            ["arn", _, "kinesis", _, _, name] if name.starts_with("stream/") => Ok(SourceKind::Kinesis),
            ["arn", _, "dynamodb", _, _, table] if table.contains("/stream/") => Ok(SourceKind::Dynamodb),
            _ => Err(MappingError::Source(self.event_source_arn.clone())),
        }
    }

    /// Checks that Lambda would accept it.
    ///
    /// # Errors
    /// Returns the first error that Lambda would report.
    pub fn check(&self) -> Result<(), MappingError> {
        let kind = self.kind()?;
        let whole = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        within("BatchSize", whole(self.batch_size), 1..=10_000)?;
        within("MaximumBatchingWindowInSeconds", self.maximum_batching_window.as_secs(), 0..=300)?;
        within("ParallelizationFactor", whole(self.parallelization_factor), 1..=10)?;
        within("MaximumRetryAttempts", self.maximum_retry_attempts.unwrap_or(0).into(), 0..=10_000)?;
        if let Some(age) = self.maximum_record_age {
            within("MaximumRecordAgeInSeconds", age.as_secs(), 60..=604_800)?;
        }
        if kind == SourceKind::Dynamodb && matches!(self.starting_position, StartingPosition::AtTimestamp(_)) {
            return Err(MappingError::Position);
        }
        match &self.on_failure {
            Some(queue) if queue.ends_with(".fifo") => Err(MappingError::Destination(queue.clone())),
            _ => Ok(()),
        }
    }
}

fn within(parameter: &'static str, found: u64, range: RangeInclusive<u64>) -> Result<(), MappingError> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(MappingError::Range { parameter, found, least: *range.start(), most: *range.end() })
}
