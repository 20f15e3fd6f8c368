//! Messages of a queue: held, deleted, let go.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry};

use crate::aws::Aws;

/// SQS's limit for a request.
const ENTRIES_MAX: usize = 10;

/// With any wait SQS asks all its servers, so that no answer means no message:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html>.
const WAIT_SECONDS: i32 = 1;

/// SQS holds messages for twelve hours at most.
const HELD_SECONDS_MAX: f64 = 12.0 * 60.0 * 60.0;

/// SQS refused.
#[derive(Debug, thiserror::Error)]
#[error("queue {url}: {reason}")]
pub struct QueueError {
    url: String,
    reason: String,
}

/// The queues that may be redriven.
#[derive(Clone, Debug)]
pub struct Queues {
    aws: Aws,
    /// Of the environment.
    urls: Vec<String>,
}

/// A message that nobody else sees for now.
#[derive(Debug)]
pub struct Held {
    /// SQS's id of the message.
    pub id: String,
    /// What it says.
    pub body: String,
    /// By which it is deleted or let go.
    receipt: String,
}

/// One queue.
pub struct Queue {
    client: aws_sdk_sqs::Client,
    url: String,
}

impl Queues {
    /// The queues of the environment.
    pub fn new(aws: Aws, urls: impl IntoIterator<Item = String>) -> Self {
        // One queue may serve both.
        let urls: BTreeSet<String> = urls.into_iter().collect();
        Self { aws, urls: urls.into_iter().collect() }
    }

    /// The one that is named, else those of the environment.
    pub fn urls(&self, named: Option<&str>) -> Vec<String> {
        named.map_or_else(|| self.urls.clone(), |url| vec![url.to_owned()])
    }

    /// A queue by its URL.
    pub async fn open(&self, url: &str) -> Queue {
        Queue { client: aws_sdk_sqs::Client::new(self.aws.config().await), url: url.to_owned() }
    }
}

impl Queue {
    /// The queue's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Some messages, which nobody else sees for so long; none where there are no more.
    pub async fn receive(&self, held: Duration) -> Result<Vec<Held>, QueueError> {
        let held = held.as_secs_f64().ceil().min(HELD_SECONDS_MAX);
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(ENTRIES_MAX as i32);
        let request = request.visibility_timeout(held as i32).wait_time_seconds(WAIT_SECONDS);
        let received = request.send().await.map_err(|error| self.fault(DisplayErrorContext(&error)))?;
        let messages = received.messages.unwrap_or_default().into_iter();
        let held = messages.filter_map(|message| {
            Some(Held {
                id: message.message_id?,
                body: message.body.unwrap_or_default(),
                receipt: message.receipt_handle?,
            })
        });
        Ok(held.collect())
    }

    /// Deletes messages.
    pub async fn delete(&self, messages: &[Held]) -> Result<(), QueueError> {
        for part in messages.chunks(ENTRIES_MAX) {
            let mut request = self.client.delete_message_batch().queue_url(&self.url);
            for (number, message) in part.iter().enumerate() {
                let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
                let entry = entry.receipt_handle(&message.receipt).build();
                request = request.entries(entry.map_err(|error| self.fault(error))?);
            }
            let answer = request.send().await.map_err(|error| self.fault(DisplayErrorContext(&error)))?;
            if let Some(failed) = answer.failed().first() {
                return Err(self.fault(format!("deleting a message that is done: {}", failed.code())));
            }
        }
        Ok(())
    }

    /// Lets messages be seen again at once.
    pub async fn release(&self, messages: &[Held]) -> Result<(), QueueError> {
        for part in messages.chunks(ENTRIES_MAX) {
            let mut request = self.client.change_message_visibility_batch().queue_url(&self.url);
            for (number, message) in part.iter().enumerate() {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(number.to_string());
                let entry = entry.receipt_handle(&message.receipt).visibility_timeout(0).build();
                request = request.entries(entry.map_err(|error| self.fault(error))?);
            }
            // One that is seen again already needs no more.
            request.send().await.map_err(|error| self.fault(DisplayErrorContext(&error)))?;
        }
        Ok(())
    }

    fn fault(&self, reason: impl std::fmt::Display) -> QueueError {
        QueueError { url: self.url.clone(), reason: reason.to_string() }
    }
}
