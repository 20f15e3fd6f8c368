//! One shard: its records are distributed over lanes by key, so that no two concurrent batches contain the same key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;

use super::lane::{Lane, Step};
use super::mapping::Mapping;
use super::record::StreamRecord;
use super::response::Response;

/// The state of a shard.
#[derive(Debug)]
pub struct Shard {
    lanes: Vec<Lane>,
    /// The number of records to read ahead.
    waiting_max: usize,
    read: Option<SequenceNumber>,
}

/// How far a shard is done without a gap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Checkpoint {
    /// This record is the first that is not done.
    At(SequenceNumber),
    /// This record is the last that is done.
    After(SequenceNumber),
}

impl Shard {
    /// Creates an unread shard with as many lanes as the mapping's factor.
    pub fn new(mapping: &Arc<Mapping>, now: Timestamp) -> Self {
        let lanes = (0..mapping.parallelization_factor).map(|_| Lane::new(mapping.clone(), now)).collect();
        let waiting_max = mapping.parallelization_factor * mapping.batch_size;
        Self { lanes, waiting_max, read: None }
    }

    /// Adds records that were read.
    pub fn arrived(&mut self, records: impl IntoIterator<Item = StreamRecord>, now: Timestamp) {
        for record in records {
            self.read = Some(record.sequence.clone());
            let lane = lane_of(&record.key, self.lanes.len());
            self.lanes[lane].arrived(Arc::new(record), now);
        }
    }

    /// Whether enough records wait, so that at least one lane has a full batch.
    pub fn is_full(&self) -> bool {
        self.lanes.iter().map(Lane::waiting).sum::<usize>() >= self.waiting_max
    }

    /// Whether everything that was read is done or discarded.
    pub fn is_idle(&self) -> bool {
        self.lanes.iter().all(Lane::is_idle)
    }

    /// The next step and its lane; if all lanes wait, how long.
    pub fn next(&mut self, now: Timestamp) -> (usize, Step) {
        let mut until: Option<Timestamp> = None;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            match lane.next(now) {
                Step::Wait(moment) => until = until.into_iter().chain(moment).min(),
                step @ (Step::Invoke(_) | Step::Discard(_)) => return (index, step),
            }
        }
        (0, Step::Wait(until))
    }

    /// Processes the outcome of a lane's invocation.
    pub fn answered(&mut self, lane: usize, response: &Response, now: Timestamp) {
        self.lanes[lane].answered(response, now);
    }

    /// Where a new reading must start; `None` if no record has been read yet.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let unfinished = self.lanes.iter().filter_map(Lane::unfinished).min().cloned();
        unfinished.map(Checkpoint::At).or_else(|| self.read.clone().map(Checkpoint::After))
    }
}

/// The lane of a key; always the same.
fn lane_of(key: &str, lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % lanes as u64) as usize
}
