//! Objects on S3: the configuration is read from there; backups and dead letters' payloads go there and come back.

use std::fmt::Display;
use std::io::Write;

use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;
use flate2::write::MultiGzDecoder;
use futures_util::{StreamExt, TryStreamExt};

use crate::aws::Aws;

/// Requests under way at once.
const REQUESTS_MAX: usize = 8;

/// An object could not be had, or not be stored.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not `s3://bucket/key`.
    #[error("invalid object address {0}; expected s3://bucket/key")]
    Address(String),
    /// S3 refused, or broke off.
    #[error("could not read {address}: {reason}")]
    Read {
        /// The object.
        address: String,
        /// What the SDK says.
        reason: String,
    },
    /// S3 refused to store.
    #[error("could not store {address}: {reason}")]
    Write {
        /// The object.
        address: String,
        /// What the SDK says.
        reason: String,
    },
    /// There is no bucket to store in.
    #[error("no archive bucket is configured; set ARCHIVE_BUCKET")]
    NoBucket,
}

/// Whether a path is meant for S3.
pub fn is_address(path: &str) -> bool {
    path.starts_with("s3://")
}

/// The bucket that is the system's own, and objects of any other.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    aws: Aws,
    bucket: Option<String>,
}

/// An object that is to be stored in the system's own bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewObject {
    /// Its key.
    pub key: String,
    /// Its content.
    pub body: Vec<u8>,
}

/// Some of the objects under a prefix.
#[derive(Debug)]
pub struct ListPage {
    /// Their keys, in the order of their bytes.
    pub keys: Vec<String>,
    /// Their common beginnings up to the next `/`, where those were asked for.
    pub folders: Vec<String>,
    /// Whether there are more.
    pub more: bool,
}

impl ObjectStore {
    /// With the bucket of the environment, if it names one.
    pub fn new(aws: Aws, bucket: Option<String>) -> Self {
        Self { aws, bucket }
    }

    /// Whether there is a bucket to store in.
    pub fn has_bucket(&self) -> bool {
        self.bucket.is_some()
    }

    /// The address of a key in the system's own bucket.
    ///
    /// # Errors
    /// No bucket is set.
    pub fn address(&self, key: &str) -> Result<String, ObjectError> {
        Ok(format!("s3://{}/{key}", self.bucket.as_deref().ok_or(ObjectError::NoBucket)?))
    }

    /// Stores an object in the system's own bucket; its address. An object of the same key is replaced.
    ///
    /// # Errors
    /// S3's refusal.
    pub async fn put(&self, key: &str, body: Vec<u8>) -> Result<String, ObjectError> {
        let address = self.address(key)?;
        let bucket = self.bucket.as_deref().ok_or(ObjectError::NoBucket)?;
        let put = self.client().await.put_object().bucket(bucket).key(key).body(ByteStream::from(body)).send().await;
        put.map_err(|error| ObjectError::Write {
            address: address.clone(),
            reason: DisplayErrorContext(&error).to_string(),
        })?;
        Ok(address)
    }

    /// Stores objects, a few at a time.
    ///
    /// # Errors
    /// Any that is not stored.
    pub async fn put_all(&self, objects: Vec<NewObject>) -> Result<(), ObjectError> {
        let storing =
            objects.into_iter().map(|object| async move { self.put(&object.key, object.body).await.map(drop) });
        futures_util::stream::iter(storing).buffer_unordered(REQUESTS_MAX).try_collect::<()>().await
    }

    /// Lists the system's own bucket, behind a key; with `folders` only up to the next `/`.
    ///
    /// # Errors
    /// S3's refusal.
    pub async fn list(&self, prefix: &str, behind: &str, folders: ListMode) -> Result<ListPage, ObjectError> {
        let address = self.address(prefix)?;
        let bucket = self.bucket.as_deref().ok_or(ObjectError::NoBucket)?;
        let mut request = self.client().await.list_objects_v2().bucket(bucket).prefix(prefix);
        if !behind.is_empty() {
            request = request.start_after(behind);
        }
        if folders == ListMode::CommonPrefixes {
            request = request.delimiter("/");
        }
        let listed = request.send().await.map_err(|error| read_error(&address, DisplayErrorContext(&error)))?;
        Ok(ListPage {
            keys: listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect(),
            folders: listed.common_prefixes().iter().filter_map(|prefix| prefix.prefix().map(str::to_owned)).collect(),
            more: listed.is_truncated() == Some(true),
        })
    }

