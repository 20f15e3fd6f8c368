//! Counts of a run: every message is redriven or kept, and counted once over all calls.

use std::collections::BTreeMap;

use super::RedriveProgress;
use super::message::KeepReason;
use crate::clock::now;

/// Counts of a run so far.
pub struct RunTally {
    /// The current progress.
    pub progress: RedriveProgress,
    /// Selected messages that stay on the queue; the next call, if any, counts them again.
    returned: BTreeMap<String, u64>,
    /// Messages redriven before this call.
    earlier: u64,
}

impl RunTally {
    /// Continues from the progress of earlier calls.
    pub fn new(earlier: &RedriveProgress) -> Self {
        let started = earlier.started.clone().unwrap_or_else(|| now().to_string());
        let (kept, returned) = (BTreeMap::new(), BTreeMap::new());
        let progress = RedriveProgress { done: false, started: Some(started), kept, ..earlier.clone() };
        Self { progress, returned, earlier: earlier.redriven }
    }

    /// Counts a selected message.
    pub fn selected(&mut self, label: &str) {
        *self.progress.selected.entry(label.to_owned()).or_default() += 1;
    }

    /// Messages selected so far, over all calls.
    pub fn selected_messages(&self) -> u64 {
        self.progress.selected.values().sum()
    }

    /// Counts a message that stays on the queue. Messages rejected since the run began are not part of the run.
    pub fn kept(&mut self, reason: &KeepReason) {
        if *reason != KeepReason::RejectedEarlier {
            *self.progress.kept.entry(reason.class().to_owned()).or_default() += 1;
        }
    }

    /// Counts a selected message that stays on the queue.
    pub fn returned(&mut self, label: &str) {
        *self.returned.entry(label.to_owned()).or_default() += 1;
    }

    /// Counts deleted messages.
    pub fn redriven(&mut self, count: u64) {
        self.progress.redriven += count;
    }

    /// Whether this call has redriven any message.
    pub fn has_redriven(&self) -> bool {
        self.progress.redriven > self.earlier
    }

    /// Ends the call; `done` says whether the run is complete.
    pub fn finish(self, done: bool) -> RedriveProgress {
        let Self { mut progress, returned, earlier: _ } = self;
        progress.done = done;
        if !done {
            for (label, count) in returned {
                progress.selected.entry(label).and_modify(|selected| *selected -= count);
            }
            progress.selected.retain(|_label, count| *count > 0);
        }
        progress
    }
}
