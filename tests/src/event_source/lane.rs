//! One lane of a shard: the records of its keys, one batch at a time, in order. It decides and does nothing: what time it is
//! and what came of an invocation it is told.
//!
//! A batch that fails is handed over again, alone, until it is done or given up; what comes behind it waits.
//! The rules: <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>. What AWS does not say:
//! - The pause between two tries; ours doubles, and a batch that is split or has moved on is tried at once.
//! - Whether moving on starts the count of attempts over; here it does.
//! - What becomes of a record that no payload can hold; here it is given up without a try.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;

use super::mapping::Mapping;
use super::on_failure::{Condition, Discarded};
use super::record::{StreamRecord, fitting};
use super::response::{BatchOutcome, Response, batch_outcome};

/// How long a stream keeps its records: Kinesis by default, DynamoDB always. Nothing older can be handed over.
pub const STREAM_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// The pause after a failed try, doubled each time up to the maximum.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The state of a lane.
#[derive(Debug)]
pub struct Lane {
    mapping: Arc<Mapping>,
    /// Read and in no batch yet.
    waiting: VecDeque<Arc<StreamRecord>>,
    /// The batch under way, and behind it the other parts of what it was split from.
    batches: VecDeque<Batch>,
    /// Given up, and not yet told.
    discarded: VecDeque<Discarded>,
    is_invoked: bool,
    window_opened: Timestamp,
    not_before: Timestamp,
    pauses: u32,
}

/// What a lane wants next.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// The function is to be invoked with these records; the lane waits for [`Lane::answered`].
    Invoke(Vec<Arc<StreamRecord>>),
    /// These records are given up; the on-failure destination is to be told.
    Discard(Discarded),
    /// Nothing, before this moment or before something happens.
    Wait(Option<Timestamp>),
}

#[derive(Debug)]
struct Batch {
    records: Vec<Arc<StreamRecord>>,
    /// Failed tries that count against the mapping's maximum.
    attempts: u32,
    /// All invocations that began with these records.
    invocations: u32,
    /// Whether the last of them failed; nothing where there was none.
    failed: Option<bool>,
}

impl Batch {
    fn new(records: Vec<Arc<StreamRecord>>) -> Self {
        Self { records, attempts: 0, invocations: 0, failed: None }
    }

    /// Takes the first records out, with all that was tried with them.
    fn split(&mut self, at: usize) -> Self {
        let rest = self.records.split_off(at);
        Self { records: std::mem::replace(&mut self.records, rest), ..*self }
    }

    fn discarded(&self, condition: Condition) -> Option<Discarded> {
        let (first, last) = (self.records.first()?, self.records.last()?);
        Some(Discarded {
            condition,
            first: (first.sequence.clone(), first.arrival),
            last: (last.sequence.clone(), last.arrival),
            records: self.records.len(),
            invocations: self.invocations,
            failed: self.failed,
        })
    }
}

impl Lane {
    /// A lane with nothing in it; its first batching window opens now.
    pub fn new(mapping: Arc<Mapping>, now: Timestamp) -> Self {
        Self {
            mapping,
            waiting: VecDeque::new(),
            batches: VecDeque::new(),
            discarded: VecDeque::new(),
            is_invoked: false,
            window_opened: now,
            not_before: now,
            pauses: 0,
        }
    }

    /// Takes a record of the lane's in.
    pub fn arrived(&mut self, record: Arc<StreamRecord>, now: Timestamp) {
        if self.is_idle() {
            self.reopen_window(now);
        }
        self.waiting.push_back(record);
    }

    /// Whether there is nothing left to do.
    pub fn is_idle(&self) -> bool {
        self.unfinished().is_none()
    }

    /// Records read and in no batch yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The first record that is neither done nor given up.
    pub fn unfinished(&self) -> Option<&SequenceNumber> {
        let discarded = self.discarded.front().map(|discarded| &discarded.first.0);
        let tried = || self.batches.front().and_then(|batch| Some(&batch.records.first()?.sequence));
        discarded.or_else(tried).or_else(|| Some(&self.waiting.front()?.sequence))
    }

    /// What is to be done now.
    pub fn next(&mut self, now: Timestamp) -> Step {
        if self.is_invoked {
            return Step::Wait(None);
        }
        if let Some(discarded) = self.discarded.pop_front() {
            return Step::Discard(discarded);
        }
        if self.batches.is_empty()
            && let Err(until) = self.gather(now)
        {
            return Step::Wait(until);
        }
        if let Some(discarded) = self.expire(now).or_else(|| self.too_large()) {
            return Step::Discard(discarded);
        }
        let Some(batch) = self.batches.front() else { return Step::Wait(None) };
        if now < self.not_before {
            return Step::Wait(Some(self.not_before));
        }
        self.is_invoked = true;
        Step::Invoke(batch.records.clone())
    }

