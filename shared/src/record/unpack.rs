//! Unpacks Lambda's events into records. Kinesis data is decoded from base64, deaggregated, decompressed and split into
//! documents; elements of a DynamoDB stream are kept as they are.

use std::ops::Range;
use std::str::Utf8Error;
use std::sync::Arc;

use base64_simd::STANDARD;

use super::element::{ElementBody, EventElement};
use super::{
    Batch, RECORD_BYTES_MAX, RECORD_DOCUMENTS_MAX, Record, SequenceNumber, StreamPosition, UnpackError, compression,
    concatenated_json, kpl,
};
use crate::json_scanner::{JsonError, JsonScanner};
use crate::timestamp::Timestamp;

/// The event is not a batch of stream records, as Lambda's stream events always are.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum EventError {
    /// The event is not UTF-8.
    #[error("the event is not valid UTF-8")]
    Encoding(#[from] Utf8Error),
    /// The event is not JSON.
    #[error("could not read the event: {0}")]
    Json(#[from] JsonError),
    /// The event is of another kind.
    #[error("expected {{\"Records\": […]}} or an array of records")]
    NoRecords,
    /// The event mixes streams, which Lambda never does.
    #[error("the event contains records of more than one stream")]
    MixedStreams,
}

/// Unpacks an event: `{"Records": […]}`, or the bare array of EventBridge Pipes.
///
/// # Errors
/// Returns an error if the event is not a batch of stream records. A record that cannot be unpacked is not an error: it
/// is in the batch, with its [`UnpackError`].
pub fn unpack(event: &[u8]) -> Result<Batch, EventError> {
    let mut reader = EventReader::open(event)?;
    reader.read_until(usize::MAX)?;
    Ok(reader.builder.batch)
}

/// Unpacks an event incrementally, as its records are requested.
pub struct EventReader<'e> {
    event: &'e [u8],
    scanner: JsonScanner<'e>,
    /// Whether the elements are in a member of an object, which continues after them.
    in_object: bool,
    first: bool,
    done: bool,
    /// The first error, which every later call returns.
    error: Option<EventError>,
    builder: BatchBuilder,
}

