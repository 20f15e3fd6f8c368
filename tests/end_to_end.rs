//! The sportsbook's evening on real parts: a local stream, the real binary, a real queue and a real PostgreSQL.

use millstream::clock::now;
use millstream::dead_letter::{DeadLetter, StoredPayload};
use millstream_tests::event_source::Progress;
use millstream_tests::kinesis::put;
use millstream_tests::process::workspace;
use millstream_tests::sportsbook::{Mixture, evening};
use millstream_tests::system::System;
use millstream_tests::totals::{Recompute, build_totals};

use crate::support::{database, rows};

/// The report without a total.
const BETTING_TOTALS: &str = "SELECT game_id, side, count(*) AS bets, sum(stake) AS staked, \
    sum(stake * odds) FILTER (WHERE status IN ('placed', 'changed')) AS open_liability, sum(payout) AS paid \
    FROM sportsbook.bet WHERE status IS DISTINCT FROM 'cancelled' GROUP BY game_id, side ORDER BY game_id, side";

#[tokio::test]
async fn the_evening_s_account_adds_up() {
    let url = database().await;
    let folder = workspace().join("events/sportsbook");
    let system = System::start(&folder, "sportsbook", 2, url).await.unwrap();
    let mixture = Mixture { duplicates: 30, late: 50, poison: 20, expired: 10 };
    let evening = evening(6_000, 1, mixture, now());
    let account = system.run(&evening.records, &Progress::default()).await.unwrap();
    assert_eq!(account.mistakes(), [""; 0]);
    let expected = evening.expected;
    let found = account.reported;
    assert_eq!(found.dead_lettered, expected.poison);
    assert_eq!(found.expired, expected.expired);
    assert_eq!(found.duplicate + found.superseded, expected.duplicates);
    let client = system.client().await.unwrap();
    let count = "SELECT (SELECT count(*) FROM sportsbook.tracks) + (SELECT count(*) FROM sportsbook.pages) + (SELECT count(*) FROM sportsbook.identifies) AS n";
    assert_eq!(rows(&client, count).await, [format!(r#"{{"n":{}}}"#, found.applied)]);
    // The report reads the total, which equals the sums over the bets.
    client.batch_execute(&std::fs::read_to_string(folder.join("report.sql")).unwrap()).await.unwrap();
    build_totals(&client, &folder).await.unwrap();
    let totals = rows(&client, "SELECT * FROM sportsbook.betting_totals()").await;
    assert_eq!(totals, rows(&client, BETTING_TOTALS).await);
    assert!(totals.len() >= 8, "{totals:?}");
    let recomputed = Recompute::start(&folder, &system.url).await.unwrap().run().await.unwrap();
    assert_eq!((recomputed.off_by, recomputed.triggers_repaired), (0, 0), "{recomputed:?}");
    // No table contains private fields.
    let private = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'context_ip'";
    assert_eq!(rows(&client, private).await, [r#"{"count":0}"#]);
    let hashed = "SELECT bool_and(length(email) = 64) AS hashed FROM sportsbook.users";
    assert_eq!(rows(&client, hashed).await, [r#"{"hashed":true}"#]);
}

#[tokio::test]
async fn a_dead_letter_holds_all_that_a_second_try_needs() {
    let url = database().await;
    let folder = workspace().join("events/sportsbook");
    let system = System::start(&folder, "sportsbook", 1, url).await.unwrap();
    let good = r#"{"type":"track","event":"Bet Placed","messageId":"1","context":{"ip":"192.0.2.1"},"properties":{"bet_id":"b","stake":-5}}"#;
    let records = [("k1".to_owned(), good.as_bytes().to_vec()), ("k2".to_owned(), b"\xff no json 192.0.2.2".to_vec())];
    put(&system.aws, "sportsbook", &records).await.unwrap();
    system.consume_only().await.unwrap();
    let bodies = system.aws.drain(&system.queue).await.unwrap();
    let letters: Vec<DeadLetter> = bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(letters.len(), 2);
    let refused = letters.iter().find(|letter| letter.error.class == "refused").unwrap();
    assert_eq!(refused.error.sqlstate.as_deref(), Some("23514"));
    assert_eq!(refused.error.table.as_deref(), Some("sportsbook.bet"));
    // A producer may use what identifies a person as the partition key: it is not kept if the source has private fields.
    assert_eq!(refused.partition_key, "");
    assert!(refused.redacted && refused.position.stream.ends_with(":stream/sportsbook"));
    let StoredPayload::Base64(payload) = &refused.payload else { panic!("{:?}", refused.payload) };
    let payload = base64_simd::STANDARD.decode_to_vec(payload).unwrap();
    let expected =
        r#"{"type":"track","event":"Bet Placed","messageId":"1","context":{},"properties":{"bet_id":"b","stake":-5}}"#;
    assert_eq!(String::from_utf8(payload).unwrap(), expected);
    // An unreadable record may contain private fields: only its position is kept.
    let unreadable = letters.iter().find(|letter| letter.error.class == "malformed").unwrap();
    assert!(matches!(unreadable.payload, StoredPayload::Withheld { bytes: 19, .. }), "{:?}", unreadable.payload);
}
