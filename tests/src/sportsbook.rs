//! A Super Bowl evening at a sportsbook, as Segment sends it: bets through their whole life-cycle, odds, pages and people;
//! some events twice, some late, some out of order, a few unreadable.

use millstream::timestamp::Timestamp;

use crate::random::Random;

/// Kick-off was at 18:30 in New York on 2026-02-08; the evening begins three hours earlier.
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

const GAMES: &[(&str, [&str; 2])] = &[
    ("superbowl-winner", ["seahawks", "patriots"]),
    ("superbowl-total-points", ["over", "under"]),
    ("superbowl-first-score", ["touchdown", "field-goal"]),
    ("superbowl-coin-toss", ["heads", "tails"]),
];

/// The composition of an evening, in thousandths of its events.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    /// Delivered again, with the same message id.
    pub duplicates: u64,
    /// Later than the events around them.
    pub late: u64,
    /// Events that cannot be decoded or do not fit.
    pub poison: u64,
    /// Older than the tables keep.
    pub expired: u64,
}

impl Mixture {
    /// What the demo shows.
    pub const EVENING: Self = Self { duplicates: 10, late: 20, poison: 1, expired: 1 };
    /// Nothing but good events.
    pub const CLEAN: Self = Self { duplicates: 0, late: 0, poison: 0, expired: 0 };
}

/// What was put on the stream, for the final account.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Records in all.
    pub records: u64,
    /// Of them, delivered again.
    pub duplicates: u64,
    /// Of them, older than the tables keep.
    pub expired: u64,
    /// Of them, dead letters.
    pub poison: u64,
}

/// An evening's records, each with its partition key, in the order in which they are put.
#[derive(Clone, Debug)]
pub struct Evening {
    /// Partition key and data.
    pub records: Vec<(String, Vec<u8>)>,
    /// Their expected outcomes.
    pub expected: Expected,
}

struct Bet {
    id: String,
    customer: String,
    game: &'static str,
    side: &'static str,
    stake_cents: u64,
    odds_milli: u64,
    placed: Timestamp,
}

/// Generates an evening of about `count` events around `now`.
pub fn evening(count: usize, seed: u64, mixture: Mixture, now: Timestamp) -> Evening {
    let mut writer = Writer { random: Random::new(seed), now, events: Vec::with_capacity(count) };
    while writer.events.len() < count {
        writer.next_customer();
    }
    writer.events.truncate(count);
    let Writer { mut random, mut events, .. } = writer;
    disorder(&mut random, &mut events, mixture.late);
    let mut evening = Evening { records: Vec::with_capacity(count), expected: Expected::default() };
    for (number, event) in events.into_iter().enumerate() {
        evening.add(event, number, mixture, &mut random, now);
    }
    evening
}

struct EveningEvent {
    key: String,
    at: Timestamp,
    json: String,
}

impl Evening {
    fn add(&mut self, event: EveningEvent, number: usize, mixture: Mixture, random: &mut Random, now: Timestamp) {
        let EveningEvent { key, json, .. } = event;
        if random.per_mille(mixture.poison) {
            self.expected.poison += 1;
            self.push(key.clone(), poison(number, &json));
        }
        if random.per_mille(mixture.expired) {
            self.expected.expired += 1;
            let old = Timestamp(now.0 - 2_000 * DAY - number as i64);
            self.push(key.clone(), page(random, &key, old).into_bytes());
        }
        if random.per_mille(mixture.duplicates) {
            self.expected.duplicates += 1;
            self.push(key.clone(), json.clone().into_bytes());
        }
        self.push(key, json.into_bytes());
    }

    fn push(&mut self, key: String, data: Vec<u8>) {
        self.expected.records += 1;
        self.records.push((key, data));
    }
}

/// Four kinds of bad records: not JSON, truncated, an invalid number, and a value that does not fit its column.
fn poison(number: usize, json: &str) -> Vec<u8> {
    match number % 4 {
        0 => b"\xff\xfenot even text".to_vec(),
        1 => json.as_bytes()[..json.len() / 2].to_vec(),
        2 => json.replacen("\"type\":\"", "\"type\":\"un", 1).into_bytes(),
        _ => json.replacen("\"messageId\":\"", "\"messageId\":\"\\u0000", 1).into_bytes(),
    }
}

/// Moves some events back by a while.
fn disorder(random: &mut Random, events: &mut [EveningEvent], late: u64) {
    events.sort_by_key(|event| event.at);
    for index in 0..events.len() {
        if random.per_mille(late) {
            let other = (index + random.below(200) as usize).min(events.len() - 1);
            events.swap(index, other);
        }
    }
}

struct Writer {
    random: Random,
    now: Timestamp,
    events: Vec<EveningEvent>,
}

