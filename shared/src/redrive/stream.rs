//! Records read back from their stream, and unpacked like the records of an event.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodbstreams::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_dynamodbstreams::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodbstreams::error::{BoxError, ProvideErrorMetadata};
use aws_sdk_dynamodbstreams::types::ShardIteratorType as DynamodbIterator;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record, ShardIteratorType as KinesisIterator};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::message::KeepReason;
use super::queue_drain::{BATCH_BYTES, BATCH_RECORDS};
use crate::aws::{Aws, describe_error};
use crate::record::{Batch, SequenceNumber, StreamPosition, unpack_data, unpack_element};
use crate::timestamp::Timestamp;

/// Records per request: fewer than an invocation may receive. A page of the largest records has 10 MB.
const PAGE_RECORDS: i32 = 1_000;

/// An empty page does not mean that the shard has ended; this many in succession do. Kinesis reports how far a page is behind
/// the end of the shard; DynamoDB does not.
const EMPTY_PAGES_MAX: u32 = 50;

/// Reads records of Kinesis and DynamoDB streams within their retention period.
#[derive(Clone, Debug)]
pub struct StreamReader(Aws);

/// The pages of a range of a shard.
pub(super) struct ShardPages {
    reader: ShardClient,
    stream: String,
    shard: String,
    first: SequenceNumber,
    last: SequenceNumber,
    /// `None` after the end.
    iterator: Option<String>,
    empty_pages: u32,
    /// The records of the last page that have not been unpacked.
    packed: VecDeque<PageRecord>,
    /// Number of records of the range read so far.
    records_read: u64,
    /// Whether the first record of the range was read.
    has_first: bool,
}

enum ShardClient {
    Kinesis(aws_sdk_kinesis::Client),
    Dynamodb(aws_sdk_dynamodbstreams::Client),
}

/// A record as it was read. What a Kinesis record is packed into may be a hundred times larger than the record.
enum PageRecord {
    Packed(Record),
    Unpacked(Batch),
}

/// The records of a page with their sequence numbers, and the iterator of the next page.
struct RecordPage {
    records: Vec<(SequenceNumber, PageRecord)>,
    next: Option<String>,
    is_last: bool,
}

impl StreamReader {
    /// Creates a reader with the credentials of the process.
    pub fn new(aws: Aws) -> Self {
        Self(aws)
    }

    /// Returns the record at a sequence number. An empty `shard` (DynamoDB's elements do not name it) is searched for.
    pub(super) async fn record(&self, stream: &str, shard: &str, sequence: &str) -> Result<Batch, KeepReason> {
        let shards = if shard.is_empty() { self.shards(stream, sequence).await? } else { vec![shard.to_owned()] };
        let mut outcome = Ok(Batch::default());
        for shard in shards {
            match self.find_record(stream, &shard, sequence).await {
                Ok(batch) if !batch.records.is_empty() => return Ok(batch),
                Ok(_) => {}
                // A shard that cannot contain the sequence number may return an error.
                Err(reason) => outcome = Err(reason),
            }
        }
        outcome
    }

    async fn find_record(&self, stream: &str, shard: &str, sequence: &str) -> Result<Batch, KeepReason> {
        let mut pages = self.range(stream, shard, sequence, sequence).await?;
        while let Some(page) = pages.next().await? {
            if !page.records.is_empty() {
                return Ok(page);
            }
        }
        Ok(Batch::default())
    }

    /// Returns the records from `first` to `last` of a shard, inclusive.
    pub(super) async fn range(
        &self,
        stream: &str,
        shard: &str,
        first: &str,
        last: &str,
    ) -> Result<ShardPages, KeepReason> {
        let reader = self.reader(stream).await;
        let iterator = match &reader {
            ShardClient::Kinesis(client) => {
                let request = client.get_shard_iterator().stream_arn(stream).shard_id(shard);
                let request = request.shard_iterator_type(KinesisIterator::AtSequenceNumber);
                let response = request.starting_sequence_number(first).send().await;
                response
                    .map_err(|error| unavailable(stream, describe_error("Kinesis GetShardIterator", &error)))?
                    .shard_iterator
            }
            ShardClient::Dynamodb(client) => {
                let request = client.get_shard_iterator().stream_arn(stream).shard_id(shard);
                let request = request.shard_iterator_type(DynamodbIterator::AtSequenceNumber).sequence_number(first);
                match request.send().await {
                    Ok(response) => response.shard_iterator,
                    Err(error) if is_trimmed(&error) => None,
                    Err(error) => {
                        return Err(unavailable(stream, describe_error("DynamoDB Streams GetShardIterator", &error)));
                    }
                }
            }
        };
        let [first, last] = [first, last].map(|number| SequenceNumber(number.into()));
        let (stream, shard) = (stream.to_owned(), shard.to_owned());
        Ok(ShardPages {
            reader,
            stream,
            shard,
            first,
            last,
            iterator,
            empty_pages: 0,
            packed: VecDeque::new(),
            records_read: 0,
            has_first: false,
        })
    }

