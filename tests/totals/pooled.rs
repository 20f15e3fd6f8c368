//! Totals through a pooler that gives every transaction another backend.

use std::time::Duration;

use millstream::aws::Aws;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::task::Deadline;
use millstream::totals::task::{TotalsTask, run_task};
use millstream_tests::pgbouncer::Admission;

use super::EVENTS;
use crate::support::{batch, client, cluster, database, ingest, pooler, rows};

#[tokio::test]
async fn totals_are_built_folded_and_recomputed_through_a_pooler() {
    let Some(pooler) = pooler(cluster().port(), 2, Admission::Anybody) else { return };
    let direct = database().await;
    let (owner, url) = (client(&direct).await, pooler.url(&direct));
    let mut ingest = ingest(EVENTS, &url);
    for round in 0..4_u64 {
        let bet = |id: u64| {
            format!(
                r#"{{"bet_id":"{round}-{id}","game":"g{}","stake":{id},"at":"2026-02-0{}T10:00:00Z"}}"#,
                id % 3,
                1 + round
            )
        };
        let bets: Vec<String> = (0..100).map(bet).collect();
        batch(&mut ingest, 1 + round * 100, &bets).await.unwrap();
    }
    let expected = "SELECT game, count(*) AS rows, sum(stake) AS staked FROM s.bet GROUP BY game ORDER BY game";
    let totals = "SELECT game, rows, staked FROM s.betting ORDER BY game";
    assert_eq!(rows(&owner, totals).await, rows(&owner, expected).await);
    owner.batch_execute("UPDATE millstream.betting_v1_batch SET staked = staked + 1").await.unwrap();
    owner.batch_execute("UPDATE millstream.betting_v1_delta SET staked = staked + 1").await.unwrap();
    let database = Database::new(&DatabaseAddress::from_url(&url), Aws::default()).unwrap();
    let config = Config::parse("test.toml", EVENTS).unwrap();
    let answer =
        run_task(&config, &database, TotalsTask::default(), Deadline::after(Duration::from_secs(60))).await.unwrap();
    assert_eq!(answer.results[0].report.as_ref().unwrap().off_by, 3, "{answer:?}");
    assert_eq!(rows(&owner, totals).await, rows(&owner, expected).await);
    let events = "SELECT source, relation, detail FROM millstream.event WHERE kind = 'recompute'";
    let expected = r#"{"source":"s","relation":"s.betting","detail":"total recomputed: it was off by 3 groups"}"#;
    assert_eq!(rows(&owner, events).await, [expected]);
}
