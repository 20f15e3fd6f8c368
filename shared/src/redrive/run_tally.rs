//! The account of a piece of a run: every message is redriven or kept, and counted once over all pieces.

use std::collections::BTreeMap;

use super::RedriveProgress;
use super::message::KeepReason;
use crate::clock::now;

/// What has been counted so far.
pub struct RunTally {
    /// As it would be told now.
    pub progress: RedriveProgress,
    /// Messages that were selected and stay: if there is a next piece, it meets them again.
    returned: BTreeMap<String, u64>,
    /// Messages redriven before this piece.
    earlier: u64,
}

impl RunTally {
    /// Of a piece that goes on from there.
    pub fn new(earlier: &RedriveProgress) -> Self {
        let started = earlier.started.clone().unwrap_or_else(|| now().to_string());
        let (kept, returned) = (BTreeMap::new(), BTreeMap::new());
        let progress = RedriveProgress { done: false, started: Some(started), kept, ..earlier.clone() };
        Self { progress, returned, earlier: earlier.redriven }
    }

    /// A message is asked for.
    pub fn selected(&mut self, label: &str) {
        *self.progress.selected.entry(label.to_owned()).or_default() += 1;
    }

    /// Messages that are asked for by now, over all pieces.
    pub fn selected_messages(&self) -> u64 {
        self.progress.selected.values().sum()
    }

    /// A message stays. Those refused since the run began are none of its messages.
    pub fn kept(&mut self, kept: &KeepReason) {
        if *kept != KeepReason::RejectedAgain {
            *self.progress.kept.entry(kept.class().to_owned()).or_default() += 1;
        }
    }

    /// A message that was asked for stays.
    pub fn returned(&mut self, label: &str) {
        *self.returned.entry(label.to_owned()).or_default() += 1;
    }

    /// Messages have been deleted.
    pub fn redriven(&mut self, count: u64) {
        self.progress.redriven += count;
    }

    /// Whether this piece has come any further.
    pub fn has_redriven(&self) -> bool {
        self.progress.redriven > self.earlier
    }

    /// The piece has ended; `done` says whether with it the run.
    pub fn finish(self, done: bool) -> RedriveProgress {
        let Self { mut progress, returned: given_back, earlier: _ } = self;
        progress.done = done;
        if !done {
            for (label, count) in given_back {
                progress.selected.entry(label).and_modify(|selected| *selected -= count);
            }
            progress.selected.retain(|_label, count| *count > 0);
        }
        progress
    }
}
