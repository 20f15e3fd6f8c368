//! Stores dead letters: payloads on S3 where a message is too small for them, and the messages on SQS.
//!
//! Whatever a record holds, its dead letter can be stored. A dead letter that SQS rejects for its content is reduced: ASCII
//! only, without its payload. What SQS has acknowledged is not sent again if the invocation fails and the batch comes back
//! while the function's process lives.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64_simd::STANDARD;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use super::{DeadLetter, PendingDeadLetter, StoredPayload, bounded, digest_text};
use crate::aws::Aws;
use crate::names::hex;
use crate::object_store::{ObjectError, ObjectStore};
use crate::queue::{MessageText, Queue, QueueError, check_address};

/// Base64 turns three bytes into four, and the rest of the envelope needs space in the message, too.
pub(super) const PAYLOAD_BYTES_MAX: usize = 150 * 1024;

/// S3 accepts keys of 1,024 bytes. A longer part of a key is replaced by its SHA-256.
const KEY_PART_BYTES_MAX: usize = 256;

/// The message of a reduced dead letter.
const REDUCED_MESSAGE_BYTES_MAX: usize = 256;

/// The acknowledged dead letters of failed invocations to remember: more than an invocation sends.
const REMEMBERED_MAX: usize = 100_000;

/// Stores dead letters.
#[derive(Debug)]
pub struct DeadLetters {
    aws: Aws,
    queue: Option<String>,
    object_store: ObjectStore,
    function: String,
    /// The dead letters that SQS has acknowledged for batches that are not acknowledged yet.
    acknowledged: Mutex<HashSet<u64>>,
}

/// Dead letters that SQS has acknowledged, while their batch is not acknowledged yet.
#[derive(Default, Debug)]
pub struct AcknowledgedLetters(Vec<u64>);

impl AcknowledgedLetters {
    /// Adds those of another part of the batch.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }
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
    /// A payload cannot be packed: a bug in Millstream.
    #[error("could not pack a dead letter's payload")]
    Pack(#[from] std::io::Error),
    /// S3 rejected a payload.
    #[error("could not store a dead letter's payload")]
    Bucket(#[from] ObjectError),
}

impl DeadLetterError {
    /// Whether an operator must act before a retry can succeed.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Queue(error) => error.needs_operator(),
            Self::Serialize(_) | Self::Pack(_) => true,
            Self::Bucket(_) => false,
        }
    }
}

impl DeadLetters {
    /// Sends dead letters to the queue and stores large payloads in the bucket.
    pub fn new(aws: Aws, queue: Option<String>, bucket: Option<String>, function: String) -> Self {
        let object_store = ObjectStore::new(aws.clone(), bucket);
        Self { aws, queue, object_store, function, acknowledged: Mutex::default() }
    }

    /// The store of payloads that are too large for a message.
    pub fn object_store(&self) -> &ObjectStore {
        &self.object_store
    }

    /// Whether a queue is configured.
    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Sends dead letters; returns once every one has been acknowledged. They are remembered until they are
    /// [forgotten](Self::forget): if the batch comes back before, they are not sent again.
    ///
    /// # Errors
    /// Returns an error if any dead letter is not stored.
    pub async fn send(&self, mut pending: Vec<PendingDeadLetter>) -> Result<AcknowledgedLetters, DeadLetterError> {
        let Some(queue) = self.queue.as_deref().filter(|_| !pending.is_empty()) else {
            return Ok(AcknowledgedLetters::default());
        };
        check_address(queue).map_err(DeadLetterError::Queue)?;
        let queue = Queue::open(&self.aws, queue).await;
        let all: Vec<u64> = pending.iter().map(|letter| identity(&letter.dead_letter)).collect();
        {
            let acknowledged = self.acknowledged();
            pending.retain(|letter| !acknowledged.contains(&identity(&letter.dead_letter)));
        }
        let identities: Vec<u64> = pending.iter().map(|letter| identity(&letter.dead_letter)).collect();
        let messages = self.messages(pending).await?;
        self.send_messages(&queue, &messages, &identities).await?;
        Ok(AcknowledgedLetters(all))
    }

    /// Forgets the dead letters of a batch that is about to be acknowledged: from now on, a dead letter of the same record is a
    /// new one.
    pub fn forget(&self, letters: &AcknowledgedLetters) {
        let mut acknowledged = self.acknowledged();
        for identity in &letters.0 {
            acknowledged.remove(identity);
        }
    }

    /// The messages of dead letters; stores large payloads.
    async fn messages(&self, pending: Vec<PendingDeadLetter>) -> Result<Vec<MessageText>, DeadLetterError> {
        let (mut messages, mut withheld) = (Vec::with_capacity(pending.len()), 0_u64);
        for letter in pending {
            let has_payload = letter.payload.is_some();
            let letter = self.with_payload(letter).await?;
            if has_payload && matches!(letter.payload, StoredPayload::Withheld { .. }) {
                withheld += 1;
            }
            messages.push(MessageText::from_json(serde_json::to_string(&letter)?));
        }
        if withheld > 0 {
            tracing::warn!(
                withheld,
                "payloads too large for SQS are only in the stream; set ARCHIVE_BUCKET to keep them"
            );
        }
        Ok(messages)
    }

