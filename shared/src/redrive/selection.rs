//! Which messages a run takes.

use serde::{Deserialize, Serialize};

use super::message::{KeepReason, QueueMessage};
use super::{RedriveError, parse_time};
use crate::timestamp::Timestamp;

/// Which messages are redriven: those of which all that is given is true. A misspelt member must not select everything.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// The configuration's name of the source.
    pub source: Option<String>,
    /// The table that refused, as `schema.table`.
    pub table: Option<String>,
    /// The class of the error ([`crate::rejection::Reason::class`]); `undelivered` for Lambda's own messages.
    pub reason: Option<String>,
    /// The first moment of arrival in the stream, as RFC 3339.
    pub from: Option<String>,
    /// End, exclusive, as RFC 3339.
    pub to: Option<String>,
}

/// What a message must be to be taken.
pub struct MessageFilter<'t> {
    selection: &'t Selection,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// When the run began.
    began: Timestamp,
}

impl<'t> MessageFilter<'t> {
    /// Those of a selection, for a run that began then.
    ///
    /// # Errors
    /// A moment that is none.
    pub fn new(selection: &'t Selection, began: Timestamp) -> Result<Self, RedriveError> {
        let [from, to] = [&selection.from, &selection.to].map(|text| text.as_deref().map(parse_time).transpose());
        Ok(Self { selection, from: from?, to: to?, began })
    }

    /// Whether a message is taken.
    pub fn select(&self, letter: &QueueMessage, source: &str) -> Result<(), KeepReason> {
        if letter.rejected_at().is_some_and(|at| at >= self.began) {
            return Err(KeepReason::RejectedAgain);
        }
        let Selection { source: of, table, reason, from: _, to: _ } = self.selection;
        let same = |wanted: &Option<String>, found: Option<&str>| match wanted {
            Some(wanted) => found == Some(wanted),
            None => true,
        };
        let arrived = letter.arrival();
        let selected = same(of, Some(source))
            && same(table, letter.table())
            && same(reason, Some(letter.reason()))
            && self.from.is_none_or(|from| arrived.is_some_and(|arrived| arrived >= from))
            && self.to.is_none_or(|to| arrived.is_some_and(|arrived| arrived < to));
        if selected { Ok(()) } else { Err(KeepReason::NotSelected) }
    }
}
