//! One run of a mapping: one poller per shard, once the shard may be read, until all have stopped.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::lineage::ListedShard;
use super::poller::{Poller, Rest};
use super::stream::Stream;
use super::{Delivered, EventSource, Progress};
use crate::system::SystemResult;

/// The interval at which shards are listed.
const LIST_PAUSE: Duration = Duration::from_millis(200);

/// A run of a mapping.
pub struct Run<'a> {
    /// The mapping.
    pub source: &'a EventSource<'a>,
    /// Its stream.
    pub stream: Stream<'a>,
    /// Its progress.
    pub progress: &'a Progress,
    delivered: Mutex<Delivered>,
}

type RunFuture<'a> = Pin<Box<dyn Future<Output = SystemResult<RunEvent>> + Send + 'a>>;

enum RunEvent {
    /// The stream's shards, and whether by then no further records were to be put.
    Listed(Vec<ListedShard>, bool),
    Rested(String, Rest),
}

impl<'a> Run<'a> {
    /// Creates a run.
    pub fn new(source: &'a EventSource<'a>, progress: &'a Progress) -> Self {
        let stream = Stream::of(source.aws, &source.mapping, source.kind);
        Self { source, stream, progress, delivered: Mutex::default() }
    }

    /// The result so far.
    pub fn delivered(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls every shard, including new ones, until all have stopped; returns the result.
    ///
    /// # Errors
    /// Returns an error if a part fails.
    pub async fn to_the_end(&self) -> SystemResult<Delivered> {
        let mut happenings: FuturesUnordered<RunFuture<'_>> = FuturesUnordered::new();
        let (mut polled, mut drained) = (BTreeSet::new(), BTreeSet::new());
        happenings.push(Box::pin(self.list(Duration::ZERO)));
        while let Some(happened) = happenings.next().await {
            let mut is_last = false;
            match happened? {
                RunEvent::Listed(listed, is_finishing) => {
                    self.source.lineage().listed(listed);
                    is_last = is_finishing && happenings.is_empty();
                    happenings.push(Box::pin(self.list(LIST_PAUSE)));
                }
                RunEvent::Rested(shard, Rest::Ended) => self.source.lineage().ended(&shard),
                RunEvent::Rested(shard, Rest::Drained) => drop(drained.insert(shard)),
            }
            let new: Vec<String> = self.ready(&drained).into_iter().filter(|shard| !polled.contains(shard)).collect();
            if is_last && new.is_empty() {
                break;
            }
            polled.extend(new.iter().cloned());
            new.into_iter().for_each(|shard| happenings.push(Box::pin(self.poll(shard))));
        }
        Ok(std::mem::take(&mut *self.delivered()))
    }

    async fn list(&self, pause: Duration) -> SystemResult<RunEvent> {
        tokio::time::sleep(pause).await;
        let is_finishing = self.progress.is_finishing();
        Ok(RunEvent::Listed(self.stream.shards().await?, is_finishing))
    }

    async fn poll(&self, shard: String) -> SystemResult<RunEvent> {
        let rest = Poller::run(self, &shard).await?;
        Ok(RunEvent::Rested(shard, rest))
    }

    /// The shards that may be read. A drained shard that has since been closed is done.
    fn ready(&self, drained: &BTreeSet<String>) -> Vec<String> {
        let mut lineage = self.source.lineage();
        for shard in drained {
            if lineage.is_closed(shard) {
                lineage.ended(shard);
            }
        }
        lineage.ready().map(str::to_owned).collect()
    }
}
