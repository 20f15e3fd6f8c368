//! Documents as Lambda receives them from Kinesis: in batches of as many records as fit in one invocation. Pure.
//!
//! A record's sequence number is the number of its document, so that the function's messages refer to lines.

use crate::event_source::record::{EVENT_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, event_of};
use crate::kinesis::{ShardRecord, stream_record};

/// Lambda's largest batch: <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html>.
const BATCH_RECORDS_MAX: usize = 10_000;

/// Maximum size of an event's members around a record's data; the longest one is the stream's ARN.
const ENVELOPE_BYTES_MAX: usize = 2 * 1024;

/// No larger record fits in an invocation's payload: base64 makes four bytes of three.
pub const RECORD_BYTES_MAX: usize = (PAYLOAD_BYTES_MAX - ENVELOPE_BYTES_MAX) / 4 * 3;

/// A stream accepts larger records only if it is configured to: `MaxRecordSizeInKiB`.
pub const STREAM_RECORD_BYTES: usize = 1024 * 1024;

const SHARD: &str = "shardId-000000000000";

/// Collects records until they fill an invocation.
pub struct Batches {
    stream: String,
    arrival: String,
    records: Vec<String>,
    bytes: usize,
}

impl Batches {
    /// Batches of a stream, given by its name or ARN, in which everything arrived at the same time (seconds since 1970).
    pub fn new(stream: &str, arrival_seconds: u64) -> Self {
        Self {
            stream: stream.to_owned(),
            arrival: format!("{arrival_seconds}.000"),
            records: Vec::new(),
            bytes: EVENT_OVERHEAD_BYTES,
        }
    }

    /// Adds a document of at most [`RECORD_BYTES_MAX`]; returns the event of the batch before it, if that is full.
    pub fn push(&mut self, number: u64, data: Vec<u8>) -> Option<Vec<u8>> {
        let record = ShardRecord {
            sequence: number.to_string(),
            arrival: self.arrival.clone(),
            partition_key: "replay".to_owned(),
            data,
        };
        let json = stream_record(&self.stream, SHARD, &record).json;
        let is_full = self.records.len() == BATCH_RECORDS_MAX || self.bytes + json.len() + 1 > PAYLOAD_BYTES_MAX;
        let event = if is_full { self.take() } else { None };
        self.bytes += json.len() + 1;
        self.records.push(json);
        event
    }

    /// The event of the records collected so far; `None` if there are none.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.bytes = EVENT_OVERHEAD_BYTES;
        let records = std::mem::take(&mut self.records);
        (!records.is_empty()).then(|| event_of(records.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use millstream::record::unpack;

    use super::*;

    fn events(documents: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        let mut batches = Batches::new("my", 1_770_593_400);
        let mut events: Vec<_> = (1..).zip(documents).filter_map(|(number, data)| batches.push(number, data)).collect();
        events.extend(batches.take());
        assert!(events.iter().all(|event| event.len() <= PAYLOAD_BYTES_MAX));
        events
    }

    #[test]
    fn records_carry_the_numbers_of_their_documents() {
        let events = events([b"{}".to_vec(), b"oops".to_vec()]);
        let batch = unpack(&events[0]).unwrap();
        let numbers: Vec<_> = batch.records.iter().map(|record| &*record.position.sequence_number.0).collect();
        assert_eq!((events.len(), &numbers[..], batch.payload(&batch.records[1])), (1, &["1", "2"][..], &b"oops"[..]));
    }

    #[test]
    fn a_batch_ends_with_its_last_record_or_byte() {
        let sizes = |events: Vec<Vec<u8>>| -> Vec<usize> {
            events.iter().map(|event| unpack(event).unwrap().records.len()).collect()
        };
        assert_eq!(sizes(events(vec![b"7".to_vec(); 10_001])), [10_000, 1]);
        assert_eq!(sizes(events(vec![vec![b'7'; 1_500_000]; 7])), [3, 3, 1]);
        assert_eq!(sizes(events(vec![vec![b'7'; RECORD_BYTES_MAX]; 2])), [1, 1]);
        assert!(events([]).is_empty());
    }
}
