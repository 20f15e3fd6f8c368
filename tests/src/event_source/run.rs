//! One run of a mapping: a poller for each shard, once the shard may be read, until all rest.

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
use crate::system::Outcome;

/// How often the stream is asked for new shards.
const LIST_PAUSE: Duration = Duration::from_millis(200);

/// A run of a mapping.
pub struct Run<'a> {
    /// The mapping.
    pub source: &'a EventSource<'a>,
    /// Its stream.
    pub stream: Stream<'a>,
    /// How far it has come.
    pub progress: &'a Progress,
    delivered: Mutex<Delivered>,
}

type Happening<'a> = Pin<Box<dyn Future<Output = Outcome<Happened>> + Send + 'a>>;

enum Happened {
    /// The stream's shards, and whether by then nothing further would be put.
    Listed(Vec<ListedShard>, bool),
    Rested(String, Rest),
}

impl<'a> Run<'a> {
    /// A run that has done nothing yet.
    pub fn new(source: &'a EventSource<'a>, progress: &'a Progress) -> Self {
        let stream = Stream::of(source.aws, &source.mapping, source.kind);
        Self { source, stream, progress, delivered: Mutex::default() }
    }

    /// What was done so far.
    pub fn delivered(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls every shard, new ones too, until all rest; what was done.
    ///
    /// # Errors
    /// Whatever a part ends with.
    pub async fn to_the_end(&self) -> Outcome<Delivered> {
        let mut happenings: FuturesUnordered<Happening<'_>> = FuturesUnordered::new();
        let (mut polled, mut drained) = (BTreeSet::new(), BTreeSet::new());
        happenings.push(Box::pin(self.list(Duration::ZERO)));
        while let Some(happened) = happenings.next().await {
            let mut is_last = false;
            match happened? {
                Happened::Listed(listed, is_finishing) => {
                    self.source.lineage().listed(listed);
                    is_last = is_finishing && happenings.is_empty();
                    happenings.push(Box::pin(self.list(LIST_PAUSE)));
                }
                Happened::Rested(shard, Rest::Ended) => self.source.lineage().ended(&shard),
                Happened::Rested(shard, Rest::Drained) => drop(drained.insert(shard)),
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

    async fn list(&self, pause: Duration) -> Outcome<Happened> {
        tokio::time::sleep(pause).await;
        let is_finishing = self.progress.is_finishing();
        Ok(Happened::Listed(self.stream.shards().await?, is_finishing))
    }

    async fn poll(&self, shard: String) -> Outcome<Happened> {
        let rest = Poller::run(self, &shard).await?;
        Ok(Happened::Rested(shard, rest))
    }

    /// The shards that may be read. One that was drained and has been closed is at its end.
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
