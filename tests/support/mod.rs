//! What most tests start with: the shared cluster, an ingest for a configuration, files, and reading rows.

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use millstream::aws::Aws;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::dead_letter::DeadLetters;
use millstream::ingest::{Ingest, IngestError};
use millstream::report::Report;
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::pgbouncer::{Admission, PgBouncer};
use millstream_tests::postgresql::{Durability, PostgreSql, connect};
use millstream_tests::process::{target, workspace};
use millstream_tests::proxy::Proxy;
use tokio_postgres::Client;

/// The cluster that tests share unless they disrupt it.
pub fn cluster() -> &'static PostgreSql {
    static CLUSTER: OnceLock<PostgreSql> = OnceLock::new();
    CLUSTER.get_or_init(|| PostgreSql::start("tests", Durability::Test).expect("PostgreSQL starts"))
}

/// A new database of the shared cluster.
pub async fn database() -> String {
    cluster().database().await.expect("a database is created")
}

/// An ingest without a dead-letter queue: rejected records count as `retry`.
pub fn ingest(config: &str, url: &str) -> Ingest {
    let aws = Aws::default();
    let database = Database::new(&DatabaseAddress::from_url(url), aws.clone()).expect("the address is good");
    let config = Config::parse("test.toml", config).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    Ingest::new(config, database, DeadLetters::new(aws, None, None, "test".to_owned()))
}

/// Ingests documents as one batch of the stream `s`, numbered from `first`.
pub async fn batch(ingest: &mut Ingest, first: u64, documents: &[impl AsRef<[u8]>]) -> Result<Report, IngestError> {
    batch_of(ingest, "s", first, documents).await
}

/// Ingests documents as one batch of a stream.
pub async fn batch_of(
    ingest: &mut Ingest,
    stream: &str,
    first: u64,
    documents: &[impl AsRef<[u8]>],
) -> Result<Report, IngestError> {
    let numbered = (first..).zip(documents).map(|(number, data)| ShardRecord::numbered(number, data.as_ref()));
    let records: Vec<_> = numbered.collect();
    ingest.process_event(&event(stream, "shardId-000000000000", &records), Duration::from_secs(60)).await
}

/// The address of a database of the shared cluster, through a proxy.
pub fn through(url: &str, proxy: &Proxy) -> String {
    url.replace(&format!(":{}/", cluster().port()), &format!(":{}/", proxy.port()))
}

/// A pooler in front of a cluster. `None` if PgBouncer is not installed: the test is skipped, and `make test` says so. With
/// `MILLSTREAM_REQUIRE_PGBOUNCER=1` that is a failure.
pub fn pooler(cluster: u16, backends: u32, admission: Admission) -> Option<PgBouncer> {
    if PgBouncer::is_installed() {
        return Some(PgBouncer::start(cluster, backends, admission).expect("PgBouncer starts"));
    }
    skip_without(false, "PgBouncer", "MILLSTREAM_REQUIRE_PGBOUNCER");
    None
}

/// Whether a test can run, which needs a program. If it is not installed, the test is noted as skipped; if the variable is `1`, that
/// is a failure.
pub fn skip_without(is_installed: bool, program: &str, variable: &str) -> bool {
    if is_installed {
        return true;
    }
    let required = std::env::var_os(variable).is_some_and(|value| value == "1");
    assert!(!required, "{program} is not installed, and {variable} is 1");
    let thread = std::thread::current();
    let line = format!("{} ({program})\n", thread.name().unwrap_or_default());
    let file = std::fs::File::options().create(true).append(true).open(target().join("skipped-tests"));
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the skipped test is noted");
    false
}

/// The rows of a query, each as one line of text.
pub async fn rows(client: &Client, query: &str) -> Vec<String> {
    let rows = client.query(&format!("SELECT row_to_json(q)::text FROM ({query}) q"), &[]).await;
    rows.unwrap_or_else(|error| panic!("{query}: {error:?}")).iter().map(|row| row.get(0)).collect()
}

/// A sample of `tests/inputs`: a Lambda event.
pub fn sample(name: &str) -> Vec<u8> {
    std::fs::read(workspace().join("tests/inputs").join(name)).expect("the sample exists")
}

/// Puts Millstream's notes on a table that its owner made, and on those of its columns whose names match, so that they are filled.
pub async fn adopt(client: &Client, table: &str, label: &str, columns: &str) {
    let notes = format!(
        "SELECT format('COMMENT ON COLUMN %s.%I IS %L', attrelid::regclass, attname, 'Millstream: ' || attname) FROM pg_attribute \
         WHERE attrelid = '{table}'::regclass AND attnum > 0 AND attname ~ '^({columns})$' \
         UNION ALL SELECT format('COMMENT ON TABLE {table} IS %L', 'Millstream: {label}')"
    );
    for row in client.query(&notes, &[]).await.expect("the columns are listed") {
        client.batch_execute(row.get(0)).await.expect("the owner comments");
    }
}

/// A client of a database.
pub async fn client(url: &str) -> Client {
    connect(url).await.expect("PostgreSQL answers")
}

/// A client that [`kill_a_victim`] may kill, with settings of its own; retried until PostgreSQL answers.
pub async fn victim(url: &str, settings: &str) -> Client {
    loop {
        if let Ok(client) = connect(url).await
            && client.batch_execute(&format!("SET application_name = 'victim'; {settings}")).await.is_ok()
        {
            return client;
        }
    }
}

/// Kills the backend of one of the victims of this database.
pub async fn kill_a_victim(client: &Client) {
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim' AND datname = current_database() \
        ORDER BY random() LIMIT 1";
    client.batch_execute(kill).await.expect("a backend is killed");
}

/// How long a test of concurrency runs: the given seconds in the suite, or what `MILLSTREAM_SOAK_SECONDS` says.
pub fn soak_time(seconds: u64) -> Duration {
    let variable = std::env::var_os("MILLSTREAM_SOAK_SECONDS");
    Duration::from_secs(variable.and_then(|text| text.to_str()?.parse().ok()).unwrap_or(seconds))
}

/// Files of a test, removed when it is dropped.
pub struct Files(PathBuf);

impl Files {
    /// A folder of this name, unique to this process.
    pub fn new(name: &str) -> Self {
        let folder = target().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder is created");
        Self(folder)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file is written");
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}
