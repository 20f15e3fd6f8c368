//! Dead letters: rejected records, stored on SQS with everything needed to retry them.
//!
//! A batch succeeds only after SQS has acknowledged each dead letter. A payload too large for a message is stored on
//! S3, and the message refers to it. Private fields are removed from the payload. If they cannot be identified, the
//! payload is withheld, and the dead letter holds only its stream position and length. Digests are taken after the
//! removal: a digest of a private value reveals it to anyone who can try all possible values.

use base64_simd::STANDARD;
use serde::{Deserialize, Serialize};

use crate::aws::Aws;
use crate::clock::now;
use crate::object_store::{ObjectError, ObjectStore};
use crate::queue::{Queue, QueueError};
use crate::record::Record;
use crate::rejection::Rejection;

/// The version of the envelope. Readers reject versions that they do not know.
pub const ENVELOPE_VERSION: u32 = 1;

/// SQS accepts messages of 256 KiB. Base64 turns three bytes into four, and the rest of the envelope needs space, too.
const PAYLOAD_BYTES_MAX: usize = 150 * 1024;

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

/// The payload of the record, unpacked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum StoredPayload {
    /// In the dead letter, as base64.
    Base64(String),
    /// On S3, as `s3://bucket/key`.
    S3(String),
    /// Only in the stream: it may contain private fields that could not be identified.
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

/// Stores dead letters.
#[derive(Debug)]
pub struct DeadLetters {
    aws: Aws,
    queue: Option<String>,
    object_store: ObjectStore,
    function: String,
}

/// A dead letter could not be stored: the batch must not be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// SQS rejected some or all of them.
    #[error("could not send dead letters: {0}")]
    Queue(QueueError),
    /// A dead letter cannot be serialized: a bug in Millstream.
    #[error("could not serialize a dead letter")]
    Serialize(#[from] serde_json::Error),
    /// S3 rejected a payload.
    #[error("could not store a dead letter's payload")]
    Bucket(#[from] ObjectError),
    /// The payload is too large for a message, and no bucket is set.
    #[error("a dead letter's payload of {0} bytes is too large for SQS; set ARCHIVE_BUCKET")]
    NoBucket(usize),
}

impl DeadLetters {
    /// Sends dead letters to the queue and stores large payloads in the bucket.
    pub fn new(aws: Aws, queue: Option<String>, bucket: Option<String>, function: String) -> Self {
        let object_store = ObjectStore::new(aws.clone(), bucket);
        Self { aws, queue, object_store, function }
    }

    /// The store of payloads that are too large for a message.
    pub fn object_store(&self) -> &ObjectStore {
        &self.object_store
    }

    /// Whether a queue is configured.
    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Stores dead letters; returns once every one has been acknowledged.
    ///
    /// # Errors
    /// Returns an error if any dead letter is not stored.
    pub async fn store(&self, pending: Vec<PendingDeadLetter>) -> Result<(), DeadLetterError> {
        let Some(queue) = self.queue.as_deref().filter(|_| !pending.is_empty()) else { return Ok(()) };
        let mut messages = Vec::with_capacity(pending.len());
        for PendingDeadLetter { mut dead_letter, payload } in pending {
            match payload {
                Some(payload) if payload.len() > PAYLOAD_BYTES_MAX => {
                    dead_letter.payload = StoredPayload::S3(self.store_payload(&dead_letter, payload).await?);
                }
                Some(payload) => dead_letter.payload = StoredPayload::Base64(STANDARD.encode_to_string(&payload)),
                None => {}
            }
            messages.push(serde_json::to_string(&dead_letter)?);
        }
        Queue::open(&self.aws, queue).await.send(messages).await.map_err(DeadLetterError::Queue)
    }

    async fn store_payload(&self, dead_letter: &DeadLetter, payload: Vec<u8>) -> Result<String, DeadLetterError> {
        if !self.object_store.has_bucket() {
            return Err(DeadLetterError::NoBucket(payload.len()));
        }
        let position = &dead_letter.position;
        // Sequence numbers are unique only within a shard, and DynamoDB does not name the shard: the digest tells
        // records apart.
        let key = format!(
            "dead-letters/{}/{}/{}-{}-{}",
            dead_letter.source,
            position.shard,
            position.sequence_number,
            position.sub_sequence_number,
            dead_letter.digest
        );
        Ok(self.object_store.put(&key, payload).await?)
    }

    /// The dead letter of a rejected record, given what of it may be stored.
    pub fn pending_dead_letter(
        &self,
        source: &str,
        record: &Record,
        stored: StorableRecord,
        rejection: &Rejection,
    ) -> PendingDeadLetter {
        let StorableRecord { payload, partition_key, digest } = stored;
        let position = &record.position;
        let dead_letter = DeadLetter {
            version: ENVELOPE_VERSION,
            source: source.to_owned(),
            position: DeadLetterPosition {
                stream: position.stream.to_string(),
                shard: position.shard.to_string(),
                sequence_number: position.sequence_number.0.to_string(),
                sub_sequence_number: position.sub_sequence_number,
            },
            arrival: record.arrival.to_string(),
            partition_key,
            payload: StoredPayload::Withheld { bytes: record.payload.len() },
            redacted: payload.is_some(),
            digest: format!("{:016x}", digest.unwrap_or_default()),
            error: RecordError {
                class: rejection.reason.class().to_owned(),
                table: rejection.table.clone(),
                sqlstate: rejection.sqlstate.clone(),
                message: rejection.to_string(),
            },
            attempts: record.attempts.saturating_add(1),
            refused_at: Some(now().to_string()),
            function: self.function.clone(),
        };
        PendingDeadLetter { dead_letter, payload }
    }
}
