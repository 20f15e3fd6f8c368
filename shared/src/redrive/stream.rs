//! Records read back from their stream, unpacked as those of an event are.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodbstreams::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_dynamodbstreams::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodbstreams::error::{BoxError, DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_dynamodbstreams::types::ShardIteratorType as DynamodbIterator;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record, ShardIteratorType as KinesisIterator};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::message::KeepReason;
use crate::aws::Aws;
use crate::record::{Batch, SequenceNumber, StreamPosition, unpack_data, unpack_element};
use crate::timestamp::Timestamp;

/// Records of one request: what an invocation holds at most is more, and a page of the largest ones has 10 MB.
const PAGE_RECORDS: i32 = 1_000;

/// A page without a record says nothing of what follows; so many one after the other are an end. Kinesis says how far
/// behind it is, DynamoDB does not.
const EMPTY_PAGES_MAX: u32 = 50;

/// Streams of Kinesis and of DynamoDB, as far as they reach back.
#[derive(Clone, Debug)]
pub struct StreamReader(Aws);

/// A range of a shard, page by page.
pub(super) struct ShardPages {
    reader: ShardClient,
    stream: String,
    shard: String,
    first: SequenceNumber,
    last: SequenceNumber,
    /// `None` behind the end.
    iterator: Option<String>,
    empty: u32,
    /// How many records of the range have been found.
    found: u64,
    /// Whether the first of them has.
    begun: bool,
}

enum ShardClient {
    Kinesis(aws_sdk_kinesis::Client),
    Dynamodb(aws_sdk_dynamodbstreams::Client),
}

/// What a shard's records hold, with their places, and where the shard goes on.
struct RecordPage {
    records: Vec<(SequenceNumber, Batch)>,
    next: Option<String>,
    is_last: bool,
}

impl StreamReader {
    /// The streams that the process's role may read.
    pub fn new(aws: Aws) -> Self {
        Self(aws)
    }

    /// The record at a place. A shard that is not told (DynamoDB's elements do not) is looked for.
    pub(super) async fn record(&self, stream: &str, shard: &str, sequence: &str) -> Result<Batch, KeepReason> {
        let shards = if shard.is_empty() { self.shards(stream, sequence).await? } else { vec![shard.to_owned()] };
        let mut outcome = Ok(Batch::default());
        for shard in shards {
            match self.find_record(stream, &shard, sequence).await {
                Ok(found) if !found.records.is_empty() => return Ok(found),
                Ok(_) => {}
                // A shard that cannot hold the place may say so by an error.
                Err(kept) => outcome = Err(kept),
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

    /// The records from one place to another of a shard, both included.
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
                let answer = request.starting_sequence_number(first).send().await;
                answer.map_err(|error| unavailable(stream, DisplayErrorContext(&error)))?.shard_iterator
            }
            ShardClient::Dynamodb(client) => {
                let request = client.get_shard_iterator().stream_arn(stream).shard_id(shard);
                let request = request.shard_iterator_type(DynamodbIterator::AtSequenceNumber).sequence_number(first);
                match request.send().await {
                    Ok(answer) => answer.shard_iterator,
                    Err(error) if is_trimmed(&error) => None,
                    Err(error) => return Err(unavailable(stream, DisplayErrorContext(&error))),
                }
            }
        };
        let [first, last] = [first, last].map(|number| SequenceNumber(number.into()));
        let (stream, shard) = (stream.to_owned(), shard.to_owned());
        Ok(ShardPages { reader, stream, shard, first, last, iterator, empty: 0, found: 0, begun: false })
    }

    async fn reader(&self, stream: &str) -> ShardClient {
        let config = self.0.config().await;
        if is_dynamodb(stream) {
            ShardClient::Dynamodb(aws_sdk_dynamodbstreams::Client::new(config))
        } else {
            ShardClient::Kinesis(aws_sdk_kinesis::Client::new(config))
        }
    }

    /// The shards of a DynamoDB stream that may hold the place.
    async fn shards(&self, stream: &str, sequence: &str) -> Result<Vec<String>, KeepReason> {
        let client = aws_sdk_dynamodbstreams::Client::new(self.0.config().await);
        let wanted = SequenceNumber(sequence.into());
        let (mut found, mut behind) = (Vec::new(), None);
        loop {
            let request = client.describe_stream().stream_arn(stream).set_exclusive_start_shard_id(behind);
            let answer = request.send().await.map_err(|error| unavailable(stream, DisplayErrorContext(&error)))?;
            let description = answer.stream_description();
            for shard in description.map(|description| description.shards()).unwrap_or_default() {
                let range = shard.sequence_number_range();
                let bound = |number: Option<&str>| number.map(|number| SequenceNumber(number.into()));
                let first = bound(range.and_then(|range| range.starting_sequence_number()));
                let last = bound(range.and_then(|range| range.ending_sequence_number()));
                if first.is_none_or(|first| first <= wanted) && last.is_none_or(|last| wanted <= last) {
                    found.extend(shard.shard_id().map(str::to_owned));
                }
            }
            behind = description.and_then(|description| description.last_evaluated_shard_id().map(str::to_owned));
            if behind.is_none() {
                return Ok(found);
            }
        }
    }
}

