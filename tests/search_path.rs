//! A role that may create objects in `public` cannot make the writer run them.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream::clock::now;
use millstream::ingest::{DryRun, Ingest};
use millstream::timestamp::Timestamp;
use millstream_tests::board::LocalBoard;
use millstream_tests::postgresql::{Durability, PostgreSql, connect};
use millstream_tests::process::workspace;
use millstream_tests::program::millstream;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::board::client::Browser;
use crate::maintain::run_maintain_with;
use crate::support::{Files, adopt, batch_of, ingest, rows};

const CONFIG: &str = r#"
[source.log]
stream = "s"
[source.doc]
stream = "d"
format = "json"
[table.reading]
source = "doc"
id = "id"
when = { path = "kind", is = "reading" }
partition = { by = "at", every = "day", ahead = 2, keep = "10 days" }
columns = { amount = { path = "amount", type = "numeric(12,2)", check = "amount > 0" } }
[table.by_row]
source = "doc"
key = ["id", "part"]
version = "v"
when = { path = "kind", is = "row" }
[table.by_column]
source = "doc"
key = ["id"]
version = "v"
merge = "column"
when = { path = "kind", is = "column" }
[table.owned]
source = "doc"
key = ["id"]
version = "v"
when = { path = "kind", is = "owned" }
[source.shop]
stream = "*"
format = "dynamodb"
"#;

/// Types of the owner, some of them with operators of their own.
const OWNED: &str = "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE SCHEMA doc; \
    CREATE TYPE doc.mood AS ENUM ('ok', 'bad'); CREATE DOMAIN doc.code AS varchar(9); \
    CREATE TABLE doc.owned (id ext.citext PRIMARY KEY, v bigint, code doc.code, mood doc.mood, short varchar(9), addr inet, \
        list integer[], names ext.citext[], j json, at time(3), c char(3))";

/// A cluster whose log holds every statement, with a database that `public` is hostile in.
struct Hostile {
    name: String,
    cluster: PostgreSql,
    url: String,
}

impl Hostile {
    async fn start(name: &str, search_path: &str) -> Self {
        let cluster = PostgreSql::start(name, Durability::Test).unwrap();
        let url = cluster.database().await.unwrap();
        let client = connect(&url).await.unwrap();
        client.batch_execute("SET search_path = pg_catalog").await.unwrap();
        client.batch_execute(OWNED).await.unwrap();
        adopt(&client, "doc.owned", "source doc", ".*").await;
        client.batch_execute(include_str!("search_path/hostile.sql")).await.unwrap();
        let database = url.rsplit('/').next().unwrap();
        let settings = format!(
            "ALTER DATABASE {database} SET search_path = {search_path}; ALTER DATABASE {database} SET log_statement = 'all'"
        );
        client.batch_execute(&settings).await.unwrap();
        Self { name: name.to_owned(), cluster, url }
    }

    /// A client that is not attacked itself, and not logged.
    async fn client(&self) -> Client {
        let client = connect(&self.url).await.unwrap();
        client.batch_execute("SET log_statement = 'none'; SET search_path = pg_catalog").await.unwrap();
        client
    }
}

/// The hostile object that was used last, if any.
async fn used(client: &Client) -> Vec<String> {
    let query = "SELECT coalesce(o.name, s.last_value::text) AS used FROM attack.used s \
        LEFT JOIN attack.object o ON o.number = s.last_value WHERE s.is_called";
    rows(client, query).await
}

fn dynamodb(kind: &str, number: u32) -> Vec<u8> {
    let image = if kind == "REMOVE" { "" } else { r#""NewImage":{"id":{"S":"a"},"size":{"N":"5"}},"# };
    format!(
        r#"{{"Records":[{{"eventID":"{number}","eventName":"{kind}",
        "eventSourceARN":"arn:aws:dynamodb:us-east-1:1:table/Stock/stream/x",
        "dynamodb":{{"Keys":{{"id":{{"S":"a"}}}},{image}"SequenceNumber":"{number}00000000000000000001","StreamViewType":"NEW_AND_OLD_IMAGES"}}}}]}}"#
    )
    .into_bytes()
}

async fn applied(ingest: &mut Ingest, stream: &str, first: u64, documents: &[&str]) {
    let report = batch_of(ingest, stream, first, documents).await.unwrap();
    let counts = &report.counts;
    assert_eq!(counts.applied + counts.duplicate + counts.superseded, documents.len() as u64, "{report}");
}

