//! What Lambda hands over, into records. Of Kinesis: base64 off, aggregates apart, decompressed, documents parted. Of a
//! DynamoDB stream: as they are.

use std::ops::Range;
use std::str::Utf8Error;
use std::sync::Arc;

use base64_simd::STANDARD;

use super::element::{ElementBody, EventElement};
use super::{Batch, Record, SequenceNumber, StreamPosition, UnpackError, compression, concatenated_json, kpl};
use crate::json_scanner::{JsonError, JsonScanner};
use crate::timestamp::Timestamp;

/// The event is no batch of records, which Lambda's stream events always are.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum EventError {
    /// No text.
    #[error("the event is not valid UTF-8")]
    Encoding(#[from] Utf8Error),
    /// No JSON.
    #[error("could not read the event: {0}")]
    Json(#[from] JsonError),
    /// Another event.
    #[error("expected {{\"Records\": […]}} or an array of records")]
    NoRecords,
    /// Lambda never sends records of two streams together.
    #[error("the event contains records of more than one stream")]
    MixedStreams,
}

/// Unpacks an event: `{"Records": […]}`, or the bare array of EventBridge Pipes.
///
/// # Errors
/// An event of another kind. A record that cannot be read is none: it is in the batch, with its fault.
pub fn unpack(event: &[u8]) -> Result<Batch, EventError> {
    let mut unpacking = EventReader::open(event)?;
    unpacking.read_until(usize::MAX)?;
    Ok(unpacking.builder.batch)
}

/// An event that is unpacked as far as its records are asked for.
pub struct EventReader<'e> {
    scanner: JsonScanner<'e>,
    bytes: usize,
    /// Whether the elements are a member of an object, which goes on behind them.
    in_object: bool,
    first: bool,
    done: bool,
    /// What is wrong, once and for all.
    failed: Option<EventError>,
    builder: BatchBuilder,
}

impl<'e> EventReader<'e> {
    /// At the first element.
    ///
    /// # Errors
    /// An event of another kind.
    pub fn open(event: &'e [u8]) -> Result<Self, EventError> {
        let mut scanner = JsonScanner::new(str::from_utf8(event)?);
        let enclosed = scanner.peek() == Some(b'{');
        if enclosed {
            scanner.enter_object()?;
            let mut first = true;
            loop {
                match scanner.next_key(first)? {
                    Some(key) if key == "Records" && scanner.peek() == Some(b'[') => break,
                    Some(_) => drop(scanner.skip_unchecked()?),
                    None => return Err(EventError::NoRecords),
                }
                first = false;
            }
        }
        if scanner.peek() != Some(b'[') {
            return Err(EventError::NoRecords);
        }
        scanner.enter_array()?;
        let mut unpacker = BatchBuilder::default();
        unpacker.batch.bytes.reserve(event.len());
        Ok(Self {
            scanner,
            bytes: event.len(),
            in_object: enclosed,
            first: true,
            done: false,
            failed: None,
            builder: unpacker,
        })
    }

    /// Unpacks until there are so many records, or all.
    ///
    /// # Errors
    /// What is no JSON, and records of several streams.
    pub fn read_until(&mut self, records: usize) -> Result<(), EventError> {
        while self.failed.is_none() && !self.done && self.builder.batch.records.len() < records {
            self.failed = self.read_element().err();
        }
        self.failed.map_or(Ok(()), Err)
    }

    fn read_element(&mut self) -> Result<(), EventError> {
        if self.scanner.next_element(std::mem::take(&mut self.first))? {
            self.builder.read_element(&mut self.scanner)?;
            return if self.builder.mixed_streams { Err(EventError::MixedStreams) } else { Ok(()) };
        }
        while self.in_object && self.scanner.next_key(false)?.is_some() {
            self.scanner.skip_unchecked()?;
        }
        self.done = true;
        Ok(self.scanner.expect_end()?)
    }

    /// The records that there are.
    pub fn batch(&self) -> &Batch {
        &self.builder.batch
    }

    /// How many records there will be, by how large those are that there are.
    pub fn estimated_total(&self) -> usize {
        let found = self.builder.batch.records.len();
        if self.done { found } else { found * self.bytes / self.scanner.position().max(1) }
    }
}

/// Unpacks one element of an event.
///
/// # Errors
/// What is no JSON.
pub fn unpack_element(element: &str) -> Result<Batch, JsonError> {
    let (mut unpacker, mut scanner) = (BatchBuilder::default(), JsonScanner::new(element));
    unpacker.read_element(&mut scanner)?;
    scanner.expect_end()?;
    Ok(unpacker.batch)
}

/// Unpacks the data of one record of Kinesis; what is found is numbered from the place's own position on.
pub fn unpack_data(place: &StreamPosition, arrival: Timestamp, key: Arc<str>, data: Vec<u8>) -> Batch {
    let mut unpacker = BatchBuilder::default();
    unpacker.batch.bytes = data;
    unpacker.push_kinesis_data(new_record(place.clone(), arrival, key), 0);
    for record in &mut unpacker.batch.records {
        record.position.sub_sequence_number =
            record.position.sub_sequence_number.saturating_add(place.sub_sequence_number);
    }
    unpacker.batch
}

