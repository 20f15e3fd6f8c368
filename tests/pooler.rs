//! A pooler that gives every transaction another backend, as PgBouncer and RDS Proxy do: everything works, and no session
//! state is left on a backend for the next client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream::aws::Aws;
use millstream::clock::now;
use millstream::config::DatabaseAddress;
use millstream::database::Database;
use millstream::maintain::MaintenanceReport;
use millstream::timestamp::Timestamp;
use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::pgbouncer::Admission;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio_postgres::Client;

use crate::support::{Files, batch_of, client, cluster, database, ingest, pooler, rows};

/// Fewer backends than clients, so that the clients' transactions share them.
const BACKENDS: u32 = 3;
const WRITERS: usize = 4;
const ROUNDS: usize = 4;
const DOCUMENTS: usize = 40;

/// Events, an entity merged by column, and one merged by row.
const CONFIG: &str = r#"
[source.book]
stream = "book"
partition = { by = "received_at", every = "day", ahead = 1, keep = "30 days" }
[table.bet]
source = "book"
events = ["Bet Placed"]
key = ["bet_id"]
version = "timestamp"
merge = "column"
[table.bet.columns]
bet_id = "properties.bet_id"
stake = { path = "properties.stake", type = "numeric(12,2)", check = "stake > 0" }
[source.market]
stream = "market"
format = "json"
[table.offer]
source = "market"
key = ["offer_id"]
version = "at"
merge = "row"
"#;

async fn function(name: &str, url: &str, config: &str) -> Function {
    let environment =
        vec![("DATABASE_URL".to_owned(), url.to_owned()), ("MILLSTREAM_CONFIG".to_owned(), config.to_owned())];
    let settings = Settings { binary: binary(name).unwrap(), environment, timeout: Duration::from_secs(60) };
    Function::start(settings).await.unwrap()
}

/// The days of the rounds, independent of how long the test takes.
fn days_ago(days: usize) -> Timestamp {
    let (today, _) = now().day_and_micros();
    Timestamp::from_days(today - days as i64)
}

/// What a writer sends in a round: keys that all writers share, a column and a partition that all of them need at once,
/// some bets that the plan rejects, and some that only PostgreSQL rejects.
fn documents(writer: usize, round: usize) -> [(&'static str, Vec<String>); 2] {
    let bet = |number: usize| {
        let received = days_ago(round);
        let stake = match number {
            7 | 20 => "-1".to_owned(),
            30 => "\"ten\"".to_owned(),
            _ => (1 + writer + round).to_string(),
        };
        format!(
            r#"{{"type":"track","event":"Bet Placed","messageId":"{writer}-{round}-{number}","receivedAt":"{received}",
            "timestamp":"2026-02-08T10:{round:02}:{writer:02}Z","properties":{{"bet_id":"b{number}","stake":{stake},"new{round}":{writer}}}}}"#
        )
    };
    let offer = |number: usize| {
        format!(
            r#"{{"offer_id":"o{number}","at":"2026-02-08T10:{round:02}:{writer:02}Z","price":{writer}.5,"new{round}":{number}}}"#
        )
    };
    [("book", (0..DOCUMENTS).map(bet).collect()), ("market", (0..DOCUMENTS).map(offer).collect())]
}

async fn write(function: &mut Function, writer: usize, rounds: std::ops::Range<usize>) {
    for round in rounds {
        for (stream, documents) in documents(writer, round) {
            let numbered = (1..).zip(&documents).map(|(number, data)| ShardRecord::numbered(number, data.as_bytes()));
            let records: Vec<ShardRecord> = numbered.collect();
            let payload = event(stream, "shardId-000000000000", &records);
            let answer = function.invoke(payload).await.unwrap_or_else(|error| panic!("writer {writer}: {error}"));
            // Without a queue the first rejected record is reported to Lambda.
            let refused = (stream == "book").then(|| records[7].sequence.clone());
            let failures = refused.map(|sequence| json!({"itemIdentifier": sequence}));
            let expected = json!({"batchItemFailures": failures.into_iter().collect::<Vec<_>>()});
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer, expected, "{stream}, writer {writer}, round {round}");
        }
    }
}

/// The expected tables: written by one writer without a pooler.
async fn expected() -> Vec<Vec<String>> {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    for (writer, round) in (0..ROUNDS).flat_map(|round| (0..WRITERS).map(move |writer| (writer, round))) {
        for (stream, documents) in documents(writer, round) {
            batch_of(&mut ingest, stream, 1, &documents).await.unwrap();
        }
    }
    contents(&client(&url).await).await
}

async fn contents(client: &Client) -> Vec<Vec<String>> {
    let queries = [
        "SELECT to_jsonb(t) - '_versions' - '_overflow' AS row FROM book.bet t ORDER BY bet_id",
        "SELECT to_jsonb(t) - '_version' - '_overflow' AS row FROM market.offer t ORDER BY offer_id",
        "SELECT id, received_at, event FROM book.tracks ORDER BY id",
        "SELECT to_jsonb(t) - 'uuid_ts' - '_overflow' AS row FROM book.bet_placed t ORDER BY id",
    ];
    let mut contents = Vec::new();
    for query in queries {
        contents.push(rows(client, query).await);
    }
    contents
}