async fn load(ingest: &mut Ingest) {
    let track = r#"{"type":"track","messageId":"m1","event":"Bet Placed","userId":"u","receivedAt":"2026-02-08T10:00:00Z",
        "properties":{"stake":5,"tags":["a"],"live":true}}"#;
    let identify =
        r#"{"type":"identify","messageId":"m2","userId":"u","receivedAt":"2026-02-08T10:00:00Z","traits":{"age":5}}"#;
    let more = r#"{"type":"identify","messageId":"m3","userId":"u","receivedAt":"2026-02-08T10:00:01Z","traits":{"city":"x"}}"#;
    applied(ingest, "s", 1, &[track, identify]).await;
    applied(ingest, "s", 3, &[track, more]).await;
    let now = now();
    let reading = |id: u32| format!(r#"{{"kind":"reading","id":"{id}","at":"{now}","amount":{id}}}"#);
    applied(ingest, "d", 1, &[&reading(1), &reading(2)]).await;
    applied(ingest, "d", 3, &[&reading(1), &reading(3)]).await;
    let entity = |kind: &str, id: u32, v: u32, more: &str| {
        format!(r#"{{"kind":"{kind}","id":"i{id}","part":{id},"v":{v},{more}}}"#)
    };
    for kind in ["row", "column"] {
        // New, newer and older ones; and sets of columns of many kinds, which are written with masks.
        applied(ingest, "d", 10, &[&entity(kind, 1, 1, r#""a":1"#), &entity(kind, 2, 5, r#""b":"x""#)]).await;
        applied(ingest, "d", 12, &[&entity(kind, 1, 2, r#""a":2"#), &entity(kind, 2, 4, r#""b":"y","c":true"#)]).await;
        applied(ingest, "d", 14, &[&entity(kind, 1, 3, r#""a":"text","c":false"#)]).await;
        let mixed: Vec<String> =
            (0..12).map(|id| entity(kind, id, 9, &format!(r#""c{}":1,"c{}":2"#, id % 12, (id + 5) % 12))).collect();
        applied(ingest, "d", 16, &mixed.iter().map(|text| &**text).collect::<Vec<_>>()).await;
        let mixed: Vec<String> =
            (0..12).map(|id| entity(kind, id, 10, &format!(r#""c{}":3,"a":{{"x":1}}"#, id % 12))).collect();
        applied(ingest, "d", 30, &mixed.iter().map(|text| &**text).collect::<Vec<_>>()).await;
    }
    let owned = r#""code":"c","mood":"ok","short":"s","addr":"192.0.2.1","list":"{1}","names":"{a}","j":[1],"at":"10:00:00","c":"x""#;
    applied(ingest, "d", 50, &[&entity("owned", 1, 1, owned)]).await;
    let upper = entity("owned", 1, 2, r#""mood":"bad""#).replace("\"i1\"", "\"I1\"");
    applied(ingest, "d", 51, &[&upper]).await;
    for (number, kind) in [(1, "INSERT"), (3, "REMOVE"), (2, "MODIFY"), (4, "INSERT")] {
        ingest.process_event(&dynamodb(kind, number), Duration::from_secs(60)).await.unwrap();
    }
}

/// What is read after an error, run as the writer would.
async fn explain_errors(hostile: &Hostile) {
    let folder = workspace().join("shared/src/apply");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let writer = connect(&hostile.url).await.unwrap();
    let (schema, table, names) = ("doc", "reading", vec!["SELECT", "INSERT"]);
    let held = client_with_lock(hostile).await;
    let (query, schemas, tables) = (read("lock_holders.sql"), vec![schema], vec![table]);
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&schemas, Type::TEXT_ARRAY), (&tables, Type::TEXT_ARRAY), (&true, Type::BOOL)];
    assert_eq!(writer.query_typed(&query, &parameters).await.unwrap().len(), 1);
    drop(held);
    for (file, parameters) in [
        ("remedy/event_triggers.sql", &[(&schema as &(dyn ToSql + Sync), Type::TEXT)][..]),
        ("remedy/relation.sql", &[(&schema, Type::TEXT), (&table, Type::TEXT)]),
        (
            "remedy/grants.sql",
            &[(&schema, Type::TEXT), (&table, Type::TEXT), (&names, Type::TEXT_ARRAY), (&true, Type::BOOL)],
        ),
    ] {
        writer.query_typed(&read(file), parameters).await.unwrap_or_else(|error| panic!("{file}: {error:?}"));
    }
}

/// A session that holds a lock on a table.
async fn client_with_lock(hostile: &Hostile) -> Client {
    let client = hostile.client().await;
    client.batch_execute("BEGIN; LOCK TABLE ONLY doc.reading IN SHARE MODE").await.unwrap();
    client
}

async fn operate(hostile: &Hostile, ingest: &mut Ingest, client: &Client) {
    let day = |days: i64| Timestamp(now().0 - days * 24 * 3_600_000_000);
    let (from, to) = (day(20), day(19));
    let old = format!(
        "CREATE TABLE doc.old PARTITION OF doc.reading FOR VALUES FROM ('{from}') TO ('{to}'); \
         COMMENT ON TABLE doc.old IS 'Millstream: partition of doc.reading [{from}, {to})'"
    );
    client.batch_execute(&old).await.unwrap();
    let maintained = run_maintain_with(CONFIG, &hostile.url).await;
    let (made, dropped, postponed) = (&maintained.made, &maintained.dropped, &maintained.postponed);
    assert_eq!((made.is_empty(), dropped.len(), postponed.len()), (false, 1, 0), "{maintained:?}");
    let file = Files::new(&hostile.name);
    let config = file.write("millstream.toml", CONFIG);
    let environment = [("DATABASE_URL".to_owned(), hostile.url.clone()), ("MILLSTREAM_CONFIG".to_owned(), config)];
    for arguments in [&["status"][..], &["status", "--exact"], &["plan"], &["maintain"]] {
        let ran = millstream(&environment, arguments).await.unwrap();
        assert!([0, 3].contains(&ran.code), "{arguments:?}: {ran:?}");
    }
    let mut dry_run = DryRun::new(ingest);
    dry_run.configuration().await.unwrap();
    dry_run.plan_event(&dynamodb("INSERT", 9)).await.unwrap();
    let shop = ingest.source_by_name("shop").unwrap();
    let (_, keys) = ingest.list_keys(shop, "Stock", None, 10).await.unwrap();
    assert_eq!(keys, [["a"]]);
    assert_eq!(ingest.list_keys(shop, "Stock", Some(&keys[0]), 10).await.unwrap().1.len(), 0);
    let batch = millstream::record::unpack(&dynamodb("INSERT", 9)).unwrap();
    ingest.diff_rows(shop, &batch, Duration::from_secs(60)).await.unwrap();
}

/// The functions that the product's statements call without their schema, from the server's log.
async fn unqualified_calls(hostile: &Hostile, client: &Client) -> BTreeSet<String> {
    let names = "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace";
    let functions: BTreeSet<String> =
        client.query(names, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)).collect();
    // `extract(epoch FROM …)` and `substring(… FROM …)` are syntax, which means pg_catalog's functions.
    let syntax = ["extract", "substring"];
    let mut calls = BTreeSet::new();
    let log = hostile.cluster.log().unwrap();
    for line in log.lines().filter(|line| is_query(line)) {
        for (position, _) in line.match_indices('(') {
            let before = &line[..position];
            let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |index| index + 1);
            let name = &before[start..];
            // After `::` comes a type.
            let qualified = before[..start].ends_with(['.', '"', ':']);
            if !qualified && functions.contains(name) && !syntax.contains(&name) {
                calls.insert(name.to_owned());
            }
        }
    }
    calls
}

/// Whether a line of the log belongs to a query: types in statements that change the schema look like calls.
fn is_query(line: &str) -> bool {
    let code = line.split("--").next().unwrap_or_default();
    !code.is_empty()
        && !["CREATE ", "ALTER ", "COMMENT "].iter().any(|verb| line.contains(verb))
        && code.len() == line.len()
}

async fn survives(name: &str, search_path: &str) {
    let hostile = Hostile::start(name, search_path).await;
    let client = hostile.client().await;
    let made = "SELECT count(*) FILTER (WHERE pronamespace = 'public'::regnamespace) > 2000 AS functions, \
        (SELECT count(*) > 1500 FROM pg_operator WHERE oprnamespace = 'public'::regnamespace) AS operators, \
        (SELECT count(*) > 50 FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'd') AS types FROM pg_proc";
    assert_eq!(rows(&client, made).await, [r#"{"functions":true,"operators":true,"types":true}"#]);
    let mut ingest = ingest(CONFIG, &hostile.url);
    load(&mut ingest).await;
    operate(&hostile, &mut ingest, &client).await;
    explain_errors(&hostile).await;
    assert_eq!(used(&client).await, [""; 0]);

    let foreign = "SELECT a.attrelid::regclass AS table, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
        JOIN pg_type t ON t.oid = a.atttypid WHERE t.typnamespace = 'public'::regnamespace AND c.relnamespace <> 'public'::regnamespace";
    assert_eq!(rows(&client, foreign).await, [""; 0]);
    let checks = "SELECT DISTINCT pg_get_constraintdef(oid) AS check FROM pg_constraint \
        WHERE conrelid = 'doc.reading'::regclass AND contype = 'c'";
    assert_eq!(rows(&client, checks).await, [r#"{"check":"CHECK ((amount > (0)::numeric))"}"#]);
    assert_eq!(unqualified_calls(&hostile, &client).await, BTreeSet::new());
    assert_eq!(
        rows(&client, "SELECT id, v, mood FROM doc.owned").await,
        [r#"{"id":"i1","v":2,"mood":"bad"}"#],
        "a key's equality is the one of its type"
    );

    // The objects do what they are for: without its schema a name is taken over.
    let attacked = connect(&hostile.url).await.unwrap();
    attacked
        .batch_execute("SELECT obj_description('pg_class'::pg_catalog.regclass::pg_catalog.oid, 'pg_class')")
        .await
        .unwrap_err();
    assert_eq!(used(&client).await.len(), 1);
}

#[tokio::test]
async fn a_hostile_public_schema_is_never_called() {
    survives("hostile", "\"$user\", public").await;
}

#[tokio::test]
async fn a_hostile_public_schema_before_pg_catalog_is_never_called() {
    survives("hostile-first", "public, pg_catalog").await;
}

/// A total with a condition, a bucket and conditional sums, all of which use operators.
const TOTAL: &str = "[total.amounts]\nsource = \"doc\"\ntable = \"reading\"\nby = { reading = \"id || ''\" }\n\
    bucket = { at = \"at\", every = \"day\", keep = \"9 days\" }\nwhere = \"amount > 0\"\n\
    sums = { amount = \"amount\", large = { of = \"amount * 2\", where = \"amount >= 2\" } }\n\
    board = { value = \"amount\", worst = \"sum(amount) OVER () - large\", limit = 0 }\n";

#[tokio::test]
async fn totals_never_call_a_hostile_public_schema() {
    let hostile = Hostile::start("hostile-totals", "public, pg_catalog").await;
    let client = hostile.client().await;
    let config = format!("{CONFIG}{TOTAL}");
    let mut ingest = ingest(&config, &hostile.url);
    let reading = |id: u32| format!(r#"{{"kind":"reading","id":"{id}","at":"{}","amount":{id}}}"#, now());
    applied(&mut ingest, "d", 1, &[&reading(1), &reading(2)]).await;
    applied(&mut ingest, "d", 3, &[&reading(3), &reading(2)]).await;
    let file = Files::new(&hostile.name);
    let environment = [
        ("DATABASE_URL".to_owned(), hostile.url.clone()),
        ("MILLSTREAM_CONFIG".to_owned(), file.write("millstream.toml", &config)),
    ];
    // The triggers also fire for a session that searches the hostile schema first.
    let attacked = connect(&hostile.url).await.unwrap();
    attacked.batch_execute("UPDATE doc.reading SET id = id").await.unwrap();
    let run = async |arguments: &[&str]| millstream(&environment, arguments).await.unwrap();
    for arguments in [&["plan"][..], &["status"], &["totals", "list"], &["totals", "check"], &["maintain"]] {
        let ran = run(arguments).await;
        assert!([0, 3].contains(&ran.code), "{arguments:?}: {ran:?}");
    }
    client.batch_execute("UPDATE millstream.amounts_v1_batch SET rows = 9").await.unwrap();
    let corrected = run(&["totals", "recompute"]).await;
    assert!(corrected.out.contains("corrected"), "{corrected:?}");
    assert_eq!(used(&client).await, [""; 0]);
    let total = "SELECT reading, rows, large FROM doc.amounts ORDER BY reading";
    let expected = [
        r#"{"reading":"1","rows":1,"large":null}"#,
        r#"{"reading":"2","rows":1,"large":4.00}"#,
        r#"{"reading":"3","rows":1,"large":6.00}"#,
    ];
    assert_eq!(rows(&client, total).await, expected);
    // The board, which connects with the same settings.
    let board = LocalBoard::start(&config, &hostile.url).unwrap();
    let page = Browser::new(&board.url()).with_bearer(&board.tokens().operator).json("/").await.parsed();
    assert!(page["not_refreshed"].is_null() && page["sections"]["total-amounts"]["groups"].is_array(), "{page:#}");
    for (id, section) in page["sections"].as_object().unwrap() {
        assert!(section["error"].is_null(), "{id}: {section:#}");
    }
    assert_eq!(used(&client).await, [""; 0]);
    // A changed total and one that is removed.
    file.write("millstream.toml", &format!("{CONFIG}{}", TOTAL.replace("amount * 2", "amount * 3")));
    assert_eq!(run(&["totals", "recompute"]).await.code, 0);
    assert_eq!(used(&client).await, [""; 0]);
}

/// A transform that reads changes by a key of the owner's type, and one that reads its target.
const TRANSFORMS: [(&str, &str); 2] = [
    (
        "owned",
        "-- target: report.owned\n-- key: id\n-- changes: doc.owned, doc.reading\n-- every: 1 minute\n\
         SELECT o.id::ext.citext AS id, o.v, false AS _deleted FROM millstream.changes(NULL::doc.owned) o\n\
         UNION ALL SELECT r.id, NULL, true FROM millstream.removed_keys(NULL::doc.owned) r\n",
    ),
    (
        "sums",
        "-- target: report.sums\n-- changes: report.owned\n-- key: id\n-- full_run: replace\n-- every: 1 minute\n\
         SELECT o.id, o.v + 1 AS v FROM millstream.changes(NULL::report.owned) o WHERE o.v > 0 AND o.id::text <> ''\n",
    ),
];

#[tokio::test]
async fn transforms_never_call_a_hostile_public_schema() {
    let hostile = Hostile::start("hostile-transforms", "public, pg_catalog").await;
    let client = hostile.client().await;
    let mut ingest = ingest(CONFIG, &hostile.url);
    let owned = |id: u32, v: u32| format!(r#"{{"kind":"owned","id":"i{id}","v":{v},"mood":"ok"}}"#);
    let reading = |id: u32| format!(r#"{{"kind":"reading","id":"{id}","at":"{}","amount":{id}}}"#, now());
    applied(&mut ingest, "d", 1, &[&owned(1, 1), &owned(2, 1), &reading(1)]).await;
    let files = Files::new(&hostile.name);
    let config = files.write("millstream.toml", CONFIG);
    std::fs::create_dir_all(config.replace("millstream.toml", "transforms")).unwrap();
    for (name, text) in TRANSFORMS {
        files.write(&format!("transforms/{name}.sql"), text);
    }
    let environment = [("DATABASE_URL".to_owned(), hostile.url.clone()), ("MILLSTREAM_CONFIG".to_owned(), config)];
    let run = async |arguments: &[&str]| millstream(&environment, arguments).await.unwrap();
    for arguments in
        [&["plan"][..], &["transform", "run"], &["transform", "list"], &["status"], &["maintain"], &["plan"]]
    {
        let ran = run(arguments).await;
        assert!([0, 3].contains(&ran.code), "{arguments:?}: {ran:?}");
    }
    assert_eq!(used(&client).await, [""; 0]);
    // The triggers also fire for a session that searches the hostile schema first.
    let attacked = connect(&hostile.url).await.unwrap();
    attacked
        .batch_execute("UPDATE doc.owned SET id = pg_catalog.upper(id::pg_catalog.text)::ext.citext, v = 7")
        .await
        .unwrap();
    attacked.batch_execute("DELETE FROM doc.owned WHERE id OPERATOR(ext.=) 'i2'::ext.citext").await.unwrap();
    applied(&mut ingest, "d", 9, &[&owned(3, 5), &reading(2)]).await;
    let ran = run(&["transform", "run"]).await;
    assert_eq!((ran.code, ran.out.contains("full run")), (0, false), "{ran:?}");
    assert_eq!(used(&client).await, [""; 0]);
    let expected = [r#"{"id":"i1","v":8}"#, r#"{"id":"i3","v":6}"#];
    assert_eq!(rows(&client, "SELECT id, v FROM report.sums WHERE id::text <> 'i2' ORDER BY id::text").await, expected);
    // A log that is not read any more is removed.
    files.write("transforms/owned.sql", &TRANSFORMS[0].1.replace(", doc.reading", ""));
    assert_eq!(run(&["transform", "run", "owned", "--full"]).await.code, 0);
    assert_eq!(run(&["transform", "run", "--due"]).await.code, 0);
    assert_eq!(used(&client).await, [""; 0]);
}