impl Writer {
    /// One visit: some pages, perhaps a sign-in, a few bets.
    fn next_customer(&mut self) {
        let customer = format!("customer-{}", self.random.below(20_000));
        let mut at =
            Timestamp(self.now.0 - self.random.below(180) as i64 * MINUTE + self.random.below(60_000) as i64 * 1_000);
        let json = page(&mut self.random, &customer, at);
        self.push(&customer, at, json);
        if self.random.per_mille(200) {
            let traits = format!(
                "\"traits\":{{\"email\":\"{customer}@example.com\",\"plan\":\"{}\",\"age\":{}}}",
                self.random.one_of(&["basic", "gold", "vip"]),
                21 + self.random.below(60)
            );
            let json = call(&mut self.random, "identify", &customer, at, &traits);
            self.push(&customer, at, json);
        }
        for _ in 0..1 + self.random.below(3) {
            at = Timestamp(at.0 + self.random.below(120) as i64 * 1_000_000);
            self.bet(&customer, at);
        }
    }

    fn bet(&mut self, customer: &str, placed: Timestamp) {
        let (game, sides) = *self.random.one_of(GAMES);
        let bet = Bet {
            id: self.random.uuid(),
            customer: customer.to_owned(),
            game,
            side: sides[self.random.below(2) as usize],
            stake_cents: 100 + self.random.below(50_000),
            odds_milli: 1_100 + self.random.below(4_000),
            placed,
        };
        self.track(&bet, "Bet Placed", placed, &format!("\"status\":\"placed\",\"placed_at\":\"{placed}\""));
        let mut at = placed;
        if self.random.per_mille(150) {
            at = Timestamp(at.0 + 10 * 1_000_000);
            let odds = 1_100 + self.random.below(4_000);
            self.track(&bet, "Bet Changed", at, &format!("\"status\":\"changed\",\"odds\":{}", milli(odds)));
        }
        at = Timestamp(at.0 + (1 + self.random.below(30)) as i64 * MINUTE);
        let payout = bet.stake_cents * bet.odds_milli / 1_000;
        match self.random.below(100) {
            0..=4 => self.track(&bet, "Bet Cancelled", at, "\"status\":\"cancelled\",\"reason\":\"odds moved\""),
            5..=14 => {
                let cash = cents(bet.stake_cents * 9 / 10);
                self.track(&bet, "Bet Cashed Out", at, &format!("\"status\":\"cashed_out\",\"payout\":{cash}"));
            }
            15..=59 => self.track(&bet, "Bet Settled", at, &format!("\"status\":\"won\",\"payout\":{}", cents(payout))),
            _ => self.track(&bet, "Bet Settled", at, "\"status\":\"lost\",\"payout\":0.00"),
        }
    }

    fn track(&mut self, bet: &Bet, event: &str, at: Timestamp, more: &str) {
        let Bet { id, game, side, .. } = bet;
        let odds =
            if more.contains("\"odds\"") { String::new() } else { format!("\"odds\":{},", milli(bet.odds_milli)) };
        let terms = format!("\"stake\":{},{odds}", cents(bet.stake_cents));
        let terms = if event == "Bet Placed" { terms } else { String::new() };
        let body = format!(
            "\"event\":\"{event}\",\"properties\":{{\"bet_id\":\"{id}\",\"game_id\":\"{game}\",\"side\":\"{side}\",{terms}\
             \"placedOn\":{{\"device\":\"mobile\",\"state\":\"NJ\"}},{more}}}"
        );
        // Each life-cycle event has its own time; all events of a bet go to the customer's shard.
        debug_assert!(at >= bet.placed);
        let json = call(&mut self.random, "track", &bet.customer, at, &body);
        self.push(&bet.customer, at, json);
    }

    fn push(&mut self, customer: &str, at: Timestamp, json: String) {
        self.events.push(EveningEvent { key: customer.to_owned(), at, json });
    }
}

fn page(random: &mut Random, customer: &str, at: Timestamp) -> String {
    let body = "\"name\":\"Live\",\"category\":\"Football\",\"properties\":{\"path\":\"/live/superbowl\",\"title\":\"Super Bowl LX\"}";
    call(random, "page", customer, at, body)
}

/// A call as Segment's Kinesis destination writes it.
fn call(random: &mut Random, kind: &str, customer: &str, at: Timestamp, body: &str) -> String {
    let sent = Timestamp(at.0 + 200_000);
    let received = Timestamp(at.0 + 450_000);
    format!(
        "{{\"anonymousId\":\"{}\",\"context\":{{\"ip\":\"203.0.113.{}\",\"library\":{{\"name\":\"analytics.js\",\"version\":\"2.11.1\"}},\
         \"locale\":\"en-US\",\"userAgent\":\"Mozilla/5.0 (iPhone; CPU iPhone OS 19_2 like Mac OS X)\"}},\"integrations\":{{\"All\":true}},\
         {body},\"messageId\":\"ajs-{}\",\"originalTimestamp\":\"{at}\",\"receivedAt\":\"{received}\",\"sentAt\":\"{sent}\",\
         \"timestamp\":\"{}\",\"type\":\"{kind}\",\"userId\":\"{customer}\",\"version\":2}}",
        random.uuid(),
        random.below(256),
        random.uuid(),
        Timestamp(received.0 - (sent.0 - at.0)),
    )
}

fn cents(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn milli(milli: u64) -> String {
    format!("{}.{:03}", milli / 1_000, milli % 1_000)
}