    /// Sends the messages, and those that SQS rejects in a reduced form.
    async fn send_messages(
        &self,
        queue: &Queue,
        messages: &[MessageText],
        identities: &[u64],
    ) -> Result<(), DeadLetterError> {
        let rejected = queue.send_each(messages, |index| self.remember(identities[index])).await;
        let rejected = rejected.map_err(DeadLetterError::Queue)?;
        if let Some(first) = rejected.first() {
            tracing::warn!(
                rejected = rejected.len(),
                code = first.code,
                "SQS rejected dead letters; they are sent reduced"
            );
        }
        let mut reduced_messages = Vec::with_capacity(rejected.len());
        for message in &rejected {
            let letter: DeadLetter = serde_json::from_str(messages[message.index].as_str())?;
            let reduced = self.reduced(letter, &message.code).await?;
            reduced_messages.push(MessageText::from_json_as_ascii(serde_json::to_string(&reduced)?));
        }
        let on_stored = |index: usize| self.remember(identities[rejected[index].index]);
        let rejected_again = queue.send_each(&reduced_messages, on_stored).await.map_err(DeadLetterError::Queue)?;
        rejected_again.first().map_or(Ok(()), |message| Err(DeadLetterError::Queue(queue.rejected(message))))
    }

    /// Puts the payload into the dead letter, or on S3.
    async fn with_payload(&self, pending: PendingDeadLetter) -> Result<DeadLetter, DeadLetterError> {
        let PendingDeadLetter { mut dead_letter, payload } = pending;
        dead_letter.function = bounded(&self.function, KEY_PART_BYTES_MAX);
        match payload {
            Some(payload) if payload.len() <= PAYLOAD_BYTES_MAX => {
                dead_letter.payload = StoredPayload::Base64(STANDARD.encode_to_string(&payload));
            }
            Some(payload) => self.store_payload(&mut dead_letter, payload).await?,
            None => {}
        }
        Ok(dead_letter)
    }

    /// The dead letter as ASCII, without what makes it long: its payload goes to S3, or is withheld.
    async fn reduced(&self, mut dead_letter: DeadLetter, code: &str) -> Result<DeadLetter, DeadLetterError> {
        let message = format!("SQS rejected the whole dead letter ({code}); {}", dead_letter.error.message);
        dead_letter.error.message = bounded(&message, REDUCED_MESSAGE_BYTES_MAX);
        if let StoredPayload::Base64(text) = &dead_letter.payload {
            let payload = STANDARD.decode_to_vec(text).unwrap_or_default();
            dead_letter.payload = StoredPayload::Withheld { bytes: payload.len() };
            self.store_payload(&mut dead_letter, payload).await?;
        }
        Ok(dead_letter)
    }

    /// Stores a payload on S3. Without a bucket the payload stays withheld, and is read back from the stream.
    async fn store_payload(&self, dead_letter: &mut DeadLetter, payload: Vec<u8>) -> Result<(), DeadLetterError> {
        if !self.object_store.has_bucket() {
            dead_letter.redacted = false;
            dead_letter.digest = digest_text(None);
            return Ok(());
        }
        let position = &dead_letter.position;
        // Sequence numbers are unique only within a shard, and DynamoDB does not name the shard: the digest tells
        // records apart.
        let key = format!(
            "dead-letters/{}/{}/{}-{}-{}",
            key_part(&dead_letter.source),
            key_part(&position.shard),
            key_part(&position.sequence_number),
            position.sub_sequence_number,
            dead_letter.digest
        );
        dead_letter.payload = StoredPayload::S3(self.object_store.put(&key, payload).await?);
        Ok(())
    }

    fn remember(&self, identity: u64) {
        let mut acknowledged = self.acknowledged();
        if acknowledged.len() >= REMEMBERED_MAX {
            acknowledged.clear();
        }
        acknowledged.insert(identity);
    }

    fn acknowledged(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells dead letters apart, before their payloads are stored. A record that is rejected again after a redrive has a higher
/// number of attempts. A withheld record has no digest: its arrival and its length tell it from a record of another shard.
fn identity(letter: &DeadLetter) -> u64 {
    let DeadLetter { source, position, arrival, payload, digest, attempts, documents, .. } = letter;
    let count = documents.as_ref().map_or(0, |documents| documents.count);
    xxh3_64(format!("{source}\n{position:?}\n{arrival}\n{payload:?}\n{digest}\n{attempts}\n{count}").as_bytes())
}

/// A part of a key on S3. Names of streams, shards and objects stay readable.
fn key_part(text: &str) -> String {
    let is_plain = text.len() <= KEY_PART_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain { text.to_owned() } else { hex(&Sha256::digest(text)) }
}
