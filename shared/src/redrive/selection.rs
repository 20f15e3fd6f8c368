//! Which messages a run selects.

use serde::{Deserialize, Serialize};

use super::message::{KeepReason, QueueMessage};
use super::{RedriveError, parse_time};
use crate::timestamp::Timestamp;

/// Criteria for the messages to redrive; a message must match all of them. Unknown keys are rejected, so that a misspelled key
/// does not select everything.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// The source's name in the configuration.
    pub source: Option<String>,
    /// The table that rejected the record, as `schema.table`.
    pub table: Option<String>,
    /// The class of the error ([`crate::rejection::RejectionReason::class`]); `undelivered` for batches that Lambda discarded.
    pub reason: Option<String>,
    /// Earliest arrival in the stream, inclusive, as RFC 3339.
    pub from: Option<String>,
    /// Latest arrival in the stream, exclusive, as RFC 3339.
    pub to: Option<String>,
}

/// Selects the messages of a run.
pub struct MessageFilter<'t> {
    selection: &'t Selection,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// When the run began.
    run_started: Timestamp,
}

impl<'t> MessageFilter<'t> {
    /// Creates a filter for a run that began at `run_started`.
    ///
    /// # Errors
    /// Returns an error if a timestamp is invalid.
    pub fn new(selection: &'t Selection, run_started: Timestamp) -> Result<Self, RedriveError> {
        let [from, to] = [&selection.from, &selection.to].map(|text| text.as_deref().map(parse_time).transpose());
        Ok(Self { selection, from: from?, to: to?, run_started })
    }

    /// Checks whether a message is selected.
    pub fn select(&self, message: &QueueMessage, source: &str) -> Result<(), KeepReason> {
        if message.rejected_at().is_some_and(|at| at >= self.run_started) {
            return Err(KeepReason::RejectedEarlier);
        }
        let Selection { source: wanted_source, table, reason, from: _, to: _ } = self.selection;
        let matches = |wanted: &Option<String>, actual: Option<&str>| match wanted {
            Some(wanted) => actual == Some(wanted),
            None => true,
        };
        let arrival = message.arrival();
        let selected = matches(wanted_source, Some(source))
            && matches(table, message.table())
            && matches(reason, Some(message.reason()))
            && self.from.is_none_or(|from| arrival.is_some_and(|arrival| arrival >= from))
            && self.to.is_none_or(|to| arrival.is_some_and(|arrival| arrival < to));
        if selected { Ok(()) } else { Err(KeepReason::NotSelected) }
    }
}
