//! Single batches, written to a real PostgreSQL.

use crate::support::{batch, batch_of, client, database, ingest, rows};

const SEGMENT: &str = "[source.book]\nstream = \"s\"\n";

fn track(event: &str, id: &str, properties: &str) -> String {
    format!(
        r#"{{"type":"track","event":"{event}","messageId":"{id}","userId":"u1","receivedAt":"2026-02-08T23:30:00.5Z",
        "sentAt":"2026-02-08T23:29:59Z","originalTimestamp":"2026-02-08T23:29:58Z","context":{{"library":{{"name":"js"}}}},
        "properties":{properties}}}"#
    )
}

#[tokio::test]
async fn a_stream_s_name_is_configuration_enough() {
    let url = database().await;
    let mut ingest = ingest(SEGMENT, &url);
    let documents =
        [track("Bet Placed", "m1", r#"{"stake":12.50,"homeTeam":"SEA","odds":{"decimal":1.9},"legs":[1,2]}"#)];
    let report = batch(&mut ingest, 1, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.rows), (1, 2), "{report}");
    let found = rows(&client(&url).await, "SELECT * FROM book.bet_placed").await;
    for part in [
        r#""id":"m1""#,
        r#""event":"bet_placed""#,
        r#""event_text":"Bet Placed""#,
        r#""received_at":"2026-02-09T05:00:00.5+05:30""#,
        r#""timestamp":"2026-02-09T04:59:59.5+05:30""#,
        r#""context_library_name":"js""#,
        r#""stake":12.5"#,
        r#""home_team":"SEA""#,
        r#""odds_decimal":1.9"#,
        r#""legs":"[1,2]""#,
    ] {
        assert!(found[0].contains(part), "{part} is missing in {}", found[0]);
    }
    let again = batch(&mut ingest, 1, &documents).await.unwrap();
    assert_eq!((again.counts.duplicate, again.rows), (1, 0), "{again}");
}

#[tokio::test]
async fn every_call_has_its_tables() {
    let url = database().await;
    let mut ingest = ingest(SEGMENT, &url);
    let call = |kind: &str, id: &str, more: &str| {
        format!(
            r#"{{"type":"{kind}","messageId":"{id}","receivedAt":"2026-02-08T10:00:00Z","timestamp":"2026-02-08T10:00:00Z",{more}}}"#
        )
    };
    let documents = [
        call("identify", "1", r#""userId":"u1","traits":{"plan":"gold"}"#),
        call("identify", "2", r#""anonymousId":"a1","traits":{"plan":"none"}"#),
        call("page", "3", r#""userId":"u1","name":"Home","category":"Site","properties":{"path":"/"}"#),
        call("screen", "4", r#""userId":"u1","name":"Main""#),
        call("group", "5", r#""userId":"u1","groupId":"g1","traits":{"size":3}"#),
        call("alias", "6", r#""userId":"u1","previousId":"a1""#),
    ];
    let report = batch(&mut ingest, 1, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.rows), (6, 8), "{report}");
    let client = client(&url).await;
    assert_eq!(rows(&client, "SELECT id, plan FROM book.users").await, [r#"{"id":"u1","plan":"gold"}"#]);
    assert_eq!(rows(&client, "SELECT id, size FROM book.accounts").await, [r#"{"id":"g1","size":3}"#]);
    assert_eq!(
        rows(&client, "SELECT name, category, path FROM book.pages").await,
        [r#"{"name":"Home","category":"Site","path":"/"}"#]
    );
    assert_eq!(
        rows(&client, "SELECT previous_id, user_id FROM book.aliases").await,
        [r#"{"previous_id":"a1","user_id":"u1"}"#]
    );
    assert_eq!(rows(&client, "SELECT count(*) FROM book.identifies").await, [r#"{"count":2}"#]);
}

const BET: &str = "[source.book]\nstream = \"s\"\n[table.bet]\nsource = \"book\"\nevents = [\"Bet Placed\", \"Bet Settled\"]\n\
    key = [\"bet_id\"]\nversion = \"timestamp\"\nmerge = \"column\"\n[table.bet.columns]\nbet_id = \"properties.bet_id\"\n\
    stake = { path = \"properties.stake\", type = \"numeric(12,2)\", check = \"stake > 0\" }\n";

fn bet(event: &str, id: &str, at: &str, properties: &str) -> String {
    format!(
        r#"{{"type":"track","event":"{event}","messageId":"{id}","receivedAt":"2026-02-08T23:30:00Z","timestamp":"2026-02-08T{at}Z",
        "properties":{{"bet_id":"b1",{properties}}}}}"#
    )
}

#[tokio::test]
async fn a_bet_is_one_row_in_any_order_of_arrival() {
    let documents = [
        bet("Bet Placed", "1", "10:00:00", r#""stake":10,"status":"placed""#),
        bet("Bet Settled", "2", "11:00:00", r#""status":"won","payout":19"#),
        bet("Bet Settled", "3", "12:00:00", r#""payout":20"#),
    ];
    let mut orders = Vec::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
        let url = database().await;
        let mut ingest = ingest(BET, &url);
        for (number, index) in order.into_iter().enumerate() {
            let report = batch(&mut ingest, number as u64, &documents[index..=index]).await.unwrap();
            assert_eq!(report.counts.applied, 1, "{report}");
        }
        let again = batch(&mut ingest, 10, &documents).await.unwrap();
        assert_eq!((again.counts.duplicate, again.rows), (3, 0), "{again}");
        orders.push(rows(&client(&url).await, "SELECT bet_id, stake, status, payout, _versions FROM book.bet").await);
    }
    assert!(orders[0][0].contains(r#""stake":10.00,"status":"won","payout":20"#), "{:?}", orders[0]);
    assert!(orders.iter().all(|rows| *rows == orders[0]), "{orders:#?}");
}

#[tokio::test]
async fn bad_rows_cost_only_themselves() {
    let url = database().await;
    let mut ingest = ingest(BET, &url);
    let documents = [
        bet("Bet Placed", "1", "10:00:00", r#""stake":-1"#),
        track("Bet Placed", "2", r#"{"bet_id":"b2","stake":5}"#),
        track("Bet Placed", "3", r#"{"bet_id":"b3","stake":5.001}"#),
        track("Bet Placed", "4", r#"{"stake":5}"#),
        "no json".to_owned(),
    ];
    let report = batch(&mut ingest, 1, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (1, 4), "{report}");
    let reasons: Vec<_> = report.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    assert_eq!(reasons, ["does_not_fit 1", "malformed 1", "missing 1", "refused 1"]);
    assert_eq!(rows(&client(&url).await, "SELECT bet_id FROM book.bet").await, [r#"{"bet_id":"b2"}"#]);
}

#[tokio::test]
async fn plain_json_goes_where_its_when_says() {
    let url = database().await;
    let config = "[source.sensors]\nstream = \"sensors\"\nformat = \"json\"\n\
        [table.reading]\nsource = \"sensors\"\nwhen = { path = \"kind\", is = \"reading\" }\nid = \"reading_id\"\n\
        partition = { by = \"at\", every = \"hour\" }\nschema_mode = \"fixed\"\n\
        columns = { value = { path = \"data.value\", type = \"numeric\" } }\n\
        [table.station]\nsource = \"sensors\"\nwhen = { path = \"kind\", is = \"station\" }\nkey = [\"station_id\"]\n\
        version = \"revision\"\n";
    let mut ingest = ingest(config, &url);
    let documents = [
        r#"{"kind":"reading","reading_id":7,"at":"2026-02-08T10:20:00Z","data":{"value":1e2,"unit":"kWh"}}"#,
        r#"{"kind":"station","station_id":"s1","revision":2,"name":"North"}"#,
        r#"{"kind":"station","station_id":"s1","revision":1,"name":"Old","height":10}"#,
        r#"{"kind":"other"}"#,
    ];
    let report = batch_of(&mut ingest, "sensors", 1, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.superseded, report.counts.retry), (2, 1, 1), "{report}");
    let client = client(&url).await;
    let reading = rows(&client, "SELECT tableoid::regclass, reading_id, value, _overflow FROM sensors.reading").await;
    let expected = r#"{"tableoid":"sensors.reading_p2026020810","reading_id":"7","value":100,"_overflow":{"kind": "reading", "data.unit": "kWh"}}"#;
    assert_eq!(reading, [expected]);
    assert_eq!(
        rows(&client, "SELECT station_id, name, height FROM sensors.station").await,
        [r#"{"station_id":"s1","name":"North","height":null}"#]
    );
}
