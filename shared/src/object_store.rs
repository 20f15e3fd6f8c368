//! Objects on S3: the configuration is read from S3; backups and the payloads of dead letters are stored there and read
//! back.

use std::fmt::Display;
use std::io::Write;

use aws_sdk_s3::primitives::ByteStream;
use flate2::write::MultiGzDecoder;
use futures_util::{StreamExt, TryStreamExt};

use crate::aws::{Aws, describe_error};

/// Concurrent requests.
const REQUESTS_MAX: usize = 8;

/// An object could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not `s3://bucket/key`.
    #[error("invalid object address {0}; expected s3://bucket/key")]
    Address(String),
    /// S3 rejected the request, or the response ended early.
    #[error("could not read {address}: {reason}")]
    Read {
        /// The object.
        address: String,
        /// What failed.
        reason: String,
    },
    /// S3 rejected the object.
    #[error("could not store {address}: {reason}")]
    Write {
        /// The object.
        address: String,
        /// The failed request.
        reason: String,
    },
    /// There is no bucket to store objects in.
    #[error("no archive bucket is configured; set ARCHIVE_BUCKET")]
    NoBucket,
}

/// Whether a path is an S3 address.
pub fn is_address(path: &str) -> bool {
    path.starts_with("s3://")
}

/// The bucket and the key of an S3 address.
///
/// # Errors
/// Returns an error if it is not `s3://bucket/key`.
pub fn bucket_and_key(address: &str) -> Result<(&str, &str), ObjectError> {
    let parts = address.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
    parts.ok_or_else(|| ObjectError::Address(address.to_owned()))
}

/// Reads and writes Millstream's own bucket, and reads objects of any other bucket.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    aws: Aws,
    bucket: Option<String>,
}

/// An object to be stored in Millstream's own bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewObject {
    /// Its key.
    pub key: String,
    /// Its content.
    pub body: Vec<u8>,
}

/// One page of the objects under a prefix.
#[derive(Debug)]
pub struct ListPage {
    /// Their keys, in byte order.
    pub keys: Vec<String>,
    /// Their common prefixes up to the next `/`, if those were requested.
    pub folders: Vec<String>,
    /// Whether there are more.
    pub more: bool,
}

impl ObjectStore {
    /// Uses the bucket of the environment, if it names one.
    pub fn new(aws: Aws, bucket: Option<String>) -> Self {
        Self { aws, bucket }
    }

    /// Whether there is a bucket to store objects in.
    pub fn has_bucket(&self) -> bool {
        self.bucket.is_some()
    }

    /// The address of a key in Millstream's own bucket.
    ///
    /// # Errors
    /// Returns an error if no bucket is set.
    pub fn address(&self, key: &str) -> Result<String, ObjectError> {
        Ok(format!("s3://{}/{key}", self.bucket.as_deref().ok_or(ObjectError::NoBucket)?))
    }

    /// Stores an object in Millstream's own bucket and returns its address. An object with the same key is replaced.
    ///
    /// # Errors
    /// Returns an error if no bucket is set or S3 rejects the request.
    pub async fn put(&self, key: &str, body: Vec<u8>) -> Result<String, ObjectError> {
        let address = self.address(key)?;
        let bucket = self.bucket.as_deref().ok_or(ObjectError::NoBucket)?;
        let result = self.client().await.put_object().bucket(bucket).key(key).body(ByteStream::from(body)).send().await;
        result.map_err(|error| ObjectError::Write {
            address: address.clone(),
            reason: describe_error("S3 PutObject", &error),
        })?;
        Ok(address)
    }

    /// Stores objects, a few at a time.
    ///
    /// # Errors
    /// Returns an error if any of them is not stored.
    pub async fn put_all(&self, objects: Vec<NewObject>) -> Result<(), ObjectError> {
        let uploads =
            objects.into_iter().map(|object| async move { self.put(&object.key, object.body).await.map(drop) });
        futures_util::stream::iter(uploads).buffer_unordered(REQUESTS_MAX).try_collect::<()>().await
    }

