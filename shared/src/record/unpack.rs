//! What Lambda hands over, into records. Of Kinesis: base64 off, aggregates apart, decompressed, documents parted. Of a
//! DynamoDB stream: as they are.

use std::ops::Range;
use std::str::Utf8Error;
use std::sync::Arc;

use base64_simd::STANDARD;

use super::element::{Content, Element};
use super::{Batch, Fault, Place, Record, SequenceNumber, compression, documents, kpl};
use crate::scan::{ScanError, Scanner};
use crate::timestamp::Timestamp;

/// The event is no batch of records, which Lambda's stream events always are.
#[derive(Clone, Copy, Debug, thiserror::Error)]
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
    /// Lambda never sends records of two streams together.
    #[error("the event holds records of more than one stream")]
    SeveralStreams,
}

/// Unpacks an event: `{"Records": […]}`, or the bare array of EventBridge Pipes.
///
/// # Errors
/// An event of another kind. A record that cannot be read is none: it is in the batch, with its fault.
pub fn unpack(event: &[u8]) -> Result<Batch, EventError> {
    let mut unpacking = Unpacking::begin(event)?;
    unpacking.until(usize::MAX)?;
    Ok(unpacking.unpacker.batch)
}

/// An event that is unpacked as far as its records are asked for.
pub struct Unpacking<'e> {
    scanner: Scanner<'e>,
    bytes: usize,
    /// Whether the elements are a member of an object, which goes on behind them.
    enclosed: bool,
    first: bool,
    done: bool,
    /// What is wrong, once and for all.
    failed: Option<EventError>,
    unpacker: Unpacker,
}

impl<'e> Unpacking<'e> {
    /// At the first element.
    ///
    /// # Errors
    /// An event of another kind.
    pub fn begin(event: &'e [u8]) -> Result<Self, EventError> {
        let mut scanner = Scanner::new(str::from_utf8(event)?);
        let enclosed = scanner.peek() == Some(b'{');
        if enclosed {
            scanner.enter_object()?;
            let mut first = true;
            loop {
                match scanner.key(first)? {
                    Some(key) if key == "Records" && scanner.peek() == Some(b'[') => break,
                    Some(_) => drop(scanner.pass()?),
                    None => return Err(EventError::NoRecords),
                }
                first = false;
            }
        }
        if scanner.peek() != Some(b'[') {
            return Err(EventError::NoRecords);
        }
        scanner.enter_array()?;
        let mut unpacker = Unpacker::default();
        unpacker.batch.bytes.reserve(event.len());
        Ok(Self { scanner, bytes: event.len(), enclosed, first: true, done: false, failed: None, unpacker })
    }

    /// Unpacks until there are so many records, or all.
    ///
    /// # Errors
    /// What is no JSON, and records of several streams.
    pub fn until(&mut self, records: usize) -> Result<(), EventError> {
        while self.failed.is_none() && !self.done && self.unpacker.batch.records.len() < records {
            self.failed = self.element().err();
        }
        self.failed.map_or(Ok(()), Err)
    }

    fn element(&mut self) -> Result<(), EventError> {
        if self.scanner.element(std::mem::take(&mut self.first))? {
            self.unpacker.element(&mut self.scanner)?;
            return if self.unpacker.several { Err(EventError::SeveralStreams) } else { Ok(()) };
        }
        while self.enclosed && self.scanner.key(false)?.is_some() {
            self.scanner.pass()?;
        }
        self.done = true;
        Ok(self.scanner.end()?)
    }

    /// The records that there are.
    pub fn batch(&self) -> &Batch {
        &self.unpacker.batch
    }

    /// How many records there will be, by how large those are that there are.
    pub fn expected(&self) -> usize {
        let found = self.unpacker.batch.records.len();
        if self.done { found } else { found * self.bytes / self.scanner.position().max(1) }
    }
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
    unpacker.decoded(record_of(place.clone(), arrival, key), 0);
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
    /// The stream that records have named, and whether others have named another.
    named: Option<Arc<str>>,
    several: bool,
}

