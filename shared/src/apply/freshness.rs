//! How fresh the tables are: of each shard, when its last batch was committed, and when the oldest record of that batch had
//! arrived in the stream. [`crate::status`] reads it.
//!
//! What this costs writers is next to nothing. A shard's row is told of by a statement of its own, after the batch is
//! durable: its lock is never held together with one of a batch, and not while the disk is written to. A process tells of a
//! shard at most once a second, so that small batches do not pay for it (0.4 ms each on a busy machine; `HOT` updates, no
//! bloat). It never fails a batch: what could not be told is told with the next one, and a role that may not is left alone.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::ddl::{self, SystemTable};
use super::{ApplyError, Limits};
use crate::database::sqlstate::{ErrorAction, classify};
use crate::record::StreamPosition;
use crate::timestamp::Timestamp;

/// The table.
pub const TABLE: SystemTable = SystemTable { name: "millstream.freshness", ddl: include_str!("freshness/create.sql") };

/// By so much, in microseconds, the last commit of a shard may be later than what is told.
const PUBLISH_INTERVAL_MICROS: i64 = 1_000_000;

/// What this process has told.
#[derive(Default, Debug)]
pub struct Freshness {
    /// When, by stream and shard.
    published: HashMap<(Arc<str>, Arc<str>), Timestamp>,
    /// The role may not write the table.
    refused: bool,
}

impl Freshness {
    /// Whether it is time to tell of the shard again; if so, it counts as told.
    pub fn is_due(&mut self, place: &StreamPosition, now: Timestamp) -> bool {
        let told = self.published.entry((place.stream.clone(), place.shard.clone())).or_insert(Timestamp(i64::MIN));
        let due = !self.refused && (now.0.saturating_sub(told.0) >= PUBLISH_INTERVAL_MICROS || now < *told);
        if due {
            *told = now;
        }
        due
    }

    /// Tells of a batch that has just been committed; `arrival` is its oldest record's. Makes the table if it is not there.
    ///
    /// # Errors
    /// PostgreSQL's, or the connection's; a refusal only once.
    pub async fn publish(
        &mut self,
        client: &Client,
        source: &str,
        place: &StreamPosition,
        arrival: Timestamp,
        limits: Limits,
    ) -> Result<(), ApplyError> {
        let told = match write(client, source, place, arrival).await {
            Err(ApplyError::Database(error)) if classify(&error) == ErrorAction::RefreshCatalog => {
                match ddl::ensure_system_table(client, &TABLE, limits).await {
                    Ok(_) => write(client, source, place, arrival).await,
                    Err(error) => Err(error),
                }
            }
            outcome => outcome,
        };
        self.refused = matches!(&told, Err(ApplyError::Database(error)) if classify(error) == ErrorAction::Halt);
        told
    }
}

async fn write(client: &Client, source: &str, place: &StreamPosition, arrival: Timestamp) -> Result<(), ApplyError> {
    let (stream, shard) = (&*place.stream, &*place.shard);
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
        let place = |shard: &str| StreamPosition {
            stream: "s".into(),
            shard: shard.into(),
            sequence_number: SequenceNumber("1".into()),
            sub_sequence_number: 0,
        };
        let mut freshness = Freshness::default();
        let due = [("a", 10), ("b", 10), ("a", 999_999), ("a", 1_000_010), ("b", 999_999), ("a", 5)]
            .map(|(shard, micros)| freshness.is_due(&place(shard), Timestamp(micros)));
        // The last one: the clock was set back.
        assert_eq!(due, [true, true, false, true, false, true]);
    }
}
