//! One lane of a shard: the records of its keys, one batch at a time, in order. It is pure: it receives the time and the
//! outcomes of invocations, and decides what comes next.
//!
//! A batch that fails is delivered again, alone, until it is done or discarded; the records after it wait.
//! The rules: <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>. What AWS does not say:
//! - The delay between two attempts; here it doubles, and a batch that is split or has advanced is retried at once.
//! - Whether an advance resets the number of attempts; here it does.
//! - What happens to a record that is too large for any payload; here it is discarded without an attempt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;

use super::mapping::Mapping;
use super::on_failure::{Condition, Discarded};
use super::record::{StreamRecord, fitting};
use super::response::{BatchOutcome, Response, batch_outcome};

/// How long a stream keeps its records: Kinesis by default, DynamoDB always. Older records cannot be delivered.
pub const STREAM_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// The delay after a failed attempt, doubled each time up to the maximum.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The state of a lane.
#[derive(Debug)]
pub struct Lane {
    mapping: Arc<Mapping>,
    /// Records read and not yet in a batch.
    waiting: VecDeque<Arc<StreamRecord>>,
    /// The current batch, followed by the other parts of the batch it was split from.
    batches: VecDeque<Batch>,
    /// Discarded and not yet reported.
    discarded: VecDeque<Discarded>,
    is_invoked: bool,
    window_opened: Timestamp,
    not_before: Timestamp,
    pauses: u32,
}

/// A lane's next step.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Invoke the function with these records; the lane waits for [`Lane::answered`].
    Invoke(Vec<Arc<StreamRecord>>),
    /// These records are discarded; report them to the on-failure destination.
    Discard(Discarded),
    /// Nothing until this time or the next event.
    Wait(Option<Timestamp>),
}

#[derive(Debug)]
struct Batch {
    records: Vec<Arc<StreamRecord>>,
    /// Failed attempts that count against the mapping's maximum.
    attempts: u32,
    /// All invocations that started with these records.
    invocations: u32,
    /// Whether the last of them failed; `None` if there was none.
    failed: Option<bool>,
}

impl Batch {
    fn new(records: Vec<Arc<StreamRecord>>) -> Self {
        Self { records, attempts: 0, invocations: 0, failed: None }
    }

    /// Removes the first records, with their attempts.
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
    /// Creates an empty lane; its first batching window opens now.
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

    /// Adds a record to the lane.
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

    /// The number of records read and not yet in a batch.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The first record that is neither done nor discarded.
    pub fn unfinished(&self) -> Option<&SequenceNumber> {
        let discarded = self.discarded.front().map(|discarded| &discarded.first.0);
        let tried = || self.batches.front().and_then(|batch| Some(&batch.records.first()?.sequence));
        discarded.or_else(tried).or_else(|| Some(&self.waiting.front()?.sequence))
    }

    /// The lane's next step.
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

    /// Processes the outcome of the invocation.
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

    /// Processes a failed attempt that counts: the batch is discarded, or retried after a delay.
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

    /// Forms the next batch once it is full or its window has ended; otherwise returns how long to wait.
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
        // A record that does not fit becomes a batch of its own, which is discarded.
        self.batches.push_back(Batch::new(self.waiting.drain(..count.max(1)).collect()));
        Ok(())
    }

    /// Opens another window if one ended without a record.
    fn reopen_window(&mut self, now: Timestamp) {
        let window = micros(self.mapping.maximum_batching_window);
        if window > 0 {
            let passed = (now.0 - self.window_opened.0) / window;
            self.window_opened = self.window_opened.saturating_add(passed * window);
        }
    }

    /// Removes the records that are too old from the start of the batch.
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

    /// Removes the batch if not even its first record fits in an invocation.
    fn too_large(&mut self) -> Option<Discarded> {
        let batch = self.batches.pop_front_if(|batch| fitting(&batch.records, 1) == 0)?;
        batch.discarded(Condition::RetryAttemptsExhausted)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
