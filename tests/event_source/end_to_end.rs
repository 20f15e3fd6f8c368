//! The event source with the real programs: resharding during a run, and a database that is unavailable for too long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream::clock::now;
use millstream_tests::event_source::lane::STREAM_RETENTION;
use millstream_tests::event_source::on_failure::{Batch, BatchInfo, Condition};
use millstream_tests::event_source::{
    Clock, Delivered, Environments, EventSource, Mapping, OnFailure, Progress, StartingPosition,
};
use millstream_tests::function::Settings;
use millstream_tests::kinesis::{self, create_stream, merge, put, split};
use millstream_tests::local_aws::LocalAws;
use millstream_tests::process::workspace;
use millstream_tests::replica::{BANK, Replica};
use millstream_tests::shop::{Bank, Change};
use millstream_tests::sportsbook::{Mixture, evening};
use millstream_tests::system::{System, SystemResult};
use serde_json::json;

use crate::support::{client, cluster, database, rows};

/// When each shard's first invocation started, and when its last one ended.
fn spans(delivered: &Delivered) -> BTreeMap<&str, (Instant, Instant)> {
    let mut spans = BTreeMap::new();
    for one in &delivered.invocations {
        let ended = one.began + one.time;
        let span = spans.entry(&*one.shard).or_insert((one.began, ended));
        *span = (span.0.min(one.began), span.1.max(ended));
    }
    spans
}

#[tokio::test]
async fn a_stream_split_and_merged_while_events_flow_ends_in_the_right_rows() {
    let url = database().await;
    let system = System::start(&workspace().join("events/sportsbook"), "sportsbook", 2, url).await.unwrap();
    let mixture = Mixture { duplicates: 30, late: 50, poison: 20, expired: 10 };
    let evening = evening(900, 4, mixture, now());
    let progress = Progress::default();
    let [first, second, third] = [0, 1, 2].map(|part| {
        let size = evening.records.len().div_ceil(3);
        evening.records.chunks(size).nth(part).unwrap()
    });
    let putting = async {
        put(&system.aws, "sportsbook", first).await?;
        let children = split(&system.aws, "sportsbook", "shardId-000000000000").await?;
        put(&system.aws, "sportsbook", second).await?;
        let merged = merge(&system.aws, "sportsbook", &children[1], "shardId-000000000001").await?;
        put(&system.aws, "sportsbook", third).await?;
        progress.finish();
        SystemResult::Ok((children, merged))
    };
    let mapping = Mapping { batch_size: 100, parallelization_factor: 4, ..system.mapping() };
    let since = Instant::now();
    let (made, delivered) = tokio::join!(putting, system.consume(mapping, &progress));
    let ((children, merged), delivered) = (made.unwrap(), delivered.unwrap());
    let account =
        system.account(evening.records.len() as u64, std::slice::from_ref(&delivered), since.elapsed()).await.unwrap();
    assert_eq!(account.mistakes(), [""; 0]);
    let (expected, found) = (evening.expected, account.reported);
    assert_eq!((found.dead_lettered, found.expired), (expected.poison, expected.expired));
    assert_eq!(found.duplicate + found.superseded, expected.duplicates);

    let spans = spans(&delivered);
    let family = [(&*children[0], ["shardId-000000000000"; 1].as_slice()), (&children[1], &["shardId-000000000000"])];
    let merged = [(&*merged[0], [&*children[1], "shardId-000000000001"])];
    for (child, parents) in family.into_iter().chain(merged.iter().map(|(child, parents)| (*child, &parents[..]))) {
        for parent in parents {
            assert!(spans[child].0 >= spans[parent].1, "{child} was begun before {parent} was done");
        }
    }
    assert_eq!(spans.len(), 5);
    let lanes = delivered.invocations.iter().map(|one| one.lane).max();
    assert_eq!(lanes, Some(3));
}

/// Runs a mapping while its function fails; after the first failure the clock advances by two hours.
async fn expire(source: &EventSource<'_>, clock: &Clock, progress: &Progress) -> Delivered {
    let passing = async {
        while progress.failed() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        clock.advance(Duration::from_secs(2 * 60 * 60));
        progress.finish();
    };
    let (delivered, ()) = tokio::join!(source.run(progress), passing);
    delivered.unwrap()
}

/// The records that a mapping reads: with a clock far ahead all are too old, and are reported instead of delivered.
async fn read(aws: &LocalAws, from: StartingPosition, progress: &Progress) -> Option<(String, String)> {
    let settings = Settings { binary: "/nowhere".into(), environment: Vec::new(), timeout: Duration::ZERO };
    let mapping = Mapping { starting_position: from, batch_size: 10_000, ..Mapping::new(kinesis::arn("s")) };
    let clock = Clock::default();
    clock.advance(STREAM_RETENTION * 2);
    let source = EventSource::new(aws, mapping, Environments::new(settings)).unwrap().by(clock);
    let discarded = source.run(progress).await.unwrap().discarded;
    let infos: Vec<BatchInfo> = discarded.into_iter().map(|told| told.batch.into_info()).collect();
    let (first, last) = (infos.first()?, infos.last()?);
    Some((first.start_sequence_number.clone(), last.end_sequence_number.clone()))
}

