//! A figure of a total is falsified by hand; the next recompute finds and corrects it.

use std::path::Path;

use millstream_tests::say;
use millstream_tests::system::SystemResult;
use millstream_tests::totals::{Falsification, Recompute, build_totals, corrections, falsify};
use tokio_postgres::Client;

/// Falsifies a figure, recomputes the total, and prints `report` before and after. Returns whether the recompute found exactly
/// that, and the next one nothing. `folder` is the system's under `events/`.
pub async fn heal(
    (client, url): (&Client, &str),
    folder: &Path,
    falsification: Falsification<'_>,
    report: impl AsyncFn() -> Vec<String>,
) -> SystemResult<bool> {
    let versions = build_totals(client, folder).await?;
    let version = versions.first().ok_or("the system has no total")?;
    let group = falsify(client, version, falsification).await?.join(", ");
    let Falsification { figure, amount, .. } = falsification;
    say(&format!(
        "\nSomeone adds {amount} to {figure} of {group} in the stored figures of the total {}:",
        version.name
    ));
    report().await.iter().for_each(|line| say(line));

    let mut recompute = Recompute::start(folder, url).await?;
    let found = recompute.run().await?;
    let groups = if found.off_by == 1 { "group" } else { "groups" };
    say(&format!(
        "\nThe function recompute takes {:.2} s, finds {} {groups} off, and adds:",
        found.seconds, found.off_by
    ));
    corrections(version, &found).iter().for_each(|line| say(&format!("  {line}")));
    report().await.iter().for_each(|line| say(line));

    let next = recompute.run().await?;
    say(&format!("The next recompute finds {} groups that are off.", next.off_by));
    Ok((found.off_by, next.off_by) == (1, 0))
}
