//! Reads DynamoDB tables: their keys and their items.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use base64_simd::STANDARD;

use crate::aws::{self, Aws};
use crate::backoff::backoff_delay;
use crate::spec::KeyColumn;

/// The maximum number of items in one request by key:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
pub const KEYS_MAX: usize = 100;

/// How many times keys that exceed a table's read capacity are requested again, with backoff as the documentation
/// recommends: a quarter of a minute in all, or less.
const ATTEMPTS: u32 = 10;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// Items in the SDK's form, by attribute name.
type Item = HashMap<String, AttributeValue>;

/// A request to DynamoDB failed.
#[derive(Debug, thiserror::Error)]
#[error("DynamoDB table {table}: {reason}")]
pub struct TableError {
    table: String,
    reason: String,
}

/// The DynamoDB tables of an account.
#[derive(Clone, Debug)]
pub struct DynamodbTables(Aws);

/// One page of a scan.
#[derive(Debug)]
pub struct ScanPage {
    /// The items, each as DynamoDB JSON: `{"id":{"S":"a"}}`.
    pub items: Vec<String>,
    /// The key to continue the scan from; `None` after the last item.
    pub next: Option<String>,
}

impl DynamodbTables {
    /// Uses the tables that the process's role may read.
    pub fn new(aws: Aws) -> Self {
        Self(aws)
    }

    /// The attributes of a table's key, the hash key first, and the types of their columns. Empty if the table no
    /// longer exists.
    ///
    /// # Errors
    /// Returns an error if the request fails for another reason.
    pub async fn key(&self, table: &str) -> Result<Vec<KeyColumn>, TableError> {
        let described = match self.client().await.describe_table().table_name(table).send().await {
            Ok(described) => described,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(describe_error(table, aws::describe_error("DynamoDB DescribeTable", &error))),
        };
        let description = described.table();
        let definitions = description.map(|table| table.attribute_definitions()).unwrap_or_default();
        let sql_type = |name: &str| {
            let definition = definitions.iter().find(|definition| definition.attribute_name() == name)?;
            match definition.attribute_type().as_str() {
                "N" => Some("numeric"),
                "B" => Some("bytea"),
                _ => Some("text"),
            }
        };
        let schema = description.map(|table| table.key_schema()).unwrap_or_default();
        let column = |name: &str| KeyColumn { name: name.to_owned(), sql_type: sql_type(name) };
        Ok(schema.iter().map(|part| column(part.attribute_name())).collect())
    }

    /// One page of a scan's segment, starting where an earlier page ended.
    ///
    /// # Errors
    /// Returns an error if the request fails or the continuation key is invalid.
    pub async fn scan(
        &self,
        table: &str,
        segment: u32,
        segments: u32,
        continuation_key: Option<&str>,
    ) -> Result<ScanPage, TableError> {
        let numbers = [segment, segments].map(|number| i32::try_from(number).unwrap_or(i32::MAX));
        let scan = self.client().await.scan().table_name(table).segment(numbers[0]).total_segments(numbers[1]);
        let start =
            continuation_key.map(|key| item_key(key).ok_or_else(|| describe_error(table, "invalid continuation key")));
        let response = scan.set_exclusive_start_key(start.transpose()?).consistent_read(true).send().await;
        let response = response.map_err(|error| describe_error(table, aws::describe_error("DynamoDB Scan", &error)))?;
        Ok(ScanPage {
            items: response.items().iter().map(format_item).collect(),
            next: response.last_evaluated_key().map(format_item),
        })
    }

    /// The current items of up to [`KEYS_MAX`] keys; missing items are omitted.
    ///
    /// # Errors
    /// Returns an error if a request fails or the table's read capacity is exceeded.
    pub async fn items(&self, table: &str, keys: &[String]) -> Result<Vec<String>, TableError> {
        let item_keys: Vec<Item> = keys.iter().filter_map(|key| item_key(key)).collect();
        let pauses = (1..=ATTEMPTS).map(|attempt| backoff_delay(attempt, BACKOFF_FIRST, BACKOFF_MAX));
        batch_get_with_retries(table, item_keys, pauses, |keys| self.batch_get(table, keys)).await
    }

    /// The items of some of the keys, and the keys that were not processed.
    async fn batch_get(&self, table: &str, keys: Vec<Item>) -> Result<(Vec<String>, Vec<Item>), TableError> {
        let request = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
        let request = request.map_err(|error| describe_error(table, error))?;
        let response = self.client().await.batch_get_item().request_items(table, request).send().await;
        let response =
            response.map_err(|error| describe_error(table, aws::describe_error("DynamoDB BatchGetItem", &error)))?;
        let items = response.responses().and_then(|tables| tables.get(table));
        let unprocessed = response.unprocessed_keys().and_then(|tables| tables.get(table));
        let unprocessed = unprocessed.map(|unprocessed| unprocessed.keys().to_vec()).unwrap_or_default();
        Ok((items.into_iter().flatten().map(format_item).collect(), unprocessed))
    }

