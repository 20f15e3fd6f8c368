//! Several documents of one record, as the payload of one dead letter: gzip of, for each document, a line of JSON that
//! describes it, its bytes and a line feed.
//!
//! One record of a few hundred bytes may hold hundreds of thousands of documents. A message for each of them would take the
//! function longer than an invocation lasts.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::record::RECORD_BYTES_MAX;

/// A document's description and its bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct PackedDocument<'d> {
    /// Its position within its record.
    pub sub_sequence_number: u32,
    /// The XXH3 of the document without its private fields, in hexadecimal.
    pub digest: String,
    /// The partition key, if it differs from that of the document before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_key: Option<Cow<'d, str>>,
    /// Whether it could not be unpacked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unreadable: bool,
    /// The number of its bytes.
    bytes: usize,
    #[serde(skip)]
    data: Cow<'d, [u8]>,
}

impl<'d> PackedDocument<'d> {
    /// Describes a document.
    pub fn new(sub_sequence_number: u32, digest: String, data: &'d [u8]) -> Self {
        let (partition_key, unreadable) = (None, false);
        Self { sub_sequence_number, digest, partition_key, unreadable, bytes: data.len(), data: Cow::Borrowed(data) }
    }

    /// The same for a document that could not be unpacked, if `is_unreadable`.
    pub fn unreadable_if(self, is_unreadable: bool) -> Self {
        Self { unreadable: is_unreadable, ..self }
    }

    /// Whether it could not be unpacked.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// Its bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

/// Packs documents one by one, so that no more than the compressed payload is in memory.
pub struct DocumentPacker {
    encoder: GzEncoder<Vec<u8>>,
    last_key: Option<String>,
}

impl DocumentPacker {
    /// Creates a packer without documents.
    pub fn new() -> Self {
        Self { encoder: GzEncoder::new(Vec::new(), Compression::default()), last_key: None }
    }

    /// Adds a document of a partition key.
    ///
    /// # Errors
    /// Returns an error if the document cannot be written.
    pub fn push(&mut self, mut document: PackedDocument<'_>, partition_key: &str) -> io::Result<()> {
        if self.last_key.as_deref() != Some(partition_key) {
            self.last_key = Some(partition_key.to_owned());
            document.partition_key = Some(Cow::Owned(partition_key.to_owned()));
        }
        serde_json::to_writer(&mut self.encoder, &document)?;
        self.encoder.write_all(b"\n")?;
        self.encoder.write_all(&document.data)?;
        self.encoder.write_all(b"\n")
    }

    /// The payload.
    ///
    /// # Errors
    /// Returns an error if the payload cannot be completed.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.encoder.finish()
    }
}

/// Reads the documents of a payload, and passes each with its partition key to `document`.
///
/// # Errors
/// Returns an error if the payload is not what [`DocumentPacker`] writes.
pub fn unpack_documents(payload: &[u8], mut document: impl FnMut(&PackedDocument<'_>, &str)) -> io::Result<()> {
    let mut reader = BufReader::new(GzDecoder::new(payload));
    let (mut line, mut partition_key) = (Vec::new(), String::new());
    loop {
        line.clear();
        reader.by_ref().take(RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let mut packed: PackedDocument<'static> = serde_json::from_slice(&line)?;
        // The bytes are those of a record, which has a limit, and a line feed.
        let mut data = Vec::new();
        reader.by_ref().take(packed.bytes as u64 + 1).read_to_end(&mut data)?;
        if data.pop() != Some(b'\n') || data.len() != packed.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        packed.data = Cow::Owned(data);
        if let Some(key) = &packed.partition_key {
            key.as_ref().clone_into(&mut partition_key);
        }
        document(&packed, &partition_key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_byte_for_byte_with_their_keys() {
        let documents: [(u32, &str, &[u8]); 5] =
            [(3, "k", b"{}"), (4, "k", b"\xff\n\n\x00"), (9, "", b""), (10, "u\u{fffe}\n", b"{\n}\n"), (11, "k", b"1")];
        let mut packer = DocumentPacker::new();
        for (number, key, data) in documents {
            let document = PackedDocument::new(number, "0f".to_owned(), data).unreadable_if(number == 4);
            packer.push(document, key).unwrap();
        }
        let payload = packer.finish().unwrap();
        let mut found = Vec::new();
        unpack_documents(&payload, |document, key| {
            assert_eq!(document.is_unreadable(), document.sub_sequence_number == 4);
            found.push((document.sub_sequence_number, key.to_owned(), document.data().to_vec()));
        })
        .unwrap();
        assert_eq!(found, documents.map(|(number, key, data)| (number, key.to_owned(), data.to_vec())));
    }

    #[test]
    fn a_damaged_payload_is_an_error() {
        let mut packer = DocumentPacker::new();
        packer.push(PackedDocument::new(0, "0f".to_owned(), b"{}"), "k").unwrap();
        let payload = packer.finish().unwrap();
        for end in 0..payload.len() - 8 {
            let mut count = 0;
            let result = unpack_documents(&payload[..end], |_, _| count += 1);
            assert!(result.is_err() || count == 0, "{end}");
        }
        assert!(unpack_documents(b"{}", |_, _| ()).is_err());
    }

    #[test]
    fn many_equal_documents_need_little_space() {
        let mut packer = DocumentPacker::new();
        for number in 0..300_000 {
            packer.push(PackedDocument::new(number, "99aa06d3014798d8".to_owned(), b"{}"), "k").unwrap();
        }
        let bytes = packer.finish().unwrap().len();
        assert!(bytes < 2_000_000, "{bytes}");
    }
}
