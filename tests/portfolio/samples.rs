//! The sample events, one after the other, through the real function.

use std::time::Duration;

use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::process::workspace;
use tokio_postgres::Client;

use super::{assert_total_is_exact, reports, sample};

/// The function that loads the streams, and a client of its database.
struct Portfolio {
    function: Function,
    client: Client,
}

impl Portfolio {
    async fn start() -> Self {
        let (client, url) = reports().await;
        let config = workspace().join("events/portfolio/millstream.toml").to_string_lossy().into_owned();
        let environment = vec![("DATABASE_URL".to_owned(), url), ("MILLSTREAM_CONFIG".to_owned(), config)];
        let binary = binary("kinesis-ingest").unwrap();
        let function = Function::start(Settings { binary, environment, timeout: Duration::from_secs(60) });
        Self { function: function.await.unwrap(), client }
    }

    /// Delivers a sample; nothing is rejected.
    async fn deliver(&mut self, name: &str) {
        let response = self.function.invoke(sample(name)).await.unwrap();
        assert_eq!(response, r#"{"batchItemFailures":[]}"#, "{name}");
    }

    /// A user's holdings: company, shares, and weight in percent.
    async fn holdings(&self, user: &str) -> Vec<String> {
        let query = "SELECT company || ' ' || shares || ' ' || coalesce(round(100 * weight, 1)::text, '?') FROM portfolio.holdings($1)";
        self.texts(query, user).await
    }

    /// The headlines of a user's report.
    async fn headlines(&self, user: &str) -> Vec<String> {
        self.texts("SELECT headline FROM portfolio.news_for($1, '2026-02-09T00:00:00Z')", user).await
    }

    async fn texts(&self, query: &str, user: &str) -> Vec<String> {
        let rows = self.client.query(query, &[&user]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

const ASTER_WINS: &str = "Aster wins a contract";
const ASTER_RECALLS: &str = "Aster recalls a product";
const BOREALIS: &str = "Borealis opens a plant";
const COBALT: &str = "Cobalt finds a large deposit";

#[tokio::test]
async fn each_user_gets_the_news_about_the_companies_that_weigh_enough() {
    let mut portfolio = Portfolio::start().await;
    portfolio.deliver("news-before-trades").await;
    // One of these trades is in the batch twice.
    portfolio.deliver("trades").await;
    portfolio.deliver("prices").await;
    assert_total_is_exact(&portfolio.client, "after the first trades").await;
    // News from before the trade.
    assert_eq!(portfolio.holdings("ada").await, ["Aster 100 66.7", "Borealis 10 33.3"]);
    assert_eq!(portfolio.headlines("ada").await, [BOREALIS, ASTER_WINS]);
    // A short position weighs as much as a long one, although the portfolio's net value is zero.
    assert_eq!(portfolio.holdings("bob").await, ["Aster -200 50.0", "Borealis 40 50.0"]);
    assert_eq!(portfolio.headlines("bob").await, [BOREALIS, ASTER_WINS]);
    // All sold, and never bought.
    for user in ["cleo", "nobody"] {
        assert_eq!(portfolio.holdings(user).await, [""; 0]);
        assert_eq!(portfolio.headlines(user).await, [""; 0]);
    }
    assert_eq!(portfolio.holdings("dan").await, ["Borealis 19.5 97.5", "Cobalt 5 2.5"]);

    // News from after the trades; an item that is delivered again, and one whose correction is overtaken by the original.
    portfolio.deliver("news-after-trades").await;
    assert_eq!(portfolio.headlines("ada").await, [ASTER_RECALLS, BOREALIS, ASTER_WINS]);
    assert_eq!(portfolio.headlines("bob").await, [ASTER_RECALLS, BOREALIS, ASTER_WINS]);
    assert_eq!(portfolio.headlines("dan").await, [BOREALIS], "Cobalt weighs less than the default threshold");

    // A price lifts a company over the threshold. Older prices that arrive later, and repeated ones, change nothing.
    portfolio.deliver("price-rises").await;
    assert_eq!(portfolio.holdings("dan").await, ["Borealis 19.5 79.6", "Cobalt 5 20.4"]);
    assert_eq!(portfolio.headlines("dan").await, [COBALT, BOREALIS]);
    assert_eq!(portfolio.holdings("ada").await, ["Aster 100 66.7", "Borealis 10 33.3"]);
}

#[tokio::test]
async fn late_and_repeated_trades_are_counted_once_in_any_order() {
    let mut portfolio = Portfolio::start().await;
    for name in ["late-trades", "price-rises", "news-after-trades", "trades", "prices", "news-before-trades", "trades"]
    {
        portfolio.deliver(name).await;
    }
    assert_total_is_exact(&portfolio.client, "after all trades").await;
    // A purchase of last week was reported last, and bob's short position is closed.
    assert_eq!(portfolio.holdings("ada").await, ["Cobalt 40 57.1", "Aster 100 28.6", "Borealis 10 14.3"]);
    assert_eq!(portfolio.headlines("ada").await, [COBALT, ASTER_RECALLS, BOREALIS, ASTER_WINS]);
    assert_eq!(portfolio.holdings("bob").await, ["Borealis 40 100.0"]);
    assert_eq!(portfolio.headlines("bob").await, [BOREALIS]);
}

#[tokio::test]
async fn a_threshold_of_a_user_s_own_takes_the_place_of_the_default() {
    let mut portfolio = Portfolio::start().await;
    for name in ["trades", "prices", "news-before-trades"] {
        portfolio.deliver(name).await;
    }
    assert_eq!(portfolio.headlines("ada").await, [BOREALIS, ASTER_WINS]);
    for (threshold, expected) in [("0.34", &[ASTER_WINS][..]), ("1", &[]), ("0", &[BOREALIS, ASTER_WINS])] {
        let statement = format!(
            "INSERT INTO portfolio.threshold VALUES ('ada', {threshold}) ON CONFLICT (user_id) DO UPDATE SET weight = EXCLUDED.weight"
        );
        portfolio.client.batch_execute(&statement).await.unwrap();
        assert_eq!(portfolio.headlines("ada").await, expected, "{threshold}");
        assert_eq!(portfolio.headlines("bob").await, [BOREALIS, ASTER_WINS], "bob's is the default");
    }
    // Both report functions agree.
    let all =
        "SELECT user_id || ': ' || headline FROM portfolio.news_for_all('2026-02-09T00:00:00Z') WHERE user_id = $1";
    assert_eq!(portfolio.texts(all, "ada").await, [BOREALIS, ASTER_WINS].map(|headline| format!("ada: {headline}")));
}

#[tokio::test]
async fn a_company_without_a_price_has_no_weight() {
    let mut portfolio = Portfolio::start().await;
    // Only Cobalt and Aster have prices.
    for name in ["trades", "price-rises", "news-before-trades"] {
        portfolio.deliver(name).await;
    }
    assert_eq!(portfolio.holdings("dan").await, ["Cobalt 5 100.0", "Borealis 19.5 ?"]);
    assert_eq!(portfolio.headlines("dan").await, [""; 0]);
}