    /// Reads an object whole, unpacked where its name ends in `.gz`.
    ///
    /// # Errors
    /// A wrong address, or S3's refusal.
    pub async fn read(&self, address: &str) -> Result<Vec<u8>, ObjectError> {
        let mut lines = self.lines(address).await?;
        while !lines.ended {
            lines.read().await?;
        }
        Ok(lines.text)
    }

    /// Reads a text object whole.
    ///
    /// # Errors
    /// A wrong address, S3's refusal, or an object that is not UTF-8.
    pub async fn read_text(&self, address: &str) -> Result<String, ObjectError> {
        let text = self.read(address).await?;
        String::from_utf8(text).map_err(|error| read_error(address, error))
    }

    /// Opens an object to be read line by line, unpacked where its name ends in `.gz`.
    ///
    /// # Errors
    /// A wrong address, or S3's refusal.
    pub async fn lines(&self, address: &str) -> Result<LineReader, ObjectError> {
        let object = self.open(address).await?;
        let unpacker = address.ends_with(".gz").then(|| MultiGzDecoder::new(Vec::new()));
        Ok(LineReader { object, unpacker, text: Vec::new(), at: 0, ended: false, bytes: 0 })
    }

    async fn open(&self, address: &str) -> Result<ObjectBody, ObjectError> {
        let parts = address.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
        let (bucket, key) = parts.ok_or_else(|| ObjectError::Address(address.to_owned()))?;
        let object = self.client().await.get_object().bucket(bucket).key(key).send().await;
        let object = object.map_err(|error| read_error(address, DisplayErrorContext(&error)))?;
        Ok(ObjectBody { address: address.to_owned(), body: object.body })
    }

    async fn client(&self) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::new(self.aws.config().await)
    }
}

/// How a listing treats what lies deeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListMode {
    /// Every object by itself.
    Objects,
    /// All objects of a folder as one.
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

/// The lines of an object. No more of it is in memory than one chunk of the network, unpacked, and one line.
pub struct LineReader {
    object: ObjectBody,
    unpacker: Option<MultiGzDecoder<Vec<u8>>>,
    text: Vec<u8>,
    at: usize,
    ended: bool,
    /// Bytes read so far, as they lie on S3.
    pub bytes: u64,
}

impl LineReader {
    /// The next line, without its end.
    ///
    /// # Errors
    /// S3 broke off, or the object is not what its name says.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, ObjectError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.text[self.at..]) {
                let line = self.at..self.at + end;
                self.at = line.end + 1;
                return Ok(Some(&self.text[line]));
            }
            if self.ended {
                let rest = std::mem::replace(&mut self.at, self.text.len());
                return Ok(Some(&self.text[rest..]).filter(|line| !line.is_empty()));
            }
            self.text.drain(..self.at);
            self.at = 0;
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), ObjectError> {
        let chunk = self.object.chunk().await?;
        self.ended = chunk.is_none();
        let chunk = chunk.unwrap_or_default();
        self.bytes += chunk.len() as u64;
        let Some(unpacker) = &mut self.unpacker else {
            self.text.extend_from_slice(&chunk);
            return Ok(());
        };
        let unpacked = unpacker.write_all(&chunk);
        let unpacked = unpacked.and_then(|()| if self.ended { unpacker.try_finish() } else { unpacker.flush() });
        unpacked.map_err(|error| read_error(&self.object.address, error))?;
        self.text.append(unpacker.get_mut());
        Ok(())
    }
}
