//! The elements of an event. Of Kinesis: base64 off, aggregates apart, decompressed, documents parted. Of a DynamoDB stream:
//! as they are.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Batch, Envelope, Fault, Place, Record, SequenceNumber, compression, documents, kpl};
use crate::timestamp::Timestamp;

/// An element of `Records` as Lambda writes it; Pipes writes the inner members of Kinesis beside the outer ones.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Element<'a> {
    #[serde(borrow)]
    kinesis: Option<Inner<'a>>,
    #[serde(borrow)]
    dynamodb: Option<Change<'a>>,
    #[serde(borrow, default, rename = "eventID")]
    event_id: Cow<'a, str>,
    #[serde(borrow, default, rename = "eventSourceARN")]
    event_source_arn: Cow<'a, str>,
}

/// What is needed of a change to know its place; the decoder reads the rest.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change<'a> {
    #[serde(borrow, default)]
    sequence_number: Cow<'a, str>,
    #[serde(borrow, default)]
    approximate_creation_date_time: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inner<'a> {
    #[serde(borrow, default)]
    partition_key: Cow<'a, str>,
    #[serde(borrow)]
    sequence_number: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow)]
    approximate_arrival_timestamp: &'a RawValue,
}

/// Unpacks an event into records; never fails as a whole.
pub fn unpack(envelope: &Envelope) -> Batch {
    let mut unpacker = Unpacker::default();
    unpacker.batch.records.reserve(envelope.0.len());
    // Base64 takes four bytes for three.
    unpacker.batch.bytes.reserve(envelope.0.iter().map(|element| element.get().len()).sum::<usize>() / 4 * 3);
    for element in &envelope.0 {
        unpacker.element(element);
    }
    unpacker.batch
}

/// Unpacks the data of one record of Kinesis; what is found is numbered from the place's own position on.
pub fn unpack_data(place: &Place, arrival: Timestamp, key: Arc<str>, data: Vec<u8>) -> Batch {
    let mut unpacker = Unpacker::default();
    unpacker.batch.bytes = data;
    unpacker.decoded(&Place { sub_sequence: 0, ..place.clone() }, arrival, &key, 0);
    for record in &mut unpacker.batch.records {
        record.place.sub_sequence = record.place.sub_sequence.saturating_add(place.sub_sequence);
    }
    unpacker.batch
}

#[derive(Default)]
struct Unpacker {
    batch: Batch,
    /// The last stream and shard seen: a batch is of one shard, so that one allocation serves all its records.
    stream: Arc<str>,
    shard: Arc<str>,
}

impl Unpacker {
    fn element(&mut self, raw: &RawValue) {
        match read_element(raw) {
            Ok(Read::Kinesis(element, inner)) => self.record(raw, &element, &inner),
            Ok(Read::Dynamodb(element, change)) => {
                let place = self.place(&element.event_source_arn, "", &change.sequence_number);
                let made = change.approximate_creation_date_time.and_then(|made| Timestamp::parse_epoch(made.get()));
                self.push(place, made.unwrap_or(Timestamp(0)), "".into(), raw.get().as_bytes(), None);
            }
            Err(fault) => {
                let place = self.place("", "", "");
                let nowhen = Timestamp(0);
                self.push(place, nowhen, "".into(), raw.get().as_bytes(), Some(fault));
            }
        }
    }

    fn record(&mut self, raw: &RawValue, element: &Element<'_>, inner: &Inner<'_>) {
        let shard = element.event_id.split(':').next().unwrap_or_default();
        let place = self.place(stream_of(&element.event_source_arn), shard, &inner.sequence_number);
        let key: Arc<str> = Arc::from(&*inner.partition_key);
        let Some(arrival) = Timestamp::parse_epoch_seconds(inner.approximate_arrival_timestamp.get()) else {
            let fault = Fault::Envelope("approximateArrivalTimestamp is no number of seconds".to_owned());
            return self.push(place, Timestamp(0), key, raw.get().as_bytes(), Some(fault));
        };
        let start = self.batch.bytes.len();
        if STANDARD.decode_vec(&*inner.data, &mut self.batch.bytes).is_err() {
            self.batch.bytes.truncate(start);
            return self.push(place, arrival, key, raw.get().as_bytes(), Some(Fault::Base64));
        }
        self.decoded(&place, arrival, &key, start);
    }

