//! Retention of change logs: empties the slots whose entries are older than [`KEEP`].
//!
//! The time counts from when the last transaction that wrote to a slot had ended, not from the entries' own times: an entry of a
//! transaction that stays open for days is new to its readers when it commits. The floor is raised before entries are removed,
//! and readers hold a lock on the log while they read both, so that a reader who still needs a removed entry notices.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::FeedError;
use super::log::{FeedSql, SLOT_SECONDS, SLOTS};
use super::registry::load_feeds;
use crate::names::quote_literal;
use crate::schema_work::in_transaction;

/// How long an entry is kept after it was committed.
pub const KEEP: Duration = Duration::from_secs(7 * 86_400);

const _: () =
    assert!(KEEP.as_secs() as i64 + 2 * SLOT_SECONDS < SLOTS as i64 * SLOT_SECONDS, "the ring has a slot left");

/// Nobody writes to a slot that is due; a reader may hold its lock, and writers must never queue behind this.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// Removing a slot changes the catalog only.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// A clock may be set back by this much.
const CLOCK_TOLERANCE_SECONDS: i64 = 300;

/// What retention did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RetentionReport {
    /// The slots that were emptied, as `schema.table`.
    pub emptied: Vec<String>,
    /// What could not be done, and why; the next run retries it.
    pub postponed: Vec<String>,
}

/// What is known of a slot that is not in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SlotState {
    /// The highest transaction ID of its entries; `None` if it is empty.
    last_xid: Option<u64>,
    /// Whether a transaction that has written to it is still open, or prepared.
    is_open: bool,
    /// When it was found closed, in seconds ago, and its highest transaction ID then.
    closed: Option<(u64, u64)>,
}

/// What is to be done with a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SlotAction {
    /// Nothing.
    Keep,
    /// It is closed from now on.
    Close {
        /// Its highest transaction ID.
        last_xid: u64,
    },
    /// It is emptied.
    Empty,
}

impl SlotState {
    fn action(self, keep: Duration) -> SlotAction {
        let Some(last_xid) = self.last_xid else { return SlotAction::Keep };
        match self.closed {
            _ if self.is_open => SlotAction::Keep,
            Some((seconds_ago, xid)) if xid == last_xid => {
                if seconds_ago > keep.as_secs() {
                    SlotAction::Empty
                } else {
                    SlotAction::Keep
                }
            }
            // Not closed yet, or used again since.
            Some(_) | None => SlotAction::Close { last_xid },
        }
    }
}

/// Empties the slots of all logs that are due.
///
/// # Errors
/// Returns an error if the registry cannot be read or the connection fails. Any other error of a log is part of the report.
pub async fn retain(client: &Client, keep: Duration) -> Result<RetentionReport, FeedError> {
    let mut report = RetentionReport::default();
    for feed in load_feeds(client).await? {
        match retain_log(client, &feed.sql(), keep).await {
            Ok(emptied) => report.emptied.extend(emptied),
            Err(error) if error.is_of_connection() => return Err(error),
            Err(error) => report.postponed.push(format!("change log of {}: {error}", feed.table.unquoted())),
        }
    }
    Ok(report)
}

async fn retain_log(client: &Client, sql: &FeedSql, keep: Duration) -> Result<Vec<String>, FeedError> {
    let clock = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()))::pg_catalog.int8";
    let rows = client.query_typed(clock, &[]).await?;
    let in_use = slots_in_use(rows.first().map_or(0, |row| row.get(0)));
    let mut emptied = Vec::new();
    for slot in (0..SLOTS).filter(|slot| !in_use.contains(slot)) {
        let state = read_slot(client, sql, slot).await?;
        match state.action(keep) {
            SlotAction::Keep => {}
            SlotAction::Close { last_xid } => close(client, sql, slot, last_xid).await?,
            SlotAction::Empty => {
                empty(client, sql, slot).await?;
                emptied.push(sql.slot(slot));
            }
        }
    }
    Ok(emptied)
}

