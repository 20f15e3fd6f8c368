//! Order: of a shard, of a key with a parallelization factor, and of parent and child shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream_tests::dynamodb;
use millstream_tests::event_source::lane::Step;
use millstream_tests::event_source::lineage::{Lineage, ListedShard, Position};
use millstream_tests::event_source::shard::{Checkpoint, Shard};
use millstream_tests::event_source::{Mapping, StartingPosition, StreamRecord};
use millstream_tests::random::Random;
use serde_json::json;

use super::{START, after, defaults, failure, number, record, success};

/// Delivers a shard whose invocations end in any order and sometimes fail; returns what was done and the maximum of concurrent batches.
fn play(factor: usize, seed: u64) -> (Vec<(String, u64)>, usize) {
    const RECORDS: u64 = 400;
    let mapping =
        Mapping { batch_size: 7, parallelization_factor: factor, bisect_batch_on_function_error: true, ..defaults() };
    let mut random = Random::new(seed);
    let mut shard = Shard::new(&Arc::new(mapping), START);
    let (mut now, mut done, mut most) = (START, Vec::new(), 0);
    let mut under_way: Vec<(usize, Vec<Arc<StreamRecord>>)> = Vec::new();
    shard.arrived((1..=RECORDS).map(|number| record(number, START, &format!("key{}", number * number % 23))), now);
    loop {
        match shard.next(now) {
            (_, Step::Discard(discarded)) => panic!("{discarded:?}"),
            (lane, Step::Invoke(batch)) => under_way.push((lane, batch)),
            (_, Step::Wait(until)) if under_way.is_empty() => {
                let Some(until) = until else { break };
                now = until;
            }
            (_, Step::Wait(_)) => {
                let keys: Vec<BTreeSet<&str>> =
                    under_way.iter().map(|(_, batch)| batch.iter().map(|r| &*r.key).collect()).collect();
                let union: BTreeSet<&str> = keys.iter().flatten().copied().collect();
                assert_eq!(
                    union.len(),
                    keys.iter().map(BTreeSet::len).sum::<usize>(),
                    "a key is in two batches at once"
                );
                most = most.max(under_way.len());
                assert_checkpoint(&shard, &done);
                let (lane, batch) = under_way.swap_remove(random.below(under_way.len() as u64) as usize);
                now = now.saturating_add(1_000);
                let response = if random.per_mille(200) { failure() } else { success() };
                if matches!(response, millstream_tests::event_source::response::Response::Answered(_)) {
                    done.extend(batch.iter().map(|record| (record.key.clone(), number(&record.sequence.0))));
                }
                shard.answered(lane, &response, now);
            }
        }
    }
    assert_eq!(done.len() as u64, RECORDS);
    assert!(matches!(shard.checkpoint(), Some(Checkpoint::After(last)) if number(&last.0) == RECORDS));
    (done, most)
}

/// The checkpoint is the end of the records done without a gap, regardless of later ones that are done.
fn assert_checkpoint(shard: &Shard, done: &[(String, u64)]) {
    let done: BTreeSet<u64> = done.iter().map(|(_, number)| *number).collect();
    let first_not_done = (1..).find(|number| !done.contains(number)).unwrap();
    let Some(Checkpoint::At(at)) = shard.checkpoint() else { panic!("{:?}", shard.checkpoint()) };
    assert_eq!(number(&at.0), first_not_done);
}

#[test]
fn with_a_factor_each_key_keeps_its_order_and_is_in_one_batch_at_a_time() {
    for seed in 0..20 {
        let (done, most) = play(4, seed);
        assert_eq!(most, 4);
        let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (key, number) in done {
            by_key.entry(key).or_default().push(number);
        }
        assert!(by_key.values().all(|numbers| numbers.is_sorted()), "{by_key:?}");
    }
}

#[test]
fn without_a_factor_a_shard_has_one_batch_at_a_time_in_its_own_order() {
    let (done, most) = play(1, 7);
    assert_eq!(most, 1);
    assert!(done.iter().map(|(_, number)| number).is_sorted());
}

