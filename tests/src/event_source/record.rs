//! Records in the form that an event contains, and events built from them, limited in number and to six megabytes.

use std::sync::Arc;

use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;

/// An invocation's payload is at most this large: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
pub const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;

const OPENING: &str = "{\"Records\":[";
const CLOSING: &str = "]}";

/// The parts of an event around its records.
pub const EVENT_OVERHEAD_BYTES: usize = OPENING.len() + CLOSING.len();

/// A record of a shard, ready for delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamRecord {
    /// Its sequence number, by which `batchItemFailures` names it.
    pub sequence: SequenceNumber,
    /// The key within which order is kept: the partition key (Kinesis), or the item's whole key (DynamoDB).
    pub key: String,
    /// When it arrived in the stream.
    pub arrival: Timestamp,
    /// Its JSON in the event.
    pub json: String,
}

/// The event of one batch.
pub fn event_of<'a>(records: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let records: Vec<&str> = records.into_iter().collect();
    [OPENING, &records.join(","), CLOSING].concat().into_bytes()
}

/// How many of the first records fit in one invocation; 0 if the first alone is too large.
pub fn fitting<'a>(records: impl IntoIterator<Item = &'a Arc<StreamRecord>>, batch_size: usize) -> usize {
    let mut bytes = EVENT_OVERHEAD_BYTES;
    let fitting = records.into_iter().take(batch_size).enumerate().take_while(|(index, record)| {
        bytes += record.json.len() + usize::from(*index > 0);
        bytes <= PAYLOAD_BYTES_MAX
    });
    fitting.count()
}