    /// Lists Millstream's own bucket, starting after a key.
    ///
    /// # Errors
    /// Returns an error if no bucket is set or S3 rejects the request.
    pub async fn list(&self, prefix: &str, start_after: &str, mode: ListMode) -> Result<ListPage, ObjectError> {
        let address = self.address(prefix)?;
        let bucket = self.bucket.as_deref().ok_or(ObjectError::NoBucket)?;
        let mut request = self.client().await.list_objects_v2().bucket(bucket).prefix(prefix);
        if !start_after.is_empty() {
            request = request.start_after(start_after);
        }
        if mode == ListMode::CommonPrefixes {
            request = request.delimiter("/");
        }
        let response =
            request.send().await.map_err(|error| read_error(&address, describe_error("S3 ListObjectsV2", &error)))?;
        Ok(ListPage {
            keys: response.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect(),
            folders: response
                .common_prefixes()
                .iter()
                .filter_map(|prefix| prefix.prefix().map(str::to_owned))
                .collect(),
            more: response.is_truncated() == Some(true),
        })
    }

    /// Reads a whole object, and decompresses it if its name ends in `.gz`.
    ///
    /// # Errors
    /// Returns an error if the address is invalid, the object cannot be read, or it cannot be decompressed.
    pub async fn read(&self, address: &str) -> Result<Vec<u8>, ObjectError> {
        let mut lines = self.lines(address).await?;
        while !lines.at_end {
            lines.read().await?;
        }
        Ok(lines.text)
    }

    /// Reads a whole text object.
    ///
    /// # Errors
    /// See [`ObjectStore::read`]. Also returns an error if the object is not UTF-8.
    pub async fn read_text(&self, address: &str) -> Result<String, ObjectError> {
        let text = self.read(address).await?;
        String::from_utf8(text).map_err(|error| read_error(address, error))
    }

    /// Opens an object to be read line by line, and decompresses it if its name ends in `.gz`.
    ///
    /// # Errors
    /// Returns an error if the address is invalid or S3 rejects the request.
    pub async fn lines(&self, address: &str) -> Result<LineReader, ObjectError> {
        let object = self.open(address).await?;
        let decoder = address.ends_with(".gz").then(|| MultiGzDecoder::new(Vec::new()));
        Ok(LineReader { object, decoder, text: Vec::new(), line_start: 0, at_end: false, bytes: 0 })
    }

    async fn open(&self, address: &str) -> Result<ObjectBody, ObjectError> {
        let (bucket, key) = bucket_and_key(address)?;
        let object = self.client().await.get_object().bucket(bucket).key(key).send().await;
        let object = object.map_err(|error| read_error(address, describe_error("S3 GetObject", &error)))?;
        Ok(ObjectBody { address: address.to_owned(), body: object.body })
    }

    async fn client(&self) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::new(self.aws.config().await)
    }
}

/// How a listing treats objects below the next `/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListMode {
    /// List every object.
    Objects,
    /// List the objects of a folder as one common prefix.
    CommonPrefixes,
}

fn read_error(address: &str, reason: impl Display) -> ObjectError {
    ObjectError::Read { address: address.to_owned(), reason: reason.to_string() }
}

struct ObjectBody {
    address: String,
    body: ByteStream,
}

impl ObjectBody {
    async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, ObjectError> {
        self.body.try_next().await.map_err(|error| read_error(&self.address, error))
    }
}

/// The lines of an object. At most one chunk from the network, decompressed, and one line are in memory.
pub struct LineReader {
    object: ObjectBody,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    text: Vec<u8>,
    line_start: usize,
    at_end: bool,
    /// Bytes read so far, as stored on S3.
    pub bytes: u64,
}

impl LineReader {
    /// The next line, without its line feed.
    ///
    /// # Errors
    /// Returns an error if the response ends early or the object cannot be decompressed.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, ObjectError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.text[self.line_start..]) {
                let line = self.line_start..self.line_start + end;
                self.line_start = line.end + 1;
                return Ok(Some(&self.text[line]));
            }
            if self.at_end {
                let rest = std::mem::replace(&mut self.line_start, self.text.len());
                return Ok(Some(&self.text[rest..]).filter(|line| !line.is_empty()));
            }
            self.text.drain(..self.line_start);
            self.line_start = 0;
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), ObjectError> {
        let chunk = self.object.chunk().await?;
        self.at_end = chunk.is_none();
        let chunk = chunk.unwrap_or_default();
        self.bytes += chunk.len() as u64;
        let Some(decoder) = &mut self.decoder else {
            self.text.extend_from_slice(&chunk);
            return Ok(());
        };
        let decoded = decoder.write_all(&chunk);
        let decoded = decoded.and_then(|()| if self.at_end { decoder.try_finish() } else { decoder.flush() });
        decoded.map_err(|error| read_error(&self.object.address, error))?;
        self.text.append(decoder.get_mut());
        Ok(())
    }
}
