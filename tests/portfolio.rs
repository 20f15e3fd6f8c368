//! Portfolio news on real parts: the sample events through the real function, a day on the market through three streams, a
//! falsified total, and what a report reads.

mod cost;
mod healed;
mod market;
mod own_page;
mod samples;

use millstream_tests::process::workspace;
use tokio_postgres::Client;

use crate::support::{client, database, rows};

/// A database with the reports, and its address.
async fn reports() -> (Client, String) {
    let url = database().await;
    let client = client(&url).await;
    let folder = workspace().join("events/portfolio");
    client.batch_execute(&std::fs::read_to_string(folder.join("report.sql")).unwrap()).await.unwrap();
    (client, url)
}

/// The system's configuration.
fn config() -> String {
    std::fs::read_to_string(workspace().join("events/portfolio/millstream.toml")).unwrap()
}

/// A sample event of the system.
fn sample(name: &str) -> Vec<u8> {
    std::fs::read(workspace().join("events/portfolio").join(name).with_extension("json")).unwrap()
}

/// Asserts that the total has the sums over the trades.
async fn assert_total_is_exact(client: &Client, case: &str) {
    let sums = "SELECT user_id, company, count(*) AS rows, sum(CASE side WHEN 'buy' THEN shares ELSE -shares END) AS shares, \
        sum(CASE side WHEN 'buy' THEN shares * price ELSE -shares * price END) AS cost FROM portfolio.trade GROUP BY 1, 2";
    let total = "SELECT user_id, company, rows, shares, cost FROM portfolio.holdings";
    let difference = format!("({sums} EXCEPT ALL {total}) UNION ALL ({total} EXCEPT ALL {sums})");
    assert_eq!(rows(client, &difference).await, [""; 0], "{case}");
}
