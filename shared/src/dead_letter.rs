//! Dead letters: records that could not be written, kept whole on SQS, with everything that is needed to try again.
//!
//! Success is told only when each has been acknowledged. A payload too large for a message goes to S3 and is referred to.
//! Private fields are gone from the payload; where they cannot be told apart, the payload is withheld and the letter holds
//! its place in the stream, its length and its digest.

use base64_simd::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::aws::Aws;
use crate::clock::now;
use crate::names::hex;
use crate::object_store::{ObjectError, ObjectStore};
use crate::queue::{Queue, QueueError};
use crate::record::Record;
use crate::rejection::Rejection;

/// The version of the envelope. A reader refuses what it does not know.
pub const ENVELOPE_VERSION: u32 = 1;

/// SQS takes messages of 256 KiB. Base64 makes four bytes of three; the rest of the envelope needs its room, too.
const PAYLOAD_BYTES_MAX: usize = 150 * 1024;

/// A dead letter, as it stands on the queue.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct DeadLetter {
    /// [`ENVELOPE_VERSION`].
    pub version: u32,
    /// The configuration's name of the source.
    pub source: String,
    /// Where the record stands in its stream: its identity.
    pub place: DeadLetterPosition,
    /// When the stream took the record in, as RFC 3339.
    pub arrival: String,
    /// The producer's partition key.
    pub partition_key: String,
    /// The payload, or where it is.
    pub payload: StoredPayload,
    /// Whether the source's private fields are already dropped and hashed, and must not be hashed again.
    pub redacted: bool,
    /// The XXH3 of the document as the source sent it, in hexadecimal: versions hold it.
    pub digest: String,
    /// Why the record was refused.
    pub error: RecordError,
    /// How often it has been tried.
    pub attempts: u32,
    /// When it was last refused, as RFC 3339.
    #[serde(default)]
    pub refused_at: Option<String>,
    /// The function that gave up.
    pub function: String,
}

/// A place in a stream.
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

/// The bytes of the record, unpacked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum StoredPayload {
    /// In the letter, as base64.
    Base64(String),
    /// On S3, as `s3://bucket/key`.
    S3(String),
    /// Nowhere but in the stream: it may hold private fields that could not be told apart.
    Withheld {
        /// Its length.
        bytes: usize,
        /// Its SHA-256.
        sha256: String,
    },
}

/// Why a record was refused.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct RecordError {
    /// The kind of error (see [`crate::rejection::Reason::class`]).
    pub class: String,
    /// The table that refused, as `schema.table`.
    pub table: Option<String>,
    /// PostgreSQL's code, where it was PostgreSQL that refused.
    pub sqlstate: Option<String>,
    /// For people; never holds a value of the record.
    pub message: String,
}

/// A dead letter before it is known where its payload will be.
#[derive(Debug)]
pub struct PendingDeadLetter {
    letter: DeadLetter,
    /// `None` is withheld.
    payload: Option<Vec<u8>>,
}

/// Where dead letters go.
#[derive(Debug)]
pub struct DeadLetters {
    aws: Aws,
    queue: Option<String>,
    archive: ObjectStore,
    function: String,
}

/// A dead letter could not be stored: nothing may be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// SQS refused some or all.
    #[error("could not send dead letters: {0}")]
    Queue(QueueError),
    /// A letter that is no JSON: an error of ours.
    #[error("could not serialize a dead letter")]
    Letter(#[from] serde_json::Error),
    /// S3 refused a payload.
    #[error("could not store a dead letter's payload")]
    Bucket(#[from] ObjectError),
    /// The payload is too large for a message, and no bucket is set.
    #[error("a dead letter's payload of {0} bytes is too large for SQS; set ARCHIVE_BUCKET")]
    NoBucket(usize),
}

impl DeadLetters {
    /// Letters to the queue; large payloads to the bucket.
    pub fn new(aws: Aws, queue: Option<String>, bucket: Option<String>, function: String) -> Self {
        let archive = ObjectStore::new(aws.clone(), bucket);
        Self { aws, queue, archive, function }
    }

    /// Where what is too large for a letter goes.
    pub fn archive(&self) -> &ObjectStore {
        &self.archive
    }

    /// Whether there is a queue at all.
    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Stores letters; returns once every one has been acknowledged.
    ///
    /// # Errors
    /// Any letter that is not stored.
    pub async fn store(&self, drafts: Vec<PendingDeadLetter>) -> Result<(), DeadLetterError> {
        let Some(queue) = self.queue.as_deref().filter(|_| !drafts.is_empty()) else { return Ok(()) };
        let mut messages = Vec::with_capacity(drafts.len());
        for PendingDeadLetter { mut letter, payload } in drafts {
            match payload {
                Some(payload) if payload.len() > PAYLOAD_BYTES_MAX => {
                    letter.payload = StoredPayload::S3(self.store_payload(&letter, payload).await?);
                }
                Some(payload) => letter.payload = StoredPayload::Base64(STANDARD.encode_to_string(&payload)),
                None => {}
            }
            messages.push(serde_json::to_string(&letter)?);
        }
        Queue::open(&self.aws, queue).await.send(messages).await.map_err(DeadLetterError::Queue)
    }

    async fn store_payload(&self, letter: &DeadLetter, payload: Vec<u8>) -> Result<String, DeadLetterError> {
        if !self.archive.has_bucket() {
            return Err(DeadLetterError::NoBucket(payload.len()));
        }
        let place = &letter.place;
        // Sequence numbers are unique within a shard only, and DynamoDB does not tell its shards: the content tells them apart.
        let key = format!(
            "dead-letters/{}/{}/{}-{}-{}",
            letter.source, place.shard, place.sequence_number, place.sub_sequence_number, letter.digest
        );
        Ok(self.archive.put(&key, payload).await?)
    }

    /// The draft for a refused record. `payload` is without private fields, or `None` where they cannot be told apart.
    pub fn pending_dead_letter(
        &self,
        source: &str,
        record: &Record,
        original: &[u8],
        payload: Option<Vec<u8>>,
        partition_key: String,
        rejection: &Rejection,
    ) -> PendingDeadLetter {
        let place = &record.position;
        let letter = DeadLetter {
            version: ENVELOPE_VERSION,
            source: source.to_owned(),
            place: DeadLetterPosition {
                stream: place.stream.to_string(),
                shard: place.shard.to_string(),
                sequence_number: place.sequence_number.0.to_string(),
                sub_sequence_number: place.sub_sequence_number,
            },
            arrival: record.arrival.to_string(),
            partition_key,
            payload: StoredPayload::Withheld { bytes: original.len(), sha256: hex(&Sha256::digest(original)) },
            redacted: payload.is_some(),
            digest: format!("{:016x}", record.digest(original)),
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
        PendingDeadLetter { letter, payload }
    }
}
