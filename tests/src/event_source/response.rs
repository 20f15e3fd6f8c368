//! The outcome of an invocation, and what a function's response says about the batch.
//!
//! Partial batch responses: <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html>.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::record::StreamRecord;
use crate::function::FunctionError;

/// The outcome of an invocation.
#[derive(Clone, Debug)]
pub enum Response {
    /// It never started: throttled, or no environment could be created. This does not count as an attempt.
    NotInvoked(String),
    /// The function failed, or its environment did.
    Failed(FunctionError),
    /// The function responded.
    Answered(Bytes),
}

/// What a response says about its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchOutcome {
    /// All of it is done.
    Success,
    /// Everything before this record is done; it and everything after it must be delivered again.
    From(usize),
    /// None of it is done.
    Failure,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Partial {
    batch_item_failures: Option<Vec<Item>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    item_identifier: Option<String>,
}

/// Reads a response with `ReportBatchItemFailures` enabled. A missing or empty list is success. An invalid response is a
/// failure of the whole batch, and so is an identifier that is missing, empty, or not in the batch.
pub fn batch_outcome(batch: &[Arc<StreamRecord>], answer: &[u8]) -> BatchOutcome {
    if answer.is_empty() {
        return BatchOutcome::Success;
    }
    let Ok(partial) = serde_json::from_slice::<Option<Partial>>(answer) else { return BatchOutcome::Failure };
    let failures = partial.and_then(|partial| partial.batch_item_failures).unwrap_or_default();
    if failures.is_empty() {
        return BatchOutcome::Success;
    }
    let place = |item: &Item| {
        let identifier = item.item_identifier.as_deref()?;
        batch.iter().position(|record| *record.sequence.0 == *identifier)
    };
    let places: Option<Vec<usize>> = failures.iter().map(place).collect();
    places.and_then(|places| places.into_iter().min()).map_or(BatchOutcome::Failure, BatchOutcome::From)
}
