//! Dead letters: rejected records, stored on SQS with everything needed to retry them.
//!
//! A batch succeeds only after SQS has acknowledged each dead letter ([`DeadLetters::send`]). A payload too large for a message is stored
//! on S3, and the message refers to it. Private fields are removed from the payload. If they cannot be identified, or there
//! is no bucket, the payload is withheld, and the dead letter holds only its stream position and length. Digests are taken
//! after the removal: a digest of a private value reveals it to anyone who can try all possible values.
//!
//! Every text is bounded, so that a dead letter fits into a message whatever the record holds. The documents of one record
//! can share one dead letter ([`documents`]).

mod bounded;
pub(crate) mod documents;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::clock::now;
use crate::record::Record;
use crate::rejection::Rejection;
pub(crate) use bounded::bounded;
use documents::{DocumentPacker, PackedDocument};
pub use store::{AcknowledgedLetters, DeadLetterError, DeadLetters};

/// The version of the envelope. Readers reject versions that they do not know.
pub const ENVELOPE_VERSION: u32 = 1;

/// A message may be as long as the path that it names.
const MESSAGE_BYTES_MAX: usize = 2 * 1024;

/// Kinesis's own limit is 256 characters, which the records inside an aggregate need not observe.
const PARTITION_KEY_BYTES_MAX: usize = 1024;

/// ARNs, shards and tables are shorter, and so are keys of objects on S3, which name the place of a backfilled record.
const NAME_BYTES_MAX: usize = 1024;

/// Sequence numbers have at most 129 digits, SQLSTATEs five characters.
const SHORT_NAME_BYTES_MAX: usize = 256;

/// A dead letter, as stored on the queue.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct DeadLetter {
    /// [`ENVELOPE_VERSION`].
    pub version: u32,
    /// The source's name in the configuration.
    pub source: String,
    /// The record's stream position, which identifies it.
    #[serde(rename = "place")]
    pub position: DeadLetterPosition,
    /// When the record arrived in the stream, as RFC 3339.
    pub arrival: String,
    /// The producer's partition key.
    pub partition_key: String,
    /// The payload, or where it is.
    pub payload: StoredPayload,
    /// Whether the source's private fields are already dropped and hashed, and must not be hashed again.
    pub redacted: bool,
    /// The XXH3 of the document without its private fields, in hexadecimal: versions contain it. Zero if the payload is
    /// withheld.
    pub digest: String,
    /// Why the record was rejected.
    pub error: RecordError,
    /// How many times it has been tried.
    pub attempts: u32,
    /// When it was last rejected, as RFC 3339.
    #[serde(default)]
    pub refused_at: Option<String>,
    /// The function that rejected it.
    pub function: String,
    /// Set if the payload holds several documents of one record, each with its position and its partition key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<DocumentCounts>,
}

/// The documents of one record that share a dead letter.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct DocumentCounts {
    /// How many there are.
    pub count: u64,
    /// How many, by the kind of error.
    pub reasons: BTreeMap<String, u64>,
}

/// A position in a stream.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct DeadLetterPosition {
    /// The stream's ARN.
    pub stream: String,
    /// The shard.
    pub shard: String,
    /// The sequence number within the shard.
    pub sequence_number: String,
    /// The position within an aggregate, or among several documents.
    pub sub_sequence_number: u32,
}

impl fmt::Display for DeadLetterPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream: _, shard, sequence_number, sub_sequence_number } = self;
        write!(f, "{shard}:{sequence_number}:{sub_sequence_number}")
    }
}

/// The payload of the record, unpacked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum StoredPayload {
    /// In the dead letter, as base64.
    Base64(String),
    /// On S3, as `s3://bucket/key`.
    S3(String),
    /// Only in the stream: it may contain private fields that could not be identified, or there is no bucket for it.
    Withheld {
        /// Its length.
        bytes: usize,
    },
}

/// Why a record was rejected.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct RecordError {
    /// The kind of error (see [`crate::rejection::RejectionReason::class`]).
    pub class: String,
    /// The table that rejected it, as `schema.table`.
    pub table: Option<String>,
    /// PostgreSQL's SQLSTATE, if PostgreSQL rejected it.
    pub sqlstate: Option<String>,
    /// A human-readable message; never contains a value of the record.
    pub message: String,
}

/// What may be stored of a record: nothing private.
#[derive(Debug)]
pub struct StorableRecord {
    /// The document without its private fields; `None` if they cannot be identified.
    pub payload: Option<Vec<u8>>,
    /// The partition key, or what of it is not private.
    pub partition_key: String,
    /// The digest of the document without its private fields.
    pub digest: Option<u64>,
}

