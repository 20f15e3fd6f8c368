//! A day on the market through three streams, against what follows from the events.

use millstream::clock::now;
use millstream_tests::event_source::Progress;
use millstream_tests::portfolio::{Market, STREAMS, market_day};
use millstream_tests::process::workspace;
use millstream_tests::system::System;
use millstream_tests::totals::{Recompute, build_totals};

use super::assert_total_is_exact;
use crate::support::database;

const MARKET: Market = Market { users: 30, companies: 12, duplicates: 30, late: 30 };

#[tokio::test]
async fn the_reports_of_a_day_on_the_market_follow_from_its_events() {
    let folder = workspace().join("events/portfolio");
    let system = System::start_all(&folder, &STREAMS.map(|stream| (stream, 2)), database().await).await.unwrap();
    let client = system.client().await.unwrap();
    client.batch_execute(&std::fs::read_to_string(folder.join("report.sql")).unwrap()).await.unwrap();
    client.batch_execute("INSERT INTO portfolio.threshold VALUES ('user-3', 0.2)").await.unwrap();

    let day = market_day(6_000, 11, MARKET, now());
    let account = system.run_all(&day.streams(), &Progress::default()).await.unwrap();
    assert_eq!(account.mistakes(), [""; 0]);
    assert_eq!(account.reported.dead_lettered, 0);

    build_totals(&client, &folder).await.unwrap();
    assert_total_is_exact(&client, "after the day").await;
    let trades: i64 = client.query_one("SELECT count(*) FROM portfolio.trade", &[]).await.unwrap().get(0);
    assert_eq!(trades as u64, day.expected.trades);
    for user in (0..MARKET.users).map(|number| format!("user-{number}")) {
        let query = "SELECT headline FROM portfolio.news_for($1, '-infinity') ORDER BY headline COLLATE \"C\"";
        let found = client.query(query, &[&user]).await.unwrap();
        let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        let threshold = if user == "user-3" { 200 } else { 100 };
        assert_eq!(found, day.expected.report(&user, threshold), "{user}");
    }
    let report = Recompute::start(&folder, &system.url).await.unwrap().run().await.unwrap();
    assert_eq!((report.off_by, report.triggers_repaired), (0, 0), "{report:?}");
}
