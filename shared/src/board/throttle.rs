//! Bounds how often an address may try wrong credentials. A token of 128 bits cannot be guessed; this keeps the noise, and with
//! it the cost and the log, small. Valid credentials from the same address have to wait as well, for a minute at most.

use std::collections::HashMap;

use crate::timestamp::Timestamp;

/// So many failures of an address are accepted within [`WINDOW_MICROS`].
const FAILURES_MAX: u32 = 10;

const WINDOW_MICROS: i64 = 60_000_000;

/// So many addresses are remembered. Then the oldest one is forgotten, so that memory is bounded.
const ADDRESSES_MAX: usize = 1_000;

/// The failures of each address.
#[derive(Default, Debug)]
pub struct LoginThrottle {
    failures: HashMap<String, FailureWindow>,
}

#[derive(Clone, Copy, Debug)]
struct FailureWindow {
    since: Timestamp,
    count: u32,
}

impl FailureWindow {
    fn is_over(&self, now: Timestamp) -> bool {
        now.0.saturating_sub(self.since.0) >= WINDOW_MICROS || now < self.since
    }
}

impl LoginThrottle {
    /// Whether credentials from this address are checked.
    pub fn admits(&self, address: &str, now: Timestamp) -> bool {
        self.failures.get(address).is_none_or(|window| window.is_over(now) || window.count < FAILURES_MAX)
    }

    /// Counts a failure.
    pub fn count(&mut self, address: &str, now: Timestamp) {
        self.failures.retain(|_, window| !window.is_over(now));
        if self.failures.len() >= ADDRESSES_MAX && !self.failures.contains_key(address) {
            let oldest =
                self.failures.iter().min_by_key(|(_, window)| window.since).map(|(address, _)| address.clone());
            oldest.and_then(|address| self.failures.remove(&address));
        }
        let window = self.failures.entry(address.to_owned()).or_insert(FailureWindow { since: now, count: 0 });
        window.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_rejected_after_ten_failures_until_the_minute_is_over() {
        let mut throttle = LoginThrottle::default();
        for second in 0..10 {
            assert!(throttle.admits("a", Timestamp(second * 1_000_000)));
            throttle.count("a", Timestamp(second * 1_000_000));
        }
        assert!(!throttle.admits("a", Timestamp(59_000_000)));
        assert!(throttle.admits("b", Timestamp(59_000_000)));
        assert!(throttle.admits("a", Timestamp(60_000_000)));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let mut throttle = LoginThrottle::default();
        for number in 0..5_000 {
            throttle.count(&number.to_string(), Timestamp(number));
        }
        assert_eq!(throttle.failures.len(), ADDRESSES_MAX);
        assert!(throttle.failures.contains_key("4999"));
    }
}
