//! Totals equal the sums over the rows, whoever changes the rows and however.

mod cases;
mod concurrent;
mod direct;
mod heal;
mod lifecycle;
mod live;
mod pooled;
mod protocol;

use std::time::Duration;

use millstream::config::Config;
use millstream::totals::build::{BuildLimits, BuildOutcome, FrozenPolicy, build};
use millstream::totals::{TotalVersion, fold};
use tokio_postgres::Client;

use crate::support::rows;
pub use crate::support::{client, database};

/// The source and the table that the totals of these tests are about.
pub const SOURCE: &str = r#"
[source.s]
stream = "s"
format = "json"
[table.bet]
source = "s"
key = ["bet_id", "day"]
version = "v"
"#;

/// A total with groups, a bucket, a condition, and sums with and without a condition.
pub const BETTING: &str = r#"
[total.betting]
table = "bet"
by = ["game_id", "side"]
bucket = { at = "placed_at", every = "hour" }
where = "status IS DISTINCT FROM 'cancelled'"
sums = { staked = "stake", open_liability = { of = "stake * odds", where = "status IN ('placed', 'changed')" }, paid = "payout" }
"#;

/// Bets as events that the writer fills, summed by game.
pub const EVENTS: &str = r#"
[source.s]
stream = "s"
format = "json"
[table.bet]
source = "s"
id = "bet_id"
partition = { by = "at", every = "day" }
columns = { game = "game", stake = { path = "stake", type = "numeric(12,2)" } }
[total.betting]
table = "bet"
by = ["game"]
sums = { staked = "stake" }
"#;

/// What the total must equal, by SQL's own sums.
pub const EXPECTED: &str = "SELECT game_id, side, date_trunc('hour', placed_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS hour, \
    count(*) AS rows, sum(stake) AS staked, sum(stake * odds) FILTER (WHERE status IN ('placed', 'changed')) AS open_liability, \
    sum(payout) AS paid FROM s.bet WHERE status IS DISTINCT FROM 'cancelled' GROUP BY 1, 2, 3";

/// A table of bets, partitioned by day, with three partitions.
pub const TABLE: &str = "CREATE SCHEMA s; CREATE TABLE s.bet (bet_id text, day timestamptz, v bigint, game_id text, side text, \
    status text, stake numeric, odds double precision, payout numeric(12,2), placed_at timestamptz, PRIMARY KEY (bet_id, day)) \
    PARTITION BY RANGE (day); \
    CREATE TABLE s.bet_1 PARTITION OF s.bet FOR VALUES FROM ('2026-01-01Z') TO ('2026-01-02Z'); \
    CREATE TABLE s.bet_2 PARTITION OF s.bet FOR VALUES FROM ('2026-01-02Z') TO ('2026-01-03Z'); \
    CREATE TABLE s.bet_3 PARTITION OF s.bet FOR VALUES FROM ('2026-01-03Z') TO ('2026-01-04Z')";

/// A minute for statements, and patience for locks.
pub const LIMITS: BuildLimits =
    BuildLimits { statement: Duration::from_secs(60), attempts: 30, frozen: FrozenPolicy::Keep };

/// A database with the table of bets.
pub async fn bets() -> Client {
    let client = client(&database().await).await;
    client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    client.batch_execute(TABLE).await.unwrap();
    client
}

/// Builds a total that is ready to be built.
pub async fn built(client: &Client, total: &str) -> TotalVersion {
    let config = Config::parse("test.toml", &format!("{SOURCE}{total}")).unwrap_or_else(|errors| panic!("{errors}"));
    match build(client, &config.totals[0], LIMITS).await.unwrap() {
        BuildOutcome::Ready(version) => *version,
        BuildOutcome::Waiting { reason } => panic!("{reason}"),
    }
}

/// Folds all deltas.
pub async fn fold_all(client: &Client, version: &TotalVersion) {
    let folded = fold::fold(client, &version.sql().unwrap(), Duration::ZERO, Duration::from_secs(60)).await.unwrap();
    assert!(folded.is_some());
}

/// Asserts that a view equals a query, as sets of rows, with equal numbers.
pub async fn assert_equal(client: &Client, view: &str, expected: &str, case: &str) {
    let difference = format!(
        "(SELECT * FROM {view} EXCEPT ALL ({expected})) UNION ALL (({expected}) EXCEPT ALL SELECT * FROM {view})"
    );
    let found = rows(client, &difference).await;
    assert!(
        found.is_empty(),
        "{case}: {:#?}",
        found.iter().map(|row| row.chars().take(300).collect::<String>()).collect::<Vec<_>>()
    );
}

/// A sum of floats depends on their order; the total is the exact sum.
pub fn exact(expected: &str) -> String {
    expected.replace("sum(stake * odds)", "sum((stake * odds::numeric))")
}
