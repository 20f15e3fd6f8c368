//! The local event source behaves like Lambda's event source mapping: each rule by itself, with a scripted function and
//! clock, and all of them with the real programs.

mod batches;
mod end_to_end;
mod failures;
mod mapping;
mod on_failure;
mod order;
mod partial;

use std::sync::Arc;
use std::time::Duration;

use millstream::timestamp::Timestamp;
use millstream_tests::event_source::lane::Step;
use millstream_tests::event_source::on_failure::Discarded;
use millstream_tests::event_source::response::Response;
use millstream_tests::event_source::shard::Shard;
use millstream_tests::event_source::{Mapping, StreamRecord};
use millstream_tests::function::FunctionError;
use millstream_tests::kinesis::{ShardRecord, arn, stream_record};

/// The start time of the scripts.
const START: Timestamp = Timestamp(1_770_593_400_000_000);
/// How long a scripted invocation takes.
const INVOCATION: Duration = Duration::from_millis(10);

/// A mapping with Lambda's defaults.
fn defaults() -> Mapping {
    Mapping::new(arn("s"))
}

/// The time this long after the start.
fn after(time: Duration) -> Timestamp {
    START.saturating_add(i64::try_from(time.as_micros()).unwrap())
}

/// Records that arrive at the start, all with the same key.
fn records(numbers: impl IntoIterator<Item = u64>) -> Vec<StreamRecord> {
    numbers.into_iter().map(|number| record(number, START, "key")).collect()
}

fn record(number: u64, arrival: Timestamp, key: &str) -> StreamRecord {
    let record = stream_record("s", "shardId-000000000000", &ShardRecord::numbered(number, "data"));
    StreamRecord { arrival, key: key.to_owned(), ..record }
}

/// The numbers of the records.
fn numbers<'a>(records: impl IntoIterator<Item = &'a Arc<StreamRecord>>) -> Vec<u64> {
    records.into_iter().map(|record| number(&record.sequence.0)).collect()
}

fn number(sequence: &str) -> u64 {
    sequence[sequence.len() - 10..].parse().unwrap()
}

fn success() -> Response {
    Response::Answered("null".into())
}

fn failure() -> Response {
    Response::Failed(FunctionError::Handled("poison".to_owned()))
}

fn throttled() -> Response {
    Response::NotInvoked("Rate Exceeded.".to_owned())
}

/// A scripted shard: the clock advances by itself.
struct Script {
    shard: Shard,
    now: Timestamp,
    /// The batches that the function received, and when.
    handed: Vec<(Duration, Vec<u64>)>,
    discarded: Vec<Discarded>,
}

impl Script {
    fn new(mapping: Mapping) -> Self {
        Self { shard: Shard::new(&Arc::new(mapping), START), now: START, handed: Vec::new(), discarded: Vec::new() }
    }

    /// Delivers the records, one invocation at a time; `function` determines the response to each.
    fn play(mapping: Mapping, records: Vec<StreamRecord>, function: impl FnMut(&[u64]) -> Response) -> Self {
        let mut script = Self::new(mapping);
        script.shard.arrived(records, START);
        script.run(function);
        script
    }

    /// Continues until there is nothing left to wait for.
    fn run(&mut self, mut function: impl FnMut(&[u64]) -> Response) {
        loop {
            match self.shard.next(self.now) {
                (_, Step::Wait(None)) => return,
                (_, Step::Wait(Some(until))) => self.now = until,
                (_, Step::Discard(discarded)) => self.discarded.push(discarded),
                (lane, Step::Invoke(records)) => {
                    let records = numbers(&records);
                    let response = function(&records);
                    self.handed.push((self.passed(), records));
                    self.now = after(self.passed() + INVOCATION);
                    self.shard.answered(lane, &response, self.now);
                }
            }
        }
    }

    fn passed(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.now.0 - START.0).unwrap())
    }

    /// The batches that the function received.
    fn batches(&self) -> Vec<&[u64]> {
        self.handed.iter().map(|(_, batch)| &**batch).collect()
    }

    /// The ranges that were discarded.
    fn given_up(&self) -> Vec<(u64, u64)> {
        self.discarded.iter().map(|range| (number(&range.first.0.0), number(&range.last.0.0))).collect()
    }
}
