//! An SQS queue and its messages: send, count, receive, delete, release.

use std::time::Duration;

use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use futures_util::StreamExt;
use serde::Serialize;

use crate::aws::{Aws, describe_code, describe_error};

/// SQS's limit for one request.
const ENTRIES_MAX: usize = 10;

/// Every SQS queue accepts 256 KiB per message and per batch, whatever larger limit it is configured with
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>).
const BATCH_BYTES_MAX: usize = 250 * 1024;

/// Concurrent send requests.
const REQUESTS_MAX: usize = 8;

/// With any wait time SQS queries all its servers, so that an empty response means an empty queue:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html>.
const WAIT_SECONDS: i32 = 1;

/// SQS keeps messages invisible for at most twelve hours.
const LEASE_SECONDS_MAX: f64 = 12.0 * 60.0 * 60.0;

/// An SQS request failed.
#[derive(Debug, thiserror::Error)]
#[error("queue {url}: {reason}")]
pub struct QueueError {
    url: String,
    reason: String,
}

/// A message that no other consumer receives until it is released or its lease expires.
#[derive(Debug)]
pub struct LeasedMessage {
    /// SQS's id of the message.
    pub id: String,
    /// Its text.
    pub body: String,
    /// The receipt handle, to delete or release it.
    receipt: String,
}

/// One queue.
pub struct Queue {
    client: aws_sdk_sqs::Client,
    url: String,
}

/// How many messages a queue holds, in SQS's approximate numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Debug)]
pub struct QueueDepth {
    /// Messages that wait, including delayed ones.
    pub waiting: i64,
    /// Messages that were received and not yet deleted.
    pub in_flight: i64,
}

impl QueueDepth {
    /// All of them.
    pub fn all(&self) -> i64 {
        self.waiting + self.in_flight
    }
}

impl Queue {
    /// The queue at a URL; sends no request yet.
    pub async fn open(aws: &Aws, url: &str) -> Self {
        Self { client: aws_sdk_sqs::Client::new(aws.config().await), url: url.to_owned() }
    }

    /// The queue's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends messages of at most 256 KiB; returns once every one has been acknowledged.
    ///
    /// # Errors
    /// Returns an error if any message is not stored; others may have been.
    pub async fn send(&self, messages: Vec<String>) -> Result<(), QueueError> {
        let sending = batches(messages).into_iter().map(|batch| self.send_batch(batch));
        let outcomes: Vec<Result<(), QueueError>> =
            futures_util::stream::iter(sending).buffer_unordered(REQUESTS_MAX).collect().await;
        outcomes.into_iter().collect()
    }

    async fn send_batch(&self, batch: Vec<String>) -> Result<(), QueueError> {
        let mut request = self.client.send_message_batch().queue_url(&self.url);
        for (number, body) in batch.into_iter().enumerate() {
            let entry = SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(body).build();
            request = request.entries(entry.map_err(|error| self.error(error))?);
        }
        let response =
            request.send().await.map_err(|error| self.error(describe_error("SQS SendMessageBatch", &error)))?;
        match response.failed() {
            [] => Ok(()),
            [first, ..] => Err(self.error(describe_code(first.code(), first.message()))),
        }
    }

    /// The approximate number of messages.
    ///
    /// # Errors
    /// Returns an error if SQS rejects the request.
    pub async fn count(&self) -> Result<QueueDepth, QueueError> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Waiting, ApproximateNumberOfMessagesDelayed as Delayed,
            ApproximateNumberOfMessagesNotVisible as InFlight,
        };
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let request = request.set_attribute_names(Some(vec![Waiting, Delayed, InFlight]));
        let response =
            request.send().await.map_err(|error| self.error(describe_error("SQS GetQueueAttributes", &error)))?;
        let attributes = response.attributes.unwrap_or_default();
        let number =
            |name: &QueueAttributeName| attributes.get(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        Ok(QueueDepth { waiting: number(&Waiting) + number(&Delayed), in_flight: number(&InFlight) })
    }

    /// Receives some messages, invisible to other consumers for the duration of the lease; empty if there are no more.
    ///
    /// # Errors
    /// Returns an error if SQS rejects the request.
    pub async fn receive(&self, lease: Duration) -> Result<Vec<LeasedMessage>, QueueError> {
        let lease_seconds = lease.as_secs_f64().ceil().min(LEASE_SECONDS_MAX);
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(ENTRIES_MAX as i32);
        let request = request.visibility_timeout(lease_seconds as i32).wait_time_seconds(WAIT_SECONDS);
        let received =
            request.send().await.map_err(|error| self.error(describe_error("SQS ReceiveMessage", &error)))?;
        let messages = received.messages.unwrap_or_default().into_iter();
        let leased = messages.filter_map(|message| {
            Some(LeasedMessage {
                id: message.message_id?,
                body: message.body.unwrap_or_default(),
                receipt: message.receipt_handle?,
            })
        });
        Ok(leased.collect())
    }

    /// Deletes messages.
    ///
    /// # Errors
    /// Returns an error if any message is not deleted.
    pub async fn delete(&self, messages: &[LeasedMessage]) -> Result<(), QueueError> {
        for part in messages.chunks(ENTRIES_MAX) {
            let mut request = self.client.delete_message_batch().queue_url(&self.url);
            for (number, message) in part.iter().enumerate() {
                let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
                let entry = entry.receipt_handle(&message.receipt).build();
                request = request.entries(entry.map_err(|error| self.error(error))?);
            }
            let response =
                request.send().await.map_err(|error| self.error(describe_error("SQS DeleteMessageBatch", &error)))?;
            if let Some(failed) = response.failed().first() {
                return Err(self.error(format!("could not delete a processed message: {}", failed.code())));
            }
        }
        Ok(())
    }

    /// Makes messages visible again at once.
    ///
    /// # Errors
    /// Returns an error if SQS rejects a request.
    pub async fn release(&self, messages: &[LeasedMessage]) -> Result<(), QueueError> {
        for part in messages.chunks(ENTRIES_MAX) {
            let mut request = self.client.change_message_visibility_batch().queue_url(&self.url);
            for (number, message) in part.iter().enumerate() {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(number.to_string());
                let entry = entry.receipt_handle(&message.receipt).visibility_timeout(0).build();
                request = request.entries(entry.map_err(|error| self.error(error))?);
            }
            // A message that is already visible again needs nothing.
            request
                .send()
                .await
                .map_err(|error| self.error(describe_error("SQS ChangeMessageVisibilityBatch", &error)))?;
        }
        Ok(())
    }

    fn error(&self, reason: impl std::fmt::Display) -> QueueError {
        QueueError { url: self.url.clone(), reason: reason.to_string() }
    }
}

/// Groups messages into batches within SQS's limits.
fn batches(messages: Vec<String>) -> Vec<Vec<String>> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for message in messages {
        bytes += message.len();
        match batches.last_mut().filter(|batch| batch.len() < ENTRIES_MAX && bytes <= BATCH_BYTES_MAX) {
            Some(batch) => batch.push(message),
            None => {
                bytes = message.len();
                batches.push(vec![message]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_stay_within_the_limits_of_sqs() {
        let message = |bytes: usize| "x".repeat(bytes);
        let sizes = |messages: Vec<String>| batches(messages).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![message(10); 25]), [10, 10, 5]);
        assert_eq!(sizes(vec![message(120 * 1024); 3]), [2, 1]);
        assert_eq!(sizes(vec![]), [0; 0]);
    }
}
