//! A period that has been dropped is restored from the backup on S3: into a schema of its own, to correct the sums that a total keeps
//! of it, or into the table itself.

use millstream::aws::Aws;
use millstream::clock::now;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::dead_letter::DeadLetters;
use millstream::ingest::Ingest;
use millstream::maintain::maintain;
use millstream::timestamp::Timestamp;
use millstream_tests::local_aws::{LocalAws, REGION};
use millstream_tests::program::{Ran, millstream};
use tokio_postgres::Client;

use super::{assert_refused, config_file, environment};
use crate::support::{batch, client, database, rows};

const DAY: i64 = 24 * 3_600_000_000;

/// Events that are kept on S3, and in the table for a few days.
const SALES: &str = "[source.shop]\nstream = \"s\"\nformat = \"json\"\nbackup = true\nschema = \"SCHEMA\"\n\
    [table.sale]\nsource = \"shop\"\nid = \"id\"\npartition = { by = \"at\", every = \"day\"KEEP }\n\
    columns = { item = { path = \"item\", type = \"text\" }, amount = { path = \"amount\", type = \"numeric\" } }\n";

const TOTAL: &str = "[total.sales]\ntable = \"sale\"\nby = [\"item\"]\nsums = { amount = \"amount\" }\n";

const SUMS: &str = "SELECT item, rows, amount FROM shop.sales ORDER BY item";

fn config(schema: &str, keep: &str, total: &str) -> String {
    let keep = if keep.is_empty() { String::new() } else { format!(", keep = \"{keep}\"") };
    SALES.replace("SCHEMA", schema).replace("KEEP", &keep) + total
}