/// A dead letter before its payload is stored.
#[derive(Debug)]
pub struct PendingDeadLetter {
    dead_letter: DeadLetter,
    /// `None` if it is withheld.
    payload: Option<Vec<u8>>,
}

impl PendingDeadLetter {
    /// The dead letter of a rejected record, given what of it may be stored.
    ///
    /// # Errors
    /// Returns an error if the payload cannot be packed.
    pub fn new(source: &str, record: &Record, stored: StorableRecord, rejection: &Rejection) -> io::Result<Self> {
        let mut dead_letter = new_dead_letter(source, record, &stored, rejection);
        // A shortened key would not be the record's: the payload holds the whole one. A record of the stream that exceeds a
        // limit may be unpacked by a later version: the payload says that it is still packed.
        let is_limit = record.unpack_error.as_ref().is_some_and(|error| error.is_limit());
        let is_packed = is_limit || stored.partition_key.len() > PARTITION_KEY_BYTES_MAX;
        if is_packed && (is_limit || stored.payload.is_some()) {
            let reasons = [(dead_letter.error.class.clone(), 1)].into();
            dead_letter.documents = Some(DocumentCounts { count: 1, reasons });
        }
        let payload = match &stored.payload {
            Some(payload) if is_packed => {
                let mut packer = DocumentPacker::new();
                packer.push(packed_document(record, stored.digest, payload), &stored.partition_key)?;
                Some(packer.finish()?)
            }
            _ => stored.payload,
        };
        Ok(Self { dead_letter, payload })
    }

    /// The dead letter, its payload not stored yet.
    pub fn letter(&self) -> &DeadLetter {
        &self.dead_letter
    }
}

/// The dead letter of several documents of one record, to which documents are added.
pub struct PendingDocuments {
    dead_letter: DeadLetter,
    counts: DocumentCounts,
    tables: BTreeSet<Option<String>>,
    /// Of all documents as the source sent them.
    original_bytes: usize,
    /// `None` if the payloads are withheld.
    packer: Option<DocumentPacker>,
}

impl PendingDocuments {
    /// Starts with the place of the first document, which is added like all others.
    pub fn new(source: &str, first: &Record, stored: &StorableRecord, rejection: &Rejection) -> Self {
        let dead_letter = new_dead_letter(source, first, stored, rejection);
        let (counts, tables, packer) = (DocumentCounts::default(), BTreeSet::new(), None);
        Self { dead_letter, counts, tables, original_bytes: 0, packer }
    }

    /// Adds a document. Either all documents have a payload, or none has.
    ///
    /// # Errors
    /// Returns an error if the payload cannot be packed.
    pub fn push(&mut self, record: &Record, stored: &StorableRecord, rejection: &Rejection) -> io::Result<()> {
        self.counts.count += 1;
        *self.counts.reasons.entry(rejection.reason.class().to_owned()).or_default() += 1;
        if !self.tables.contains(&rejection.table) {
            self.tables.insert(rejection.table.clone());
        }
        self.original_bytes += record.payload.len();
        if let Some(payload) = &stored.payload {
            let packer = self.packer.get_or_insert_with(DocumentPacker::new);
            packer.push(packed_document(record, stored.digest, payload), &stored.partition_key)?;
        }
        Ok(())
    }

    /// Completes the dead letter. Its class is the most frequent one; it has a table if all documents have the same.
    ///
    /// # Errors
    /// Returns an error if the payload cannot be packed.
    pub fn finish(self) -> io::Result<PendingDeadLetter> {
        let Self { mut dead_letter, counts, tables, original_bytes, packer } = self;
        let payload = packer.map(DocumentPacker::finish).transpose()?;
        dead_letter.payload = StoredPayload::Withheld { bytes: original_bytes };
        let error = &mut dead_letter.error;
        if tables.len() > 1 {
            error.table = None;
        }
        if counts.reasons.len() > 1 {
            error.sqlstate = None;
        }
        if let Some((class, _)) = counts.reasons.iter().max_by_key(|(_, count)| **count) {
            error.class.clone_from(class);
        }
        let reasons: Vec<String> = counts.reasons.iter().map(|(class, count)| format!("{class}: {count}")).collect();
        let message = format!(
            "{} documents of this record were rejected ({}); the first: {}",
            counts.count,
            reasons.join(", "),
            error.message
        );
        error.message = bounded(&message, MESSAGE_BYTES_MAX);
        dead_letter.documents = Some(counts);
        Ok(PendingDeadLetter { dead_letter, payload })
    }
}

