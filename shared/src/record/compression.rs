//! Decompression of gzip and zstd, recognised by their magic numbers.

use std::io::Read;

use super::UnpackError;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Whether the magic number is gzip's or zstd's.
pub fn is_compressed(bytes: &[u8]) -> bool {
    bytes.starts_with(GZIP) || bytes.starts_with(ZSTD)
}

/// Appends the decompressed bytes to `output`, at most `bytes_max` of them; `None` if the magic number is neither gzip's nor
/// zstd's. After an error, `output` may hold a part of them.
pub fn decompress(bytes: &[u8], bytes_max: usize, output: &mut Vec<u8>) -> Option<Result<(), UnpackError>> {
    if bytes.starts_with(GZIP) {
        Some(read_bounded("gzip", flate2::read::MultiGzDecoder::new(bytes), bytes_max, output))
    } else if bytes.starts_with(ZSTD) {
        Some(
            zstd::stream::read::Decoder::new(bytes)
                .map_err(|error| compression_error("zstd", &error))
                .and_then(|decoder| read_bounded("zstd", decoder, bytes_max, output)),
        )
    } else {
        None
    }
}

fn read_bounded(
    format: &'static str,
    decoder: impl Read,
    bytes_max: usize,
    output: &mut Vec<u8>,
) -> Result<(), UnpackError> {
    let read = decoder.take(bytes_max as u64 + 1).read_to_end(output);
    if read.map_err(|error| compression_error(format, &error))? > bytes_max {
        return Err(UnpackError::TooLarge);
    }
    Ok(())
}

fn compression_error(format: &'static str, error: &std::io::Error) -> UnpackError {
    UnpackError::Compression { format, reason: error.to_string() }
}
