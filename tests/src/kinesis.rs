//! Kinesis events as Lambda hands them over, and streams on the local AWS.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::event_source::{Element, event_of};
use crate::local_aws::{ACCOUNT, LocalAws, REGION};

/// Kinesis takes this many records in one request.
const PUT_RECORDS_MAX: usize = 500;

/// A record as it stands in a shard.
#[derive(Clone, Debug)]
pub struct ShardRecord {
    /// Its place in the shard.
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

/// A stream's ARN.
pub fn arn(stream: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{stream}")
}

/// The event of one batch, byte for byte in Lambda's form.
pub fn event(stream: &str, shard: &str, records: &[ShardRecord]) -> Vec<u8> {
    let elements: Vec<Element> = records.iter().map(|record| element(stream, shard, record)).collect();
    event_of(&elements)
}

/// A record as it stands in an event.
pub fn element(stream: &str, shard: &str, record: &ShardRecord) -> Element {
    let ShardRecord { sequence, arrival, partition_key, data } = record;
    let (key, arn) = (serde_json::Value::from(partition_key.as_str()), arn(stream));
    let json = format!(
        "{{\"kinesis\":{{\"kinesisSchemaVersion\":\"1.0\",\"partitionKey\":{key},\"sequenceNumber\":\"{sequence}\",\
         \"data\":\"{}\",\"approximateArrivalTimestamp\":{arrival}}},\"eventSource\":\"aws:kinesis\",\"eventVersion\":\"1.0\",\
         \"eventID\":\"{shard}:{sequence}\",\"eventName\":\"aws:kinesis:record\",\
         \"invokeIdentityArn\":\"arn:aws:iam::{ACCOUNT}:role/millstream\",\"awsRegion\":\"{REGION}\",\
         \"eventSourceARN\":\"{arn}\"}}",
        STANDARD.encode(data)
    );
    Element { sequence: sequence.clone(), json }
}

/// Makes a stream and waits until it is there.
///
/// # Errors
/// The SDK's.
pub async fn create_stream(aws: &LocalAws, stream: &str, shards: i32) -> Result<(), aws_sdk_kinesis::Error> {
    let client = Client::new(aws.config());
    client.create_stream().stream_name(stream).shard_count(shards).send().await?;
    Ok(())
}

/// Puts records, each with its partition key.
///
/// # Errors
/// The SDK's; moto never refuses single records.
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
