//! What happens once a batch is committed and its dead letters are stored: its freshness and activity are published, and the
//! totals of its tables are folded. None of it can fail the batch.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::writer::Writer;
use super::{IngestError, limits};
use crate::clock::now;
use crate::names::TableName;
use crate::record::{BatchExtent, StreamPosition};
use crate::report::Report;
use crate::timestamp::Timestamp;
use crate::totals::TotalError;

/// Publishing delays the response by at most this long.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Folding and building totals delays the response by at most this long.
const TOTALS_TIMEOUT: Duration = Duration::from_secs(10);

/// A batch whose records are all accounted for.
#[derive(Clone, Copy)]
pub(super) struct ReportedBatch<'a> {
    pub(super) report: &'a Report,
    /// The tables that were written.
    pub(super) tables: &'a BTreeSet<TableName>,
    /// Where its records stand in the source's stream; `None` if they do not come from there.
    pub(super) stream_extent: Option<&'a BatchExtent>,
}

/// What is published of a shard's freshness.
struct ShardProgress<'a> {
    position: &'a StreamPosition,
    oldest_arrival: Timestamp,
}

impl Writer {
    /// Does what is due. A failure is logged, not returned.
    pub(super) async fn after_commit(&mut self, batch: ReportedBatch<'_>, time_left: Duration) {
        let started = Instant::now();
        self.publish_due(batch, time_left).await;
        if batch.report.counts.any_committed() {
            self.update_totals(batch.tables, time_left.saturating_sub(started.elapsed())).await;
        }
    }

    async fn publish_due(&mut self, batch: ReportedBatch<'_>, time_left: Duration) {
        let ReportedBatch { report, stream_extent, tables: _ } = batch;
        let position = stream_extent.and_then(|extent| extent.first.as_ref());
        self.activity.add_batch(&report.source, position, report);
        let mut progress = None;
        if let Some((extent, position)) = stream_extent.zip(position)
            && report.counts.any_committed()
            && self.freshness.is_due(position, now())
        {
            progress = Some(ShardProgress { position, oldest_arrival: extent.oldest_arrival.unwrap_or_else(now) });
        }
        if progress.is_none() && !self.activity.is_due(now()) {
            return;
        }
        // Some time must be left for the response.
        let time = PUBLISH_TIMEOUT.min(time_left / 2);
        let source = &*report.source;
        match tokio::time::timeout(time, self.publish(source, progress, time)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(source, %error, "freshness or activity not published"),
            Err(_elapsed) => {
                tracing::warn!(source, "freshness or activity not published: the database did not answer in time");
            }
        }
    }

    /// A failure to publish the freshness does not keep the activity from being published.
    async fn publish(
        &mut self,
        source: &str,
        progress: Option<ShardProgress<'_>>,
        time: Duration,
    ) -> Result<(), IngestError> {
        let connection = self.database.connection().await?;
        let mut published = Ok(());
        if let Some(ShardProgress { position, oldest_arrival }) = progress {
            published = self.freshness.publish(&connection, source, position, oldest_arrival, limits(time)).await;
        }
        if self.activity.is_due(now()) {
            let written = self.activity.write(&connection, limits(time), now()).await;
            published = published.and(written);
        }
        published?;
        connection.release();
        Ok(())
    }

    /// Folds the totals of tables that have just been written, and builds those of new tables.
    async fn update_totals(&mut self, tables: &BTreeSet<TableName>, time_left: Duration) {
        if !self.totals.is_due(tables, Instant::now()) {
            return;
        }
        let timeout = TOTALS_TIMEOUT.min(time_left / 2);
        let updating = async {
            let connection = self.database.connection().await?;
            self.totals.after_commit(&connection, tables, timeout).await?;
            connection.release();
            Ok::<(), TotalError>(())
        };
        match tokio::time::timeout(timeout, updating).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.needs_operator() => {
                tracing::error!(%error, "operator action required: a total is not up to date");
            }
            Ok(Err(error)) => tracing::warn!(%error, "totals not folded"),
            Err(_elapsed) => tracing::warn!("totals not folded: the database did not answer in time"),
        }
    }
}
