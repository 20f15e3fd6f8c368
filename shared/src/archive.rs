//! Objects on S3. So far the configuration is read from there; batches and dead letters' payloads go there.

use crate::aws::Aws;

/// An object could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not `s3://bucket/key`.
    #[error("{0} is no address of an object: it must look like s3://bucket/key")]
    Address(String),
    /// S3 refused, or broke off.
    #[error("reading {address}: {reason}")]
    Read {
        /// The object.
        address: String,
        /// What the SDK says.
        reason: String,
    },
}

/// Whether a path is meant for S3.
pub fn is_address(path: &str) -> bool {
    path.starts_with("s3://")
}

/// Reads a text object.
///
/// # Errors
/// A wrong address, S3's refusal, or an object that is not UTF-8.
pub async fn read_text(aws: &Aws, address: &str) -> Result<String, ObjectError> {
    let parts = address.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
    let (bucket, key) = parts.ok_or_else(|| ObjectError::Address(address.to_owned()))?;
    let fault = |reason: String| ObjectError::Read { address: address.to_owned(), reason };
    let client = aws_sdk_s3::Client::new(aws.config().await);
    let object = client.get_object().bucket(bucket).key(key).send().await;
    let object = object.map_err(|error| fault(aws_sdk_s3::error::DisplayErrorContext(&error).to_string()))?;
    let bytes = object.body.collect().await.map_err(|error| fault(error.to_string()))?;
    String::from_utf8(bytes.to_vec()).map_err(|error| fault(error.to_string()))
}
