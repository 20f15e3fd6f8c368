//! What Lambda hands over, into records. Of Kinesis: base64 off, aggregates apart, decompressed, documents parted. Of a
//! DynamoDB stream: as they are.

use std::str::Utf8Error;
use std::sync::Arc;

use base64_simd::STANDARD;

use super::element::{Content, Element};
use super::{Batch, Fault, Place, Record, SequenceNumber, compression, documents, kpl};
use crate::scan::{ScanError, Scanner};
use crate::timestamp::Timestamp;

/// The event is no batch of records, which Lambda's stream events always are.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// No text.
    #[error("the event is not UTF-8")]
    Encoding(#[from] Utf8Error),
    /// No JSON.
    #[error("the event is {0}")]
    Json(#[from] ScanError),
    /// Another event.
    #[error("the event has no `Records`, and is no array of records")]
    NoRecords,
}

/// Unpacks an event: `{"Records": […]}`, or the bare array of EventBridge Pipes.
///
/// # Errors
/// An event of another kind. A record that cannot be read is none: it is in the batch, with its fault.
pub fn unpack(event: &[u8]) -> Result<Batch, EventError> {
    let mut unpacker = Unpacker::default();
    // Base64 takes four bytes for three.
    unpacker.batch.bytes.reserve(event.len() / 4 * 3);
    unpacker.event(event)?;
    Ok(unpacker.batch)
}

/// Unpacks one element of an event.
///
/// # Errors
/// What is no JSON.
pub fn unpack_element(element: &str) -> Result<Batch, ScanError> {
    let (mut unpacker, mut scanner) = (Unpacker::default(), Scanner::new(element));
    unpacker.element(&mut scanner)?;
    scanner.end()?;
    Ok(unpacker.batch)
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
    fn event(&mut self, event: &[u8]) -> Result<(), EventError> {
        let text = str::from_utf8(event)?;
        let mut scanner = Scanner::new(text);
        match scanner.peek() {
            Some(b'[') => scanner.each_element(|scanner| self.element(scanner))?,
            Some(b'{') => {
                scanner.enter_object()?;
                let (mut first, mut found) = (true, false);
                while let Some(key) = scanner.key(first)? {
                    first = false;
                    if key == "Records" && scanner.peek() == Some(b'[') {
                        found = true;
                        scanner.each_element(|scanner| self.element(scanner))?;
                    } else {
                        scanner.pass()?;
                    }
                }
                if !found {
                    return Err(EventError::NoRecords);
                }
            }
            _ => return Err(EventError::NoRecords),
        }
        Ok(scanner.end()?)
    }

    fn element(&mut self, scanner: &mut Scanner<'_>) -> Result<(), ScanError> {
        let Element { text, content } = Element::read(scanner)?;
        match content {
            Ok(Content::Kinesis { arn, event_id, sequence, partition_key, arrival, data }) => {
                let shard = event_id.split(':').next().unwrap_or_default();
                let place = self.place(stream_of(&arn), shard, &sequence);
                self.record(&place, &Arc::from(partition_key), arrival, &data, text);
            }
            Ok(Content::Dynamodb { arn, sequence, made }) => {
                let place = self.place(&arn, "", &sequence);
                let made = made.and_then(Timestamp::parse_epoch);
                self.push(place, made.unwrap_or(Timestamp(0)), "".into(), text.as_bytes(), None);
            }
            Err(fault) => {
                let place = self.place("", "", "");
                self.push(place, Timestamp(0), "".into(), text.as_bytes(), Some(fault));
            }
        }
        Ok(())
    }

    fn record(&mut self, place: &Place, key: &Arc<str>, arrival: &str, data: &str, element: &str) {
        let broken = match Timestamp::parse_epoch_seconds(arrival) {
            None => {
                let fault = Fault::Envelope("approximateArrivalTimestamp is no number of seconds".to_owned());
                (Timestamp(0), fault)
            }
            Some(arrival) => {
                let start = self.batch.bytes.len();
                if STANDARD.decode_append(data, &mut self.batch.bytes).is_ok() {
                    return self.decoded(place, arrival, key, start);
                }
                self.batch.bytes.truncate(start);
                (arrival, Fault::Base64)
            }
        };
        self.push(place.clone(), broken.0, key.clone(), element.as_bytes(), Some(broken.1));
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

/// An enhanced fan-out consumer's ARN begins with its stream's: `…:stream/NAME/consumer/NAME:CREATED`.
pub fn stream_of(arn: &str) -> &str {
    arn.find("/consumer/").map_or(arn, |at| &arn[..at])
}
