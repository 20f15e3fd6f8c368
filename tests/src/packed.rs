//! What producers pack records into.

use std::io::Write;

use md5::{Digest, Md5};

/// The beginning and the end of an aggregate of the Kinesis Producer Library, around any message.
pub fn sealed(message: &[u8]) -> Vec<u8> {
    [&[0xf3, 0x89, 0x9a, 0xc2], message, Md5::digest(message).as_slice()].concat()
}

/// An aggregate of the Kinesis Producer Library, all under one partition key.
pub fn aggregate(records: &[&[u8]]) -> Vec<u8> {
    aggregate_under("k", records)
}

/// An aggregate of the Kinesis Producer Library, all under this partition key.
pub fn aggregate_under(key: &str, records: &[&[u8]]) -> Vec<u8> {
    // Field numbers and types of AggregatedRecord.
    let mut message = [&[0x0a], &varint(key.len())[..], key.as_bytes()].concat();
    for data in records {
        let entry = [&[0x08, 0, 0x1a], &varint(data.len())[..], data].concat();
        message.extend([&[0x1a], &varint(entry.len())[..], &entry].concat());
    }
    sealed(&message)
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number % 0x80) as u8 | 0x80);
        number /= 0x80;
    }
    bytes.push(number as u8);
    bytes
}

/// The data, compressed with gzip.
pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Writes to memory do not fail.
    encoder.write_all(data).unwrap_or_default();
    encoder.finish().unwrap_or_default()
}
