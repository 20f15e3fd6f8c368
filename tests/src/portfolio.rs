//! A day on the market: trades, prices and news as three streams carry them; some records twice, some late.

use std::collections::BTreeMap;

use millstream::timestamp::Timestamp;

use crate::random::Random;
use crate::system::StreamInput;

/// The streams of the system `events/portfolio`, in the order of [`MarketDay::streams`].
pub const STREAMS: [&str; 3] = ["trades", "prices", "news"];

/// The market is open for eight hours, until now.
const OPEN_MICROS: i64 = 8 * 60 * 60 * 1_000_000;
/// A trade that was reported late took place two days earlier.
const LATE_MICROS: i64 = 2 * 24 * 60 * 60 * 1_000_000;
/// A record that overtakes others overtakes at most this many.
const OVERTAKEN_MAX: u64 = 200;

/// The size of a market.
#[derive(Clone, Copy, Debug)]
pub struct Market {
    /// Users who trade.
    pub users: u64,
    /// Companies that are traded.
    pub companies: u64,
    /// Records that are delivered again, in thousandths.
    pub duplicates: u64,
    /// Records that later ones overtake, and trades that are reported two days later, in thousandths.
    pub late: u64,
}

/// The records of a stream, each with its partition key, in the order in which they are put.
pub type Records = Vec<(String, Vec<u8>)>;

/// A day's records.
#[derive(Clone, Debug)]
pub struct MarketDay {
    /// The trades, keyed by user.
    pub trades: Records,
    /// The prices, keyed by company.
    pub prices: Records,
    /// The news, keyed by company.
    pub stories: Records,
    /// What the database must hold in the end.
    pub expected: Expected,
}

/// What follows from a day's records, computed from the events and not from their delivery.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Trades, each counted once.
    pub trades: u64,
    /// Trades that were delivered again.
    pub repeated_trades: u64,
    /// Shares by user and company; negative for a short position, zero for a closed one.
    pub shares: BTreeMap<(String, String), i64>,
    /// The current price of each company, in cents.
    pub prices: BTreeMap<String, i64>,
    /// The latest headline of each story, by company and the story's id.
    pub headlines: BTreeMap<(String, String), String>,
}

impl Expected {
    /// The headlines that a user's report must have with a threshold in thousandths, sorted.
    pub fn report(&self, user: &str, threshold: i64) -> Vec<String> {
        let mut values = Vec::new();
        for ((owner, company), shares) in &self.shares {
            if let (true, Some(price)) = (owner == user, self.prices.get(company)) {
                values.push((company, (shares * price).abs()));
            }
        }
        let gross: i64 = values.iter().map(|(_, value)| value).sum();
        values.retain(|(_, value)| value * 1_000 > threshold * gross);
        let reported =
            self.headlines.iter().filter(|((about, _), _)| values.iter().any(|(company, _)| *company == about));
        let mut headlines: Vec<String> = reported.map(|(_, headline)| headline.clone()).collect();
        headlines.sort();
        headlines
    }
}

impl MarketDay {
    /// Each stream with its records.
    pub fn streams(&self) -> [StreamInput<'_>; 3] {
        let [trades, prices, stories] = STREAMS;
        [(trades, &self.trades), (prices, &self.prices), (stories, &self.stories)]
    }

    /// The number of records on all streams.
    pub fn records(&self) -> usize {
        self.streams().iter().map(|(_, records)| records.len()).sum()
    }
}

/// Generates a day of about `count` records that ends at `now`; the same for the same seed.
pub fn market_day(count: usize, seed: u64, market: Market, now: Timestamp) -> MarketDay {
    let mut generator = Generator::new(seed, market, now);
    generator.open();
    let step = OPEN_MICROS / i64::try_from(count.max(1)).unwrap_or(OPEN_MICROS);
    for index in 0..count {
        let left = i64::try_from(count - index).unwrap_or(0);
        generator.at = Timestamp(now.0 - step * left);
        match generator.random.below(100) {
            0..60 => generator.trade(index),
            60..92 => generator.tick(),
            _ => generator.story(index),
        }
    }
    generator.delivered()
}

struct Generator {
    random: Random,
    market: Market,
    at: Timestamp,
    day: MarketDay,
    /// The stories so far: id, company, time of publication, revision.
    published: Vec<Story>,
}

#[derive(Clone)]
struct Story {
    id: String,
    company: String,
    published: Timestamp,
    revision: u32,
}

impl Generator {
    fn new(seed: u64, market: Market, now: Timestamp) -> Self {
        let day =
            MarketDay { trades: Vec::new(), prices: Vec::new(), stories: Vec::new(), expected: Expected::default() };
        let at = Timestamp(now.0 - OPEN_MICROS - 1_000_000);
        Self { random: Random::new(seed), market, at, day, published: Vec::new() }
    }

    /// Each company has an opening price, between 10 and 200.
    fn open(&mut self) {
        for company in 0..self.market.companies {
            let cents = 1_000 + i64::try_from(self.random.below(19_000)).unwrap_or(0);
            self.price(company_name(company), cents);
        }
    }

    fn company(&mut self) -> String {
        // Some companies are traded more than others.
        let first = self.random.below(self.market.companies);
        company_name(first.min(self.random.below(self.market.companies)))
    }

    /// A price that differs from the last one by at most three percent.
    fn tick(&mut self) {
        let company = self.company();
        let before = self.day.expected.prices.get(&company).copied().unwrap_or(1_000);
        let percent = i64::try_from(self.random.below(7)).unwrap_or(3) - 3;
        self.price(company, (before + before * percent / 100).max(100));
    }