fn new_dead_letter(source: &str, record: &Record, stored: &StorableRecord, rejection: &Rejection) -> DeadLetter {
    let position = &record.position;
    DeadLetter {
        version: ENVELOPE_VERSION,
        source: bounded(source, SHORT_NAME_BYTES_MAX),
        position: DeadLetterPosition {
            stream: bounded(&position.stream, NAME_BYTES_MAX),
            shard: bounded(&position.shard, NAME_BYTES_MAX),
            sequence_number: bounded(&position.sequence_number.0, SHORT_NAME_BYTES_MAX),
            sub_sequence_number: position.sub_sequence_number,
        },
        arrival: record.arrival.to_string(),
        partition_key: bounded(&stored.partition_key, PARTITION_KEY_BYTES_MAX),
        payload: StoredPayload::Withheld { bytes: record.payload.len() },
        redacted: stored.payload.is_some(),
        digest: digest_text(stored.digest),
        error: RecordError {
            class: rejection.reason.class().to_owned(),
            table: rejection.table.as_deref().map(|table| bounded(table, NAME_BYTES_MAX)),
            sqlstate: rejection.sqlstate.as_deref().map(|code| bounded(code, SHORT_NAME_BYTES_MAX)),
            message: bounded(&rejection.to_string(), MESSAGE_BYTES_MAX),
        },
        attempts: record.attempts.saturating_add(1),
        refused_at: Some(now().to_string()),
        function: String::new(),
        documents: None,
    }
}

fn packed_document<'d>(record: &Record, digest: Option<u64>, payload: &'d [u8]) -> PackedDocument<'d> {
    PackedDocument::new(record.position.sub_sequence_number, digest_text(digest), payload)
        .unreadable_if(record.unpack_error.is_some())
}

/// The digest in hexadecimal; zeros if there is none.
fn digest_text(digest: Option<u64>) -> String {
    format!("{:016x}", digest.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{self, MessageText};
    use crate::record::{SequenceNumber, StreamPosition};
    use crate::rejection::RejectionReason;
    use crate::timestamp::Timestamp;

    fn record(text: &str) -> Record {
        let position = StreamPosition {
            stream: text.into(),
            shard: text.into(),
            sequence_number: SequenceNumber(text.into()),
            sub_sequence_number: 0,
        };
        Record::new(position, Timestamp(0), text.into(), 0..0)
    }

    /// U+0001 takes six bytes in JSON, more than any other character for its length.
    #[test]
    fn a_dead_letter_fits_into_a_message_whatever_its_texts_are() {
        let long = "\u{1}".repeat(200_000);
        let reason = RejectionReason::UnknownField { path: long.clone() };
        let rejection = Rejection { reason, table: Some(long.clone()), sqlstate: Some(long.clone()) };
        let stored = StorableRecord { payload: None, partition_key: long.clone(), digest: None };
        let mut letter = PendingDeadLetter::new(&long, &record(&long), stored, &rejection).unwrap().dead_letter;
        assert_eq!((&*letter.digest, letter.redacted), ("0000000000000000", false));
        letter.function = long[..64].to_owned();
        let payload = base64_simd::STANDARD.encode_to_string(vec![0; store::PAYLOAD_BYTES_MAX]);
        letter.payload = StoredPayload::Base64(payload);
        let message = MessageText::from_json_as_ascii(serde_json::to_string(&letter).unwrap());
        assert!(message.as_str().len() <= queue::MESSAGE_BYTES_MAX, "{}", message.as_str().len());
        assert!(letter.error.message.ends_with("and the table's schema_mode is strict"), "{}", letter.error.message);
    }

    #[test]
    fn documents_share_a_dead_letter_with_the_most_frequent_class_and_a_common_table() {
        let rejection = |reason, table: &str| Rejection::for_table(table.to_owned(), reason);
        let missing = || RejectionReason::Missing { path: "id".to_owned(), role: "the key" };
        let unknown = || RejectionReason::UnknownField { path: "a".to_owned() };
        let letter = |rejections: &[Rejection]| {
            let first = record("1");
            let stored = StorableRecord { payload: Some(b"{}".into()), partition_key: "k".into(), digest: Some(10) };
            let mut pending = PendingDocuments::new("s", &first, &stored, &rejections[0]);
            for rejection in rejections {
                pending.push(&first, &stored, rejection).unwrap();
            }
            pending.finish().unwrap().dead_letter
        };
        let same = letter(&[rejection(unknown(), "s.a"), rejection(missing(), "s.a"), rejection(missing(), "s.a")]);
        assert_eq!((&*same.error.class, same.error.table.as_deref(), same.redacted), ("missing", Some("s.a"), true));
        assert_eq!(
            same.error.message,
            "3 documents of this record were rejected (missing: 2, unknown_field: 1); the first: `a` has no column, \
             and the table's schema_mode is strict"
        );
        assert_eq!(same.documents.unwrap().count, 3);
        assert_eq!(letter(&[rejection(missing(), "s.a"), rejection(missing(), "s.b")]).error.table, None);
    }
}
