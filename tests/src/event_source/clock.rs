//! The event source's clock: the wall clock, which a test may advance instead of waiting.

use std::time::Duration;

use millstream::clock;
use millstream::timestamp::Timestamp;
use tokio::sync::watch;

/// A clock; its copies share the time.
#[derive(Clone, Debug)]
pub struct Clock(watch::Sender<i64>);

impl Default for Clock {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Clock {
    /// The current time.
    pub fn now(&self) -> Timestamp {
        clock::now().saturating_add(*self.0.borrow())
    }

    /// Advances the clock and wakes the waiters whose time has come.
    pub fn advance(&self, time: Duration) {
        self.0.send_modify(|ahead| *ahead += i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
    }

    /// Waits until this time; forever if it is `None`.
    pub async fn until(&self, moment: Option<Timestamp>) {
        let Some(moment) = moment else { return std::future::pending().await };
        let mut advanced = self.0.subscribe();
        loop {
            let left = Duration::from_micros(u64::try_from(moment.0 - self.now().0).unwrap_or(0));
            if left.is_zero() {
                return;
            }
            // The loop checks whether the time has come or the clock was advanced.
            tokio::time::timeout(left, advanced.changed()).await.map(drop).unwrap_or_default();
        }
    }
}