    fn price(&mut self, company: String, cents: i64) {
        let json = format!("{{\"company\":\"{company}\",\"price\":{},\"priced_at\":\"{}\"}}", decimal(cents), self.at);
        self.day.expected.prices.insert(company.clone(), cents);
        self.day.prices.push((company, json.into_bytes()));
    }

    /// A purchase, a sale of a part or of all, or a short sale.
    fn trade(&mut self, index: usize) {
        let user = format!("user-{}", self.random.below(self.market.users));
        let company = self.company();
        let held = self.day.expected.shares.get(&(user.clone(), company.clone())).copied().unwrap_or(0);
        let shares = 1 + i64::try_from(self.random.below(200)).unwrap_or(0);
        let change = match self.random.below(10) {
            // Closes the position, long or short.
            0..2 if held != 0 => -held,
            2..4 => -shares,
            _ => shares,
        };
        let cents = self.day.expected.prices.get(&company).copied().unwrap_or(1_000);
        let late = if self.random.per_mille(self.market.late) { LATE_MICROS } else { 0 };
        let side = if change > 0 { "buy" } else { "sell" };
        let json = format!(
            "{{\"trade_id\":\"trade-{index}\",\"user_id\":\"{user}\",\"company\":\"{company}\",\"side\":\"{side}\",\
             \"shares\":{},\"price\":{},\"traded_at\":\"{}\"}}",
            change.abs(),
            decimal(cents),
            Timestamp(self.at.0 - late),
        );
        self.day.expected.trades += 1;
        *self.day.expected.shares.entry((user.clone(), company)).or_insert(0) += change;
        self.day.trades.push((user, json.into_bytes()));
    }

    /// A new story, or a later revision of an earlier one.
    fn story(&mut self, index: usize) {
        let revised = if self.published.is_empty() || !self.random.per_mille(100) {
            None
        } else {
            Some(self.random.below(self.published.len() as u64) as usize)
        };
        let position = revised.unwrap_or(self.published.len());
        if revised.is_none() {
            let company = self.company();
            let story = Story { id: format!("story-{index}"), company, published: self.at, revision: 0 };
            self.published.push(story);
        }
        let Some(story) = self.published.get_mut(position) else { return };
        story.revision += 1;
        let headline = format!("{} {} ({})", story.company, self.random.one_of(EVENTS), story.id);
        let headline = if story.revision > 1 { format!("Corrected: {headline}") } else { headline };
        let json = format!(
            "{{\"news_id\":\"{}\",\"company\":\"{}\",\"published_at\":\"{}\",\"revision\":{},\"headline\":\"{headline}\"}}",
            story.id, story.company, story.published, story.revision
        );
        let company = story.company.clone();
        self.day.expected.headlines.insert((company.clone(), story.id.clone()), headline);
        self.day.stories.push((company, json.into_bytes()));
    }

    /// The day as it is delivered.
    fn delivered(self) -> MarketDay {
        let Self { mut random, market, mut day, .. } = self;
        day.expected.repeated_trades = disorder(&mut random, market, &mut day.trades);
        disorder(&mut random, market, &mut day.prices);
        disorder(&mut random, market, &mut day.stories);
        day
    }
}

/// What happens to companies.
const EVENTS: &[&str] = &["raises its forecast", "recalls a product", "wins a contract", "replaces its chairman"];

fn company_name(number: u64) -> String {
    format!("company-{number}")
}

fn decimal(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Lets some records be overtaken by later ones, and delivers some again, later; returns how many.
fn disorder(random: &mut Random, market: Market, records: &mut Records) -> u64 {
    for index in 0..records.len() {
        if random.per_mille(market.late) {
            let other = (index + random.below(OVERTAKEN_MAX) as usize).min(records.len() - 1);
            records.swap(index, other);
        }
    }
    let mut repeated = 0;
    let mut delivered = Vec::with_capacity(records.len() + records.len() / 50);
    for record in std::mem::take(records) {
        delivered.push(record);
        if random.per_mille(market.duplicates) {
            let earlier = delivered.len() - 1 - (random.below(OVERTAKEN_MAX) as usize).min(delivered.len() - 1);
            delivered.push(delivered[earlier].clone());
            repeated += 1;
        }
    }
    *records = delivered;
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKET: Market = Market { users: 20, companies: 8, duplicates: 20, late: 20 };

    #[test]
    fn a_day_is_the_same_for_the_same_seed_and_has_all_kinds_of_positions() {
        let now = Timestamp(1_770_649_200_000_000);
        let day = market_day(5_000, 7, MARKET, now);
        let same = market_day(5_000, 7, MARKET, now);
        assert_eq!((&day.trades, &day.expected), (&same.trades, &same.expected));
        assert_eq!(day.trades.len() as u64, day.expected.trades + day.expected.repeated_trades);
        assert!(day.expected.repeated_trades > 0);
        let shares = || day.expected.shares.values();
        assert!(shares().any(|&shares| shares > 0) && shares().any(|&shares| shares < 0));
        assert!(shares().any(|&shares| shares == 0), "no position was closed");
        assert!(day.expected.headlines.values().any(|headline| headline.starts_with("Corrected")));
    }

    #[test]
    fn a_report_has_the_companies_above_the_threshold() {
        let mut expected = Expected::default();
        for (company, shares, cents) in [("a", -200, 1_000), ("b", 40, 5_000), ("c", 0, 900)] {
            expected.shares.insert(("u".to_owned(), company.to_owned()), shares);
            expected.prices.insert(company.to_owned(), cents);
            expected.headlines.insert((company.to_owned(), "1".to_owned()), format!("{company} 1"));
        }
        assert_eq!(expected.report("u", 100), ["a 1", "b 1"]);
        assert_eq!(expected.report("u", 500), [""; 0]);
        assert_eq!(expected.report("v", 0), [""; 0]);
    }
}
