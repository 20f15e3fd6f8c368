//! Decompression of gzip and zstd, recognised by their magic numbers.

use std::io::Read;

use super::{RECORD_BYTES_MAX, UnpackError};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Returns the decompressed bytes, or `None` if the magic number is neither gzip's nor zstd's.
pub fn decompress(bytes: &[u8]) -> Option<Result<Vec<u8>, UnpackError>> {
    if bytes.starts_with(GZIP) {
        Some(read_bounded("gzip", flate2::read::MultiGzDecoder::new(bytes)))
    } else if bytes.starts_with(ZSTD) {
        Some(
            zstd::stream::read::Decoder::new(bytes)
                .map_err(|error| compression_error("zstd", &error))
                .and_then(|decoder| read_bounded("zstd", decoder)),
        )
    } else {
        None
    }
}

fn read_bounded(format: &'static str, decoder: impl Read) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = Vec::new();
    decoder
        .take(RECORD_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| compression_error(format, &error))?;
    if bytes.len() > RECORD_BYTES_MAX { Err(UnpackError::TooLarge) } else { Ok(bytes) }
}

fn compression_error(format: &'static str, error: &std::io::Error) -> UnpackError {
    UnpackError::Compression { format, reason: error.to_string() }
}