    async fn client(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(self.0.config().await)
    }
}

/// Sends requests until no key is left, with backoff between them. Fails if keys are left after the last one.
async fn batch_get_with_retries<R>(
    table: &str,
    mut keys: Vec<Item>,
    mut pauses: impl Iterator<Item = Duration>,
    request: impl Fn(Vec<Item>) -> R,
) -> Result<Vec<String>, TableError>
where
    R: Future<Output = Result<(Vec<String>, Vec<Item>), TableError>>,
{
    let mut items = Vec::new();
    while !keys.is_empty() {
        let (batch, unprocessed) = request(keys).await?;
        items.extend(batch);
        keys = unprocessed;
        if !keys.is_empty() {
            let pause = pauses.next();
            let pause = pause.ok_or_else(|| describe_error(table, "read capacity exceeded; try again later"))?;
            tokio::time::sleep(pause).await;
        }
    }
    Ok(items)
}

fn describe_error(table: &str, reason: impl std::fmt::Display) -> TableError {
    TableError { table: table.to_owned(), reason: reason.to_string() }
}

/// An item as DynamoDB JSON, its attributes sorted.
fn format_item(item: &Item) -> String {
    let mut names: Vec<&String> = item.keys().collect();
    names.sort();
    let attribute = |name: &&String| format!("{}:{}", quoted(name), format_attribute(&item[*name]));
    format!("{{{}}}", names.iter().map(attribute).collect::<Vec<_>>().join(","))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK may learn further types")]
fn format_attribute(value: &AttributeValue) -> String {
    let base64 = |bytes: &aws_sdk_dynamodb::primitives::Blob| quoted(&STANDARD.encode_to_string(bytes.as_ref()));
    let list = |elements: Vec<String>| format!("[{}]", elements.join(","));
    let (descriptor, json) = match value {
        AttributeValue::S(text) => ("S", quoted(text)),
        AttributeValue::N(number) => ("N", quoted(number)),
        AttributeValue::B(bytes) => ("B", base64(bytes)),
        AttributeValue::Bool(flag) => ("BOOL", flag.to_string()),
        AttributeValue::Null(_) => ("NULL", "true".to_owned()),
        AttributeValue::L(values) => ("L", list(values.iter().map(format_attribute).collect())),
        AttributeValue::M(item) => ("M", format_item(item)),
        AttributeValue::Ss(texts) => ("SS", list(texts.iter().map(|text| quoted(text)).collect())),
        AttributeValue::Ns(numbers) => ("NS", list(numbers.iter().map(|number| quoted(number)).collect())),
        AttributeValue::Bs(blobs) => ("BS", list(blobs.iter().map(base64).collect())),
        // A future type is rejected as unknown when it is decoded.
        _ => ("?", "null".to_owned()),
    };
    format!("{{\"{descriptor}\":{json}}}")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A key from DynamoDB JSON: strings, numbers and binary values.
fn item_key(json: &str) -> Option<Item> {
    let attributes: HashMap<String, HashMap<String, String>> = serde_json::from_str(json).ok()?;
    let value = |(name, typed): (String, HashMap<String, String>)| {
        let (descriptor, text) = typed.into_iter().next()?;
        let value = match &*descriptor {
            "S" => AttributeValue::S(text),
            "N" => AttributeValue::N(text),
            "B" => AttributeValue::B(STANDARD.decode_to_vec(text).ok()?.into()),
            _ => return None,
        };
        Some((name, value))
    };
    attributes.into_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads from a table that returns at most `per_request` items per request.
    async fn read(keys: usize, pauses: usize, per_request: usize) -> Result<Vec<String>, TableError> {
        let keys = vec![Item::new(); keys];
        let request = async |mut keys: Vec<Item>| {
            let items = keys.drain(..per_request.min(keys.len())).map(|item| format_item(&item)).collect();
            Ok((items, keys))
        };
        batch_get_with_retries("T", keys, std::iter::repeat_n(Duration::ZERO, pauses), request).await
    }

    #[tokio::test]
    async fn unprocessed_keys_are_requested_again_but_not_forever() {
        for (keys, pauses, per_request) in [(0, 0, 1), (1, 0, 1), (3, 2, 1), (100, 1, 50)] {
            assert_eq!(read(keys, pauses, per_request).await.unwrap().len(), keys);
        }
        let error = read(3, 5, 0).await.unwrap_err();
        assert_eq!(error.to_string(), "DynamoDB table T: read capacity exceeded; try again later");
    }
}
