//! gzip and zstd, recognised by their first bytes.

use std::io::Read;

use super::{Fault, RECORD_BYTES_MAX};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The decompressed bytes; `None` where the magic number of neither is there.
pub fn decompress(bytes: &[u8]) -> Option<Result<Vec<u8>, Fault>> {
    if bytes.starts_with(GZIP) {
        Some(read_bounded("gzip", flate2::read::MultiGzDecoder::new(bytes)))
    } else if bytes.starts_with(ZSTD) {
        Some(
            zstd::stream::read::Decoder::new(bytes)
                .map_err(|e| fault("zstd", &e))
                .and_then(|d| read_bounded("zstd", d)),
        )
    } else {
        None
    }
}

fn read_bounded(format: &'static str, decoder: impl Read) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    decoder.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| fault(format, &error))?;
    if bytes.len() > RECORD_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(bytes) }
}

fn fault(format: &'static str, error: &std::io::Error) -> Fault {
    Fault::Compression { format, reason: error.to_string() }
}
