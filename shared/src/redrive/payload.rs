//! The records of a dead letter: from the letter itself, from S3, or read back from the stream.

use base64_simd::STANDARD;

use super::message::KeepReason;
use super::stream::StreamReader;
use crate::dead_letter::{DeadLetter, StoredPayload};
use crate::object_store::ObjectStore;
use crate::record::{Batch, Record, SequenceNumber, StreamPosition, UnpackError, unpack_data, unpack_element};
use crate::rejection::RejectionReason;
use crate::timestamp::Timestamp;

/// The records of a letter, with the letter's attempts.
pub async fn message_records(
    letter: &DeadLetter,
    archive: &ObjectStore,
    streams: &StreamReader,
) -> Result<Batch, KeepReason> {
    let mut batch = match &letter.payload {
        StoredPayload::Base64(text) => {
            records_in_letter(letter, STANDARD.decode_to_vec(text).map_err(|error| damaged("payload", error))?)?
        }
        StoredPayload::S3(address) => {
            let payload = archive.read(address).await;
            records_in_letter(letter, payload.map_err(|error| KeepReason::Unavailable(error.to_string()))?)?
        }
        StoredPayload::Withheld { .. } => records_from_stream(letter, streams).await?,
    };
    batch.records.iter_mut().for_each(|record| record.attempts = letter.attempts);
    Ok(batch)
}

/// What the letter holds.
fn records_in_letter(letter: &DeadLetter, payload: Vec<u8>) -> Result<Batch, KeepReason> {
    let place = StreamPosition {
        stream: (*letter.place.stream).into(),
        shard: (*letter.place.shard).into(),
        sequence_number: SequenceNumber((*letter.place.sequence_number).into()),
        sub_sequence_number: letter.place.sub_sequence_number,
    };
    let arrival = Timestamp::parse(&letter.arrival).ok_or_else(|| damaged("arrival", "not a timestamp"))?;
    if failed_unpacking(letter) {
        return Ok(unpack_again(place, arrival, letter, payload));
    }
    let digest = u64::from_str_radix(&letter.digest, 16).map_err(|error| damaged("digest", error))?;
    let record = Record::new(place, arrival, (*letter.partition_key).into(), 0..payload.len());
    let record = Record { archived_digest: letter.redacted.then_some(digest), ..record };
    Ok(Batch { records: vec![record], bytes: payload, empty_records: 0 })
}

/// What could not be unpacked takes its first step again: an element of an event, or the data of a record of Kinesis.
fn unpack_again(place: StreamPosition, arrival: Timestamp, letter: &DeadLetter, payload: Vec<u8>) -> Batch {
    let element = str::from_utf8(&payload).ok().and_then(|text| unpack_element(text).ok());
    element.unwrap_or_else(|| unpack_data(&place, arrival, (*letter.partition_key).into(), payload))
}

/// What a letter does not hold is still in the stream, for as long as that keeps it.
async fn records_from_stream(letter: &DeadLetter, streams: &StreamReader) -> Result<Batch, KeepReason> {
    let place = &letter.place;
    let mut batch = streams.record(&place.stream, &place.shard, &place.sequence_number).await?;
    // What can be unpacked now may be several: those behind the first are new as well, or have been written before.
    let several = failed_unpacking(letter);
    let first = place.sub_sequence_number;
    batch.records.retain(|Record { position: place, .. }| {
        place.sub_sequence_number == first || several && place.sub_sequence_number > first
    });
    if batch.records.is_empty() { Err(KeepReason::NoLongerInStream("the record".to_owned())) } else { Ok(batch) }
}

/// Whether the record could not be unpacked.
fn failed_unpacking(letter: &DeadLetter) -> bool {
    letter.error.class == RejectionReason::Unreadable(UnpackError::Base64).class()
}

fn damaged(member: &str, how: impl std::fmt::Display) -> KeepReason {
    KeepReason::Unreadable(format!("damaged dead letter: {member}: {how}"))
}