    /// The bytes from `start` on are what the producer (or its library) sent.
    fn decoded(&mut self, place: &Place, arrival: Timestamp, key: &Arc<str>, start: usize) {
        let bytes = &self.batch.bytes[start..];
        match kpl::deaggregate(bytes) {
            None => self.user_record(place, arrival, key, start, &mut 0),
            Some(Err(fault)) => self.fault(place, arrival, key, start, &mut 0, fault),
            Some(Ok(records)) => {
                self.batch.bytes.truncate(start);
                let mut sub_sequence = 0;
                for record in records {
                    let start = self.batch.bytes.len();
                    self.batch.bytes.extend_from_slice(&record.data);
                    self.user_record(place, arrival, &record.partition_key.into(), start, &mut sub_sequence);
                }
            }
        }
    }

    fn user_record(&mut self, place: &Place, arrival: Timestamp, key: &Arc<str>, start: usize, next: &mut u32) {
        match compression::decompress(&self.batch.bytes[start..]) {
            None => {}
            Some(Err(fault)) => return self.fault(place, arrival, key, start, next, fault),
            Some(Ok(bytes)) => {
                self.batch.bytes.truncate(start);
                self.batch.bytes.extend_from_slice(&bytes);
            }
        }
        if self.batch.bytes[start..].trim_ascii().is_empty() {
            self.batch.empty += 1;
            *next += 1;
            return;
        }
        for document in documents::split(&self.batch.bytes[start..]) {
            let place = Place { sub_sequence: *next, ..place.clone() };
            let payload = start + document.start..start + document.end;
            self.batch.records.push(Record::new(place, arrival, key.clone(), payload));
            *next += 1;
        }
    }

    fn fault(&mut self, place: &Place, arrival: Timestamp, key: &Arc<str>, start: usize, next: &mut u32, fault: Fault) {
        let place = Place { sub_sequence: *next, ..place.clone() };
        *next += 1;
        let payload = start..self.batch.bytes.len();
        let record = Record::new(place, arrival, key.clone(), payload);
        self.batch.records.push(Record { fault: Some(fault), ..record });
    }

    fn push(&mut self, place: Place, arrival: Timestamp, partition_key: Arc<str>, bytes: &[u8], fault: Option<Fault>) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(bytes);
        let record = Record::new(place, arrival, partition_key, start..start + bytes.len());
        self.batch.records.push(Record { fault, ..record });
    }

    fn place(&mut self, stream: &str, shard: &str, sequence: &str) -> Place {
        for (kept, seen) in [(&mut self.stream, stream), (&mut self.shard, shard)] {
            if **kept != *seen {
                *kept = seen.into();
            }
        }
        let (stream, shard) = (self.stream.clone(), self.shard.clone());
        Place { stream, shard, sequence: SequenceNumber(sequence.into()), sub_sequence: 0 }
    }
}

enum Read<'a> {
    Kinesis(Element<'a>, Inner<'a>),
    Dynamodb(Element<'a>, Change<'a>),
}

fn read_element(raw: &RawValue) -> Result<Read<'_>, Fault> {
    let fault = |error: serde_json::Error| Fault::Envelope(error.to_string());
    let mut element: Element<'_> = serde_json::from_str(raw.get()).map_err(fault)?;
    if let Some(change) = element.dynamodb.take() {
        return Ok(Read::Dynamodb(element, change));
    }
    for (member, name) in [(&element.event_id, "eventID"), (&element.event_source_arn, "eventSourceARN")] {
        if member.is_empty() {
            return Err(Fault::Envelope(format!("`{name}` is missing")));
        }
    }
    let inner = match element.kinesis.take() {
        Some(inner) => inner,
        None => serde_json::from_str(raw.get()).map_err(fault)?,
    };
    Ok(Read::Kinesis(element, inner))
}

/// An enhanced fan-out consumer's ARN begins with its stream's: `…:stream/NAME/consumer/NAME:CREATED`.
pub fn stream_of(arn: &str) -> &str {
    arn.find("/consumer/").map_or(arn, |at| &arn[..at])
}
