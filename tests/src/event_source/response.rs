//! What came of an invocation, and what a function's answer says of the batch.
//!
//! Partial batch responses: <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html>.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::record::StreamRecord;
use crate::function::FunctionError;

/// What came of an invocation.
#[derive(Clone, Debug)]
pub enum Response {
    /// It never began: throttled, or no environment could be made. This is no attempt.
    NotInvoked(String),
    /// The function failed, or its environment did.
    Failed(FunctionError),
    /// The function answered.
    Answered(Bytes),
}

/// What an answer says of its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchOutcome {
    /// All of it is done.
    Success,
    /// Everything before this record is done; it and everything behind it are to be handed over again.
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

/// Reads an answer to a batch where `ReportBatchItemFailures` is on. No list and an empty one are success; an identifier that
/// is missing, empty, or none of the batch's means that nothing can be trusted, and so does what is no such answer at all.
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
