//! Records that the Kinesis Producer Library (KPL) aggregated into one.
//!
//! The format: <https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md>. Bytes with a
//! wrong checksum are not an aggregate, as in the reference implementation; a correct checksum with unreadable content
//! is an error. Sub-records outside the shard's hash range are kept: after a reshard they may arrive twice, which is
//! harmless because writes are idempotent, while dropping them would lose those of producers other than the KPL.

use std::sync::Arc;

use md5::{Digest, Md5};
use prost::Message;

use super::UnpackError;

const MAGIC: &[u8] = &[0xf3, 0x89, 0x9a, 0xc2];
const CHECKSUM_BYTES: usize = 16;

#[derive(Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<AggregatedEntry>,
}

#[derive(Message)]
struct AggregatedEntry {
    #[prost(uint64, required, tag = "1")]
    partition_key_index: u64,
    #[prost(bytes = "vec", required, tag = "3")]
    data: Vec<u8>,
}

/// One record of an aggregate.
#[derive(Debug, PartialEq)]
pub struct UserRecord {
    /// The producer's partition key, not the aggregate's. Records with one key share it.
    pub partition_key: Arc<str>,
    /// What the producer sent.
    pub data: Vec<u8>,
}

/// Whether the bytes begin like an aggregate.
pub fn may_be_aggregate(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Returns the records of an aggregate in order, or `None` if the bytes are not an aggregate.
pub fn deaggregate(bytes: &[u8]) -> Option<Result<Vec<UserRecord>, UnpackError>> {
    let content = bytes.strip_prefix(MAGIC)?;
    let (message, checksum) = content.split_at_checked(content.len().checked_sub(CHECKSUM_BYTES)?)?;
    if message.is_empty() || Md5::digest(message).as_slice() != checksum {
        return None;
    }
    Some(
        AggregatedRecord::decode(message)
            .map_err(|error| UnpackError::Aggregate(error.to_string()))
            .and_then(user_records),
    )
}

fn user_records(aggregate: AggregatedRecord) -> Result<Vec<UserRecord>, UnpackError> {
    let keys: Vec<Arc<str>> = aggregate.partition_key_table.into_iter().map(Arc::from).collect();
    let mut records = Vec::with_capacity(aggregate.records.len());
    for entry in aggregate.records {
        let key = usize::try_from(entry.partition_key_index).ok().and_then(|index| keys.get(index));
        let key = key.ok_or_else(|| {
            UnpackError::Aggregate(format!("partition key index {} is out of range", entry.partition_key_index))
        })?;
        records.push(UserRecord { partition_key: key.clone(), data: entry.data });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Created with AWS's aggregator for Python (aws-kinesis-agg 1.2.3): three records, keys pk0, pk1, pk0.
    const GOLDEN: &str = "f3899ac20a03706b300a03706b311a0b08001a077b2269223a307d1a0b08011a077b2269223a317d1a0b08001a077b2269223a327d290984c7f6c9d884b16f35f99a0fb3e1";

    fn golden() -> Vec<u8> {
        (0..GOLDEN.len() / 2).map(|at| u8::from_str_radix(&GOLDEN[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn an_aggregate_of_the_reference_implementation_is_unpacked() {
        let records = deaggregate(&golden()).unwrap().unwrap();
        let unpacked: Vec<_> = records.iter().map(|r| (&*r.partition_key, str::from_utf8(&r.data).unwrap())).collect();
        assert_eq!(unpacked, [("pk0", r#"{"i":0}"#), ("pk1", r#"{"i":1}"#), ("pk0", r#"{"i":2}"#)]);
        assert!(Arc::ptr_eq(&records[0].partition_key, &records[2].partition_key));
    }

    #[test]
    fn a_wrong_checksum_means_no_aggregate_and_bad_content_an_error() {
        let mut bytes = golden();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(deaggregate(&bytes), None);
        assert_eq!(deaggregate(MAGIC), None);
        let message = [0x1a, 0x02, 0x08, 0x05];
        let bad = [MAGIC, &message, Md5::digest(message).as_slice()].concat();
        assert!(matches!(deaggregate(&bad), Some(Err(UnpackError::Aggregate(_)))));
    }
}