#[tokio::test]
async fn the_starting_position_says_which_records_are_read() {
    let aws = LocalAws::start().await.unwrap();
    create_stream(&aws, "s", 1).await.unwrap();
    let record = ("key".to_owned(), b"data".to_vec());
    let put_one = || put(&aws, "s", std::slice::from_ref(&record));
    put_one().await.unwrap();
    let between = now();
    put_one().await.unwrap();
    let range = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
    let finished = Progress::finished();
    assert_eq!(read(&aws, StartingPosition::TrimHorizon, &finished).await, range("1", "2"));
    assert_eq!(read(&aws, StartingPosition::AtTimestamp(between), &finished).await, range("2", "2"));
    assert_eq!(read(&aws, StartingPosition::Latest, &finished).await, None);
    // Records put while it runs are read.
    let progress = Progress::default();
    let putting = async {
        while progress.read() == 0 {
            put_one().await.unwrap();
        }
        progress.finish();
    };
    let (read, ()) = tokio::join!(read(&aws, StartingPosition::Latest, &progress), putting);
    assert!(read.unwrap().0.parse::<u64>().unwrap() > 2);
}

/// Makes a database reject connections, or accept them again.
async fn set_connections(url: &str, allowed: &str) {
    let (_, name) = url.rsplit_once('/').unwrap();
    let statement = format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {allowed}");
    client(&cluster().url("postgres")).await.batch_execute(&statement).await.unwrap();
}

/// Changes the bank's accounts and the shop's stock; returns the resulting accounts.
async fn change(replica: &Replica, seed: u64, skus: [&str; 2]) -> Vec<String> {
    let mut bank = Bank::new(seed, 5);
    let records: Vec<_> = [bank.table()].into_iter().chain((0..20).map(|_| bank.change())).collect();
    put(&replica.aws, BANK, &records).await.unwrap();
    for sku in skus {
        let item = json!({"sku": {"S": sku}, "quantity": {"N": "7"}});
        replica.change(Change::Put("Stock", item)).await.unwrap();
    }
    bank.accounts.iter().map(|(id, cents)| format!(r#"{{"id":{id},"cents":{cents}}}"#)).collect()
}

/// Checks the common part of a message of an on-failure queue; returns its range.
fn batch_of_message(body: &str, function: &str) -> Batch {
    let OnFailure { request_context, response_context, version, timestamp, batch } =
        serde_json::from_str(body).unwrap();
    assert_eq!(request_context.condition, Condition::RecordAgeExceeded);
    assert_eq!(request_context.function_arn, format!("arn:aws:lambda:us-east-1:123456789012:function:{function}"));
    assert!(request_context.approximate_invoke_count > 0 && !request_context.request_id.is_empty());
    assert_eq!(response_context.unwrap().function_error.as_deref(), Some("Unhandled"));
    assert!(version == "1.0" && timestamp > now().to_string(), "{timestamp}");
    batch
}

/// The range of a shard, without the times of arrival.
fn range(info: &BatchInfo) -> (&str, &str, &str, usize, &str) {
    let BatchInfo { shard_id, start_sequence_number, end_sequence_number, batch_size, stream_arn, .. } = info;
    (shard_id, start_sequence_number, end_sequence_number, *batch_size, stream_arn)
}

#[tokio::test]
async fn what_a_database_away_for_too_long_has_missed_is_reported_and_the_stream_goes_on() {
    let url = database().await;
    let replica = Replica::start(&workspace().join("events/replica"), url.clone()).await.unwrap();
    let stock = replica.streams()[2].clone();
    let mut queues = Vec::new();
    let mut sources = Vec::new();
    for (name, stream) in [("bank-on-failure", kinesis::arn(BANK)), ("stock-on-failure", stock.clone())] {
        let queue = replica.aws.queue(name).await.unwrap();
        let maximum_record_age = Some(Duration::from_secs(60 * 60));
        let mapping = Mapping { maximum_record_age, on_failure: Some(queue.clone()), ..Mapping::new(stream) };
        let clock = Clock::default();
        sources.push((replica.source(mapping).unwrap().by(clock.clone()), clock));
        queues.push(queue);
    }
    set_connections(&url, "false").await;
    change(&replica, 1, ["missed-1", "missed-2"]).await;
    let progress = [Progress::default(), Progress::default()];
    let runs = sources.iter().zip(&progress).map(|((source, clock), progress)| expire(source, clock, progress));
    let delivered = futures_util::future::join_all(runs).await;

    let bodies = [replica.aws.drain(&queues[0]).await.unwrap(), replica.aws.drain(&queues[1]).await.unwrap()];
    for (delivered, bodies) in delivered.iter().zip(&bodies) {
        let told: Vec<String> = delivered.discarded.iter().map(|told| serde_json::to_string(told).unwrap()).collect();
        assert_eq!((&told, told.len()), (bodies, 1));
    }
    let Batch::Kinesis(info) = batch_of_message(&bodies[0][0], "kinesis-ingest") else { panic!("{bodies:?}") };
    assert_eq!(range(&info), ("shardId-000000000000", "1", "21", 21, &*kinesis::arn(BANK)));
    let Batch::Dynamodb(info) = batch_of_message(&bodies[1][0], "dynamodb-sync") else { panic!("{bodies:?}") };
    let first = "1100000000017454423009";
    assert_eq!(range(&info), ("shardId-00000001541626099285-f35f62ef", first, "1100000000017454423010", 2, &*stock));

    set_connections(&url, "true").await;
    let accounts = change(&replica, 2, ["kept-1", "kept-2"]).await;
    for (source, _) in sources {
        let delivered = source.by(Clock::default()).run(&Progress::finished()).await.unwrap();
        assert!(delivered.discarded.is_empty());
    }
    let client = client(&url).await;
    assert_eq!(
        rows(&client, "SELECT sku FROM shop.stock ORDER BY sku").await,
        [r#"{"sku":"kept-1"}"#, r#"{"sku":"kept-2"}"#]
    );
    let found = "SELECT id, (balance * 100)::bigint AS cents FROM bank.account ORDER BY id";
    assert_eq!(rows(&client, found).await, accounts);
}
