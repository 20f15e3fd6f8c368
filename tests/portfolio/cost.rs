//! What a user's report reads, with many holdings, prices and news.

use std::time::Duration;

use millstream_tests::process::workspace;
use millstream_tests::totals::{build_totals, fold_all};
use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{config, reports, sample};
use crate::support::ingest;

/// 10,000 users with 20 companies each, of 1,000.
const TRADES: &str = "INSERT INTO portfolio.trade (trade_id, user_id, company, side, shares, price, traded_at) \
    SELECT 'many-' || i, 'user-' || i % 10000, 'company-' || (i % 10000 * 7 + i / 10000 * 50) % 1000, 'buy', 1 + i % 90, 10, \
    '2026-02-09T15:00:00Z' FROM generate_series(0, 199999) i";
const PRICES: &str = "INSERT INTO portfolio.price (company, price, priced_at, _version) \
    SELECT 'company-' || i, 10 + i % 100, '2026-02-09T15:00:00Z', (SELECT max(_version) FROM portfolio.price) \
    FROM generate_series(0, 999) i";
/// 50,000 items in one month.
const ITEMS: &str = "INSERT INTO portfolio.news (company, published_at, news_id, headline, revision, _version) \
    SELECT 'company-' || i % 1000, '2026-02-10T00:00:00Z'::timestamptz + i * interval '20 s', 'many-' || i, 'Headline ' || i, 1, \
    (SELECT max(_version) FROM portfolio.news) FROM generate_series(0, 49999) i";

/// Pages of 8 kB: a report that scanned the holdings or the news would read thousands.
const PAGES_MAX: u64 = 600;

#[tokio::test]
async fn a_report_reads_the_holdings_and_the_news_by_their_indexes() {
    let (client, url) = reports().await;
    let mut ingest = ingest(&config(), &url);
    for name in ["trades", "prices", "news-before-trades"] {
        ingest.process_event(&sample(name), Duration::from_secs(60)).await.unwrap();
    }
    let versions = build_totals(&client, &workspace().join("events/portfolio")).await.unwrap();
    for statement in [TRADES, PRICES, ITEMS] {
        client.batch_execute(statement).await.unwrap();
    }
    // Unfolded deltas, as after a large load, then the folded batch.
    for case in ["deltas", "batch"] {
        client.batch_execute("VACUUM ANALYZE").await.unwrap();
        for query in ["holdings('user-77')", "news_for('user-77', '2026-02-09T00:00:00Z')"] {
            assert_reads_few_pages(&client, &format!("SELECT * FROM portfolio.{query}"), case).await;
        }
        fold_all(&client, &versions[0]).await.unwrap();
    }
}

/// Runs a query, which returns rows, and counts the pages that it reads.
async fn assert_reads_few_pages(client: &Client, query: &str, case: &str) {
    // PostgreSQL returns the plan as json, which only the simple protocol delivers as text.
    let explained = client.simple_query(&format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")).await.unwrap();
    let SimpleQueryMessage::Row(row) = &explained[1] else { panic!("no plan of {query}: {explained:?}") };
    let plan: Value = serde_json::from_str(row.get(0).unwrap()).unwrap();
    let plan = &plan[0]["Plan"];
    assert!(plan["Actual Rows"].as_f64() > Some(0.0), "{query} returns nothing:\n{plan:#}");
    let pages = plan["Shared Hit Blocks"].as_u64().unwrap() + plan["Shared Read Blocks"].as_u64().unwrap();
    assert!(pages <= PAGES_MAX, "{query} reads {pages} pages from the {case}:\n{plan:#}");
}
