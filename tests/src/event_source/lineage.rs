//! Which shards may be read: a child only once its parents are done, so that splits and merges keep the order of a key.

use std::collections::{BTreeMap, BTreeSet};

use super::mapping::StartingPosition;
use super::shard::Checkpoint;

/// A shard, as the stream lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedShard {
    /// Its id.
    pub id: String,
    /// Its parents: none, one (split) or two (merge).
    pub parents: Vec<String>,
    /// Whether it has an `EndingSequenceNumber`, so that it receives no further records.
    pub is_closed: bool,
}

/// Where the reading of a shard begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Position {
    /// At the mapping's starting position.
    Starting(StartingPosition),
    /// Where an earlier run ended.
    Checkpoint(Checkpoint),
}

/// The state of a stream's shards, kept between runs of the mapping.
#[derive(Debug)]
pub struct Lineage {
    start: StartingPosition,
    listed: BTreeMap<String, ListedShard>,
    /// Shards that existed when the mapping was first run.
    first: BTreeSet<String>,
    done: BTreeSet<String>,
    checkpoints: BTreeMap<String, Checkpoint>,
}

impl Lineage {
    /// Nothing is known yet.
    pub fn new(start: StartingPosition) -> Self {
        Self {
            start,
            listed: BTreeMap::new(),
            first: BTreeSet::new(),
            done: BTreeSet::new(),
            checkpoints: BTreeMap::new(),
        }
    }

    /// Updates the state from the stream's list of shards.
    pub fn listed(&mut self, shards: Vec<ListedShard>) {
        let is_first_look = self.listed.is_empty();
        self.listed = shards.into_iter().map(|shard| (shard.id.clone(), shard)).collect();
        if is_first_look {
            self.first = self.listed.keys().cloned().collect();
            if self.start == StartingPosition::Latest {
                // All records of a closed shard are before the tip of the stream.
                let closed = self.listed.values().filter(|shard| shard.is_closed);
                self.done = closed.map(|shard| shard.id.clone()).collect();
            }
        }
    }

    /// The shards that may be read now and are not done. A parent that the stream no longer lists has expired with its records.
    pub fn ready(&self) -> impl Iterator<Item = &str> {
        let is_ready = |shard: &&ListedShard| {
            let is_over = |parent: &String| self.done.contains(parent) || !self.listed.contains_key(parent);
            !self.done.contains(&shard.id) && shard.parents.iter().all(is_over)
        };
        self.listed.values().filter(is_ready).map(|shard| &*shard.id)
    }

    /// Whether a shard receives no further records.
    pub fn is_closed(&self, shard: &str) -> bool {
        self.listed.get(shard).is_some_and(|shard| shard.is_closed)
    }

    /// Where the reading of a shard starts. A shard created later is read completely, regardless of the mapping's starting position.
    pub fn position(&self, shard: &str) -> Position {
        match self.checkpoints.get(shard) {
            Some(checkpoint) => Position::Checkpoint(checkpoint.clone()),
            None if self.first.contains(shard) => Position::Starting(self.start),
            None => Position::Starting(StartingPosition::TrimHorizon),
        }
    }

    /// Records how far a shard has been read.
    pub fn reached(&mut self, shard: &str, checkpoint: Option<Checkpoint>) {
        if let Some(checkpoint) = checkpoint {
            self.checkpoints.insert(shard.to_owned(), checkpoint);
        }
    }

    /// Marks a shard as done: it is closed, and all its records are done.
    pub fn ended(&mut self, shard: &str) {
        self.done.insert(shard.to_owned());
    }
}