#[test]
fn a_shard_reads_no_further_ahead_than_its_lanes_can_take() {
    let mapping = Mapping { batch_size: 10, parallelization_factor: 2, ..defaults() };
    let mut shard = Shard::new(&Arc::new(mapping), START);
    shard.arrived((1..=19).map(|number| record(number, START, "key")), START);
    assert!(!shard.is_full());
    shard.arrived([record(20, START, "key")], START);
    assert!(shard.is_full());
    let (lane, Step::Invoke(_)) = shard.next(START) else { panic!("a whole batch waits") };
    assert!(!shard.is_full());
    shard.answered(lane, &success(), after(Duration::from_millis(1)));
    assert_eq!(shard.checkpoint().map(|at| matches!(at, Checkpoint::At(at) if number(&at.0) == 11)), Some(true));
}

#[test]
fn of_dynamodb_the_key_is_the_item_s_and_not_its_partition_key_alone() {
    let key = |order: u64| {
        let mut record = json!({"eventName": "INSERT", "dynamodb": {"SequenceNumber": "1", "ApproximateCreationDateTime": 1480642020.75,
            "Keys": {"customerId": {"S": "c1"}, "orderNo": {"N": order.to_string()}}}});
        dynamodb::stream_record("arn", &mut record).key
    };
    assert_eq!(key(1), key(1));
    assert_ne!(key(1), key(2));
}

fn shard(id: &str, parents: &[&str], closed: &[&str]) -> ListedShard {
    ListedShard {
        id: id.to_owned(),
        parents: parents.iter().map(|&id| id.to_owned()).collect(),
        is_closed: closed.contains(&id),
    }
}

/// `a` is split into `b` and `c`, `c` and `d` are merged into `e`.
fn resharded() -> Vec<ListedShard> {
    let closed = ["a", "c", "d"];
    [("a", &[][..]), ("b", &["a"]), ("c", &["a"]), ("d", &[]), ("e", &["c", "d"])]
        .map(|(id, parents)| shard(id, parents, &closed))
        .into()
}

fn ready(lineage: &Lineage) -> String {
    lineage.ready().collect()
}

#[test]
fn a_child_is_read_once_all_its_parents_are_done() {
    let mut lineage = Lineage::new(StartingPosition::TrimHorizon);
    lineage.listed(resharded());
    for (ended, expected) in [("", "ad"), ("a", "bcd"), ("c", "bd"), ("d", "be"), ("b", "e")] {
        lineage.ended(ended);
        assert_eq!(ready(&lineage), expected, "after {ended}");
    }
}

#[test]
fn an_unlisted_parent_does_not_block_its_children() {
    let mut lineage = Lineage::new(StartingPosition::TrimHorizon);
    lineage.listed(resharded().split_off(1));
    assert_eq!(ready(&lineage), "bcd");
}

#[test]
fn latest_leaves_out_what_is_closed_and_reads_shards_that_come_up_later_whole() {
    let mut lineage = Lineage::new(StartingPosition::Latest);
    lineage.listed(vec![shard("a", &[], &["a"]), shard("b", &["a"], &[])]);
    assert_eq!(ready(&lineage), "b");
    assert_eq!(lineage.position("b"), Position::Starting(StartingPosition::Latest));
    lineage.listed(vec![shard("a", &[], &["a"]), shard("b", &["a"], &["b"]), shard("c", &["b"], &[])]);
    lineage.ended("b");
    assert_eq!(ready(&lineage), "c");
    assert_eq!(lineage.position("c"), Position::Starting(StartingPosition::TrimHorizon));
}

#[test]
fn a_mapping_that_is_enabled_again_goes_on_at_its_checkpoint() {
    let mut lineage = Lineage::new(StartingPosition::TrimHorizon);
    lineage.listed(vec![shard("a", &[], &[])]);
    let checkpoint = Checkpoint::After(record(3, START, "key").sequence);
    lineage.reached("a", Some(checkpoint.clone()));
    lineage.reached("a", None);
    assert_eq!(lineage.position("a"), Position::Checkpoint(checkpoint));
}
