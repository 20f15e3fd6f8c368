//! In any order, split into any batches, with duplicates and concurrent writers, the rows end up the same.

use proptest::prelude::*;
use proptest::test_runner::{Config as Settings, TestRunner};
use tokio::runtime::Runtime;

use millstream_tests::random::Random;

use crate::support::{batch, client, database, ingest, rows};

const CONFIG: &str = "[source.book]\nstream = \"s\"\n[table.bet]\nsource = \"book\"\nevents = [\"A\", \"B\"]\nkey = [\"bet_id\"]\n\
    version = \"timestamp\"\nmerge = \"column\"\n[table.bet.columns]\nbet_id = \"properties.bet_id\"\n\
    whole = { path = \"properties.whole\", type = \"integer\" }\n\
    [table.last]\nsource = \"book\"\nevents = [\"A\", \"B\"]\nkey = [\"bet_id\"]\nversion = \"timestamp\"\nmerge = \"row\"\n\
    [table.last.columns]\nbet_id = \"properties.bet_id\"\n";

/// One event of a history. There are few distinct timestamps, so that versions often tie.
#[derive(Clone, Debug)]
struct Event {
    key: u8,
    minute: u8,
    name: bool,
    columns: Vec<(u8, Option<u8>)>,
}

impl Event {
    fn json(&self, id: usize) -> String {
        let column = |(column, value): &(u8, Option<u8>)| match value {
            None => format!(r#","c{column}":null"#),
            // A number or a text, so that the same field has values of both types.
            Some(value) if value % 7 == 0 => format!(r#","c{column}":"text {value}""#),
            Some(value) => format!(r#","c{column}":{value}"#),
        };
        let columns: String = self.columns.iter().map(column).collect();
        format!(
            r#"{{"type":"track","event":"{}","messageId":"m{id}","receivedAt":"2026-02-08T10:{:02}:00Z","timestamp":"2026-02-08T10:{:02}:00Z",
            "properties":{{"bet_id":"b{}"{columns}}}}}"#,
            if self.name { "A" } else { "B" },
            self.minute,
            self.minute,
            self.key,
        )
    }
}

fn history() -> impl Strategy<Value = Vec<Event>> {
    let columns = proptest::collection::vec((0u8..4, proptest::option::weighted(0.85, any::<u8>())), 0..4);
    let event = (0u8..5, 0u8..6, any::<bool>(), columns);
    let event = event.prop_map(|(key, minute, name, columns)| Event { key, minute, name, columns });
    proptest::collection::vec(event, 1..40)
}

/// The rows of all tables, regardless of the order of columns. A value is in `_overflow` or in text, depending on which value
/// created the column, so both are read together.
async fn outcome(url: &str) -> Vec<String> {
    let client = client(url).await;
    let mut found = Vec::new();
    for table in ["tracks", "a", "b", "bet", "last"] {
        if client
            .query_one("SELECT to_regclass($1::text)::text", &[&format!("book.{table}")])
            .await
            .unwrap()
            .get::<_, Option<&str>>(0)
            .is_some()
        {
            let query = format!(
                "SELECT (to_jsonb(t) - 'uuid_ts' - '_overflow' - '_versions' - '_version') AS row FROM book.{table} t ORDER BY 1"
            );
            found.extend(rows(&client, &query).await.into_iter().map(|row| format!("{table}: {row}")));
        }
    }
    found
}

#[test]
fn any_order_split_and_duplication_by_four_writers_ends_in_the_same_rows() {
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Settings { cases: 24, failure_persistence: None, ..Settings::default() });
    let strategy = (history(), any::<u64>(), 1usize..=4);
    runner
        .run(&strategy, |(history, seed, writers)| {
            runtime.block_on(same_rows(history, seed, writers));
            Ok(())
        })
        .unwrap();
}