fn sale(id: u32, item: &str, amount: &str, days: i64) -> String {
    let at = Timestamp(now().0 + days * DAY);
    format!(r#"{{"id":"{id}","item":"{item}","amount":{amount},"at":"{at}"}}"#)
}

/// A total of sales, of which one day has been dropped; the backup holds all.
struct Archive {
    environment: Vec<(String, String)>,
    client: Client,
    /// The dropped partition, as `schema.name`, with its period.
    dropped: String,
    period: (Timestamp, Timestamp),
    _aws: LocalAws,
}

impl Archive {
    async fn start(name: &str) -> Self {
        let (aws, url) = (LocalAws::start().await.unwrap(), database().await);
        aws_sdk_s3::Client::new(aws.config()).create_bucket().bucket(name).send().await.unwrap();
        let sdk = Aws::local(aws.endpoint(), REGION).await;
        let text = config("shop", "20 days", TOTAL);
        let parsed = |text: &str| Config::parse("test.toml", text).unwrap();
        let connect = || Database::new(&DatabaseAddress::from_url(&url), sdk.clone()).unwrap();
        let letters = DeadLetters::new(sdk.clone(), None, Some(name.to_owned()), "test".to_owned());
        let sales =
            [sale(1, "tea", "2.50", -5), sale(2, "tea", "1", -5), sale(3, "jam", "4", -5), sale(4, "tea", "7", 0)];
        batch(&mut Ingest::new(parsed(&text), connect(), letters), 1, &sales).await.unwrap();
        let client = client(&url).await;
        assert_eq!(rows(&client, SUMS).await, whole(), "the writer has built the total");
        // Five days later than it is, by a shorter retention.
        let report = maintain(&parsed(&config("shop", "3 days", TOTAL)), &connect()).await.unwrap();
        let [dropped] = &report.dropped[..] else { panic!("{report:?}") };
        let start = Timestamp::from_days(now().day_and_micros().0 - 5);
        let mut environment = environment(&config_file(name, &text), &url);
        environment.extend(aws.environment());
        environment.push(("ARCHIVE_BUCKET".to_owned(), name.to_owned()));
        let period = (start, Timestamp(start.0 + DAY));
        Self { environment, client, dropped: dropped.clone(), period, _aws: aws }
    }

    /// Runs the program, with another configuration if one is given.
    async fn run(&self, config: Option<&str>, arguments: &[&str]) -> Ran {
        let mut environment = self.environment.clone();
        if let Some(config) = config {
            environment.push(("MILLSTREAM_CONFIG".to_owned(), config.to_owned()));
        }
        millstream(&environment, arguments).await.unwrap()
    }

    /// Restores everything that has arrived until now into a schema without a retention.
    async fn reapply(&self, name: &str, schema: &str) {
        let shadow = config_file(name, &config(schema, "", ""));
        let arguments = [
            "backfill",
            "reapply",
            "--source",
            "shop",
            "--from",
            "2000-01-01T00:00:00Z",
            "--to",
            "2100-01-01T00:00:00Z",
        ];
        let restored = self.run(Some(&shadow), &arguments).await;
        assert_eq!(restored.code, 0, "{}{}", restored.out, restored.err);
    }

    /// The partition of a restored table that has the dropped period.
    async fn partition(&self, schema: &str) -> String {
        let name = self.dropped.split('.').nth(1).unwrap();
        let found = format!(
            "SELECT relname AS name FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relname = '{name}'"
        );
        assert_eq!(rows(&self.client, &found).await.len(), 1, "{name} is restored");
        format!("{schema}.{name}")
    }
}

/// The sums over all sales, dropped ones included.
fn whole() -> [&'static str; 2] {
    [r#"{"item":"jam","rows":1,"amount":4}"#, r#"{"item":"tea","rows":3,"amount":10.5}"#]
}

#[tokio::test]
async fn kept_sums_are_corrected_from_the_backup() {
    let archive = Archive::start("restored-sums").await;
    assert_eq!(rows(&archive.client, "SELECT count(*) FROM shop.sale").await, [r#"{"count":1}"#]);
    assert_eq!(rows(&archive.client, SUMS).await, whole(), "a total outlives its rows");
    archive.reapply("restored-sums-shadow", "shadow").await;
    assert_eq!(rows(&archive.client, "SELECT count(*) FROM shadow.sale").await, [r#"{"count":4}"#]);
    assert_eq!(rows(&archive.client, SUMS).await, whole(), "the copy in another schema is no part of the total");

    // Somebody has changed the kept sums, which no recompute can find out: their rows are gone.
    archive
        .client
        .batch_execute("UPDATE millstream.sales_v1_frozen SET amount = amount + 100 WHERE item = 'tea'")
        .await
        .unwrap();
    let recomputed = archive.run(None, &["totals", "recompute"]).await;
    assert_eq!(recomputed.code, 3, "the total now follows the wrong sums: {}{}", recomputed.out, recomputed.err);
    let partition = archive.partition("shadow").await;
    let refrozen = archive.run(None, &["totals", "refreeze", "sales", &archive.dropped, "--rows", &partition]).await;
    let said = format!("The sums of {} are those of its rows now.\n", archive.dropped);
    assert_eq!((refrozen.code, &*refrozen.out), (0, &*said), "{}", refrozen.err);
    assert_eq!(rows(&archive.client, SUMS).await, whole());
    let checked = archive.run(None, &["totals", "check"]).await;
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
    // It can be repeated.
    let json =
        archive.run(None, &["--json", "totals", "refreeze", "sales", &archive.dropped, "--rows", &partition]).await;
    assert_eq!(json.out.trim(), format!("\"{}\"", archive.dropped), "{}", json.err);
    assert_eq!(rows(&archive.client, SUMS).await, whole());

    for (arguments, code, reason) in [
        (["totals", "refreeze", "nobody", &archive.dropped, "--rows", &partition], 1, "no total with this name"),
        (["totals", "refreeze", "sales", &archive.dropped, "--rows", "shadow.nothing"], 1, "42P01"),
        (
            ["totals", "refreeze", "sales", &archive.dropped, "--rows", "shadow"],
            2,
            "`shadow` is not a name such as schema.table",
        ),
    ] {
        assert_refused(&archive.run(None, &arguments).await, code, reason);
    }
    assert_eq!(rows(&archive.client, SUMS).await, whole());
}

#[tokio::test]
async fn a_restored_period_is_attached_and_counts_once() {
    let archive = Archive::start("restored-period").await;
    archive.reapply("restored-period-shadow", "shadow").await;
    let partition = archive.partition("shadow").await;
    // The partition moves to the schema of the table, under its old name.
    let moved =
        format!("ALTER TABLE shadow.sale DETACH PARTITION {partition}; ALTER TABLE {partition} SET SCHEMA shop");
    archive.client.batch_execute(&moved).await.unwrap();
    let (from, to) = (archive.period.0.to_string(), archive.period.1.to_string());
    let attach = |table: &'static str, from: &str, to: &str| {
        ["totals", "attach", table, &archive.dropped, "--from", from, "--to", to].map(str::to_owned)
    };
    for (arguments, code, reason) in [
        (attach("shop.sale", "yesterday", &to), 2, "`yesterday` is not a timestamp"),
        (attach("sale", &from, &to), 2, "`sale` is not a name such as schema.table"),
        (attach("shop.sale", &to, &from), 1, "42P17"),
        (attach("shop.nothing", &from, &to), 1, "42P01"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_refused(&archive.run(None, &arguments).await, code, reason);
        assert_eq!(rows(&archive.client, SUMS).await, whole(), "{arguments:?}");
    }
    let arguments = attach("shop.sale", &from, &to);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let attached = archive.run(None, &arguments).await;
    assert_eq!(attached.code, 0, "{}{}", attached.out, attached.err);
    assert_eq!(rows(&archive.client, SUMS).await, whole(), "nothing counts twice");
    assert_eq!(rows(&archive.client, "SELECT count(*) FROM shop.sale").await, [r#"{"count":4}"#]);
    let checked = archive.run(None, &["totals", "check"]).await;
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
    // Its rows are rows again: a change of one changes the total.
    archive.client.batch_execute("UPDATE shop.sale SET amount = 5 WHERE item = 'jam'").await.unwrap();
    assert_eq!(rows(&archive.client, SUMS).await[0], r#"{"item":"jam","rows":1,"amount":5}"#);
}
