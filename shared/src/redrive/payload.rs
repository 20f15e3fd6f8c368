//! The records of a dead letter: from the letter itself, from S3, or read back from the stream.

use base64_simd::STANDARD;

use super::message::Kept;
use super::stream::Streams;
use crate::archive::Archive;
use crate::dead_letter::{DeadLetter, Payload};
use crate::record::{Batch, Fault, Place, Record, SequenceNumber, unpack_data, unpack_element};
use crate::rejection::Reason;
use crate::timestamp::Timestamp;

/// The records of a letter, with the letter's attempts.
pub async fn records_of(letter: &DeadLetter, archive: &Archive, streams: &Streams) -> Result<Batch, Kept> {
    let mut batch = match &letter.payload {
        Payload::Base64(text) => {
            held(letter, STANDARD.decode_to_vec(text).map_err(|error| damaged("payload", error))?)?
        }
        Payload::S3(address) => {
            let payload = archive.read(address).await;
            held(letter, payload.map_err(|error| Kept::Unavailable(error.to_string()))?)?
        }
        Payload::Withheld { .. } => withheld(letter, streams).await?,
    };
    batch.records.iter_mut().for_each(|record| record.attempts = letter.attempts);
    Ok(batch)
}

/// What the letter holds.
fn held(letter: &DeadLetter, payload: Vec<u8>) -> Result<Batch, Kept> {
    let place = Place {
        stream: (*letter.place.stream).into(),
        shard: (*letter.place.shard).into(),
        sequence: SequenceNumber((*letter.place.sequence_number).into()),
        sub_sequence: letter.place.sub_sequence_number,
    };
    let arrival = Timestamp::parse(&letter.arrival).ok_or_else(|| damaged("arrival", "no moment"))?;
    if is_packed(letter) {
        return Ok(unpacked_again(place, arrival, letter, payload));
    }
    let digest = u64::from_str_radix(&letter.digest, 16).map_err(|error| damaged("digest", error))?;
    let record = Record::new(place, arrival, (*letter.partition_key).into(), 0..payload.len());
    let record = Record { redacted: letter.redacted.then_some(digest), ..record };
    Ok(Batch { records: vec![record], bytes: payload, empty: 0 })
}

/// What could not be unpacked takes its first step again: an element of an event, or the data of a record of Kinesis.
fn unpacked_again(place: Place, arrival: Timestamp, letter: &DeadLetter, payload: Vec<u8>) -> Batch {
    let element = str::from_utf8(&payload).ok().and_then(|text| unpack_element(text).ok());
    element.unwrap_or_else(|| unpack_data(&place, arrival, (*letter.partition_key).into(), payload))
}

/// What a letter does not hold is still in the stream, for as long as that keeps it.
async fn withheld(letter: &DeadLetter, streams: &Streams) -> Result<Batch, Kept> {
    let place = &letter.place;
    let mut batch = streams.record(&place.stream, &place.shard, &place.sequence_number).await?;
    // What can be unpacked now may be several: those behind the first are new as well, or have been written before.
    let several = is_packed(letter);
    let first = place.sub_sequence_number;
    batch.records.retain(|Record { place, .. }| place.sub_sequence == first || several && place.sub_sequence > first);
    if batch.records.is_empty() { Err(Kept::Gone("the record".to_owned())) } else { Ok(batch) }
}

/// Whether the record could not be unpacked.
fn is_packed(letter: &DeadLetter) -> bool {
    letter.error.class == Reason::Unreadable(Fault::Base64).class()
}

fn damaged(member: &str, how: impl std::fmt::Display) -> Kept {
    Kept::Unreadable(format!("the dead letter is damaged: its {member}: {how}"))
}
