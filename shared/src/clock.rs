//! The wall clock, as a [`Timestamp`]. The pure steps take the time as a value and never read a clock.

use std::time::SystemTime;

use crate::timestamp::Timestamp;

/// The current time.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}