/// The slots of now, of a moment ago, and of tomorrow.
fn slots_in_use(now_seconds: i64) -> [i16; 3] {
    [-CLOCK_TOLERANCE_SECONDS, 0, SLOT_SECONDS].map(|seconds| {
        let slot = (now_seconds + seconds) / SLOT_SECONDS % i64::from(SLOTS);
        i16::try_from(slot).unwrap_or_default()
    })
}

async fn read_slot(client: &Client, sql: &FeedSql, slot: i16) -> Result<SlotState, FeedError> {
    let statement = crate::sql_script::fill(include_str!("retention/slot.sql"), &[("slot", &sql.slot(slot))]);
    let (prefix, name) = (sql.prefix(), sql.slot(slot));
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&prefix, Type::TEXT), (&slot, Type::INT2), (&name, Type::TEXT)];
    let rows = client.query_typed(&statement, &parameters).await?;
    let number = |row: &tokio_postgres::Row, column: &str| row.get::<_, Option<i64>>(column).map(i64::unsigned_abs);
    Ok(rows.first().map_or(SlotState { last_xid: None, is_open: false, closed: None }, |row| SlotState {
        last_xid: number(row, "last_xid"),
        is_open: row.get("is_open"),
        closed: number(row, "closed_seconds_ago").zip(number(row, "closed_xid")),
    }))
}

async fn close(client: &Client, sql: &FeedSql, slot: i16, last_xid: u64) -> Result<(), FeedError> {
    let (prefix, last_xid) = (sql.prefix(), last_xid.to_string());
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&prefix, Type::TEXT), (&slot, Type::INT2), (&last_xid, Type::TEXT)];
    client.execute_typed(include_str!("retention/close.sql"), &parameters).await?;
    Ok(())
}

/// Raises the floor and removes the entries. The lock is that of the slot only, which no writer uses.
async fn empty(client: &Client, sql: &FeedSql, slot: i16) -> Result<(), FeedError> {
    let emptying = in_transaction(client, STATEMENT_TIMEOUT, async {
        let leaf = sql.slot(slot);
        let lock = format!(
            "SET LOCAL lock_timeout = {}; LOCK TABLE {leaf} IN ACCESS EXCLUSIVE MODE",
            LOCK_TIMEOUT.as_millis()
        );
        client.batch_execute(&lock).await?;
        let floor = sql.floor();
        let raise = format!(
            "SELECT setval({}, greatest((SELECT last_value FROM {floor}), (SELECT l.xid::text::bigint FROM {leaf} l ORDER BY l.xid DESC LIMIT 1)))",
            quote_literal(&floor)
        );
        client.query_typed(&raise, &[]).await?;
        client.batch_execute(&format!("TRUNCATE {leaf}")).await?;
        let (prefix, statement) = (sql.prefix(), include_str!("retention/reopen.sql"));
        client.execute_typed(statement, &[(&prefix, Type::TEXT), (&slot, Type::INT2)]).await?;
        Ok(())
    });
    emptying.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_emptied_only_long_after_its_last_transaction() {
        let keep = Duration::from_secs(700);
        let state = |last_xid, is_open, closed| SlotState { last_xid, is_open, closed };
        for (slot, action) in [
            (state(None, false, None), SlotAction::Keep),
            (state(Some(9), true, None), SlotAction::Keep),
            (state(Some(9), true, Some((9_999, 9))), SlotAction::Keep),
            (state(Some(9), false, None), SlotAction::Close { last_xid: 9 }),
            (state(Some(9), false, Some((700, 9))), SlotAction::Keep),
            (state(Some(9), false, Some((701, 9))), SlotAction::Empty),
            // The ring has turned without a run of retention: the slot holds new entries.
            (state(Some(20), false, Some((701, 9))), SlotAction::Close { last_xid: 20 }),
        ] {
            assert_eq!(slot.action(keep), action, "{slot:?}");
        }
    }

    #[test]
    fn the_slots_around_now_are_in_use() {
        assert_eq!(slots_in_use(9 * SLOT_SECONDS + 1), [8, 9, 0]);
        assert_eq!(slots_in_use(20 * SLOT_SECONDS + 400), [0, 0, 1]);
    }
}