impl ShardPages {
    /// The records of the next page within the range; `None` behind the last.
    pub(super) async fn next(&mut self) -> Result<Option<Batch>, KeepReason> {
        let Some(iterator) = self.iterator.take() else { return Ok(None) };
        // Of a single record no neighbours are read: what a shard gives in a second is limited.
        let limit = if self.first == self.last { 1 } else { PAGE_RECORDS };
        let page = match &self.reader {
            ShardClient::Kinesis(client) => kinesis_page(client, (&self.stream, &self.shard), iterator, limit).await?,
            ShardClient::Dynamodb(client) => dynamodb_page(client, &self.stream, iterator, limit).await?,
        };
        self.empty = if page.records.is_empty() { self.empty + 1 } else { 0 };
        let beyond = page.records.last().is_some_and(|(sequence, _)| *sequence >= self.last);
        if !beyond && !page.is_last && self.empty < EMPTY_PAGES_MAX {
            self.iterator = page.next;
        }
        let mut within = Batch::default();
        for (sequence, record) in page.records {
            if sequence < self.first || sequence > self.last {
                continue;
            }
            self.begun |= sequence == self.first;
            self.found += 1;
            within.append(&record);
        }
        Ok(Some(within))
    }

    /// What is missing of a batch of so many records, now that all pages have been read. A stream loses its oldest records
    /// first; a batch's own first and last are in the range's ends, whatever a filter left out between.
    pub(super) fn missing_records(&self, records: u64) -> Option<String> {
        match records.saturating_sub(self.found) {
            0 if self.begun => None,
            0 => Some("the first record".to_owned()),
            lost => Some(format!("{lost} of {records} records")),
        }
    }
}

async fn kinesis_page(
    client: &aws_sdk_kinesis::Client,
    (stream, shard): (&str, &str),
    iterator: String,
    limit: i32,
) -> Result<RecordPage, KeepReason> {
    let request = client.get_records().stream_arn(stream).shard_iterator(iterator).limit(limit);
    let answer = request.send().await.map_err(|error| unavailable(stream, DisplayErrorContext(&error)))?;
    let is_last = answer.records.is_empty() && answer.millis_behind_latest == Some(0);
    let unpacked = |record: Record| {
        let sequence = SequenceNumber(record.sequence_number.into());
        let place = StreamPosition {
            stream: stream.into(),
            shard: shard.into(),
            sequence_number: sequence.clone(),
            sub_sequence_number: 0,
        };
        let arrival = record.approximate_arrival_timestamp.map_or(Timestamp(0), |time| arrival(&time));
        let key = record.partition_key.unwrap_or_default().into();
        (sequence, unpack_data(&place, arrival, key, record.data.into_inner()))
    };
    let records = answer.records.into_iter().map(unpacked).collect();
    Ok(RecordPage { records, next: answer.next_shard_iterator, is_last })
}

/// Kinesis tells milliseconds, as a float; what is made of that may be a little less.
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
    let body = AnswerBody::default();
    let request = client.get_records().shard_iterator(iterator).limit(limit).customize();
    let answer = match request.interceptor(body.clone()).send().await {
        Ok(answer) => answer,
        Err(error) if is_trimmed(&error) => return Ok(RecordPage { records: Vec::new(), next: None, is_last: true }),
        Err(error) => return Err(unavailable(stream, DisplayErrorContext(&error))),
    };
    let raw: StreamAnswer = body.read().map_err(|error| unavailable(stream, error))?;
    let mut records = Vec::with_capacity(raw.records.len());
    for (mut element, typed) in raw.records.into_iter().zip(answer.records()) {
        let change = typed.dynamodb();
        // The API may write 1.7E9 where Lambda writes all digits.
        if let Some(made) = change.and_then(|change| change.approximate_creation_date_time()) {
            element["dynamodb"]["ApproximateCreationDateTime"] = made.secs().into();
        }
        element["eventSourceARN"] = stream.into();
        let sequence = change.and_then(|change| change.sequence_number()).unwrap_or_default();
        let batch = unpack_element(&element.to_string()).map_err(|error| unavailable(stream, error))?;
        records.push((SequenceNumber(sequence.into()), batch));
    }
    Ok(RecordPage { records, next: answer.next_shard_iterator, is_last: false })
}

/// DynamoDB's answer holds the elements that Lambda hands over, but for the stream's ARN.
#[derive(Deserialize)]
struct StreamAnswer {
    #[serde(rename = "Records")]
    records: Vec<serde_json::Value>,
}

/// Keeps an answer as it came: the SDK takes items apart, and nothing would put them together again as they were.
#[derive(Clone, Default, Debug)]
struct AnswerBody(Arc<Mutex<Vec<u8>>>);

impl AnswerBody {
    fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::from_slice(&bytes)
    }
}

impl Intercept for AnswerBody {
    fn name(&self) -> &'static str {
        "AnswerBody"
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

/// DynamoDB keeps 24 hours; of what is older it says so.
fn is_trimmed(error: &impl ProvideErrorMetadata) -> bool {
    error.code() == Some("TrimmedDataAccessException")
}

fn is_dynamodb(stream: &str) -> bool {
    stream.starts_with("arn:aws") && stream.split(':').nth(2) == Some("dynamodb")
}

fn unavailable(stream: &str, reason: impl std::fmt::Display) -> KeepReason {
    KeepReason::Unavailable(format!("could not read {stream}: {reason}"))
}