    async fn reader(&self, stream: &str) -> ShardClient {
        let config = self.0.config().await;
        if is_dynamodb(stream) {
            ShardClient::Dynamodb(aws_sdk_dynamodbstreams::Client::new(config))
        } else {
            ShardClient::Kinesis(aws_sdk_kinesis::Client::new(config))
        }
    }

    /// Returns the shards of a DynamoDB stream that may contain the sequence number.
    async fn shards(&self, stream: &str, sequence: &str) -> Result<Vec<String>, KeepReason> {
        let client = aws_sdk_dynamodbstreams::Client::new(self.0.config().await);
        let target = SequenceNumber(sequence.into());
        let (mut shards, mut start_after) = (Vec::new(), None);
        loop {
            let request = client.describe_stream().stream_arn(stream).set_exclusive_start_shard_id(start_after);
            let response = request
                .send()
                .await
                .map_err(|error| unavailable(stream, describe_error("DynamoDB Streams DescribeStream", &error)))?;
            let description = response.stream_description();
            for shard in description.map(|description| description.shards()).unwrap_or_default() {
                let range = shard.sequence_number_range();
                let bound = |number: Option<&str>| number.map(|number| SequenceNumber(number.into()));
                let first = bound(range.and_then(|range| range.starting_sequence_number()));
                let last = bound(range.and_then(|range| range.ending_sequence_number()));
                if first.is_none_or(|first| first <= target) && last.is_none_or(|last| target <= last) {
                    shards.extend(shard.shard_id().map(str::to_owned));
                }
            }
            start_after = description.and_then(|description| description.last_evaluated_shard_id().map(str::to_owned));
            if start_after.is_none() {
                return Ok(shards);
            }
        }
    }
}

impl ShardPages {
    /// Returns the next records within the range, at most those of a page; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Batch>, KeepReason> {
        if self.packed.is_empty() {
            let Some(iterator) = self.iterator.take() else { return Ok(None) };
            self.read_page(iterator).await?;
        }
        let mut batch = Batch::default();
        while let Some(record) = self.packed.pop_front() {
            match record {
                PageRecord::Packed(record) => batch.append(&self.unpack(record)),
                PageRecord::Unpacked(record) => batch.append(&record),
            }
            if batch.bytes.len() >= BATCH_BYTES || batch.records.len() >= BATCH_RECORDS {
                break;
            }
        }
        Ok(Some(batch))
    }

    async fn read_page(&mut self, iterator: String) -> Result<(), KeepReason> {
        // For a single record, do not read its neighbors: the read throughput of a shard is limited.
        let limit = if self.first == self.last { 1 } else { PAGE_RECORDS };
        let page = match &self.reader {
            ShardClient::Kinesis(client) => kinesis_page(client, &self.stream, iterator, limit).await?,
            ShardClient::Dynamodb(client) => dynamodb_page(client, &self.stream, iterator, limit).await?,
        };
        self.empty_pages = if page.records.is_empty() { self.empty_pages + 1 } else { 0 };
        let reached_end = page.records.last().is_some_and(|(sequence, _)| *sequence >= self.last);
        if !reached_end && !page.is_last && self.empty_pages < EMPTY_PAGES_MAX {
            self.iterator = page.next;
        }
        for (sequence, record) in page.records {
            if sequence < self.first || sequence > self.last {
                continue;
            }
            self.has_first |= sequence == self.first;
            self.records_read += 1;
            self.packed.push_back(record);
        }
        Ok(())
    }

    fn unpack(&self, record: Record) -> Batch {
        let position = StreamPosition {
            stream: (*self.stream).into(),
            shard: (*self.shard).into(),
            sequence_number: SequenceNumber(record.sequence_number.into()),
            sub_sequence_number: 0,
        };
        let arrival = record.approximate_arrival_timestamp.map_or(Timestamp(0), |time| arrival(&time));
        let key = record.partition_key.unwrap_or_default().into();
        unpack_data(&position, arrival, key, record.data.into_inner())
    }

    /// Describes what is missing from a batch of `records` records, after all pages have been read. A stream drops its oldest
    /// records first. The first and last records of a batch are the ends of the range, whatever a filter dropped in between.
    pub(super) fn missing_records(&self, records: u64) -> Option<String> {
        match records.saturating_sub(self.records_read) {
            0 if self.has_first => None,
            0 => Some("the first record".to_owned()),
            missing => Some(format!("{missing} of {records} records")),
        }
    }
}

