//! The clock: the only place that reads it. The pure middle takes the time as a value.

use std::time::SystemTime;

use crate::timestamp::Timestamp;

/// The wall clock, read outside the pure steps only.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
