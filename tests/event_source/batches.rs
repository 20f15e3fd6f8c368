//! Batches: by `BatchSize`, by `MaximumBatchingWindowInSeconds`, and by the six megabytes of a payload.

use std::time::Duration;

use millstream_tests::event_source::event_of;
use millstream_tests::event_source::lane::Step;
use millstream_tests::event_source::record::PAYLOAD_BYTES_MAX;
use millstream_tests::event_source::{Mapping, StreamRecord};

use super::{INVOCATION, Script, after, defaults, record, records, success};

#[test]
fn a_batch_has_at_most_batch_size_records_one_after_the_other() {
    let script = Script::play(defaults(), records(1..=250), |_| success());
    let expected: Vec<Vec<u64>> = vec![(1..=100).collect(), (101..=200).collect(), (201..=250).collect()];
    assert_eq!(script.batches(), expected);
    assert!(script.shard.is_idle());
}

#[test]
fn without_a_window_records_are_delivered_at_once() {
    let script = Script::play(defaults(), records([1]), |_| success());
    assert_eq!(script.handed, [(Duration::ZERO, vec![1])]);
}

const WINDOW: Duration = Duration::from_secs(20);

fn windowed() -> Mapping {
    Mapping { batch_size: 3, maximum_batching_window: WINDOW, ..defaults() }
}

#[test]
fn the_window_gathers_until_it_is_over_or_the_batch_is_full() {
    let mut script = Script::new(windowed());
    script.shard.arrived(records([1, 2]), after(Duration::from_secs(5)));
    script.run(|_| success());
    // The next window begins when the invocation ends.
    let second = WINDOW + INVOCATION;
    script.shard.arrived(records([3]), after(second + Duration::from_secs(1)));
    script.run(|_| success());
    // A full batch waits for no window.
    script.shard.arrived(records([4, 5, 6, 7]), script.now);
    let full = script.passed();
    script.run(|_| success());
    assert_eq!(script.handed[0], (WINDOW, vec![1, 2]));
    assert_eq!(script.handed[1], (second + WINDOW, vec![3]));
    assert_eq!(script.handed[2], (full, vec![4, 5, 6]));
    assert_eq!(script.handed[3], (full + INVOCATION + WINDOW, vec![7]));
}

#[test]
fn a_window_that_ends_empty_is_followed_by_another() {
    let mut script = Script::new(windowed());
    script.now = after(WINDOW * 2 + Duration::from_secs(15));
    script.shard.arrived(records([1]), script.now);
    script.run(|_| success());
    assert_eq!(script.handed, [(WINDOW * 3, vec![1])]);
}

/// A record whose JSON has this many bytes.
fn of_size(number: u64, bytes: usize) -> StreamRecord {
    StreamRecord { json: "x".repeat(bytes), ..record(number, super::START, "key") }
}

#[test]
fn a_batch_is_cut_at_six_megabytes_of_payload() {
    // A record of 1 MiB is 1,398,650 bytes in the event: four fit.
    let mut script = Script::new(defaults());
    script.shard.arrived((1..=10).map(|number| of_size(number, 1_398_650)), super::START);
    let (_, Step::Invoke(batch)) = script.shard.next(super::START) else { panic!("nothing to invoke") };
    let event = event_of(batch.iter().map(|record| &*record.json));
    assert_eq!(batch.len(), 4);
    assert!(event.len() <= PAYLOAD_BYTES_MAX && event.len() + 1_398_650 > PAYLOAD_BYTES_MAX);
}

#[test]
fn the_six_megabytes_count_to_the_byte() {
    let around = event_of(["", ""]).len();
    let whole = PAYLOAD_BYTES_MAX - around;
    for (second, expected) in [(whole / 2, vec![vec![1, 2]]), (whole / 2 + 1, vec![vec![1], vec![2]])] {
        let pair = vec![of_size(1, whole - whole / 2), of_size(2, second)];
        let script = Script::play(defaults(), pair, |_| success());
        assert_eq!(script.batches(), expected);
    }
}

#[test]
fn a_batch_that_the_payload_cuts_waits_for_no_window() {
    let many = (1..=5).map(|number| of_size(number, 1_398_650)).collect();
    let script = Script::play(Mapping { batch_size: 100, ..windowed() }, many, |_| success());
    assert_eq!(script.handed[0], (Duration::ZERO, vec![1, 2, 3, 4]));
    assert_eq!(script.handed[1], (INVOCATION + WINDOW, vec![5]));
}

#[test]
fn a_record_too_large_for_any_payload_is_given_up_and_the_stream_goes_on() {
    let with_giant = vec![of_size(1, 100), of_size(2, PAYLOAD_BYTES_MAX), of_size(3, 100)];
    let script = Script::play(defaults(), with_giant, |_| success());
    assert_eq!(script.batches(), [[1], [3]]);
    assert_eq!(script.given_up(), [(2, 2)]);
    assert_eq!((script.discarded[0].invocations, script.discarded[0].failed), (0, None));
}
