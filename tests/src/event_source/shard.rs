//! One shard: its records spread over lanes by their key, so that no two batches under way hold the same key.

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
    /// Beyond this the shard reads no further ahead.
    waiting_max: usize,
    read: Option<SequenceNumber>,
}

/// Up to where a shard is done, without a gap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Checkpoint {
    /// This record is the first that is not.
    At(SequenceNumber),
    /// This record is the last that is.
    After(SequenceNumber),
}

impl Shard {
    /// A shard of which nothing is read yet, with as many lanes as the mapping's factor.
    pub fn new(mapping: &Arc<Mapping>, now: Timestamp) -> Self {
        let lanes = (0..mapping.parallelization_factor).map(|_| Lane::new(mapping.clone(), now)).collect();
        let waiting_max = mapping.parallelization_factor * mapping.batch_size;
        Self { lanes, waiting_max, read: None }
    }

    /// Takes in what was read.
    pub fn arrived(&mut self, records: impl IntoIterator<Item = StreamRecord>, now: Timestamp) {
        for record in records {
            self.read = Some(record.sequence.clone());
            let lane = lane_of(&record.key, self.lanes.len());
            self.lanes[lane].arrived(Arc::new(record), now);
        }
    }

    /// Whether so much waits that nothing more should be read. Some lane has a whole batch by then.
    pub fn is_full(&self) -> bool {
        self.lanes.iter().map(Lane::waiting).sum::<usize>() >= self.waiting_max
    }

    /// Whether everything that was read is done or given up.
    pub fn is_idle(&self) -> bool {
        self.lanes.iter().all(Lane::is_idle)
    }

    /// What is to be done now, and by which lane. Where all wait, until when.
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

    /// Takes in what came of a lane's invocation.
    pub fn answered(&mut self, lane: usize, response: &Response, now: Timestamp) {
        self.lanes[lane].answered(response, now);
    }

    /// Where a reading that begins anew has to begin; nothing where no record has been read yet.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let unfinished = self.lanes.iter().filter_map(Lane::unfinished).min().cloned();
        unfinished.map(Checkpoint::At).or_else(|| self.read.clone().map(Checkpoint::After))
    }
}

/// The same key is always of the same lane.
fn lane_of(key: &str, lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % lanes as u64) as usize
}
