//! What a board needs to know of recent work: counters per source and minute, and events, such as schema changes and
//! rejections. Pure: [`crate::apply`] writes them, [`crate::board`] reads them.
//!
//! Neither holds a payload or a value of a row. The text of a rejection names tables, columns and paths only, as in the log.

use std::collections::BTreeMap;

use crate::rejection::Rejection;
use crate::report::Report;

/// A batch describes at most this many different rejections; all of them are counted.
const REJECTION_EVENTS_MAX: usize = 20;

/// The text of an event is cut off after this many characters.
const DETAIL_CHARS_MAX: usize = 500;

/// The name of a table, and a position in a stream, are cut off after this many characters.
const NAME_CHARS_MAX: usize = 200;

/// What an event is about. The text is what the table holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A statement changed the schema: a table, a column or a partition was created.
    SchemaChange,
    /// Records were rejected.
    Rejection,
    /// A total was recomputed from the rows.
    Recompute,
    /// A partition was dropped.
    Drop,
}

impl EventKind {
    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SchemaChange => "schema_change",
            Self::Rejection => "rejection",
            Self::Recompute => "recompute",
            Self::Drop => "drop",
        }
    }
}

/// An event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActivityEvent {
    /// What it is about.
    pub kind: EventKind,
    /// The table, as `schema.table`.
    pub relation: Option<String>,
    /// For rejections, their class.
    pub reason: Option<&'static str>,
    /// How many records it concerns.
    pub records: u64,
    /// The statement or the message, cut off if it is long.
    pub detail: String,
    /// For rejections, the first record's position in the stream.
    pub position: Option<String>,
}

impl ActivityEvent {
    /// Creates an event that concerns a table and no records.
    pub fn new(kind: EventKind, relation: &str, detail: &str) -> Self {
        let relation = Some(truncated(relation, NAME_CHARS_MAX));
        Self { kind, relation, reason: None, records: 0, detail: truncated(detail, DETAIL_CHARS_MAX), position: None }
    }
}

fn truncated(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The events of a batch's rejections: one for each class, table and message. Each rejection comes with the number of records
/// and the first one's position.
pub fn rejection_events<'r>(
    rejections: impl IntoIterator<Item = (&'r Rejection, u64, Option<&'r str>)>,
) -> Vec<ActivityEvent> {
    let mut events: Vec<ActivityEvent> = Vec::new();
    for (rejection, records, position) in rejections {
        let (kind, reason) = (EventKind::Rejection, rejection.reason.class());
        let detail = truncated(&rejection.to_string(), DETAIL_CHARS_MAX);
        let relation = rejection.table.as_deref().map(|table| truncated(table, NAME_CHARS_MAX));
        let same = |event: &&mut ActivityEvent| {
            event.reason == Some(reason) && event.relation == relation && event.detail == detail
        };
        if let Some(event) = events.iter_mut().find(same) {
            event.records += records;
        } else if events.len() < REJECTION_EVENTS_MAX {
            let position = position.map(|position| truncated(position, NAME_CHARS_MAX));
            events.push(ActivityEvent { kind, relation, reason: Some(reason), records, detail, position });
        }
    }
    events
}

/// Counters of a source that are not in the database yet.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ActivityCounts {
    /// Records that were accounted for.
    pub records: u64,
    /// Rows inserted, updated and deleted.
    pub rows: u64,
    /// Rejected records, by class.
    pub rejections: BTreeMap<&'static str, u64>,
    /// The largest age of a batch's oldest record when the batch was committed; `None` if no batch came from a stream.
    pub lag_micros: Option<i64>,
}

impl ActivityCounts {
    /// Adds a batch. The age of records counts as lag only if they come from a stream: reloaded ones are old.
    pub fn add(&mut self, report: &Report, from_stream: bool) {
        self.records += report.counts.total();
        self.rows += report.rows;
        for (reason, count) in &report.reasons {
            *self.rejections.entry(reason).or_default() += count;
        }
        if from_stream && report.counts.any_committed() {
            let lag = i64::try_from(report.batch_age.as_micros()).unwrap_or(i64::MAX);
            self.lag_micros = self.lag_micros.max(Some(lag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::RejectionReason;

    #[test]
    fn equal_rejections_of_a_batch_are_one_event_with_the_first_position() {
        let malformed = Rejection::new(RejectionReason::Malformed("unterminated string".to_owned()));
        let excluded = Rejection::for_table("a.b".to_owned(), RejectionReason::Excluded("b".to_owned()));
        let events = rejection_events([(&malformed, 2, Some("3")), (&excluded, 1, None), (&malformed, 4, Some("7"))]);
        let found: Vec<_> = events
            .iter()
            .map(|event| (event.reason, event.records, event.relation.as_deref(), event.position.as_deref()))
            .collect();
        assert_eq!(found, [(Some("malformed"), 6, None, Some("3")), (Some("excluded"), 1, Some("a.b"), None)]);
    }

    #[test]
    fn a_batch_of_different_rejections_is_described_only_in_part() {
        let rejected = |number: usize| Rejection::new(RejectionReason::Excluded(format!("table {number}")));
        let rejections: Vec<Rejection> = (0..100).map(rejected).collect();
        let events = rejection_events(rejections.iter().map(|rejection| (rejection, 1, None)));
        assert_eq!(events.len(), REJECTION_EVENTS_MAX);
    }

    #[test]
    fn long_texts_are_cut_off_between_characters() {
        assert_eq!(truncated("äöü", 3), "äöü");
        assert_eq!(truncated("äöüß", 3), "äöü…");
    }
}
