//! How long to wait before what did not go through is tried again.

use std::time::{Duration, SystemTime};

/// The pause behind an attempt, the first being 1: twice as long each time, at most `most`, and never the same for two
/// functions that collided.
pub fn backoff_delay(attempt: u32, first: Duration, most: Duration) -> Duration {
    let jitter = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let whole = first.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1))).min(most);
    whole / 4 + whole.mul_f64(f64::from(jitter % 1_000) / 1_333.0)
}