async fn same_rows(history: Vec<Event>, seed: u64, writers: usize) {
    let documents: Vec<String> = history.iter().enumerate().map(|(id, event)| event.json(id)).collect();
    let in_order = database().await;
    // Both start with the same columns, because the first value to arrive determines a column's type.
    let first = Event { key: 9, minute: 0, name: true, columns: (0..4).map(|column| (column, Some(1))).collect() };
    let second = Event { name: false, ..first.clone() };
    let openers = [first.json(10_000), second.json(10_001)];
    let mut one = ingest(CONFIG, &in_order);
    batch(&mut one, 1, &openers).await.unwrap();
    batch(&mut one, 1, &documents).await.unwrap();

    let mixed = database().await;
    batch(&mut ingest(CONFIG, &mixed), 1, &openers).await.unwrap();
    let mut random = Random::new(seed);
    let tasks = (0..writers).map(|_| {
        let mut own = documents.clone();
        random.shuffle(&mut own);
        let size = 1 + random.below(own.len() as u64) as usize;
        let url = mixed.clone();
        tokio::spawn(async move {
            let mut ingest = ingest(CONFIG, &url);
            for part in own.chunks(size) {
                // A transient error such as a deadlock fails the batch, and Lambda delivers it again.
                while batch(&mut ingest, 1, part).await.is_err() {}
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(outcome(&mixed).await, outcome(&in_order).await);
}

#[test]
fn values_come_back_from_postgresql_exactly() {
    let runtime = Runtime::new().unwrap();
    let url = runtime.block_on(database());
    let config = "[source.s]\nstream = \"s\"\nformat = \"json\"\n[table.v]\nsource = \"s\"\nid = \"id\"\n[table.v.columns]\n\
        n = { path = \"n\", type = \"numeric\" }\nt = { path = \"t\", type = \"text\" }\nj = { path = \"j\", type = \"jsonb\" }\n\
        i = { path = \"i\", type = \"bigint\" }\nb = { path = \"b\", type = \"boolean\" }\nz = { path = \"z\", type = \"timestamptz\" }\n\
        d = { path = \"d\", type = \"double precision\" }\n";
    let mut ingest = ingest(config, &url);
    let number = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?";
    let text = proptest::string::string_regex("[^\\x00]{0,40}").unwrap();
    let moment = -62_000_000_000_000_000i64..250_000_000_000_000_000;
    let strategy = (number, text, any::<i64>(), any::<bool>(), moment, proptest::num::f64::NORMAL);
    let mut runner = TestRunner::new(Settings { cases: 300, failure_persistence: None, ..Settings::default() });
    let mut id = 0;
    let cell = std::cell::RefCell::new((&mut ingest, &mut id));
    runner
        .run(&strategy, |(number, text, integer, boolean, moment, double)| {
            let (ingest, id) = &mut *cell.borrow_mut();
            **id += 1;
            let quoted = serde_json::Value::from(text.as_str());
            let time = millstream::timestamp::Timestamp(moment);
            let document = format!(
                r#"{{"id":"{id}","n":{number},"t":{quoted},"j":[{quoted},{number}],"i":{integer},"b":{boolean},"z":"{time}","d":{double:e}}}"#
            );
            let check = format!(
                "SELECT n = '{number}'::numeric AND t = $1 AND i = {integer} AND b = {boolean} AND j ->> 0 = $1 \
                 AND (j ->> 1)::numeric = '{number}'::numeric AND extract(epoch FROM z) * 1000000 = {moment} AND d = '{double:e}'::float8 \
                 FROM s.v WHERE id = '{id}'"
            );
            runtime.block_on(async {
                let report = batch(ingest, 1, &[document]).await.unwrap();
                prop_assert_eq!(report.counts.applied, 1, "{}", report);
                let same: bool = client(&url).await.query_one(&check, &[&text]).await.unwrap().get(0);
                prop_assert!(same);
                Ok(())
            })
        })
        .unwrap();
}

/// Batches of 2,000 records or more are written while they are still being decoded.
#[tokio::test]
async fn a_large_batch_of_events_ends_as_the_same_records_in_small_ones() {
    let event = |number: usize| {
        // Some events are repeated, in the same slice or another; some names are rare.
        let id = if number % 90 == 17 { number / 2 } else { number };
        let column = (number % 4) as u8;
        let value = Some((id % 250) as u8);
        let event =
            Event { key: (id % 50) as u8, minute: (id % 60) as u8, name: id % 5 > 0, columns: vec![(column, value)] };
        match number {
            1_700 => r#"{"type":"track"}"#.to_owned(),
            2_600 => "no json".to_owned(),
            // Rows that only PostgreSQL rejects, in a table that is written early and in one that is written last.
            900 | 2_222 => event.json(id).replacen(r#""messageId":"#, r#""context":{"lib":"bad"},"messageId":"#, 1),
            901 | 2_223 => event.json(id).replacen(r#""bet_id":"b"#, r#""bet_id":"bad"#, 1),
            _ => event.json(id),
        }
    };
    let documents: Vec<String> = (0..3_000).map(event).collect();
    let mut outcomes = Vec::new();
    for size in [500, 3_000] {
        let url = database().await;
        let mut ingest = ingest(CONFIG, &url);
        let columns: Vec<_> = (0..4).map(|column| (column, Some(1))).collect();
        for (id, name) in [(10_000, true), (10_001, false)] {
            let opener = Event { key: 9, minute: 0, name, columns: columns.clone() }.json(id);
            let opener = opener.replacen(r#""messageId":"#, r#""context":{"lib":"good"},"messageId":"#, 1);
            batch(&mut ingest, 1, &[opener]).await.unwrap();
        }
        let owner = client(&url).await;
        let checks = "ALTER TABLE book.tracks ADD CHECK (context_lib <> 'bad');\
                      ALTER TABLE book.a ADD CHECK (bet_id NOT LIKE 'bad%'); ALTER TABLE book.b ADD CHECK (bet_id NOT LIKE 'bad%')";
        owner.batch_execute(checks).await.unwrap();
        for round in 0..2 {
            let (mut retry, mut applied, mut rows) = (0, 0, 0);
            for (part, records) in documents.chunks(size).enumerate() {
                let report = batch(&mut ingest, 1 + (part * size) as u64, records).await.unwrap();
                assert_eq!(report.counts.total(), records.len() as u64, "{report}");
                retry += report.counts.retry;
                applied += report.counts.applied;
                rows += report.rows;
            }
            assert_eq!(retry, 6, "of the two that cannot be read and the four that PostgreSQL refuses");
            assert!((round == 0) == (applied > 0) && (round == 0) == (rows > 0), "round {round}: {applied}, {rows}");
        }
        outcomes.push(outcome(&url).await);
    }
    assert!(outcomes[0].len() > 5_800, "{}", outcomes[0].len());
    assert!(outcomes[0] == outcomes[1], "the rows differ");
}

/// Slices lock a table's keys in stream order, not in key order, so writers may deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_batches_of_the_same_events_in_other_orders_end_as_one() {
    let event = |id: usize| {
        let columns = vec![((id % 4) as u8, Some((id % 250) as u8))];
        Event { key: (id % 50) as u8, minute: (id % 60) as u8, name: !id.is_multiple_of(5), columns }.json(id)
    };
    let documents: Vec<String> = (0..2_400).map(event).collect();
    let openers = openers_of(&documents);
    let (one, mixed) = (database().await, database().await);
    for url in [&one, &mixed] {
        batch(&mut ingest(CONFIG, url), 1, &openers).await.unwrap();
    }
    batch(&mut ingest(CONFIG, &one), 1, &documents).await.unwrap();
    let tasks = (1..=3).map(|seed| {
        let (mut own, url) = (documents.clone(), mixed.clone());
        Random::new(seed).shuffle(&mut own);
        tokio::spawn(async move {
            let mut ingest = ingest(CONFIG, &url);
            batch(&mut ingest, 1, &openers_of(&own)).await.unwrap();
            while batch(&mut ingest, 1, &own).await.is_err() {}
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert!(outcome(&mixed).await == outcome(&one).await, "the rows differ");
}

/// A few records that make a writer load the tables.
fn openers_of(documents: &[String]) -> Vec<String> {
    documents[..20].to_vec()
}
