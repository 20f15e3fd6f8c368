//! Long jobs in calls that end in time. The event of an invocation is a task, in JSON; the answer is the same task with its
//! progress, and whoever invoked the function (a state machine, the operator's program) passes the answer on as the next event
//! until the task is done.
//!
//! A call may end at any instruction, and may be repeated. So a position in what is written is committed in the same
//! transaction as the rows, or else repeating what follows it has the same effect as doing it once.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reserved for the unit of work, such as a batch, that is being written when the deadline passes: it is completed.
pub const LAST_UNIT_TIME: Duration = Duration::from_secs(30);

/// Time of one call of a task on a terminal, after which its progress is returned.
const CALL_TIME: Duration = Duration::from_secs(600);

/// When a call stops beginning new units of work.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline after this time from now.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// Whether no new unit of work may begin.
    pub fn has_passed(self) -> bool {
        self.time_left().is_zero()
    }

    /// The time left to begin units of work.
    pub fn time_left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The time left to a unit of work that has begun. Never less than what is reserved for it.
    pub fn unit_time(self) -> Duration {
        self.time_left().max(LAST_UNIT_TIME)
    }
}

/// A job that continues across calls: what to do, and the progress so far.
pub trait Resumable: Serialize + DeserializeOwned {
    /// Whether nothing is left to do.
    fn is_done(&self) -> bool;
}

/// One call of a task with the progress `P`.
pub struct TaskCall<'c, P> {
    /// When it ends.
    pub deadline: Deadline,
    on_progress: &'c (dyn Fn(&P) + Send + Sync),
}

impl<'c, P> TaskCall<'c, P> {
    /// A call whose progress is passed to `on_progress` after each unit of work.
    pub fn watched(deadline: Deadline, on_progress: &'c (dyn Fn(&P) + Send + Sync)) -> Self {
        Self { deadline, on_progress }
    }

    /// A call whose progress is only in its answer.
    pub fn unwatched(deadline: Deadline) -> Self {
        Self { deadline, on_progress: &|_| () }
    }

    /// Reports the progress after a unit of work.
    pub fn report(&self, progress: &P) {
        (self.on_progress)(progress);
    }
}

/// Calls a task until it is done, as a state machine does.
///
/// # Errors
/// Returns the first error of a call.
pub async fn run_until_done<T, E>(mut task: T, mut call: impl AsyncFnMut(T, Deadline) -> Result<T, E>) -> Result<T, E>
where
    T: Resumable,
{
    while !task.is_done() {
        task = call(task, Deadline::after(CALL_TIME)).await?;
    }
    Ok(task)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Countdown {
        left: u32,
    }

    impl Resumable for Countdown {
        fn is_done(&self) -> bool {
            self.left == 0
        }
    }

    #[test]
    fn a_deadline_keeps_the_time_of_a_unit_that_has_begun() {
        let passed = Deadline::after(Duration::ZERO);
        assert!(passed.has_passed());
        assert_eq!(passed.unit_time(), LAST_UNIT_TIME);
        assert!(!Deadline::after(Duration::from_secs(60)).has_passed());
    }

    #[tokio::test]
    async fn a_task_is_called_until_it_is_done() {
        let mut calls = 0;
        let done = run_until_done(Countdown { left: 3 }, async |task: Countdown, _deadline| {
            calls += 1;
            Ok::<_, ()>(Countdown { left: task.left - 1 })
        })
        .await;
        assert_eq!((done.map(|task| task.left), calls), (Ok(0), 3));
    }
}
