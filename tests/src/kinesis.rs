//! Kinesis events as Lambda delivers them, and streams on the local AWS.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, Shard};
use base64_simd::STANDARD;

use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;

use crate::event_source::{StreamRecord, event_of};
use crate::local_aws::{ACCOUNT, LocalAws, REGION};
use crate::system::SystemResult;

/// Kinesis accepts this many records in one request.
const PUT_RECORDS_MAX: usize = 500;

/// A record of a shard.
#[derive(Clone, Debug)]
pub struct ShardRecord {
    /// Its sequence number.
    pub sequence: String,
    /// When it arrived, in seconds since 1970, as Lambda writes it.
    pub arrival: String,
    /// The producer's key.
    pub partition_key: String,
    /// The bytes that the producer sent.
    pub data: Vec<u8>,
}

impl ShardRecord {
    /// A record with real-looking sequence number: 56 digits, ascending with `number`.
    pub fn numbered(number: u64, data: impl Into<Vec<u8>>) -> Self {
        let sequence = format!("4959033827149025660855969253836157109592157598{number:010}");
        Self { sequence, arrival: "1770593400.98".to_owned(), partition_key: "key".to_owned(), data: data.into() }
    }
}

/// A stream's ARN; an ARN is returned unchanged.
pub fn arn(stream: &str) -> String {
    if stream.starts_with("arn:") {
        return stream.to_owned();
    }
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{stream}")
}

impl From<aws_sdk_kinesis::types::Record> for ShardRecord {
    fn from(record: aws_sdk_kinesis::types::Record) -> Self {
        let arrival = record.approximate_arrival_timestamp.map(|time| time.as_secs_f64()).unwrap_or_default();
        Self {
            sequence: record.sequence_number,
            arrival: format!("{arrival:.3}"),
            partition_key: record.partition_key.unwrap_or_default(),
            data: record.data.into_inner(),
        }
    }
}

/// The event of one batch, byte for byte in Lambda's form.
pub fn event(stream: &str, shard: &str, records: &[ShardRecord]) -> Vec<u8> {
    let records: Vec<StreamRecord> = records.iter().map(|record| stream_record(stream, shard, record)).collect();
    event_of(records.iter().map(|record| &*record.json))
}

/// A record as an event contains it.
pub fn stream_record(stream: &str, shard: &str, record: &ShardRecord) -> StreamRecord {
    let ShardRecord { sequence, arrival, partition_key, data } = record;
    let (key, arn) = (serde_json::Value::from(partition_key.as_str()), arn(stream));
    let json = format!(
        "{{\"kinesis\":{{\"kinesisSchemaVersion\":\"1.0\",\"partitionKey\":{key},\"sequenceNumber\":\"{sequence}\",\
         \"data\":\"{}\",\"approximateArrivalTimestamp\":{arrival}}},\"eventSource\":\"aws:kinesis\",\"eventVersion\":\"1.0\",\
         \"eventID\":\"{shard}:{sequence}\",\"eventName\":\"aws:kinesis:record\",\
         \"invokeIdentityArn\":\"arn:aws:iam::{ACCOUNT}:role/millstream\",\"awsRegion\":\"{REGION}\",\
         \"eventSourceARN\":\"{arn}\"}}",
        STANDARD.encode_to_string(data)
    );
    StreamRecord {
        sequence: SequenceNumber(sequence.as_str().into()),
        key: partition_key.clone(),
        arrival: Timestamp::parse_epoch_seconds(arrival).unwrap_or(Timestamp(0)),
        json,
    }
}

/// Creates a stream and waits until it is active.
///
/// # Errors
/// Returns an error if a call of the SDK fails.
pub async fn create_stream(aws: &LocalAws, stream: &str, shards: i32) -> Result<(), aws_sdk_kinesis::Error> {
    let client = Client::new(aws.config());
    client.create_stream().stream_name(stream).shard_count(shards).send().await?;
    Ok(())
}

/// Splits a shard in the middle of its hash key range; returns the ids of its children.
///
/// # Errors
/// Returns an error if a call of the SDK fails.
pub async fn split(aws: &LocalAws, stream: &str, shard: &str) -> SystemResult<Vec<String>> {
    let client = Client::new(aws.config());
    let shards = client.list_shards().stream_name(stream).send().await?;
    let found = shards.shards().iter().find(|listed| listed.shard_id() == shard);
    let range = found.and_then(Shard::hash_key_range).ok_or_else(|| format!("{stream} has no shard {shard}"))?;
    let (from, to): (u128, u128) = (range.starting_hash_key().parse()?, range.ending_hash_key().parse()?);
    let middle = from + (to - from) / 2 + 1;
    let request = client.split_shard().stream_name(stream).shard_to_split(shard);
    request.new_starting_hash_key(middle.to_string()).send().await?;
    children(&client, stream, shard).await
}

/// Merges two adjacent shards; returns the id of their child.
///
/// # Errors
/// Returns an error if a call of the SDK fails.
pub async fn merge(aws: &LocalAws, stream: &str, shard: &str, adjacent: &str) -> SystemResult<Vec<String>> {
    let client = Client::new(aws.config());
    let request = client.merge_shards().stream_name(stream).shard_to_merge(shard);
    request.adjacent_shard_to_merge(adjacent).send().await?;
    children(&client, stream, shard).await
}

async fn children(client: &Client, stream: &str, shard: &str) -> SystemResult<Vec<String>> {
    let listed = client.list_shards().stream_name(stream).send().await?;
    let children = listed.shards().iter().filter(|listed| listed.parent_shard_id() == Some(shard));
    Ok(children.map(|child| child.shard_id().to_owned()).collect())
}

/// Puts records, each with its partition key.
///
/// # Errors
/// Returns an error if a call of the SDK fails; moto never rejects single records.
pub async fn put(aws: &LocalAws, stream: &str, records: &[(String, Vec<u8>)]) -> Result<(), aws_sdk_kinesis::Error> {
    let client = Client::new(aws.config());
    for chunk in records.chunks(PUT_RECORDS_MAX) {
        let mut request = client.put_records().stream_name(stream);
        for (key, data) in chunk {
            let entry = PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data.clone())).build()?;
            request = request.records(entry);
        }
        request.send().await?;
    }
    Ok(())
}
