//! Totals of tables that the writer fills: they appear with the table, stay exact, and outlive partitions.

use millstream::clock::now;
use millstream::timestamp::Timestamp;

use super::EVENTS;
use crate::maintain::run_maintain_with;
use crate::support::{batch, client, database, ingest, rows};

const DAY: i64 = 86_400_000_000;

/// The table keeps its partitions for a while.
fn config(keep: &str) -> String {
    EVENTS.replace("every = \"day\"", &format!("every = \"day\", ahead = 1, keep = \"{keep}\""))
}

fn bet(number: u64, game: &str, days_ago: i64) -> String {
    let at = Timestamp(now().0 - days_ago * DAY);
    format!(r#"{{"bet_id":"{number}","game":"{game}","stake":{number},"at":"{at}"}}"#)
}

#[tokio::test]
async fn a_total_appears_with_its_table_and_outlives_its_partitions() {
    let url = database().await;
    let client = client(&url).await;
    let mut ingest = ingest(&config("10 days"), &url);
    let totals = "SELECT game, rows, staked FROM s.betting ORDER BY game";
    batch(&mut ingest, 1, &[bet(1, "a", 9), bet(2, "b", 0)]).await.unwrap();
    assert_eq!(
        rows(&client, totals).await,
        [r#"{"game":"a","rows":1,"staked":1.00}"#, r#"{"game":"b","rows":1,"staked":2.00}"#]
    );
    // A new partition has the triggers; a repeated record changes nothing.
    batch(&mut ingest, 3, &[bet(3, "a", 4), bet(4, "b", 4)]).await.unwrap();
    batch(&mut ingest, 3, &[bet(3, "a", 4), bet(4, "b", 4), bet(5, "b", 4)]).await.unwrap();
    let expected = [r#"{"game":"a","rows":2,"staked":4.00}"#, r#"{"game":"b","rows":3,"staked":11.00}"#];
    assert_eq!(rows(&client, totals).await, expected);
    // All partitions but today's expire.
    let report = run_maintain_with(&config("2 days"), &url).await;
    assert_eq!(report.dropped.len(), 2, "{report:?}");
    assert_eq!(rows(&client, "SELECT game, sum(stake) FROM s.bet GROUP BY game").await, [r#"{"game":"b","sum":2.00}"#]);
    assert_eq!(rows(&client, totals).await, expected);
    let found = rows(&client, "SELECT state, served, off_by FROM millstream.total").await;
    assert_eq!(found, [r#"{"state":"ready","served":true,"off_by":0}"#]);
}