#[derive(Default)]
struct BatchBuilder {
    batch: Batch,
    /// The last stream and shard seen: a batch is of one shard, so that one allocation serves all its records.
    stream: Arc<str>,
    shard: Arc<str>,
    /// The stream that records have named, and whether others have named another.
    named: Option<Arc<str>>,
    mixed_streams: bool,
}

impl BatchBuilder {
    fn read_element(&mut self, scanner: &mut JsonScanner<'_>) -> Result<(), JsonError> {
        let EventElement { text, content } = EventElement::read(scanner)?;
        match content {
            Ok(ElementBody::Kinesis { arn, event_id, sequence, partition_key, arrival, data }) => {
                let shard = event_id.split(':').next().unwrap_or_default();
                let place = self.position(without_consumer_suffix(&arn), shard, &sequence);
                self.push_kinesis(place, partition_key.into(), arrival, &data, text);
            }
            Ok(ElementBody::Dynamodb { arn, sequence, created_at: made }) => {
                let made = made.and_then(Timestamp::parse_epoch).unwrap_or(Timestamp(0));
                let place = self.position(&arn, "", &sequence);
                self.push_element(new_record(place, made, "".into()), text);
            }
            Err(fault) => {
                let record = new_record(self.position("", "", ""), Timestamp(0), "".into());
                self.push_element(Record { unpack_error: Some(fault), ..record }, text);
            }
        }
        Ok(())
    }

    fn push_kinesis(&mut self, place: StreamPosition, key: Arc<str>, arrival: &str, data: &str, element: &str) {
        let Some(arrival) = Timestamp::parse_epoch_seconds(arrival) else {
            let fault = UnpackError::Envelope("approximateArrivalTimestamp is not a number of seconds".to_owned());
            return self
                .push_element(Record { unpack_error: Some(fault), ..new_record(place, Timestamp(0), key) }, element);
        };
        let (record, start) = (new_record(place, arrival, key), self.batch.bytes.len());
        if STANDARD.decode_append(data, &mut self.batch.bytes).is_err() {
            self.batch.bytes.truncate(start);
            return self.push_element(Record { unpack_error: Some(UnpackError::Base64), ..record }, element);
        }
        self.push_kinesis_data(record, start);
    }

    /// The bytes from `start` on are what the producer (or its library) sent.
    fn push_kinesis_data(&mut self, record: Record, start: usize) {
        match kpl::deaggregate(&self.batch.bytes[start..]) {
            None => self.user_record(record, start, &mut 0),
            Some(Err(fault)) => self.push_unreadable(record, start, &mut 0, fault),
            Some(Ok(records)) => {
                self.batch.bytes.truncate(start);
                let mut sub_sequence = 0;
                for inner in records {
                    let start = self.batch.bytes.len();
                    self.batch.bytes.extend_from_slice(&inner.data);
                    let record = Record { partition_key: inner.partition_key.into(), ..record.clone() };
                    self.user_record(record, start, &mut sub_sequence);
                }
            }
        }
    }

    fn user_record(&mut self, record: Record, start: usize, next: &mut u32) {
        match compression::decompress(&self.batch.bytes[start..]) {
            None => {}
            Some(Err(fault)) => return self.push_unreadable(record, start, next, fault),
            Some(Ok(bytes)) => {
                self.batch.bytes.truncate(start);
                self.batch.bytes.extend_from_slice(&bytes);
            }
        }
        let bytes = &self.batch.bytes[start..];
        if bytes.trim_ascii().is_empty() {
            self.batch.empty_records += 1;
            *next += 1;
        } else if !concatenated_json::may_hold_several(bytes) {
            self.push(record, start..start + bytes.len(), next);
        } else {
            for document in concatenated_json::split(bytes) {
                self.push(record.clone(), start + document.start..start + document.end, next);
            }
        }
    }

    fn push_unreadable(&mut self, record: Record, start: usize, next: &mut u32, fault: UnpackError) {
        self.push(Record { unpack_error: Some(fault), ..record }, start..self.batch.bytes.len(), next);
    }

    fn push(&mut self, mut record: Record, payload: Range<usize>, next: &mut u32) {
        record.payload = payload;
        record.position.sub_sequence_number = *next;
        self.batch.records.push(record);
        *next += 1;
    }

    /// A record that is an element as it stands.
    fn push_element(&mut self, record: Record, element: &str) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(element.as_bytes());
        self.push(record, start..start + element.len(), &mut 0);
    }

    fn position(&mut self, stream: &str, shard: &str, sequence: &str) -> StreamPosition {
        for (kept, seen) in [(&mut self.stream, stream), (&mut self.shard, shard)] {
            if **kept != *seen {
                *kept = seen.into();
            }
        }
        let (stream, shard) = (self.stream.clone(), self.shard.clone());
        if !stream.is_empty() {
            self.mixed_streams |= **self.named.get_or_insert_with(|| stream.clone()) != *stream;
        }
        StreamPosition { stream, shard, sequence_number: SequenceNumber(sequence.into()), sub_sequence_number: 0 }
    }
}

/// A record whose payload is still to be found.
fn new_record(place: StreamPosition, arrival: Timestamp, partition_key: Arc<str>) -> Record {
    Record::new(place, arrival, partition_key, 0..0)
}

/// An enhanced fan-out consumer's ARN begins with its stream's: `…:stream/NAME/consumer/NAME:CREATED`.
pub fn without_consumer_suffix(arn: &str) -> &str {
    arn.find("/consumer/").map_or(arn, |at| &arn[..at])
}
