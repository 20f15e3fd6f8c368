//! Sends messages. SQS reports each message of a request; one that it rejects for its content does not affect the others.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::{BatchResultErrorEntry, SendMessageBatchRequestEntry};
use futures_util::StreamExt;

use super::text::MessageText;
use super::{ENTRIES_MAX, Queue, QueueError, Remedy, check_address};
use crate::aws::describe_code;

/// Every SQS queue accepts 256 KiB per message and per batch unless its owner has lowered the limit, whatever larger limit
/// it is configured with
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>).
pub const MESSAGE_BYTES_MAX: usize = 250 * 1024;

/// Concurrent send requests.
const REQUESTS_MAX: usize = 8;

/// SQS may fail to store single messages of a request; those are sent again this many times.
const ATTEMPTS_MAX: u32 = 4;

/// The pause before the first further attempt; each following one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The codes with which SQS rejects a whole request because of the content or the length of a message in it.
const CONTENT_CODES: [&str; 4] = [
    "InvalidMessageContents",
    "InvalidParameterValue",
    "BatchRequestTooLong",
    "AWS.SimpleQueueService.BatchRequestTooLong",
];

/// Part of the codes of requests that were too many, of SQS and of KMS. SQS counts them as the sender's fault, too.
const THROTTLED: &str = "hrottl";

/// A message that SQS rejected for its content: no retry can succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RejectedMessage {
    /// Its index among the messages to send.
    pub index: usize,
    /// SQS's code for the reason.
    pub code: String,
}

/// What a request did with its messages. All others were stored.
#[derive(Default)]
struct SendResult {
    rejected: Vec<RejectedMessage>,
    /// Indexes of messages that SQS could not store this time.
    failed: Vec<usize>,
    /// Why the last of them failed.
    failure: Option<QueueError>,
}

impl Queue {
    /// Sends messages of at most [`MESSAGE_BYTES_MAX`] bytes; returns once every one has been acknowledged.
    ///
    /// # Errors
    /// Returns an error if any message is not stored; others may have been.
    pub async fn send(&self, messages: &[MessageText]) -> Result<(), QueueError> {
        let rejected = self.send_each(messages, |_stored| ()).await?;
        rejected.first().map_or(Ok(()), |message| Err(self.rejected(message)))
    }

    /// As [`Self::send`], but returns the messages that SQS rejected for their content. Calls `on_stored` with the index of
    /// each message as soon as it is acknowledged, also if the call as a whole fails.
    ///
    /// # Errors
    /// Returns an error if any other message is not stored.
    pub async fn send_each(
        &self,
        messages: &[MessageText],
        mut on_stored: impl FnMut(usize),
    ) -> Result<Vec<RejectedMessage>, QueueError> {
        check_address(&self.url)?;
        let sending = batches(messages).into_iter().map(|batch| self.send_batch(messages, batch));
        let mut requests = futures_util::stream::iter(sending).buffer_unordered(REQUESTS_MAX);
        let (mut rejected, mut first_error) = (Vec::new(), None);
        while let Some((stored, result)) = requests.next().await {
            stored.into_iter().for_each(&mut on_stored);
            match result {
                Ok(more) => rejected.extend(more),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        rejected.sort_by_key(|message| message.index);
        first_error.map_or(Ok(rejected), Err)
    }

    /// The error for a message that SQS does not accept.
    pub fn rejected(&self, message: &RejectedMessage) -> QueueError {
        let reason = format!("SQS rejected a message: {}", message.code);
        QueueError { url: self.url.clone(), reason, remedy: Remedy::Operator }
    }

    /// Sends a batch until SQS has stored or rejected each of its messages. Returns the indexes of the stored messages, and the
    /// rejected ones.
    async fn send_batch(
        &self,
        messages: &[MessageText],
        batch: Range<usize>,
    ) -> (Vec<usize>, Result<Vec<RejectedMessage>, QueueError>) {
        let (mut stored, mut rejected) = (Vec::new(), Vec::new());
        // Parts of the batch with the number of attempts.
        let mut parts: Vec<(Vec<usize>, u32)> = vec![(batch.collect(), 1)];
        while let Some((part, attempts)) = parts.pop() {
            match self.send_part(messages, &part).await {
                Err(error) => return (stored, Err(error)),
                // Which message is to blame is unknown: each is sent alone.
                Ok(None) => parts.extend(part.into_iter().map(|index| (vec![index], attempts))),
                Ok(Some(result)) => {
                    let is_stored = |index: &usize| {
                        !result.failed.contains(index) && result.rejected.iter().all(|message| message.index != *index)
                    };
                    stored.extend(part.into_iter().filter(is_stored));
                    rejected.extend(result.rejected);
                    let Some(failure) = result.failure else { continue };
                    if attempts == ATTEMPTS_MAX || failure.needs_operator() {
                        return (stored, Err(failure));
                    }
                    tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempts - 1)).await;
                    parts.push((result.failed, attempts + 1));
                }
            }
        }
        (stored, Ok(rejected))
    }

    /// Sends one request. Returns `None` if SQS rejected the request as a whole because of one of several messages.
    async fn send_part(&self, messages: &[MessageText], part: &[usize]) -> Result<Option<SendResult>, QueueError> {
        let mut request = self.client.send_message_batch().queue_url(&self.url);
        for index in part {
            let entry =
                SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(messages[*index].as_str());
            request = request.entries(entry.build().map_err(|error| self.error(error))?);
        }
        match request.send().await {
            Ok(response) => Ok(Some(self.send_result(part, response.failed()))),
            Err(error) => match (error.code().filter(|code| CONTENT_CODES.contains(code)), part) {
                (None, _) => Err(self.service_error("SQS SendMessageBatch", &error)),
                (Some(code), [index]) => {
                    let rejected = vec![RejectedMessage { index: *index, code: code.to_owned() }];
                    Ok(Some(SendResult { rejected, ..SendResult::default() }))
                }
                (Some(_), _) => Ok(None),
            },
        }
    }

    fn send_result(&self, part: &[usize], failed: &[BatchResultErrorEntry]) -> SendResult {
        let mut result = SendResult::default();
        for entry in failed {
            let Some(index) = part.iter().copied().find(|index| index.to_string() == entry.id()) else { continue };
            let code = entry.code();
            let remedy = Remedy::of(code);
            if entry.sender_fault() && remedy == Remedy::Retry && !code.contains(THROTTLED) {
                result.rejected.push(RejectedMessage { index, code: code.to_owned() });
            } else {
                let reason = describe_code(code, entry.message());
                result.failed.push(index);
                result.failure = Some(QueueError { url: self.url.clone(), reason, remedy });
            }
        }
        result
    }
}

/// Groups messages into batches within SQS's limits.
fn batches(messages: &[MessageText]) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (index, message) in messages.iter().enumerate() {
        bytes += message.as_str().len();
        match batches.last_mut().filter(|batch| batch.len() < ENTRIES_MAX && bytes <= MESSAGE_BYTES_MAX) {
            Some(batch) => batch.end = index + 1,
            None => {
                bytes = message.as_str().len();
                batches.push(index..index + 1);
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
        let message = |bytes: usize| MessageText::from_json("1".repeat(bytes));
        let sizes = |messages: Vec<MessageText>| batches(&messages).iter().map(Range::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![message(10); 25]), [10, 10, 5]);
        assert_eq!(sizes(vec![message(120 * 1024); 3]), [2, 1]);
        assert_eq!(sizes(vec![]), [0; 0]);
    }
}
