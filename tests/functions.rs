//! Every function, as Lambda starts it.

use std::time::Duration;

use millstream_tests::function::{Function, Settings, binary, names};

#[tokio::test]
async fn every_function_starts_and_asks_for_an_event_though_nothing_is_there() {
    for name in names().unwrap() {
        // Nothing listens on port 1: a function starts without connecting.
        let environment = vec![("DATABASE_URL".to_owned(), "postgresql://me@127.0.0.1:1/none".to_owned())];
        let settings = Settings { binary: binary(&name).unwrap(), environment, timeout: Duration::from_secs(10) };
        let function = Function::start(settings).await.unwrap();
        let polled = tokio::time::timeout(Duration::from_secs(60), function.first_poll()).await;
        assert!(polled.is_ok(), "{name} never asked for an event: {}", function.log().display());
    }
}
