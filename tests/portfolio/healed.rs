//! Someone changes the stored figures of the total by hand; the next recompute heals them.

use std::time::Duration;

use millstream_tests::process::workspace;
use millstream_tests::totals::{Recompute, build_totals, corrections, fold_all};

use super::{assert_total_is_exact, config, reports, sample};
use crate::support::{ingest, rows};

/// Each statement with what the recompute adds. `{batch}` and `{delta}` are the total's tables.
const FALSIFICATIONS: &[(&str, &[&str])] = &[
    (
        "UPDATE {batch} SET shares = shares + 1000 WHERE user_id = 'ada' AND company = 'Aster'",
        &["user_id ada, company Aster: shares -1000"],
    ),
    (
        "DELETE FROM {batch} WHERE user_id = 'bob'",
        &[
            "user_id bob, company Aster: rows 1, shares -200, cost -2000",
            "user_id bob, company Borealis: rows 1, shares 40, cost 2000",
        ],
    ),
    (
        "INSERT INTO {delta} (user_id, company, rows, shares, shares_count, shares_nan, shares_inf, shares_neg_inf, \
         cost, cost_count, cost_nan, cost_inf, cost_neg_inf) VALUES ('eve', 'Aster', 1, 5, 1, 0, 0, 0, 50, 1, 0, 0, 0)",
        &["user_id eve, company Aster: rows -1, shares -5, cost -50"],
    ),
    (
        "UPDATE {batch} SET company = 'Cobalt' WHERE user_id = 'ada' AND company = 'Borealis'",
        &[
            "user_id ada, company Borealis: rows 1, shares 10, cost 500",
            "user_id ada, company Cobalt: rows -1, shares -10, cost -500",
        ],
    ),
];

#[tokio::test]
async fn a_recompute_heals_a_falsified_total_and_says_by_how_much_it_was_off() {
    let (client, url) = reports().await;
    let mut ingest = ingest(&config(), &url);
    for name in ["trades", "prices", "news-before-trades"] {
        ingest.process_event(&sample(name), Duration::from_secs(60)).await.unwrap();
    }
    let folder = workspace().join("events/portfolio");
    let versions = build_totals(&client, &folder).await.unwrap();
    let version = &versions[0];
    let mut recompute = Recompute::start(&folder, &url).await.unwrap();
    let sql = version.sql().unwrap();
    let report = "SELECT user_id, company, weight, headline FROM portfolio.news_for_all('2026-02-09T00:00:00Z')";
    let right = rows(&client, report).await;
    for (statement, expected) in FALSIFICATIONS {
        fold_all(&client, version).await.unwrap();
        let statement = statement.replace("{batch}", &sql.object("batch")).replace("{delta}", &sql.object("delta"));
        client.batch_execute(&statement).await.unwrap();
        let found = recompute.run().await.unwrap();
        let mut corrected = corrections(version, &found);
        corrected.sort();
        assert_eq!(corrected, *expected, "{statement}");
        assert_eq!(found.off_by, expected.len() as u64, "{statement}");
        assert_total_is_exact(&client, &statement).await;
        assert_eq!(rows(&client, report).await, right, "{statement}");
        assert_eq!(recompute.run().await.unwrap().off_by, 0, "{statement}");
    }
}
