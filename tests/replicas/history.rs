//! Any history ends as at the source: in any order and split, with duplicates, several writers and full loads in between.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::ingest::Ingest;
use millstream_tests::random::Random;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use super::{CONFIG, exported, loaded, put, remove, send, sent};
use crate::support::{client, database, ingest, rows};

const ROUNDS: u64 = 60;
const KEYS: u64 = 5;
const ATTEMPTS_MAX: u32 = 2_000;

/// Attributes other than the key, each with its type.
type Item = BTreeMap<String, Value>;

/// The history of the source's table, and what is delivered of it.
struct History {
    /// The items that existed before the stream; it first delivers them when they change.
    before: Vec<Option<Item>>,
    after: Vec<Option<Item>>,
    /// For each key: the last item that the stream or a load delivered.
    last_delivered: Vec<Option<Item>>,
    records: Vec<String>,
}

fn key(number: usize) -> String {
    format!(r#""id":{{"S":"k{number}"}}"#)
}

fn attributes(item: &Item) -> String {
    let attribute = |(name, value): (&String, &Value)| format!("{}:{value}", json!(name));
    item.iter().map(attribute).collect::<Vec<_>>().join(",")
}

fn value(random: &mut Random) -> Value {
    let number = random.below(50).to_string();
    match random.below(8) {
        0 | 1 => json!({"S": format!("text {number}")}),
        2 => json!({"S": number}),
        3 | 4 => json!({"N": number}),
        5 => json!({"NULL": true}),
        6 => json!({"M": {"deep": {"L": [{"N": number}, {"NULL": true}, {"M": {}}]}, "flag": {"BOOL": true}}}),
        _ => json!({"SS": [number, "b"]}),
    }
}

/// Attributes appear, disappear and change their types; some are so rare that their columns are created late.
fn item(random: &mut Random, step: u64) -> Item {
    let mut item = Item::new();
    for name in ["a", "b", "c", "d"] {
        if random.per_mille(600) {
            item.insert(name.to_owned(), value(random));
        }
    }
    item.insert("step".to_owned(), json!({"N": step.to_string()}));
    if random.per_mille(150) {
        item.insert(format!("rare{}", random.below(4)), value(random));
    }
    item
}

fn history(random: &mut Random) -> History {
    let mut state: Vec<Option<Item>> = (0..KEYS).map(|_| random.per_mille(500).then(|| item(random, 0))).collect();
    let before = state.clone();
    let mut streamed: Vec<Option<Item>> = vec![None; state.len()];
    let mut snapshot_told = vec![false; state.len()];
    let mut records = Vec::new();
    let steps = 1 + random.below(30);
    for step in 1..=steps {
        if random.per_mille(120) || step == steps / 2 {
            records.extend(load(random, &state));
            let unchanged = |key: usize| streamed[key].is_none() && state[key].is_some();
            (0..state.len()).filter(|&key| unchanged(key)).for_each(|key| snapshot_told[key] = true);
        }
        let at = random.below(KEYS) as usize;
        if state[at].is_some() && random.per_mille(350) {
            state[at] = None;
            records.push(remove("T", step, &key(at)));
        } else {
            let new = item(random, step);
            records.push(put("T", step, &key(at), &attributes(&new)));
            streamed[at] = Some(new.clone());
            state[at] = Some(new);
        }
    }
    records.extend(load(random, &state));
    for (at, _) in state.iter().enumerate().filter(|(at, now)| now.is_some() && streamed[*at].is_none()) {
        snapshot_told[at] = true;
    }
    let of_load = |at: usize| before[at].clone().filter(|_| snapshot_told[at]);
    let last_delivered = streamed.into_iter().enumerate().map(|(at, item)| item.or_else(|| of_load(at))).collect();
    History { before, after: state, last_delivered, records }
}

/// The existing items, as lines of an export or of a scan.
fn load(random: &mut Random, state: &[Option<Item>]) -> Vec<String> {
    let full = random.per_mille(500);
    let there = state.iter().enumerate().filter_map(|(at, item)| Some((key(at), attributes(item.as_ref()?))));
    there
        .map(|(key, item)| match full {
            true => loaded("T", &format!("{key},{item}")),
            false => exported("T", 1_000_000, &key, Some(&item)),
        })
        .collect()
}

/// Delivers a batch as Lambda does: until it is stored. A load waits for the stream, which provides the key.
async fn deliver(ingest: &mut Ingest, records: &[String]) {
    for _ in 0..ATTEMPTS_MAX {
        match send(ingest, records).await {
            Ok(report) if report.counts.retry == 0 => return,
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    panic!("never stored: {:?}", send(ingest, records).await);
}

/// Delivers everything at least once, by several writers at a time.
async fn deliver_all(random: &mut Random, url: &str, config: &str, records: &[String]) {
    let writers = 1 + random.below(4) as usize;
    let mut shares: Vec<Vec<String>> = vec![Vec::new(); writers];
    for record in records {
        for _ in 0..1 + random.below(2) {
            shares[random.below(writers as u64) as usize].push(record.clone());
        }
    }
    let tasks: Vec<_> = shares
        .into_iter()
        .map(|mut share| {
            random.shuffle(&mut share);
            let size = 1 + random.below(12) as usize;
            let (url, config) = (url.to_owned(), config.to_owned());
            tokio::spawn(async move {
                let mut ingest = ingest(&config, &url);
                for part in share.chunks(size) {
                    deliver(&mut ingest, part).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// An attribute as JSON, with its own type, from a column or the overflow.
fn plain(attribute: &Value) -> Value {
    let (descriptor, value) = attribute.as_object().unwrap().iter().next().unwrap();
    match descriptor.as_str() {
        "N" => serde_json::from_str(value.as_str().unwrap()).unwrap(),
        "NULL" => Value::Null,
        "M" => value.as_object().unwrap().iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        "L" => value.as_array().unwrap().iter().map(plain).collect(),
        "SS" => {
            let mut texts: Vec<String> = serde_json::from_value(value.clone()).unwrap();
            texts.sort();
            json!(texts)
        }
        _ => value.clone(),
    }
}

fn expected(items: &[Option<Item>]) -> BTreeMap<String, Map<String, Value>> {
    let there = items.iter().enumerate().filter_map(|(at, item)| Some((at, item.as_ref()?)));
    let row = |item: &Item| item.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    there.map(|(at, item)| (format!("k{at}"), row(item))).collect()
}

/// Each key's attributes, from columns and overflow, and whether its row is marked as deleted.
async fn found(client: &Client, schema: &str) -> BTreeMap<String, (Map<String, Value>, bool)> {
    let mut found = BTreeMap::new();
    for row in rows(client, &format!("SELECT * FROM {schema}.t")).await {
        let mut row: Map<String, Value> = serde_json::from_str(&row).unwrap();
        let id = row.remove("id").unwrap().as_str().unwrap().to_owned();
        let deleted = row.remove("_deleted_at").is_some_and(|at| !at.is_null());
        let overflow = row.remove("_overflow").unwrap();
        let mut item: Map<String, Value> =
            row.into_iter().filter(|(name, value)| !name.starts_with("_version") && !value.is_null()).collect();
        for (name, value) in overflow.as_object().into_iter().flatten() {
            assert!(item.insert(name.clone(), value.clone()).is_none(), "{id}.{name} is there twice");
        }
        assert!(found.insert(id, (item, deleted)).is_none(), "a key has two rows");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_history_ends_as_the_source_did_and_deleted_stays_deleted() {
    let url = database().await;
    let client = client(&url).await;
    for seed in 0..ROUNDS {
        let schema = format!("hard{seed}");
        let config = format!("{CONFIG}schema = \"{schema}\"\n");
        let mut random = Random::new(seed);
        let history = history(&mut random);
        deliver_all(&mut random, &url, &config, &history.records).await;
        let found: BTreeMap<_, _> =
            found(&client, &schema).await.into_iter().map(|(key, (item, _))| (key, item)).collect();
        assert_eq!(found, expected(&history.after), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_history_with_soft_deletes_keeps_each_row_as_it_last_was() {
    let url = database().await;
    let client = client(&url).await;
    for seed in 0..ROUNDS {
        let schema = format!("soft{seed}");
        let config = format!("{CONFIG}schema = \"{schema}\"\ndeletes = \"soft\"\n");
        let mut random = Random::new(seed);
        let history = history(&mut random);
        deliver_all(&mut random, &url, &config, &history.records).await;
        let told = expected(&history.last_delivered);
        let ever = |at: &usize| history.before[*at].is_some() || history.last_delivered[*at].is_some();
        let wanted: BTreeMap<_, _> = (0..KEYS as usize)
            .filter(ever)
            .map(|at| format!("k{at}"))
            .zip((0..KEYS as usize).filter(ever).map(|at| history.after[at].is_none()))
            .map(|(key, deleted)| (key.clone(), (told.get(&key).cloned().unwrap_or_default(), deleted)))
            .collect();
        assert_eq!(found(&client, &schema).await, wanted, "seed {seed}");
    }
}

#[tokio::test]
async fn an_early_load_succeeds_once_the_stream_provides_the_key() {
    let url = database().await;
    let (mut loading, mut streaming) = (ingest(CONFIG, &url), ingest(CONFIG, &url));
    let line = [exported("U", 5, r#""id":{"S":"a"}"#, Some(r#""v":{"N":"1"}"#))];
    let item = [loaded("T", r#""id":{"S":"a"},"v":{"N":"1"}"#)];
    // A line of an incremental export contains the key.
    assert_eq!(send(&mut loading, &line).await.unwrap().counts.applied, 1);
    assert!(send(&mut loading, &item).await.is_err(), "without a key nothing can be stored");
    send(&mut streaming, &[put("T", 1, r#""id":{"S":"b"}"#, "")]).await.unwrap();
    let report = send(&mut loading, &item).await.unwrap();
    assert_eq!(report.counts.applied, 1, "{report}");
}

#[tokio::test]
async fn a_change_that_a_batch_holds_twice_is_a_duplicate_whatever_comes_behind_it() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    for first in [1, 3] {
        let change = |number: u64| put("T", number, &key(1), &format!(r#""n":{{"N":"{number}"}}"#));
        let report = sent(&mut ingest, &[change(first), change(first), change(first + 1)]).await;
        let counts = report.counts;
        assert_eq!((counts.applied, counts.duplicate, counts.superseded), (1, 1, 1), "{report}");
    }
}
