//! Checks the queues that the environment names, before they are needed: a wrong one would be noticed only with the first
//! rejected record.

use std::time::Duration;

use crate::aws::Aws;
use crate::config::Environment;
use crate::queue::{Queue, QueueError};
use crate::telemetry;

/// The start must not take long; a queue that does not answer in time may be used all the same.
const START_TIMEOUT: Duration = Duration::from_secs(3);

/// A program on a terminal may first have to find its credentials.
const TERMINAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a queue cannot be used, or could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum QueueProblem {
    /// It does not exist, or is of the wrong kind, or its address is wrong.
    #[error("{variable}: {error}")]
    Unusable {
        /// The environment variable that names it.
        variable: &'static str,
        /// What is wrong.
        error: QueueError,
    },
    /// SQS did not answer, or not this question.
    #[error("{variable} could not be checked: {reason}")]
    Unchecked {
        /// The environment variable that names it.
        variable: &'static str,
        /// Why not.
        reason: String,
    },
}

/// Checks the queue of an environment variable; `None` if it can be used, or if the variable is not set.
async fn check_queue(
    (variable, url): (&'static str, Option<&str>),
    aws: &Aws,
    timeout: Duration,
) -> Option<QueueProblem> {
    let check = async { Queue::open(aws, url?).await.check().await.err() };
    match tokio::time::timeout(timeout, Box::pin(check)).await {
        Ok(None) => None,
        Ok(Some(error)) if error.is_unusable() => Some(QueueProblem::Unusable { variable, error }),
        Ok(Some(error)) => Some(QueueProblem::Unchecked { variable, reason: error.to_string() }),
        Err(_elapsed) => {
            let reason = format!("SQS did not answer within {} s", timeout.as_secs());
            Some(QueueProblem::Unchecked { variable, reason })
        }
    }
}

/// Checks all queues that the environment names.
pub async fn check_queues(environment: &Environment, aws: &Aws) -> Vec<QueueProblem> {
    let mut problems = Vec::new();
    for queue in environment.queues() {
        problems.extend(check_queue(queue, aws, TERMINAL_TIMEOUT).await);
    }
    problems
}

/// Checks the queue to which a function sends, and logs what is wrong with it. The function starts all the same: batches
/// without rejected records do not need the queue.
pub(super) async fn check_at_start(environment: &Environment, aws: &Aws) {
    let [dead_letters, _on_failure] = environment.queues();
    match check_queue(dead_letters, aws, START_TIMEOUT).await {
        None => {}
        Some(problem @ QueueProblem::Unusable { .. }) => {
            tracing::error!(error = %problem, "operator action required");
            telemetry::count_failure("start", 1, 0);
        }
        Some(problem @ QueueProblem::Unchecked { .. }) => tracing::warn!(error = %problem, "dead-letter queue"),
    }
}
