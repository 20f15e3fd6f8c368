//! The records of a dead letter: from the dead letter itself, from S3, or read back from the stream.

use std::sync::Arc;

use base64_simd::STANDARD;

use super::message::KeepReason;
use super::stream::StreamReader;
use crate::dead_letter::documents::unpack_documents;
use crate::dead_letter::{DeadLetter, StoredPayload};
use crate::object_store::ObjectStore;
use crate::record::{Batch, Record, SequenceNumber, StreamPosition, UnpackError, unpack_data, unpack_element};
use crate::rejection::RejectionReason;
use crate::timestamp::Timestamp;

/// Returns the records of a dead letter, with its number of attempts.
pub async fn message_records(
    dead_letter: &DeadLetter,
    object_store: &ObjectStore,
    streams: &StreamReader,
) -> Result<Batch, KeepReason> {
    let mut batch = match &dead_letter.payload {
        StoredPayload::Base64(text) => {
            records_in_letter(dead_letter, STANDARD.decode_to_vec(text).map_err(|error| damaged("payload", error))?)?
        }
        // Rejected again, it could be stored nowhere.
        StoredPayload::S3(_) if !object_store.has_bucket() => {
            return Err(KeepReason::Unavailable("its payload is on S3; set ARCHIVE_BUCKET".to_owned()));
        }
        StoredPayload::S3(address) => {
            let payload = object_store.read(address).await;
            records_in_letter(dead_letter, payload.map_err(|error| KeepReason::Unavailable(error.to_string()))?)?
        }
        StoredPayload::Withheld { .. } => records_from_stream(dead_letter, streams).await?,
    };
    batch.records.iter_mut().for_each(|record| record.attempts = dead_letter.attempts);
    Ok(batch)
}

/// Builds the records from the payload.
fn records_in_letter(dead_letter: &DeadLetter, payload: Vec<u8>) -> Result<Batch, KeepReason> {
    let position = StreamPosition {
        stream: (*dead_letter.position.stream).into(),
        shard: (*dead_letter.position.shard).into(),
        sequence_number: SequenceNumber((*dead_letter.position.sequence_number).into()),
        sub_sequence_number: dead_letter.position.sub_sequence_number,
    };
    let arrival = Timestamp::parse(&dead_letter.arrival).ok_or_else(|| damaged("arrival", "not a timestamp"))?;
    let key: Arc<str> = (*dead_letter.partition_key).into();
    if dead_letter.documents.is_some() {
        return several_documents(&position, arrival, key, &payload);
    }
    if failed_unpacking(dead_letter) {
        return Ok(retry_unpacking(&position, arrival, key, payload));
    }
    let digest = parse_digest(&dead_letter.digest)?;
    let record = Record::new(position, arrival, key, 0..payload.len());
    let record = Record { archived_digest: dead_letter.redacted.then_some(digest), ..record };
    Ok(Batch { records: vec![record], bytes: payload, empty_records: 0 })
}

/// Unpacks a record that could not be unpacked before: an element of an event, or the data of a Kinesis record.
fn retry_unpacking(position: &StreamPosition, arrival: Timestamp, key: Arc<str>, payload: Vec<u8>) -> Batch {
    let element = str::from_utf8(&payload).ok().and_then(|text| unpack_element(text).ok());
    element.unwrap_or_else(|| unpack_data(position, arrival, key, payload))
}

/// Builds the records from a payload of several documents of one record.
fn several_documents(
    position: &StreamPosition,
    arrival: Timestamp,
    mut key: Arc<str>,
    payload: &[u8],
) -> Result<Batch, KeepReason> {
    let (mut batch, mut digests) = (Batch::default(), Ok(()));
    let unpacked = unpack_documents(payload, |document, partition_key| {
        if *key != *partition_key {
            key = partition_key.into();
        }
        let sub_sequence_number = document.sub_sequence_number;
        let position = StreamPosition { sub_sequence_number, ..position.clone() };
        if document.is_unreadable() {
            return batch.append(&retry_unpacking(&position, arrival, key.clone(), document.data().to_vec()));
        }
        let start = batch.bytes.len();
        batch.bytes.extend_from_slice(document.data());
        let record = Record::new(position, arrival, key.clone(), start..batch.bytes.len());
        match parse_digest(&document.digest) {
            Ok(digest) => batch.records.push(Record { archived_digest: Some(digest), ..record }),
            Err(reason) => digests = Err(reason),
        }
    });
    unpacked.map_err(|error| damaged("payload", error))?;
    digests.map(|()| batch)
}

fn parse_digest(text: &str) -> Result<u64, KeepReason> {
    u64::from_str_radix(text, 16).map_err(|error| damaged("digest", error))
}

/// Reads a withheld payload back from the stream, which contains it until its retention period ends.
async fn records_from_stream(dead_letter: &DeadLetter, streams: &StreamReader) -> Result<Batch, KeepReason> {
    let position = &dead_letter.position;
    let mut batch = streams.record(&position.stream, &position.shard, &position.sequence_number).await?;
    // Unpacking may now yield several records: those after the first are new too, or were written before. The same is true of
    // several documents that share the dead letter.
    let several = failed_unpacking(dead_letter) || dead_letter.documents.is_some();
    let first = position.sub_sequence_number;
    batch.records.retain(|Record { position, .. }| {
        position.sub_sequence_number == first || several && position.sub_sequence_number > first
    });
    if batch.records.is_empty() { Err(KeepReason::NoLongerInStream("the record".to_owned())) } else { Ok(batch) }
}

/// Whether the record was rejected because it could not be unpacked.
fn failed_unpacking(dead_letter: &DeadLetter) -> bool {
    dead_letter.error.class == RejectionReason::Unreadable(UnpackError::Base64).class()
}

fn damaged(field: &str, problem: impl std::fmt::Display) -> KeepReason {
    KeepReason::Unreadable(format!("damaged dead letter: {field}: {problem}"))
}
