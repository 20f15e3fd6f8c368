//! The streams: their shards, and the records of a shard page by page, in the form in which Lambda delivers them.
//!
//! moto returns iterators of closed shards indefinitely and names no child shards, so lineage and end come from the list of
//! shards: `ParentShardId` and `EndingSequenceNumber`.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Shard, ShardIteratorType};
use millstream::record::SequenceNumber;
use millstream::timestamp::Timestamp;
use serde_json::{Value, json};

use super::lineage::{ListedShard, Position};
use super::mapping::{Mapping, SourceKind, StartingPosition};
use super::record::StreamRecord;
use super::shard::Checkpoint;
use crate::dynamodb::{call, stream_record as item_record};
use crate::kinesis::{ShardRecord, stream_record};
use crate::local_aws::LocalAws;
use crate::system::SystemResult;

/// A stream to be read.
pub struct Stream<'a> {
    aws: &'a LocalAws,
    kinesis: Client,
    kind: SourceKind,
    arn: &'a str,
}

/// The result of one read of a shard.
#[derive(Debug)]
pub struct Page {
    /// The records, in order.
    pub records: Vec<StreamRecord>,
    /// The iterator of the next read; `None` at the end of the shard.
    pub next: Option<String>,
}

impl<'a> Stream<'a> {
    /// The stream of a mapping.
    pub fn of(aws: &'a LocalAws, mapping: &'a Mapping, kind: SourceKind) -> Self {
        Self { aws, kinesis: Client::new(aws.config()), kind, arn: &mapping.event_source_arn }
    }

    /// All shards, open and closed.
    ///
    /// # Errors
    /// Returns an error if the API call fails.
    pub async fn shards(&self) -> SystemResult<Vec<ListedShard>> {
        match self.kind {
            SourceKind::Kinesis => self.kinesis_shards().await,
            SourceKind::Dynamodb => self.dynamodb_shards().await,
        }
    }

    async fn kinesis_shards(&self) -> SystemResult<Vec<ListedShard>> {
        let mut shards = Vec::new();
        let mut page = self.kinesis.list_shards().stream_name(self.name()).send().await?;
        loop {
            shards.extend(page.shards().iter().map(listed));
            let Some(token) = page.next_token else { return Ok(shards) };
            page = self.kinesis.list_shards().next_token(token).send().await?;
        }
    }

    async fn dynamodb_shards(&self) -> SystemResult<Vec<ListedShard>> {
        let mut shards = Vec::new();
        let mut request = json!({"StreamArn": self.arn});
        loop {
            let mut page = call(self.aws, "DynamoDBStreams_20120810.DescribeStream", &request).await?;
            let described = &mut page["StreamDescription"];
            shards.extend(described["Shards"].as_array().into_iter().flatten().map(described_shard));
            request["ExclusiveStartShardId"] = described["LastEvaluatedShardId"].take();
            if request["ExclusiveStartShardId"].is_null() {
                return Ok(shards);
            }
        }
    }

    /// An iterator of a shard.
    ///
    /// # Errors
    /// Returns an error if the API call fails.
    pub async fn iterator(&self, shard: &str, position: &Position) -> SystemResult<Option<String>> {
        let (kind, sequence, moment) = iterator_of(position);
        if self.kind == SourceKind::Kinesis {
            let request = self.kinesis.get_shard_iterator().stream_name(self.name()).shard_id(shard);
            let request = request.set_starting_sequence_number(sequence.map(|sequence| sequence.0.to_string()));
            let request = request
                .set_timestamp(moment.map(|moment| DateTime::from_nanos(i128::from(moment.0) * 1_000)).transpose()?);
            return Ok(request.shard_iterator_type(kind).send().await?.shard_iterator);
        }
        let mut request = json!({"StreamArn": self.arn, "ShardId": shard, "ShardIteratorType": kind.as_str()});
        if let Some(sequence) = sequence {
            request["SequenceNumber"] = (&*sequence.0).into();
        }
        let answer = call(self.aws, "DynamoDBStreams_20120810.GetShardIterator", &request).await?;
        Ok(answer["ShardIterator"].as_str().map(str::to_owned))
    }

    /// The records at an iterator.
    ///
    /// # Errors
    /// Returns an error if the API call fails.
    pub async fn page(&self, shard: &str, iterator: &str) -> SystemResult<Page> {
        if self.kind == SourceKind::Kinesis {
            let page = self.kinesis.get_records().shard_iterator(iterator).send().await?;
            let records = page.records.into_iter().map(ShardRecord::from);
            let records = records.map(|record| stream_record(self.name(), shard, &record)).collect();
            return Ok(Page { records, next: page.next_shard_iterator });
        }
        let request = json!({"ShardIterator": iterator});
        let mut page = call(self.aws, "DynamoDBStreams_20120810.GetRecords", &request).await?;
        let next = page["NextShardIterator"].as_str().map(str::to_owned);
        let records = page["Records"].as_array_mut().into_iter().flatten().map(|record| item_record(self.arn, record));
        Ok(Page { records: records.collect(), next })
    }

    /// A Kinesis stream's name.
    fn name(&self) -> &str {
        self.arn.rsplit_once(":stream/").map_or(self.arn, |(_, name)| name)
    }
}

fn iterator_of(position: &Position) -> (ShardIteratorType, Option<&SequenceNumber>, Option<Timestamp>) {
    match position {
        Position::Starting(StartingPosition::TrimHorizon) => (ShardIteratorType::TrimHorizon, None, None),
        Position::Starting(StartingPosition::Latest) => (ShardIteratorType::Latest, None, None),
        Position::Starting(StartingPosition::AtTimestamp(moment)) => {
            (ShardIteratorType::AtTimestamp, None, Some(*moment))
        }
        Position::Checkpoint(Checkpoint::At(sequence)) => (ShardIteratorType::AtSequenceNumber, Some(sequence), None),
        Position::Checkpoint(Checkpoint::After(sequence)) => {
            (ShardIteratorType::AfterSequenceNumber, Some(sequence), None)
        }
    }
}

fn listed(shard: &Shard) -> ListedShard {
    ListedShard {
        id: shard.shard_id().to_owned(),
        parents: [shard.parent_shard_id(), shard.adjacent_parent_shard_id()]
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect(),
        is_closed: shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_some()),
    }
}

fn described_shard(shard: &Value) -> ListedShard {
    ListedShard {
        id: shard["ShardId"].as_str().unwrap_or_default().to_owned(),
        parents: shard["ParentShardId"].as_str().map(str::to_owned).into_iter().collect(),
        is_closed: shard["SequenceNumberRange"]["EndingSequenceNumber"].is_string(),
    }
}
