//! An SQS queue and its messages: check, send, count, receive, delete, release.

mod address;
mod send;
mod text;

use std::time::Duration;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, QueueAttributeName,
};
use serde::Serialize;

use crate::aws::{Aws, describe_error};
pub use address::check_address;
pub use send::{MESSAGE_BYTES_MAX, RejectedMessage};
pub use text::MessageText;

/// SQS's limit for one request.
const ENTRIES_MAX: usize = 10;

/// The codes of errors for which the queue itself is the reason. SQS uses two protocols, and some errors have a name in each.
const UNUSABLE_CODES: [&str; 6] = [
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
    "InvalidAddress",
    "MissingParameter",
    "AWS.SimpleQueueService.UnsupportedOperation",
    "UnsupportedOperation",
];

/// The codes of other errors that no retry removes: the role lacks a permission, or the key of the queue cannot be used.
const DENIED_CODES: [&str; 9] = [
    "AccessDenied",
    "AccessDeniedException",
    "KmsAccessDenied",
    "KMS.AccessDeniedException",
    "KmsDisabled",
    "KMS.DisabledException",
    "KmsNotFound",
    "KMS.NotFoundException",
    "KmsInvalidState",
];

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
    remedy: Remedy,
}

/// What removes the cause of an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Remedy {
    /// A retry.
    Retry,
    /// A permission, a key, or another message.
    Operator,
    /// Another queue, or its right address.
    OtherQueue,
}

impl Remedy {
    fn of(code: &str) -> Self {
        if UNUSABLE_CODES.contains(&code) {
            Self::OtherQueue
        } else if DENIED_CODES.contains(&code) {
            Self::Operator
        } else {
            Self::Retry
        }
    }
}

impl QueueError {
    /// Whether an operator must act before a retry can succeed.
    pub fn needs_operator(&self) -> bool {
        self.remedy != Remedy::Retry
    }

    /// Whether the queue does not exist or can never be used: its address or its kind is wrong.
    pub fn is_unusable(&self) -> bool {
        self.remedy == Remedy::OtherQueue
    }
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

    /// Checks that the queue exists and can hold what Millstream sends.
    ///
    /// # Errors
    /// Returns an error that [is final](QueueError::is_unusable) if it does not exist or is of the wrong kind, and another one if
    /// that could not be determined.
    pub async fn check(&self) -> Result<(), QueueError> {
        check_address(&self.url)?;
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let response = request.attribute_names(QueueAttributeName::QueueArn).send().await;
        response.map(drop).map_err(|error| self.service_error("SQS GetQueueAttributes", &error))
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
        let response = request.send().await.map_err(|error| self.service_error("SQS GetQueueAttributes", &error))?;
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
        let received = request.send().await.map_err(|error| self.service_error("SQS ReceiveMessage", &error))?;
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
                request.send().await.map_err(|error| self.service_error("SQS DeleteMessageBatch", &error))?;
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
            request.send().await.map_err(|error| self.service_error("SQS ChangeMessageVisibilityBatch", &error))?;
        }
        Ok(())
    }

    fn error(&self, reason: impl std::fmt::Display) -> QueueError {
        QueueError { url: self.url.clone(), reason: reason.to_string(), remedy: Remedy::Retry }
    }

    /// The error of a failed request (`request` names the service and the operation).
    fn service_error<E>(&self, request: &str, error: &SdkError<E, HttpResponse>) -> QueueError
    where
        E: ProvideErrorMetadata,
    {
        let code = error.code().unwrap_or_default();
        let reason = if code.ends_with("NonExistentQueue") || code == "QueueDoesNotExist" {
            "the queue does not exist; create it or correct the URL".to_owned()
        } else {
            describe_error(request, error)
        };
        QueueError { url: self.url.clone(), reason, remedy: Remedy::of(code) }
    }
}
