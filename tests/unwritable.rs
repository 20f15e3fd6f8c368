//! A table that cannot be written as it is defined costs its own records, never its neighbours, until its owner has run the
//! statements that the message names.

mod functions;
mod keys;
mod locks;
mod partitions;
mod rights;
mod schema_changes;

use std::time::Duration;

use millstream::ingest::{DryRun, Ingest};
use millstream::report::Report;
use millstream_tests::kinesis::{ShardRecord, event};
use tokio_postgres::Client;

use crate::support::ingest;

const SEGMENT: &str = "[source.s]\nstream = \"s\"\n";

/// Longer than any batch of these tests takes.
const PLENTY: Duration = Duration::from_secs(60);

/// Documents as a batch of the stream `s`.
fn documents(documents: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let numbered = (1..).zip(documents).map(|(number, data)| ShardRecord::numbered(number, data.as_ref()));
    event("s", "shardId-000000000000", &numbered.collect::<Vec<_>>())
}

async fn process(ingest: &mut Ingest, event: &[u8]) -> Report {
    ingest.process_event(event, PLENTY).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The same configuration, whose source waits for a table that cannot be written.
fn waiting(config: &str) -> String {
    let (line, rest) = config.split_once('\n').expect("a section");
    format!("{line}\non_unwritable = \"stop\"\n{rest}")
}

/// A batch with a table that cannot be written.
struct Unwritable<'t> {
    config: &'t str,
    /// The writer's address, which may be another role's than the owner's.
    url: &'t str,
    event: &'t [u8],
    /// The table.
    table: &'t str,
    /// How many records are written all the same, and how many are not.
    applied: u64,
    rejected: u64,
}

impl Unwritable<'_> {
    /// Checks what becomes of the batch until the owner has run the remedy, and afterwards. Returns the message.
    async fn until_fixed(&self, owner: &Client) -> String {
        let mut waiting = ingest(&waiting(self.config), self.url);
        let error = waiting.process_event(self.event, PLENTY).await.expect_err("the source waits");
        assert!(error.needs_operator(), "{error}");
        let message = error.to_string();
        assert!(message.contains(&format!("table {} cannot be written", self.table)), "{message}");

        let mut ingest = ingest(self.config, self.url);
        let report = process(&mut ingest, self.event).await;
        let found = (report.counts.applied, report.counts.retry, report.unwritable_tables);
        assert_eq!(found, (self.applied, self.rejected, 1), "{report}: {message}");
        assert_eq!(report.reasons.get("unwritable"), Some(&self.rejected), "{report}");
        // The catalog that the process keeps does not change that.
        let again = process(&mut ingest, self.event).await;
        assert_eq!((again.counts.applied, again.counts.retry), (0, self.rejected), "{again}");

        for statement in remedy(&message) {
            let run = owner.batch_execute(&statement).await;
            run.unwrap_or_else(|error| panic!("{statement}: {error:?} ({message})"));
        }
        let fixed = process(&mut ingest, self.event).await;
        assert_eq!((fixed.counts.applied, fixed.counts.retry), (self.rejected, 0), "{fixed}: {message}");
        let waited = process(&mut waiting, self.event).await;
        assert_eq!(waited.counts.retry, 0, "{waited}");
        message
    }

    /// The text of a dry run, which changes nothing.
    async fn dry_run(&self) -> String {
        let mut ingest = ingest(self.config, self.url);
        DryRun::new(&mut ingest).plan_event(self.event).await.expect("a plan").plan.to_string()
    }
}

/// The statements that a message names.
fn remedy(message: &str) -> Vec<String> {
    let (_, statements) = message.rsplit_once("run: ").unwrap_or_else(|| panic!("no remedy: {message}"));
    let statements = statements.split("; the source waits").next().unwrap_or(statements);
    statements.split("; ").map(str::to_owned).collect()
}
