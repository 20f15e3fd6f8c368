//! The file, plain or gzip, without its byte order mark. Its head is read first, to detect what the file contains.

use std::fs::File;
use std::io::{BufRead, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

/// No Lambda event is larger: its payload is at most 6 MB, and indentation adds little to base64.
const HEAD_BYTES: u64 = 16 * 1024 * 1024;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// A file whose head has been read.
pub struct Input {
    head: Vec<u8>,
    is_whole: bool,
    rest: Box<dyn Read + Send>,
}

/// The decompressed bytes, from the first on.
pub type InputReader = BufReader<Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>>;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It contains only white space.
    #[error("{} is empty: expected one JSON object per line", .0.display())]
    Empty(PathBuf),
    /// PowerShell's `>` writes such files.
    #[error("{path} is UTF-16: convert it to UTF-8 first, for example with iconv -f UTF-16 -t UTF-8 {path}", path = .0.display())]
    Utf16(PathBuf),
    /// Only gzip is read.
    #[error("{path} is compressed with zstd: decompress it first, with zstd -d {path}", path = .0.display())]
    Zstd(PathBuf),
}

impl Input {
    /// Opens a file and reads its head.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is empty, or has an unsupported encoding.
    pub fn open(path: &Path) -> Result<Self, InputError> {
        let io_error = |source| InputError::Io { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(io_error)?);
        let magic = file.fill_buf().map_err(io_error)?;
        if magic.starts_with(ZSTD) {
            return Err(InputError::Zstd(path.to_owned()));
        }
        let is_gzip = magic.starts_with(GZIP);
        let reader: Box<dyn Read + Send> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let input = Self::from_reader(reader).map_err(io_error)?;
        if UTF16_MARKS.iter().any(|mark| input.head.starts_with(mark)) {
            return Err(InputError::Utf16(path.to_owned()));
        }
        if input.is_whole && input.head.trim_ascii().is_empty() {
            return Err(InputError::Empty(path.to_owned()));
        }
        Ok(input)
    }

    fn from_reader(mut reader: Box<dyn Read + Send>) -> std::io::Result<Self> {
        let mut head = Vec::new();
        let read = reader.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
        if head.starts_with(UTF8_MARK) {
            head.drain(..UTF8_MARK.len());
        }
        Ok(Self { head, is_whole: (read as u64) < HEAD_BYTES, rest: reader })
    }

    /// The first bytes.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Whether the head is the whole file.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Everything, from the first byte on.
    pub fn into_reader(self) -> InputReader {
        BufReader::new(Cursor::new(self.head).chain(self.rest))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An error and its source.
    fn text(error: &InputError) -> String {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    }

    fn open(name: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let path = std::env::temp_dir().join(format!("millstream-input-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let input = Input::open(&path);
        std::fs::remove_file(&path).unwrap();
        let mut all = Vec::new();
        input.map_err(|error| text(&error))?.into_reader().read_to_end(&mut all).unwrap();
        Ok(all)
    }

    #[test]
    fn gzip_and_a_byte_order_mark_are_removed() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"\xef\xbb\xbf{}\n").unwrap();
        assert_eq!(open("gzip", &gzip.finish().unwrap()).unwrap(), b"{}\n");
        assert_eq!(open("plain", b"{}").unwrap(), b"{}");
    }

    #[test]
    fn what_cannot_be_replayed_is_rejected_with_a_reason() {
        let error = |name, bytes: &[u8]| open(name, bytes).unwrap_err();
        assert!(error("empty", b"").ends_with("empty is empty: expected one JSON object per line"));
        assert!(error("blank", b"\r\n \n").contains("is empty"));
        assert!(error("utf16", b"\xff\xfe{\0}\0").contains("iconv -f UTF-16 -t UTF-8"));
        assert!(error("zstd", b"\x28\xb5\x2f\xfdrest").contains("zstd -d"));
        assert!(error("cut", b"\x1f\x8b\x08").contains("cannot read"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = text(&Input::open(Path::new("/nowhere/my.ndjson")).err().unwrap());
        assert!(error.starts_with("cannot read /nowhere/my.ndjson: No such file"), "{error}");
    }
}
