//! The freshness of the tables: for each shard, when its last batch was committed, and when the oldest record of that
//! batch arrived in the stream. [`crate::status`] reads it.
//!
//! The cost for writers is negligible. Each shard's row is written by a separate statement after the batch is durable:
//! its lock is never held together with a batch's lock, nor during a disk write. A process publishes a shard at most
//! once a second, so that small batches do not pay for it (0.4 ms each on a busy machine; `HOT` updates, no bloat). It
//! never fails a batch: what could not be published is published with the next batch. If the role has no permission,
//! the process stops publishing.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::ddl::{self, SystemTable};
use super::{ApplyError, Limits};
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify};
use crate::record::StreamPosition;
use crate::timestamp::Timestamp;

/// The table.
pub const FRESHNESS_TABLE: SystemTable =
    SystemTable { name: "millstream.freshness", ddl: include_str!("freshness/create.sql") };

/// The published commit time of a shard lags its last commit by at most this many microseconds.
const PUBLISH_INTERVAL_MICROS: i64 = 1_000_000;

/// What this process has published.
#[derive(Default, Debug)]
pub struct Freshness {
    /// The time of the last publication, by stream and shard.
    published: HashMap<(Arc<str>, Arc<str>), Timestamp>,
    /// The role may not write the table.
    permission_denied: bool,
}

impl Freshness {
    /// Whether the shard is due to be published; if so, it counts as published.
    pub fn is_due(&mut self, position: &StreamPosition, now: Timestamp) -> bool {
        let last =
            self.published.entry((position.stream.clone(), position.shard.clone())).or_insert(Timestamp(i64::MIN));
        let due = !self.permission_denied && (now.0.saturating_sub(last.0) >= PUBLISH_INTERVAL_MICROS || now < *last);
        if due {
            *last = now;
        }
        due
    }

    /// Publishes a batch that has just been committed; `arrival` is that of its oldest record. Creates the table if it
    /// does not exist.
    ///
    /// # Errors
    /// Returns an error if a statement or the connection fails. A missing permission is reported only once.
    pub async fn publish(
        &mut self,
        client: &Client,
        source: &str,
        position: &StreamPosition,
        arrival: Timestamp,
        limits: Limits,
    ) -> Result<(), ApplyError> {
        let result = match write(client, source, position, arrival).await {
            Err(error) if action_after(&error) == Some(ErrorAction::RefreshCatalog) => {
                match ddl::ensure_system_table(client, &FRESHNESS_TABLE, limits).await {
                    Ok(_) => write(client, source, position, arrival).await,
                    Err(error) => Err(error),
                }
            }
            result => result,
        };
        let action = result.as_ref().err().and_then(action_after);
        self.permission_denied = action == Some(ErrorAction::Halt);
        result
    }
}

/// What an error of the table means, if it is PostgreSQL's or the connection's.
pub(super) fn action_after(error: &ApplyError) -> Option<ErrorAction> {
    error.database_error().map(|error| classify(DatabaseStep::SystemTable, error))
}

async fn write(client: &Client, source: &str, position: &StreamPosition, arrival: Timestamp) -> Result<(), ApplyError> {
    let (stream, shard) = (&*position.stream, &*position.shard);
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&source, Type::TEXT), (&stream, Type::TEXT), (&shard, Type::TEXT), (&arrival.0, Type::INT8)];
    client.execute_typed(include_str!("freshness/record.sql"), &parameters).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SequenceNumber;

    #[test]
    fn each_shard_is_published_once_a_second() {
        let position = |shard: &str| StreamPosition {
            stream: "s".into(),
            shard: shard.into(),
            sequence_number: SequenceNumber("1".into()),
            sub_sequence_number: 0,
        };
        let mut freshness = Freshness::default();
        let due = [("a", 10), ("b", 10), ("a", 999_999), ("a", 1_000_010), ("b", 999_999), ("a", 5)]
            .map(|(shard, micros)| freshness.is_due(&position(shard), Timestamp(micros)));
        // The last one is due because the clock was set back.
        assert_eq!(due, [true, true, false, true, false, true]);
    }
}