    /// Takes in what came of the invocation.
    pub fn answered(&mut self, response: &Response, now: Timestamp) {
        self.is_invoked = false;
        self.window_opened = now;
        let Some(mut batch) = self.batches.pop_front() else { return };
        let batch_outcome = match response {
            Response::NotInvoked(_) => {
                self.batches.push_front(batch);
                return self.pause(now);
            }
            Response::Answered(answer) if self.mapping.report_batch_item_failures => {
                batch_outcome(&batch.records, answer)
            }
            Response::Answered(_) => BatchOutcome::Success,
            Response::Failed(_) => BatchOutcome::Failure,
        };
        batch.invocations += 1;
        batch.failed = Some(matches!(response, Response::Failed(_)));
        match batch_outcome {
            BatchOutcome::Success => self.pauses = 0,
            BatchOutcome::From(first @ 1..) => {
                self.batches.push_front(Batch::new(batch.records.split_off(first)));
                self.pauses = 0;
            }
            BatchOutcome::Failure | BatchOutcome::From(_) if batch.failed == Some(true) && self.can_bisect(&batch) => {
                let first = batch.split(batch.records.len() / 2);
                self.batches.push_front(batch);
                self.batches.push_front(first);
            }
            BatchOutcome::Failure | BatchOutcome::From(_) => self.attempted(batch, now),
        }
    }

    fn can_bisect(&self, batch: &Batch) -> bool {
        self.mapping.bisect_batch_on_function_error && batch.records.len() > 1
    }

    /// A try that counts has failed: the batch is given up, or tried again after a pause.
    fn attempted(&mut self, mut batch: Batch, now: Timestamp) {
        if self.mapping.maximum_retry_attempts.is_some_and(|maximum| batch.attempts >= maximum) {
            self.discarded.extend(batch.discarded(Condition::RetryAttemptsExhausted));
            self.pauses = 0;
            return;
        }
        batch.attempts += 1;
        self.batches.push_front(batch);
        self.pause(now);
    }

    fn pause(&mut self, now: Timestamp) {
        let pause = RETRY_PAUSE.saturating_mul(1 << self.pauses).min(RETRY_PAUSE_MAX);
        self.not_before = now.saturating_add(micros(pause));
        self.pauses = (self.pauses + 1).min(10);
    }

    /// Makes the next batch of what waits, once it is full or its window is over; else says until when to wait.
    fn gather(&mut self, now: Timestamp) -> Result<(), Option<Timestamp>> {
        if self.waiting.is_empty() {
            return Err(None);
        }
        let count = fitting(&self.waiting, self.mapping.batch_size);
        let is_full = count == self.mapping.batch_size || count < self.waiting.len();
        let window_closes = self.window_opened.saturating_add(micros(self.mapping.maximum_batching_window));
        if !is_full && now < window_closes {
            return Err(Some(window_closes));
        }
        // One that does not fit makes a batch of its own, to be given up.
        self.batches.push_back(Batch::new(self.waiting.drain(..count.max(1)).collect()));
        Ok(())
    }

    /// A window that ends without a record is followed by another one.
    fn reopen_window(&mut self, now: Timestamp) {
        let window = micros(self.mapping.maximum_batching_window);
        if window > 0 {
            let passed = (now.0 - self.window_opened.0) / window;
            self.window_opened = self.window_opened.saturating_add(passed * window);
        }
    }

    /// Takes the records that are too old from the beginning of the batch.
    fn expire(&mut self, now: Timestamp) -> Option<Discarded> {
        let age = self.mapping.maximum_record_age.unwrap_or(STREAM_RETENTION).min(STREAM_RETENTION);
        let oldest = now.saturating_add(-micros(age));
        let batch = self.batches.front_mut()?;
        let expired = batch.records.iter().take_while(|record| record.arrival < oldest).count();
        let expired = batch.split(expired);
        if batch.records.is_empty() {
            self.batches.pop_front();
            (self.pauses, self.not_before) = (0, now);
        }
        expired.discarded(Condition::RecordAgeExceeded)
    }

    /// Takes the batch where not even its first record fits an invocation.
    fn too_large(&mut self) -> Option<Discarded> {
        let batch = self.batches.pop_front_if(|batch| fitting(&batch.records, 1) == 0)?;
        batch.discarded(Condition::RetryAttemptsExhausted)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