/// An expired partition, as it was created when it was current.
async fn expired_partition(owner: &Client) -> String {
    let (from, to) = (days_ago(40), days_ago(39));
    let make = format!(
        "CREATE TABLE book.tracks_old (LIKE book.tracks); ALTER TABLE book.tracks_old ADD PRIMARY KEY (id); \
         COMMENT ON TABLE book.tracks_old IS 'Millstream: partition of book.tracks [{from}, {to})'; \
         ALTER TABLE book.tracks ATTACH PARTITION book.tracks_old FOR VALUES FROM ('{from}') TO ('{to}')"
    );
    owner.batch_execute(&make).await.unwrap();
    "book.tracks_old".to_owned()
}

async fn run_maintain(maintain: &mut Function) -> MaintenanceReport {
    serde_json::from_slice(&maintain.invoke("{}").await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_maintenance_share_a_few_backends() {
    let Some(pooler) = pooler(cluster().port(), BACKENDS, Admission::Anybody) else { return };
    let (direct, files) = (database().await, Files::new("pooler"));
    let config = files.write("millstream.toml", CONFIG);
    let url = pooler.url(&direct);
    let mut functions = Vec::new();
    for _ in 0..WRITERS {
        functions.push(function("kinesis-ingest", &url, &config).await);
    }
    let mut maintain = function("maintain", &url, &config).await;
    write(&mut functions[0], 0, 0..1).await;
    let (owner, reader) = (client(&direct).await, client(&direct).await);
    let old = expired_partition(&owner).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM book.tracks").await.unwrap();
    // From now on all backends are open, and consecutive statements outside a transaction use different ones.
    assert_eq!(pooler.leftovers(&direct).await.unwrap(), [""; 0]);
    let upkeep = run_maintain(&mut maintain).await;
    assert_eq!((upkeep.dropped.len(), upkeep.postponed.len()), (0, 1), "{upkeep:?}");
    assert_eq!(pooler.leftovers(&direct).await.unwrap(), [""; 0]);
    reader.batch_execute("COMMIT").await.unwrap();
    let writing = AtomicBool::new(true);
    let writers = async {
        let writers = functions.iter_mut().enumerate();
        futures_util::future::join_all(writers.map(|(writer, function)| write(function, writer, 0..ROUNDS))).await;
        writing.store(false, Ordering::SeqCst);
    };
    let upkeep = async {
        let mut dropped = Vec::new();
        while dropped.is_empty() || writing.load(Ordering::SeqCst) {
            dropped.extend(run_maintain(&mut maintain).await.dropped);
        }
        assert_eq!(dropped, [old]);
    };
    tokio::join!(writers, upkeep);
    assert!(pooler.clients(&direct).await.unwrap() >= WRITERS, "every writer has kept its connection to the pooler");
    assert_eq!(pooler.leftovers(&direct).await.unwrap(), [""; 0]);
    assert_eq!(contents(&owner).await, expected().await);
}

#[tokio::test]
async fn what_a_client_leaves_behind_would_be_seen() {
    let Some(pooler) = pooler(cluster().port(), 1, Admission::Anybody) else { return };
    let direct = database().await;
    let url = pooler.url(&direct);
    let careless = client(&url).await;
    for statement in [
        "SET lock_timeout = 2000",
        "PREPARE kept AS SELECT 1",
        "CREATE TEMPORARY TABLE kept ()",
        "LISTEN kept",
        "SELECT pg_advisory_lock(1)",
    ] {
        careless.batch_execute(statement).await.unwrap();
    }
    drop(careless);
    let left = ["advisory lock", "channel kept", "setting lock_timeout", "statement kept", "temporary schema"];
    assert_eq!(pooler.leftovers(&direct).await.unwrap(), left);
}

/// Every start-up parameter that RDS Proxy accepts: `options` is rejected
/// (<https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy-setup.html>).
const ACCEPTED: [&str; 8] = [
    "user",
    "database",
    "replication",
    "application_name",
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "extra_float_digits",
];

#[tokio::test]
async fn a_connection_starts_with_nothing_that_rds_proxy_refuses() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgresql://writer@{}/sports", listener.local_addr().unwrap());
    let database = Database::new(&DatabaseAddress::from_url(&url), Aws::default()).unwrap();
    let listening = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = stream.read_u32().await.unwrap();
        assert_eq!(stream.read_u32().await.unwrap(), 3 << 16, "the protocol's version");
        let mut parameters = vec![0; length as usize - 8];
        stream.read_exact(&mut parameters).await.unwrap();
        String::from_utf8(parameters).unwrap()
    };
    let (connected, parameters) = tokio::join!(database.connection(), listening);
    assert!(connected.is_err(), "nobody answers there");
    let names: Vec<&str> = parameters.trim_end_matches('\0').split('\0').step_by(2).collect();
    assert!(names.contains(&"user") && names.iter().all(|name| ACCEPTED.contains(name)), "{names:?}");
}