impl Unpacker {
    fn element(&mut self, scanner: &mut Scanner<'_>) -> Result<(), ScanError> {
        let Element { text, content } = Element::read(scanner)?;
        match content {
            Ok(Content::Kinesis { arn, event_id, sequence, partition_key, arrival, data }) => {
                let shard = event_id.split(':').next().unwrap_or_default();
                let place = self.place(stream_of(&arn), shard, &sequence);
                self.kinesis(place, partition_key.into(), arrival, &data, text);
            }
            Ok(Content::Dynamodb { arn, sequence, made }) => {
                let made = made.and_then(Timestamp::parse_epoch).unwrap_or(Timestamp(0));
                let place = self.place(&arn, "", &sequence);
                self.whole(record_of(place, made, "".into()), text);
            }
            Err(fault) => {
                let record = record_of(self.place("", "", ""), Timestamp(0), "".into());
                self.whole(Record { fault: Some(fault), ..record }, text);
            }
        }
        Ok(())
    }

    fn kinesis(&mut self, place: Place, key: Arc<str>, arrival: &str, data: &str, element: &str) {
        let Some(arrival) = Timestamp::parse_epoch_seconds(arrival) else {
            let fault = Fault::Envelope("approximateArrivalTimestamp is no number of seconds".to_owned());
            return self.whole(Record { fault: Some(fault), ..record_of(place, Timestamp(0), key) }, element);
        };
        let (record, start) = (record_of(place, arrival, key), self.batch.bytes.len());
        if STANDARD.decode_append(data, &mut self.batch.bytes).is_err() {
            self.batch.bytes.truncate(start);
            return self.whole(Record { fault: Some(Fault::Base64), ..record }, element);
        }
        self.decoded(record, start);
    }

    /// The bytes from `start` on are what the producer (or its library) sent.
    fn decoded(&mut self, record: Record, start: usize) {
        match kpl::deaggregate(&self.batch.bytes[start..]) {
            None => self.user_record(record, start, &mut 0),
            Some(Err(fault)) => self.fault(record, start, &mut 0, fault),
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
            Some(Err(fault)) => return self.fault(record, start, next, fault),
            Some(Ok(bytes)) => {
                self.batch.bytes.truncate(start);
                self.batch.bytes.extend_from_slice(&bytes);
            }
        }
        let bytes = &self.batch.bytes[start..];
        if bytes.trim_ascii().is_empty() {
            self.batch.empty += 1;
            *next += 1;
        } else if !documents::may_be_several(bytes) {
            self.push(record, start..start + bytes.len(), next);
        } else {
            for document in documents::split(bytes) {
                self.push(record.clone(), start + document.start..start + document.end, next);
            }
        }
    }

    fn fault(&mut self, record: Record, start: usize, next: &mut u32, fault: Fault) {
        self.push(Record { fault: Some(fault), ..record }, start..self.batch.bytes.len(), next);
    }

    fn push(&mut self, mut record: Record, payload: Range<usize>, next: &mut u32) {
        record.payload = payload;
        record.place.sub_sequence = *next;
        self.batch.records.push(record);
        *next += 1;
    }

    /// A record that is an element as it stands.
    fn whole(&mut self, record: Record, element: &str) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(element.as_bytes());
        self.push(record, start..start + element.len(), &mut 0);
    }

    fn place(&mut self, stream: &str, shard: &str, sequence: &str) -> Place {
        for (kept, seen) in [(&mut self.stream, stream), (&mut self.shard, shard)] {
            if **kept != *seen {
                *kept = seen.into();
            }
        }
        let (stream, shard) = (self.stream.clone(), self.shard.clone());
        if !stream.is_empty() {
            self.several |= **self.named.get_or_insert_with(|| stream.clone()) != *stream;
        }
        Place { stream, shard, sequence: SequenceNumber(sequence.into()), sub_sequence: 0 }
    }
}

/// A record whose payload is still to be found.
fn record_of(place: Place, arrival: Timestamp, partition_key: Arc<str>) -> Record {
    Record::new(place, arrival, partition_key, 0..0)
}

/// An enhanced fan-out consumer's ARN begins with its stream's: `…:stream/NAME/consumer/NAME:CREATED`.
pub fn stream_of(arn: &str) -> &str {
    arn.find("/consumer/").map_or(arn, |at| &arn[..at])
}
