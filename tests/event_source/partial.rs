//! Partial batch responses: `ReportBatchItemFailures`.

use millstream_tests::event_source::Mapping;
use millstream_tests::event_source::response::Response;

use super::{Script, defaults, failure, records, success};

fn reporting(maximum: u32) -> Mapping {
    Mapping { report_batch_item_failures: true, maximum_retry_attempts: Some(maximum), ..defaults() }
}

/// A response that names these records.
fn failed(numbers: &[u64]) -> Response {
    let items = records(numbers.iter().copied());
    let items: Vec<_> = items.iter().map(|record| format!(r#"{{"itemIdentifier":"{}"}}"#, record.sequence.0)).collect();
    Response::Answered(format!(r#"{{"batchItemFailures":[{}]}}"#, items.join(",")).into())
}

#[test]
fn the_lowest_number_is_the_checkpoint_and_everything_from_it_comes_again() {
    let mut first = true;
    let script = Script::play(reporting(0), records(1..=6), |_| {
        if std::mem::take(&mut first) { failed(&[5, 3]) } else { success() }
    });
    let expected: [&[u64]; 2] = [&[1, 2, 3, 4, 5, 6], &[3, 4, 5, 6]];
    assert_eq!(script.batches(), expected);
    assert!(script.discarded.is_empty());
}

#[test]
fn progress_starts_the_count_over_and_none_counts() {
    let script = Script::play(reporting(2), records(1..=4), |batch| match batch {
        [1, ..] => failed(&[2]),
        [2, ..] => failed(&[2]),
        _ => success(),
    });
    let rest: &[u64] = &[2, 3, 4];
    assert_eq!(script.batches(), [&[1, 2, 3, 4], rest, rest, rest]);
    assert_eq!(script.given_up(), [(2, 4)]);
    // The function responded, so there is no function error to report.
    assert_eq!((script.discarded[0].invocations, script.discarded[0].failed), (3, Some(false)));
}

#[test]
fn a_partial_answer_is_not_bisected_and_an_error_is() {
    let both = Mapping { bisect_batch_on_function_error: true, ..reporting(1) };
    let mut tries = 0;
    let script = Script::play(both, records(1..=5), |_| {
        tries += 1;
        match tries {
            1 => failed(&[2]),
            2 => failure(),
            _ => success(),
        }
    });
    let expected: [&[u64]; 4] = [&[1, 2, 3, 4, 5], &[2, 3, 4, 5], &[2, 3], &[4, 5]];
    assert_eq!(script.batches(), expected);
}

/// The response of the first of two attempts, and whether it completes the batch.
const ANSWERS: &[(&str, bool)] = &[
    ("", true),
    ("null", true),
    ("{}", true),
    (r#"{"batchItemFailures":[]}"#, true),
    (r#"{"batchItemFailures":null}"#, true),
    (r#"{"somethingElse":1}"#, true),
    (r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#, false),
    (r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#, false),
    (r#"{"batchItemFailures":[{"itemIdentifer":"4959033827149025660855969253836157109592157598000000002"}]}"#, false),
    (r#"{"batchItemFailures":[{"itemIdentifier":"17"}]}"#, false),
    (r#"{"batchItemFailures":[{}]}"#, false),
    (r#"{"batchItemFailures":17}"#, false),
    ("no JSON", false),
];

#[test]
fn no_failures_are_success_and_what_names_no_record_is_failure_of_the_whole_batch() {
    for (answer, is_success) in ANSWERS {
        let mut first = true;
        let script = Script::play(reporting(5), records(1..=3), |_| {
            if std::mem::take(&mut first) { Response::Answered((*answer).into()) } else { success() }
        });
        let expected = if *is_success { 1 } else { 2 };
        assert_eq!(script.batches(), vec![&[1, 2, 3]; expected], "{answer}");
    }
}

#[test]
fn one_number_that_is_not_of_the_batch_fails_all_of_it() {
    let mut first = true;
    let script = Script::play(reporting(5), records(1..=3), |_| {
        if std::mem::take(&mut first) { failed(&[2, 17]) } else { success() }
    });
    assert_eq!(script.batches(), [[1, 2, 3]; 2]);
}

#[test]
fn answers_are_ignored_unless_they_are_asked_for() {
    let script = Script::play(defaults(), records(1..=3), |_| failed(&[1]));
    assert_eq!(script.batches(), [[1, 2, 3]]);
    assert!(script.shard.is_idle() && script.discarded.is_empty());
}
