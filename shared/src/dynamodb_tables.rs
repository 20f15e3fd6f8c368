//! DynamoDB tables as a source that can be asked: their keys, their items.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use base64_simd::STANDARD;

use crate::aws::Aws;
use crate::backoff::backoff_delay;
use crate::spec::KeyColumn;

/// DynamoDB returns at most this many items for one request by key:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
pub const KEYS_MAX: usize = 100;

/// What a table's capacity does not suffice for is asked for again after a pause, so often: a quarter of a minute in all, or
/// less. The documentation asks for such pauses.
const ATTEMPTS: u32 = 10;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// Items as the SDK has them, by attribute.
type Item = HashMap<String, AttributeValue>;

/// DynamoDB could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("DynamoDB table {table}: {reason}")]
pub struct TableError {
    table: String,
    reason: String,
}

/// The tables of an account.
#[derive(Clone, Debug)]
pub struct DynamodbTables(Aws);

/// Some items of a scan.
#[derive(Debug)]
pub struct ScanPage {
    /// The items, each as the JSON of DynamoDB: `{"id":{"S":"a"}}`.
    pub items: Vec<String>,
    /// Where the scan goes on; `None` behind the last item.
    pub next: Option<String>,
}

impl DynamodbTables {
    /// The tables that the process's role may read.
    pub fn new(aws: Aws) -> Self {
        Self(aws)
    }

    /// The attributes of a table's key, the hash key first, and the types that their columns get. Empty for a table that is
    /// not there any more.
    ///
    /// # Errors
    /// Another refusal.
    pub async fn key(&self, table: &str) -> Result<Vec<KeyColumn>, TableError> {
        let described = match self.client().await.describe_table().table_name(table).send().await {
            Ok(described) => described,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(describe_error(table, DisplayErrorContext(&error))),
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

    /// Items of a segment of a scan, from where an earlier page has ended.
    ///
    /// # Errors
    /// DynamoDB's refusal, or a place that is none.
    pub async fn scan(
        &self,
        table: &str,
        segment: u32,
        segments: u32,
        from: Option<&str>,
    ) -> Result<ScanPage, TableError> {
        let parts = [segment, segments].map(|part| i32::try_from(part).unwrap_or(i32::MAX));
        let scan = self.client().await.scan().table_name(table).segment(parts[0]).total_segments(parts[1]);
        let start = from.map(|from| item_key(from).ok_or_else(|| describe_error(table, "invalid continuation key")));
        let answer = scan.set_exclusive_start_key(start.transpose()?).consistent_read(true).send().await;
        let answer = answer.map_err(|error| describe_error(table, DisplayErrorContext(&error)))?;
        Ok(ScanPage {
            items: answer.items().iter().map(format_item).collect(),
            next: answer.last_evaluated_key().map(format_item),
        })
    }

    /// The items of up to [`KEYS_MAX`] keys, as they are now; those that are not there are left out.
    ///
    /// # Errors
    /// DynamoDB's refusal.
    pub async fn items(&self, table: &str, keys: &[String]) -> Result<Vec<String>, TableError> {
        let wanted: Vec<Item> = keys.iter().filter_map(|key| item_key(key)).collect();
        let pauses = (1..=ATTEMPTS).map(|attempt| backoff_delay(attempt, BACKOFF_FIRST, BACKOFF_MAX));
        batch_get_with_retries(table, wanted, pauses, |keys| self.some_items(table, keys)).await
    }

    /// The items of some of the keys, and the other keys.
    async fn some_items(&self, table: &str, keys: Vec<Item>) -> Result<(Vec<String>, Vec<Item>), TableError> {
        let request = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
        let request = request.map_err(|error| describe_error(table, error))?;
        let answer = self.client().await.batch_get_item().request_items(table, request).send().await;
        let answer = answer.map_err(|error| describe_error(table, DisplayErrorContext(&error)))?;
        let found = answer.responses().and_then(|tables| tables.get(table));
        let left = answer.unprocessed_keys().and_then(|tables| tables.get(table));
        let left = left.map(|left| left.keys().to_vec()).unwrap_or_default();
        Ok((found.into_iter().flatten().map(format_item).collect(), left))
    }

    async fn client(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(self.0.config().await)
    }
}

/// Asks until no key is left, with pauses between; when the pauses are used up the table is left alone.
async fn batch_get_with_retries<R>(
    table: &str,
    mut keys: Vec<Item>,
    mut pauses: impl Iterator<Item = Duration>,
    ask: impl Fn(Vec<Item>) -> R,
) -> Result<Vec<String>, TableError>
where
    R: Future<Output = Result<(Vec<String>, Vec<Item>), TableError>>,
{
    let mut items = Vec::new();
    while !keys.is_empty() {
        let (found, left) = ask(keys).await?;
        items.extend(found);
        keys = left;
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

/// An item in the JSON of DynamoDB, its attributes sorted.
fn format_item(item: &Item) -> String {
    let mut names: Vec<&String> = item.keys().collect();
    names.sort();
    let member = |name: &&String| format!("{}:{}", quoted(name), format_attribute(&item[*name]));
    format!("{{{}}}", names.iter().map(member).collect::<Vec<_>>().join(","))
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
        // A type of the future is refused as an unknown one when it is decoded.
        _ => ("?", "null".to_owned()),
    };
    format!("{{\"{descriptor}\":{json}}}")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A key from the JSON of DynamoDB: texts, numbers and bytes.
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

    /// A table that reads one key at a time, if any.
    async fn read(keys: usize, pauses: usize, at_once: usize) -> Result<Vec<String>, TableError> {
        let keys = vec![Item::new(); keys];
        let ask = async |mut keys: Vec<Item>| {
            let found = keys.drain(..at_once.min(keys.len())).map(|item| format_item(&item)).collect();
            Ok((found, keys))
        };
        batch_get_with_retries("T", keys, std::iter::repeat_n(Duration::ZERO, pauses), ask).await
    }

    #[tokio::test]
    async fn unprocessed_keys_are_requested_again_but_not_forever() {
        for (keys, pauses, at_once) in [(0, 0, 1), (1, 0, 1), (3, 2, 1), (100, 1, 50)] {
            assert_eq!(read(keys, pauses, at_once).await.unwrap().len(), keys);
        }
        let refused = read(3, 5, 0).await.unwrap_err();
        assert_eq!(refused.to_string(), "DynamoDB table T: read capacity exceeded; try again later");
    }
}