async fn kinesis_page(
    client: &aws_sdk_kinesis::Client,
    stream: &str,
    iterator: String,
    limit: i32,
) -> Result<RecordPage, KeepReason> {
    let request = client.get_records().stream_arn(stream).shard_iterator(iterator).limit(limit);
    let response =
        request.send().await.map_err(|error| unavailable(stream, describe_error("Kinesis GetRecords", &error)))?;
    let is_last = response.records.is_empty() && response.millis_behind_latest == Some(0);
    let packed = |record: Record| (SequenceNumber((*record.sequence_number).into()), PageRecord::Packed(record));
    let records = response.records.into_iter().map(packed).collect();
    Ok(RecordPage { records, next: response.next_shard_iterator, is_last })
}

/// Kinesis returns milliseconds as a float, and the conversion may be slightly low; rounds to the nearest millisecond.
fn arrival(time: &DateTime) -> Timestamp {
    let nanos = time.as_nanos();
    let millis = (nanos + 500_000).div_euclid(1_000_000);
    Timestamp(i64::try_from(millis * 1_000).unwrap_or(0))
}

async fn dynamodb_page(
    client: &aws_sdk_dynamodbstreams::Client,
    stream: &str,
    iterator: String,
    limit: i32,
) -> Result<RecordPage, KeepReason> {
    let body = ResponseBody::default();
    let request = client.get_records().shard_iterator(iterator).limit(limit).customize();
    let response = match request.interceptor(body.clone()).send().await {
        Ok(response) => response,
        Err(error) if is_trimmed(&error) => return Ok(RecordPage { records: Vec::new(), next: None, is_last: true }),
        Err(error) => return Err(unavailable(stream, describe_error("DynamoDB Streams GetRecords", &error))),
    };
    let raw: StreamResponse = body.read().map_err(|error| unavailable(stream, unreadable_page(&error)))?;
    let mut records = Vec::with_capacity(raw.records.len());
    for (mut element, typed) in raw.records.into_iter().zip(response.records()) {
        let change = typed.dynamodb();
        // The API may write 1.7E9 where Lambda writes all digits.
        if let Some(created_at) = change.and_then(|change| change.approximate_creation_date_time()) {
            element["dynamodb"]["ApproximateCreationDateTime"] = created_at.secs().into();
        }
        element["eventSourceARN"] = stream.into();
        let sequence = change.and_then(|change| change.sequence_number()).unwrap_or_default();
        let batch = unpack_element(&element.to_string()).map_err(|error| unavailable(stream, error))?;
        records.push((SequenceNumber(sequence.into()), PageRecord::Unpacked(batch)));
    }
    Ok(RecordPage { records, next: response.next_shard_iterator, is_last: false })
}

/// DynamoDB's response. It contains the same elements that Lambda delivers, without the stream's ARN.
#[derive(Deserialize)]
struct StreamResponse {
    #[serde(rename = "Records")]
    records: Vec<serde_json::Value>,
}

/// The position of an error in a response, without the text, which serde may quote.
fn unreadable_page(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!("the response of DynamoDB Streams GetRecords is malformed at line {line} column {column}")
}

/// Keeps the raw body of a response: the SDK parses items, and the original text could not be reconstructed.
#[derive(Clone, Default)]
struct ResponseBody(Arc<Mutex<Vec<u8>>>);

/// The SDK may log its interceptors. The body contains rows.
impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl ResponseBody {
    fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::from_slice(&bytes)
    }
}

impl Intercept for ResponseBody {
    fn name(&self) -> &'static str {
        "ResponseBody"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *bytes = context.response().body().bytes().unwrap_or_default().to_vec();
        Ok(())
    }
}

/// DynamoDB keeps records for 24 hours and returns this error for older ones.
fn is_trimmed(error: &impl ProvideErrorMetadata) -> bool {
    error.code() == Some("TrimmedDataAccessException")
}

fn is_dynamodb(stream: &str) -> bool {
    stream.starts_with("arn:aws") && stream.split(':').nth(2) == Some("dynamodb")
}

fn unavailable(stream: &str, reason: impl std::fmt::Display) -> KeepReason {
    KeepReason::Unavailable(format!("could not read {stream}: {reason}"))
}
