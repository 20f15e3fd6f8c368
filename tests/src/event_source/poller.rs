//! One shard's poller: reads ahead, invokes the function for its lanes concurrently, and reports to the on-failure destination.
//! [`Shard`] decides what to do and when.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;

use super::Invoked;
use super::environments::Invocation;
use super::lane::Step;
use super::on_failure::{Discarded, OnFailure, Origin};
use super::record::event_of;
use super::response::Response;
use super::run::Run;
use super::shard::Shard;
use super::stream::Page;
use crate::function::request_id;
use crate::system::SystemResult;

/// Kinesis allows five reads per second and shard: <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html>.
const READ_INTERVAL: Duration = Duration::from_millis(200);

/// Why a poller has stopped: everything read from its shard is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// The shard will receive no further records.
    Ended,
    /// The run was asked to finish, and there were no further records.
    Drained,
}

/// A running poller.
pub struct Poller<'a> {
    run: &'a Run<'a>,
    id: &'a str,
    shard: Shard,
    /// The last invocation's request id, by lane.
    requests: Vec<String>,
    happenings: FuturesUnordered<PollerFuture<'a>>,
    /// The iterator of the next read, while none is in progress.
    iterator: Option<String>,
    last_read_at: Option<Instant>,
    rest: Option<Rest>,
}

type PollerFuture<'a> = Pin<Box<dyn Future<Output = SystemResult<PollerEvent>> + Send + 'a>>;

enum PollerEvent {
    Answered(BatchBounds, Invocation),
    Read(Page, ReadContext),
}

/// The records of an invocation.
struct BatchBounds {
    lane: usize,
    first: SequenceNumber,
    last: SequenceNumber,
    records: usize,
}

/// What was known before a read: only then is an empty page conclusive.
#[derive(Clone, Copy)]
struct ReadContext {
    is_closed: bool,
    is_finishing: bool,
}

impl<'a> Poller<'a> {
    /// Reads a shard from its checkpoint until everything read is done.
    ///
    /// # Errors
    /// Returns an error if the API call fails.
    pub async fn run(run: &'a Run<'a>, id: &'a str) -> SystemResult<Rest> {
        let position = run.source.lineage().position(id);
        let iterator = run.stream.iterator(id, &position).await?;
        let mapping = &run.source.mapping;
        let poller = Self {
            run,
            id,
            shard: Shard::new(mapping, run.source.clock.now()),
            requests: (0..mapping.parallelization_factor).map(|_| request_id()).collect(),
            happenings: FuturesUnordered::new(),
            rest: iterator.is_none().then_some(Rest::Ended),
            iterator,
            last_read_at: None,
        };
        poller.work().await
    }

    async fn work(mut self) -> SystemResult<Rest> {
        loop {
            self.start_read();
            let until = self.begin().await?;
            self.run.source.lineage().reached(self.id, self.shard.checkpoint());
            if let Some(rest) = self.rest.filter(|_| self.shard.is_idle()) {
                return Ok(rest);
            }
            tokio::select! {
                Some(happened) = self.happenings.next() => match happened? {
                    PollerEvent::Answered(bounds, invocation) => self.answered(bounds, invocation),
                    PollerEvent::Read(page, context) => self.finish_read(page, context),
                },
                () = self.run.source.clock.until(until) => {}
            }
        }
    }

    /// Starts everything that is due; returns how long there is nothing further to do.
    async fn begin(&mut self) -> SystemResult<Option<Timestamp>> {
        loop {
            match self.shard.next(self.run.source.clock.now()) {
                (_, Step::Wait(until)) => return Ok(until),
                (lane, Step::Discard(discarded)) => self.discard(lane, &discarded).await?,
                (lane, Step::Invoke(records)) => {
                    let (Some(first), Some(last)) = (records.first(), records.last()) else { continue };
                    let (first, last) = (first.sequence.clone(), last.sequence.clone());
                    let bounds = BatchBounds { lane, first, last, records: records.len() };
                    let event = event_of(records.iter().map(|record| &*record.json));
                    let environments = &self.run.source.environments;
                    let invoke = async move { Ok(PollerEvent::Answered(bounds, environments.invoke(event).await)) };
                    self.happenings.push(Box::pin(invoke));
                }
            }
        }
    }

    /// Reads further records, unless a read is in progress or enough records wait.
    fn start_read(&mut self) {
        if self.shard.is_full() {
            return;
        }
        let pause = self.last_read_at.map_or(Duration::ZERO, |at| READ_INTERVAL.saturating_sub(at.elapsed()));
        let Some(iterator) = self.iterator.take() else { return };
        let (run, id) = (self.run, self.id);
        self.happenings.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let is_closed = run.source.lineage().is_closed(id);
            let context = ReadContext { is_closed, is_finishing: run.progress.is_finishing() };
            Ok(PollerEvent::Read(run.stream.page(id, &iterator).await?, context))
        }));
    }

    fn finish_read(&mut self, page: Page, context: ReadContext) {
        let count = page.records.len();
        self.run.progress.add(count);
        self.shard.arrived(page.records, self.run.source.clock.now());
        self.iterator = page.next;
        self.last_read_at = Some(Instant::now());
        self.rest = match (&self.iterator, count) {
            (None, _) => Some(Rest::Ended),
            // moto returns iterators indefinitely, and no empty pages before the end.
            (Some(_), 0) if context.is_closed => Some(Rest::Ended),
            (Some(_), 0) if context.is_finishing => Some(Rest::Drained),
            (Some(_), _) => None,
        };
        if self.rest.is_some() {
            self.iterator = None;
        }
    }

    fn answered(&mut self, bounds: BatchBounds, invocation: Invocation) {
        let BatchBounds { lane, first, last, records } = bounds;
        let Invocation { request_id, began, time, response } = invocation;
        self.shard.answered(lane, &response, self.run.source.clock.now());
        self.requests[lane] = request_id;
        if !matches!(response, Response::Answered(_)) {
            self.run.progress.add_failed();
        }
        let shard = self.id.to_owned();
        self.run.delivered().invocations.push(Invoked { shard, lane, first, last, records, began, time, response });
    }

    async fn discard(&mut self, lane: usize, discarded: &Discarded) -> SystemResult<()> {
        let source = self.run.source;
        let origin = Origin {
            kind: source.kind,
            stream_arn: &source.mapping.event_source_arn,
            shard: self.id,
            function_arn: &source.environments.function_arn(),
            request_id: &self.requests[lane],
        };
        let message = OnFailure::new(discarded, origin, source.clock.now());
        if let Some(queue) = &source.mapping.on_failure {
            let client = aws_sdk_sqs::Client::new(source.aws.config());
            client.send_message().queue_url(queue).message_body(serde_json::to_string(&message)?).send().await?;
        }
        self.run.delivered().discarded.push(message);
        Ok(())
    }
}
