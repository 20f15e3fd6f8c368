//! The board: what it shows, who may open it, and what it costs.

mod access;
mod browser;
pub mod client;
mod function;
mod panels;

use millstream_tests::board::LocalBoard;
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::{batch, client, database, ingest};
use client::{Answer, Browser};

const CONFIG: &str = r#"
[source.shop]
stream = "s"
format = "json"
[table.bet]
source = "shop"
key = ["id"]
version = "v"
merge = "row"
columns = { game = { path = "game", type = "text" }, side = { path = "side", type = "text" }, stake = { path = "stake", type = "numeric(12,2)" }, at = { path = "at", type = "timestamptz" } }
[total.betting]
table = "bet"
by = ["game", "side"]
sums = { staked = "stake" }
board = { split = "side", value = "staked", unit = "USD", worst = "sum(staked) OVER (PARTITION BY game) - 3 * staked", limit = -100 }
[total.by_minute]
table = "bet"
by = ["game", "side"]
bucket = { at = "at", every = "minute", keep = "2 days" }
sums = { staked = "stake" }
"#;

/// Text that would run, reverse the page or break it if it were anything but text.
const HOSTILE: &str = "<script>alert(1)</script>\u{202e}\"'&<b onmouseover=x>";

fn bet(id: u32, game: &str, side: &str, stake: &str) -> String {
    let at = millstream::clock::now().to_string();
    serde_json::json!({"id": id, "v": id, "game": game, "side": side, "stake": stake, "at": at}).to_string()
}

/// A database with bets, its board, and a client.
struct Scene {
    board: LocalBoard,
    url: String,
    client: Client,
}

impl Scene {
    async fn start() -> Self {
        let url = database().await;
        let bets = [
            bet(1, "final", "home", "100"),
            bet(2, "final", "away", "12.50"),
            bet(3, "cup", "home", "7"),
            bet(4, HOSTILE, HOSTILE, "1"),
            "{".to_owned(),
        ];
        batch(&mut ingest(CONFIG, &url), 1, &bets).await.unwrap();
        let board = LocalBoard::start(CONFIG, &url).unwrap();
        Self { board, client: client(&url).await, url }
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.board.url())
    }

    /// The first page as JSON.
    async fn json(&self) -> Value {
        let answer = self.browser().with_bearer(&self.board.tokens().operator).json("/").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.parsed()
    }

    /// The first page as HTML.
    async fn html(&self) -> Answer {
        self.browser().with_bearer(&self.board.tokens().operator).get("/").await
    }
}