impl<'e> EventReader<'e> {
    /// Creates a reader at the first element.
    ///
    /// # Errors
    /// Returns an error if the event is not a batch of stream records.
    pub fn open(event: &'e [u8]) -> Result<Self, EventError> {
        let mut scanner = JsonScanner::new(str::from_utf8(event)?);
        let in_object = scanner.peek() == Some(b'{');
        if in_object {
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
        let mut builder = BatchBuilder::default();
        builder.batch.bytes.reserve(event.len());
        Ok(Self { event, scanner, in_object, first: true, done: false, error: None, builder })
    }

    /// Unpacks until the batch holds at least `records` records, or all of them.
    ///
    /// # Errors
    /// Returns an error if the event is not JSON or mixes records of several streams.
    pub fn read_until(&mut self, records: usize) -> Result<(), EventError> {
        while self.error.is_none() && !self.done && self.builder.batch.records.len() < records {
            self.error = self.read_element().err();
        }
        self.error.map_or(Ok(()), Err)
    }

    /// Unpacks all records if they fit into a batch of this size. Returns whether they do: if not, the batch holds the first
    /// records, not many more than fit.
    ///
    /// # Errors
    /// See [`EventReader::read_until`].
    pub fn read_within(&mut self, records_max: usize, bytes_max: usize) -> Result<bool, EventError> {
        while self.error.is_none() && !self.done && self.is_within(records_max, bytes_max) {
            self.error = self.read_element().err();
        }
        self.error.map_or(Ok(self.done && self.is_within(records_max, bytes_max)), Err)
    }

    fn is_within(&self, records_max: usize, bytes_max: usize) -> bool {
        let Batch { records, bytes, .. } = &self.builder.batch;
        records.len() <= records_max && bytes.len() <= bytes_max
    }

    /// Returns to the first record. The batch is empty.
    ///
    /// # Errors
    /// Returns an error if the event is not a batch of stream records.
    pub fn rewind(&mut self) -> Result<(), EventError> {
        *self = Self::open(self.event)?;
        Ok(())
    }

    /// Replaces the records of the batch by the next ones: at least one, and no more after there are `records_max` or they
    /// have `bytes_max` bytes. Returns `false` after the last.
    ///
    /// # Errors
    /// See [`EventReader::read_until`].
    pub fn next_part(&mut self, records_max: usize, bytes_max: usize) -> Result<bool, EventError> {
        let Batch { records, bytes, .. } = &mut self.builder.batch;
        records.clear();
        bytes.clear();
        self.read_within(records_max, bytes_max)?;
        Ok(!self.builder.batch.records.is_empty())
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

    /// The records unpacked so far.
    pub fn batch(&self) -> &Batch {
        &self.builder.batch
    }

    /// Estimates how many records the event holds, from the size of those unpacked so far.
    pub fn estimated_total(&self) -> usize {
        let unpacked = self.builder.batch.records.len();
        if self.done { unpacked } else { unpacked * self.event.len() / self.scanner.position().max(1) }
    }
}

/// Unpacks one element of an event.
///
/// # Errors
/// Returns an error if the element is not JSON.
pub fn unpack_element(element: &str) -> Result<Batch, JsonError> {
    let (mut builder, mut scanner) = (BatchBuilder::default(), JsonScanner::new(element));
    builder.read_element(&mut scanner)?;
    scanner.expect_end()?;
    Ok(builder.batch)
}

/// Unpacks the data of one Kinesis record. Sub-sequence numbers start at that of `position`.
pub fn unpack_data(position: &StreamPosition, arrival: Timestamp, key: Arc<str>, data: Vec<u8>) -> Batch {
    let mut builder = BatchBuilder::default();
    builder.batch.bytes = data;
    builder.push_kinesis_data(new_record(position.clone(), arrival, key), 0);
    for record in &mut builder.batch.records {
        record.position.sub_sequence_number =
            record.position.sub_sequence_number.saturating_add(position.sub_sequence_number);
    }
    builder.batch
}

#[derive(Default)]
struct BatchBuilder {
    batch: Batch,
    /// The stream and shard last seen: a batch comes from one shard, so one allocation serves all its records.
    stream: Arc<str>,
    shard: Arc<str>,
    /// The first stream that a record named, and whether a later record named another.
    first_stream: Option<Arc<str>>,
    mixed_streams: bool,
}

impl BatchBuilder {
    fn read_element(&mut self, scanner: &mut JsonScanner<'_>) -> Result<(), JsonError> {
        let EventElement { text, content } = EventElement::read(scanner)?;
        match content {
            Ok(ElementBody::Kinesis { arn, event_id, sequence, partition_key, arrival, data }) => {
                let shard = event_id.split(':').next().unwrap_or_default();
                let position = self.position(without_consumer_suffix(&arn), shard, &sequence);
                self.push_kinesis(position, partition_key.into(), arrival, &data, text);
            }
            Ok(ElementBody::Dynamodb { arn, sequence, created_at }) => {
                let created_at = created_at.and_then(Timestamp::parse_epoch).unwrap_or(Timestamp(0));
                let position = self.position(&arn, "", &sequence);
                self.push_element(new_record(position, created_at, "".into()), text);
            }
            Err(error) => {
                let record = new_record(self.position("", "", ""), Timestamp(0), "".into());
                self.push_element(Record { unpack_error: Some(Box::new(error)), ..record }, text);
            }
        }
        Ok(())
    }

    fn push_kinesis(&mut self, position: StreamPosition, key: Arc<str>, arrival: &str, data: &str, element: &str) {
        let Some(arrival) = Timestamp::parse_epoch_seconds(arrival) else {
            let error = UnpackError::Envelope("approximateArrivalTimestamp is not a number of seconds".to_owned());
            let record = new_record(position, Timestamp(0), key);
            return self.push_element(Record { unpack_error: Some(Box::new(error)), ..record }, element);
        };
        let (record, start) = (new_record(position, arrival, key), self.batch.bytes.len());
        if STANDARD.decode_append(data, &mut self.batch.bytes).is_err() {
            self.batch.bytes.truncate(start);
            return self.push_element(Record { unpack_error: Some(Box::new(UnpackError::Base64)), ..record }, element);
        }
        self.push_kinesis_data(record, start);
    }

    /// Unpacks the bytes from `start` on, as the producer (or its library) sent them. A record that exceeds a limit is not
    /// unpacked at all.
    fn push_kinesis_data(&mut self, record: Record, start: usize) {
        let bytes = &self.batch.bytes[start..];
        let is_packed = kpl::may_be_aggregate(bytes) || compression::is_compressed(bytes);
        if !is_packed && !concatenated_json::may_hold_several(bytes) && !bytes.trim_ascii().is_empty() {
            let payload = start..self.batch.bytes.len();
            return push(&mut self.batch.records, record, payload, &mut 0);
        }
        self.push_several(&record, start, is_packed);
    }

    fn push_several(&mut self, record: &Record, start: usize, is_packed: bool) {
        let (records, empty_records) = (self.batch.records.len(), self.batch.empty_records);
        let packed = is_packed.then(|| self.batch.bytes.split_off(start));
        let unpacked = match &packed {
            None => self.push_documents(record, start, &mut 0),
            Some(packed) => self.push_packed(record, packed),
        };
        if let Err(error) = unpacked {
            self.batch.records.truncate(records);
            self.batch.empty_records = empty_records;
            if let Some(packed) = packed {
                self.batch.bytes.truncate(start);
                self.batch.bytes.extend_from_slice(&packed);
            }
            self.push_unreadable(record, start, &mut 0, error);
        }
    }

    /// Unpacks an aggregate or compressed data. Returns an error if it exceeds a limit.
    fn push_packed(&mut self, record: &Record, packed: &[u8]) -> Result<(), UnpackError> {
        let start = self.batch.bytes.len();
        match kpl::deaggregate(packed) {
            None => self.push_user_record(record, packed, start, &mut 0),
            Some(Err(error)) => {
                self.batch.bytes.extend_from_slice(packed);
                self.push_unreadable(record, start, &mut 0, error);
                Ok(())
            }
            Some(Ok(records)) => {
                let mut sub_sequence = 0;
                for inner in records {
                    let record = Record { partition_key: inner.partition_key, ..record.clone() };
                    self.push_user_record(&record, &inner.data, start, &mut sub_sequence)?;
                }
                Ok(())
            }
        }
    }

    /// Decompresses the data of one producer's record. The bytes of its stream record begin at `stream_record`.
    fn push_user_record(
        &mut self,
        record: &Record,
        data: &[u8],
        stream_record: usize,
        next: &mut u32,
    ) -> Result<(), UnpackError> {
        let start = self.batch.bytes.len();
        let bytes_max = RECORD_BYTES_MAX.saturating_sub(start - stream_record);
        match compression::decompress(data, bytes_max, &mut self.batch.bytes) {
            None => self.batch.bytes.extend_from_slice(data),
            Some(Ok(())) => {}
            Some(Err(error)) if error.is_limit() => return Err(error),
            Some(Err(error)) => {
                self.batch.bytes.truncate(start);
                self.batch.bytes.extend_from_slice(data);
                self.push_unreadable(record, start, next, error);
                return Ok(());
            }
        }
        self.push_documents(record, start, next)
    }

    /// Adds the documents from `start` on.
    fn push_documents(&mut self, record: &Record, start: usize, next: &mut u32) -> Result<(), UnpackError> {
        let Batch { records, bytes, empty_records } = &mut self.batch;
        let bytes = &bytes[start..];
        if *next >= RECORD_DOCUMENTS_MAX {
            return Err(UnpackError::TooManyDocuments);
        }
        if bytes.trim_ascii().is_empty() {
            *empty_records += 1;
            *next += 1;
        } else if !concatenated_json::may_hold_several(bytes) {
            push(records, record.clone(), start..start + bytes.len(), next);
        } else {
            for document in concatenated_json::split(bytes) {
                if *next >= RECORD_DOCUMENTS_MAX {
                    return Err(UnpackError::TooManyDocuments);
                }
                push(records, record.clone(), start + document.start..start + document.end, next);
            }
        }
        Ok(())
    }

    fn push_unreadable(&mut self, record: &Record, start: usize, next: &mut u32, error: UnpackError) {
        let payload = start..self.batch.bytes.len();
        let record = Record { unpack_error: Some(Box::new(error)), ..record.clone() };
        push(&mut self.batch.records, record, payload, next);
    }

    /// Adds a record whose payload is the element itself.
    fn push_element(&mut self, record: Record, element: &str) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(element.as_bytes());
        push(&mut self.batch.records, record, start..start + element.len(), &mut 0);
    }

    fn position(&mut self, stream: &str, shard: &str, sequence: &str) -> StreamPosition {
        for (cached, name) in [(&mut self.stream, stream), (&mut self.shard, shard)] {
            if **cached != *name {
                *cached = name.into();
            }
        }
        let (stream, shard) = (self.stream.clone(), self.shard.clone());
        if !stream.is_empty() {
            self.mixed_streams |= **self.first_stream.get_or_insert_with(|| stream.clone()) != *stream;
        }
        StreamPosition { stream, shard, sequence_number: SequenceNumber(sequence.into()), sub_sequence_number: 0 }
    }
}

/// Adds a document of a record.
fn push(records: &mut Vec<Record>, mut record: Record, payload: Range<usize>, next: &mut u32) {
    record.payload = payload;
    record.position.sub_sequence_number = *next;
    records.push(record);
    *next += 1;
}

/// A record whose payload is not known yet.
fn new_record(position: StreamPosition, arrival: Timestamp, partition_key: Arc<str>) -> Record {
    Record::new(position, arrival, partition_key, 0..0)
}

/// The stream's ARN, with which that of an enhanced fan-out consumer begins: `…:stream/NAME/consumer/NAME:CREATED`.
pub fn without_consumer_suffix(arn: &str) -> &str {
    arn.find("/consumer/").map_or(arn, |end| &arn[..end])
}
