//! The first step: unpacks what Lambda delivers into records.
//!
//! One record is one document of one producer, whatever wraps it: base64, a KPL aggregate, gzip or zstd, or several
//! documents in one. Records are independent: one that cannot be unpacked carries an [`UnpackError`] and does not
//! affect its neighbours. Nothing here knows what a table is.

mod compression;
mod concatenated_json;
mod element;
mod kpl;
mod unpack;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use unpack::without_consumer_suffix;
pub use unpack::{EventError, EventReader, unpack, unpack_data, unpack_element};

use xxhash_rust::xxh3::xxh3_64;

use crate::timestamp::Timestamp;

/// The documents of one record of the stream have at most this many bytes together, whatever it is packed into, so that a
/// small record cannot exhaust a function's memory: a record is unpacked whole.
pub const RECORD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// One record of the stream holds at most this many documents. A record of 1 MB with documents of 100 bytes, compressed to a
/// tenth, has half as many.
pub const RECORD_DOCUMENTS_MAX: u32 = 200_000;

/// A document has at most this many bytes: the largest record that Kinesis accepts. A row is copied several times on its way
/// to the database.
pub const DOCUMENT_BYTES_MAX: usize = 10 * 1024 * 1024;

/// A position in a shard: a decimal number of up to 129 digits, compared as a number but never parsed into one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SequenceNumber(pub Arc<str>);

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (a, b) = (self.0.trim_start_matches('0'), other.0.trim_start_matches('0'));
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The position of a record in its stream, which also identifies the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamPosition {
    /// The stream's ARN, without a consumer's suffix.
    pub stream: Arc<str>,
    /// The shard within the stream.
    pub shard: Arc<str>,
    /// The position within the shard. Sequence numbers are unique within their shard only.
    pub sequence_number: SequenceNumber,
    /// The position within an aggregate, or among the documents of one record.
    pub sub_sequence_number: u32,
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.shard, self.sequence_number.0, self.sub_sequence_number)
    }
}

/// One document and its stream metadata.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its position in the stream.
    pub position: StreamPosition,
    /// When the stream received it.
    pub arrival: Timestamp,
    /// The producer's partition key; for a KPL aggregate, the key of the inner record.
    pub partition_key: Arc<str>,
    /// The document's bytes, in [`Batch::bytes`].
    pub payload: Range<usize>,
    /// The digest stored with this record, if it was archived (in a backup or a dead letter), its private fields dropped or
    /// hashed. While its source has private fields, [`crate::decode::Decoder::digest`] takes it again, because a field may have
    /// become private since.
    pub archived_digest: Option<u64>,
    /// How often it has been rejected before; not zero if it comes from a dead letter.
    pub attempts: u32,
    /// Why it could not be unpacked; the payload then holds the bytes as received.
    pub unpack_error: Option<Box<UnpackError>>,
}

impl Record {
    /// Creates a record as it comes from its stream.
    pub fn new(position: StreamPosition, arrival: Timestamp, partition_key: Arc<str>, payload: Range<usize>) -> Self {
        Self { position, arrival, partition_key, payload, archived_digest: None, attempts: 0, unpack_error: None }
    }

    /// The digest of a document without private fields. It is part of versions, so archiving must not change it.
    pub fn digest(&self, document: &[u8]) -> u64 {
        self.archived_digest.unwrap_or_else(|| xxh3_64(document.trim_ascii()))
    }
}

/// What Lambda delivered, unpacked. The bytes of all records are contiguous.
#[derive(Default, Debug)]
pub struct Batch {
    /// The documents, in the order of the stream.
    pub records: Vec<Record>,
    /// The bytes that the payloads are ranges of.
    pub bytes: Vec<u8>,
    /// Empty records, such as the tombstones of Debezium's Kinesis sink. They hold no data and are only counted.
    pub empty_records: usize,
}

impl Batch {
    /// A record's bytes.
    pub fn payload(&self, record: &Record) -> &[u8] {
        &self.bytes[record.payload.clone()]
    }

    /// Appends the records of another batch.
    pub fn append(&mut self, other: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.records.extend(other.records.iter().cloned().map(|record| {
            let payload = record.payload.start + start..record.payload.end + start;
            Record { payload, ..record }
        }));
        self.empty_records += other.empty_records;
    }
}

/// Why a record could not be unpacked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnpackError {
    /// The element of `Records` is not what Kinesis or DynamoDB sends.
    #[error("not a Kinesis or DynamoDB record: {0}")]
    Envelope(String),
    /// `data` is not base64.
    #[error("record data is not base64")]
    Base64,
    /// The KPL's checksum is correct, but its content is not.
    #[error("invalid KPL aggregate: {0}")]
    Aggregate(String),
    /// The magic number is that of gzip or zstd, but the data is invalid.
    #[error("invalid {format} data: {reason}")]
    Compression {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// The decompressor's message.
        reason: String,
    },
    /// It exceeds [`RECORD_BYTES_MAX`] when decompressed.
    #[error("the record has more than {RECORD_BYTES_MAX} bytes when decompressed")]
    TooLarge,
    /// It exceeds [`RECORD_DOCUMENTS_MAX`].
    #[error("the record holds more than {RECORD_DOCUMENTS_MAX} documents")]
    TooManyDocuments,
}

impl UnpackError {
    /// Whether a record of the stream exceeds a limit. Then nothing of it is unpacked: the payload is the whole record, as
    /// received.
    pub fn is_limit(&self) -> bool {
        match self {
            Self::TooLarge | Self::TooManyDocuments => true,
            Self::Envelope(_) | Self::Base64 | Self::Aggregate(_) | Self::Compression { .. } => false,
        }
    }
}

/// Where a batch begins, and how long its oldest record has been in the stream.
#[derive(Clone, Default, Debug)]
pub struct BatchExtent {
    /// The position of the first record that has one.
    pub first: Option<StreamPosition>,
    /// The arrival of the oldest record; `None` if no record says when it arrived.
    pub oldest_arrival: Option<Timestamp>,
}

impl BatchExtent {
    /// Includes the records of a batch, or of its next part.
    pub fn include(&mut self, batch: &Batch) {
        if self.first.is_none() {
            // Elements that are not records have no position in a stream.
            let first = batch.records.iter().find(|record| !record.position.stream.is_empty());
            self.first = first.map(|record| record.position.clone());
        }
        let arrivals = batch.records.iter().map(|record| record.arrival).filter(|arrival| arrival.0 > 0);
        self.oldest_arrival = arrivals.chain(self.oldest_arrival).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_order_as_numbers() {
        let number = |text: &str| SequenceNumber(text.into());
        assert!(number("9") < number("10"));
        assert!(
            number("49590338271490256608559692538361571095921575989136588898")
                > number("4959033827149025660855969253836157109592157598913658889")
        );
        assert_eq!(number("007").cmp(&number("7")), std::cmp::Ordering::Equal);
    }
}
