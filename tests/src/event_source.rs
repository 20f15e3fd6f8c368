//! The local event source: polls a stream's shards and invokes a function as Lambda's event source mapping does.
//!
//! One invocation at a time a shard, in the order of the shard; batches by count and by the payload's six megabytes; a failed
//! batch is halved and tried again, for ever; `batchItemFailures` moves the checkpoint to the lowest number named. The rules:
//! <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html>.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::function::{Function, FunctionError};
use crate::kinesis::{ShardRecord, element};
use crate::local_aws::LocalAws;

/// An invocation's payload is at most this large: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;
/// GetRecords gives this many at most.
const GET_RECORDS_MAX: i32 = 10_000;
/// The pause after a failed invocation, doubled each time up to the maximum.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A record as it stands in an event.
#[derive(Clone, Debug)]
pub struct Element {
    /// Its place in the shard, by which `batchItemFailures` names it.
    pub sequence: String,
    /// Its JSON.
    pub json: String,
}

/// The event of one batch.
pub fn event_of(elements: &[Element]) -> Vec<u8> {
    let elements: Vec<&str> = elements.iter().map(|element| &*element.json).collect();
    format!("{{\"Records\":[{}]}}", elements.join(",")).into_bytes()
}

/// How a stream is read.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The stream.
    pub stream: String,
    /// `BatchSize`.
    pub batch_size: usize,
    /// `BisectBatchOnFunctionError`.
    pub bisect: bool,
}

/// One invocation, as seen from outside.
#[derive(Clone, Debug)]
pub struct Invoked {
    /// The shard.
    pub shard: String,
    /// Records in the batch.
    pub records: usize,
    /// Records that the checkpoint moved past.
    pub done: usize,
    /// How long it took.
    pub time: Duration,
    /// What went wrong, if it did.
    pub error: Option<FunctionError>,
}

/// Tells the pollers to stop once they have read everything.
#[derive(Clone, Default, Debug)]
pub struct Progress {
    read: Arc<AtomicU64>,
    finish: Arc<AtomicBool>,
}

impl Progress {
    /// From now on, a shard without further records is done.
    pub fn finish(&self) {
        self.finish.store(true, Ordering::SeqCst);
    }

    /// Whether a shard without further records is done.
    pub fn is_finishing(&self) -> bool {
        self.finish.load(Ordering::SeqCst)
    }

    /// Tells of records read.
    pub fn add(&self, records: usize) {
        self.read.fetch_add(records as u64, Ordering::SeqCst);
    }

    /// Records read from the stream so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }
}

/// Polls one shard until it is told to finish and has nothing left. Every invocation is told to `seen`.
///
/// # Errors
/// The SDK's.
pub async fn poll(
    aws: &LocalAws,
    mapping: &Mapping,
    shard: &str,
    function: &mut Function,
    progress: &Progress,
    seen: &mpsc::UnboundedSender<Invoked>,
) -> Result<(), aws_sdk_kinesis::Error> {
    let client = Client::new(aws.config());
    let from = client.get_shard_iterator().stream_name(&mapping.stream).shard_id(shard);
    let mut iterator = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?.shard_iterator;
    while let Some(position) = iterator {
        let finishing = progress.is_finishing();
        let page = client.get_records().shard_iterator(position).limit(GET_RECORDS_MAX).send().await?;
        iterator = page.next_shard_iterator;
        let records = page.records.into_iter().map(shard_record);
        let records: Vec<Element> = records.map(|record| element(&mapping.stream, shard, &record)).collect();
        progress.add(records.len());
        if records.is_empty() {
            if finishing {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        deliver(mapping, shard, &records, function, seen).await;
    }
    Ok(())
}

fn shard_record(record: aws_sdk_kinesis::types::Record) -> ShardRecord {
    let arrival = record.approximate_arrival_timestamp.map(|time| time.as_secs_f64()).unwrap_or_default();
    ShardRecord {
        sequence: record.sequence_number,
        arrival: format!("{arrival:.3}"),
        partition_key: record.partition_key.unwrap_or_default(),
        data: record.data.into_inner(),
    }
}

/// Delivers records of a shard until the checkpoint has passed them all.
pub async fn deliver(
    mapping: &Mapping,
    shard: &str,
    records: &[Element],
    function: &mut Function,
    seen: &mpsc::UnboundedSender<Invoked>,
) {
    let mut rest = records;
    // How many records the next batch may have; smaller while a failed batch is being halved.
    let mut limit = mapping.batch_size;
    let mut failures = 0;
    while !rest.is_empty() {
        let batch = &rest[..batch_length(rest, limit)];
        let since = Instant::now();
        let answer = function.invoke(event_of(batch)).await;
        let (done, error) = match answer {
            Ok(answer) => (checkpoint(batch, &answer), None),
            Err(error) => (0, Some(error)),
        };
        rest = &rest[done..];
        let told = Invoked { shard: shard.to_owned(), records: batch.len(), done, time: since.elapsed(), error };
        seen.send(told).unwrap_or_default();
        if done > 0 {
            failures = 0;
            // What follows is tried in ever larger pieces again.
            limit = (limit * 2).min(mapping.batch_size);
        } else {
            limit = if mapping.bisect { (batch.len() / 2).max(1) } else { limit };
            tokio::time::sleep((RETRY_PAUSE * 2u32.pow(failures)).min(RETRY_PAUSE_MAX)).await;
            failures = (failures + 1).min(10);
        }
    }
}

/// How many records fit one invocation.
fn batch_length(records: &[Element], limit: usize) -> usize {
    let mut bytes = 0;
    let fitting = records.iter().take(limit).take_while(|record| {
        bytes += record.json.len() + 1;
        bytes <= PAYLOAD_BYTES_MAX
    });
    fitting.count().max(1)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialFailure {
    batch_item_failures: Option<Vec<Failed>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failed {
    item_identifier: Option<String>,
}

/// How many records the answer moves the checkpoint past. No list, or an empty one, is success; an identifier that is empty
/// or not of the batch is a failure of the whole batch.
fn checkpoint(batch: &[Element], answer: &[u8]) -> usize {
    let failures = match serde_json::from_slice::<Option<PartialFailure>>(answer) {
        Ok(answer) => answer.and_then(|answer| answer.batch_item_failures).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let place = |failed: &Failed| {
        let identifier = failed.item_identifier.as_deref()?;
        batch.iter().position(|record| record.sequence == identifier)
    };
    failures.iter().map(|failed| place(failed).unwrap_or(0)).min().unwrap_or(batch.len())
}
