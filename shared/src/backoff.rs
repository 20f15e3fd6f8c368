//! How long to wait before a retry.

use std::time::{Duration, SystemTime};

/// The delay after an attempt, which are numbered from 1. It doubles with each attempt, up to `max`; jitter then
/// reduces it to between a quarter and all of that, so that functions that collided do not collide again.
pub fn backoff_delay(attempt: u32, first: Duration, max: Duration) -> Duration {
    let jitter = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let full_delay = first.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1))).min(max);
    full_delay / 4 + full_delay.mul_f64(f64::from(jitter % 1_000) / 1_333.0)
}
