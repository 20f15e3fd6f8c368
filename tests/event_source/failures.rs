//! Failures: retries, throttles, bisection, expiry.

use std::time::Duration;

use millstream_tests::event_source::Mapping;
use millstream_tests::event_source::lane::STREAM_RETENTION;
use millstream_tests::event_source::on_failure::Condition;

use super::{START, Script, after, defaults, failure, record, records, success, throttled};

const MINUTE: Duration = Duration::from_secs(60);

fn retries(maximum: u32) -> Mapping {
    Mapping { batch_size: 4, maximum_retry_attempts: Some(maximum), ..defaults() }
}

#[test]
fn a_failed_batch_is_retried_whole_and_blocks_the_shard_until_it_is_done() {
    let mut failures = 3;
    let script = Script::play(retries(10), records(1..=6), |_| {
        failures -= 1;
        if failures >= 0 { failure() } else { success() }
    });
    let whole: &[u64] = &[1, 2, 3, 4];
    assert_eq!(script.batches(), [whole, whole, whole, whole, &[5, 6]]);
    assert!(script.discarded.is_empty());
}

#[test]
fn the_pause_between_two_tries_grows_up_to_two_seconds() {
    let script = Script::play(retries(7), records([1]), |_| failure());
    let pauses: Vec<u128> =
        script.handed.windows(2).map(|pair| (pair[1].0 - pair[0].0 - super::INVOCATION).as_millis()).collect();
    assert_eq!(pauses, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
}

#[test]
fn after_maximum_retry_attempts_the_batch_is_given_up_and_the_stream_goes_on() {
    for maximum in [0, 2] {
        let script =
            Script::play(retries(maximum), records(1..=6), |batch| if batch[0] == 1 { failure() } else { success() });
        assert_eq!(script.handed.len(), maximum as usize + 2);
        assert_eq!(script.given_up(), [(1, 4)]);
        let given_up = &script.discarded[0];
        assert_eq!(given_up.condition, Condition::RetryAttemptsExhausted);
        assert_eq!((given_up.invocations, given_up.records, given_up.failed), (maximum + 1, 4, Some(true)));
        assert_eq!(script.batches().last(), Some(&&[5, 6][..]));
    }
}

#[test]
fn a_throttled_invocation_is_no_attempt() {
    let mut throttles = 50;
    let script = Script::play(retries(0), records([1]), |_| {
        throttles -= 1;
        if throttles >= 0 { throttled() } else { success() }
    });
    assert_eq!(script.handed.len(), 51);
    assert!(script.discarded.is_empty());
}

#[test]
fn what_is_always_throttled_is_given_up_by_age_without_an_invocation() {
    let mapping = Mapping { maximum_record_age: Some(MINUTE), ..retries(0) };
    let script = Script::play(mapping, records([1, 2]), |_| throttled());
    assert_eq!(script.given_up(), [(1, 2)]);
    let given_up = &script.discarded[0];
    assert_eq!((given_up.condition, given_up.invocations), (Condition::RecordAgeExceeded, 0));
    assert_eq!(given_up.failed, None);
}

#[test]
fn bisection_finds_the_poison_and_consumes_no_retries() {
    let bisect = Mapping { batch_size: 8, bisect_batch_on_function_error: true, ..retries(2) };
    let script = Script::play(bisect, records(1..=9), |batch| if batch.contains(&6) { failure() } else { success() });
    let expected: [&[u64]; 9] =
        [&[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 3, 4], &[5, 6, 7, 8], &[5, 6], &[5], &[6], &[6], &[6], &[7, 8]];
    assert_eq!(script.batches()[..9], expected);
    assert_eq!(script.batches()[9..], [&[9]]);
    assert_eq!(script.given_up(), [(6, 6)]);
    // Three invocations with others, and three alone.
    assert_eq!(script.discarded[0].invocations, 6);
}

#[test]
fn without_bisection_good_records_are_discarded_with_the_bad_one() {
    let script =
        Script::play(retries(1), records(1..=4), |batch| if batch.contains(&3) { failure() } else { success() });
    assert_eq!(script.given_up(), [(1, 4)]);
}

#[test]
fn a_record_older_than_the_maximum_is_not_delivered() {
    let mapping = Mapping { maximum_record_age: Some(MINUTE), ..defaults() };
    let mut script = Script::new(mapping);
    script.now = after(MINUTE);
    let late = after(Duration::from_micros(1));
    // Exactly a minute is not more than a minute.
    script.shard.arrived(
        [record(1, START.saturating_add(-1), "key"), record(2, START, "key"), record(3, late, "key")],
        script.now,
    );
    script.run(|_| success());
    assert_eq!(script.given_up(), [(1, 1)]);
    assert_eq!(script.discarded[0].condition, Condition::RecordAgeExceeded);
    assert_eq!(script.batches(), [[2, 3]]);
}

#[test]
fn what_fails_is_retried_until_it_is_too_old_and_younger_neighbours_go_on() {
    let mapping = Mapping { maximum_record_age: Some(MINUTE), ..defaults() };
    let younger = after(Duration::from_secs(30));
    let batch = vec![record(1, START, "key"), record(2, START, "key"), record(3, younger, "key")];
    let script = Script::play(mapping, batch, |batch| if batch.contains(&1) { failure() } else { success() });
    assert_eq!(script.given_up(), [(1, 2)]);
    let given_up = &script.discarded[0];
    assert_eq!((given_up.condition, given_up.failed), (Condition::RecordAgeExceeded, Some(true)));
    assert_eq!(given_up.invocations as usize, script.handed.len() - 1);
    let (last, batch) = script.handed.last().unwrap();
    assert_eq!(batch, &[3]);
    assert!(*last > MINUTE && *last < MINUTE + Duration::from_secs(3), "{last:?}");
}

#[test]
fn by_default_a_poison_record_blocks_the_shard_as_long_as_the_stream_keeps_it() {
    let script = Script::play(defaults(), records([1]), |_| failure());
    assert_eq!(script.given_up(), [(1, 1)]);
    assert!(script.passed() > STREAM_RETENTION);
    assert!(script.handed.len() > 40_000);
}
