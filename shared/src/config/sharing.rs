//! Sources with one schema: which of them fill tables together.
//!
//! A table belongs to the source that its comment names, and that source's `keep` decides when `maintain` drops its partitions.
//! Another source fills it only if it would have created the same table and would drop the same partitions; otherwise each
//! has tables of its own.

use super::{Format, SourceConfig};
use crate::names::Identifier;

/// Another source with the same schema, whose tables have the same definitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharingSource {
    /// Its name in the configuration.
    pub name: String,
    /// The tables that it declares, which it does not share.
    declared: Vec<Identifier>,
    /// Whether its event tables are partitioned by the same column and kept for the same time.
    is_partitioned_alike: bool,
}

/// A kind of table that a format creates without a declaration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FormatTable {
    /// One row per event, partitioned as the source says.
    Event,
    /// One row per key, without partitions.
    Entity,
}

/// Finds the sources that share tables.
pub(super) fn find(sources: &mut [SourceConfig]) {
    let all = sources.to_vec();
    for source in sources {
        let sharing = all.iter().filter(|other| other.name != source.name && share_tables(source, other));
        source.shares_with = sharing.map(|other| SharingSource::new(source, other)).collect();
    }
}

/// Whether tables with one name hold the same in both sources. Only Segment's tables have names and columns that do not depend
/// on the source: two JSON sources declare theirs, each table once, and a replicated table is found by what it replicates.
fn share_tables(one: &SourceConfig, other: &SourceConfig) -> bool {
    one.format == Format::Segment && other.format == Format::Segment && one.schema == other.schema
}

/// What decides which rows `maintain` drops. How wide partitions are, and how many are created ahead, may differ.
fn partitioning(source: &SourceConfig) -> Option<(&str, Option<i64>)> {
    source.partition.as_ref().map(|partition| (&*partition.column, partition.policy.retention_micros))
}

impl SharingSource {
    fn new(source: &SourceConfig, other: &SourceConfig) -> Self {
        Self {
            name: other.name.clone(),
            declared: other.tables.iter().map(|table| table.name.clone()).collect(),
            is_partitioned_alike: partitioning(source) == partitioning(other),
        }
    }

    fn shares(&self, table: &str, kind: FormatTable) -> bool {
        let is_alike = match kind {
            FormatTable::Event => self.is_partitioned_alike,
            FormatTable::Entity => true,
        };
        is_alike && !self.declared.iter().any(|declared| declared.as_str() == table)
    }
}

impl SourceConfig {
    /// The sources whose tables a table of this source may be, unless the configuration declares it: this one first.
    pub fn fills_undeclared(&self, table: &str, kind: FormatTable) -> Vec<String> {
        let others = self.shares_with.iter().filter(|other| other.shares(table, kind));
        std::iter::once(&self.name).chain(others.map(|other| &other.name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    use super::FormatTable;

    /// The sources that `a` shares a table with, besides itself.
    fn shared_by(kind: FormatTable, a: &str, others: &[&str]) -> Vec<String> {
        let mut text = format!("[source.a]\nstream = \"a\"\nschema = \"app\"\n{a}\n");
        for (index, keys) in others.iter().enumerate() {
            text.push_str(&format!("[source.o{index}]\nstream = \"o{index}\"\n{keys}\n"));
        }
        let config = Config::parse("", &text).unwrap();
        config.sources[0].fills_undeclared("t", kind).split_off(1)
    }

    #[test]
    fn sources_with_one_schema_share_tables_that_are_kept_alike() {
        let others = [
            "schema = \"app\"",
            "schema = \"app\"\npartition = { by = \"received_at\", every = \"month\", ahead = 1, future = \"1 days\" }",
            "schema = \"app\"\npartition = { by = \"received_at\", keep = \"30 days\" }",
            "schema = \"app\"\npartition = { by = \"timestamp\" }",
            "schema = \"app\"\nformat = \"json\"",
            "schema = \"other\"",
        ];
        assert_eq!(shared_by(FormatTable::Event, "", &others), ["o0", "o1"]);
        assert_eq!(shared_by(FormatTable::Entity, "", &others), ["o0", "o1", "o2", "o3"]);
        let keep = |days: u32| format!("partition = {{ by = \"received_at\", keep = \"{days} days\" }}");
        let others = [&*format!("schema = \"app\"\n{}", keep(30)), &format!("schema = \"app\"\n{}", keep(31))];
        assert_eq!(shared_by(FormatTable::Event, &keep(30), &others), ["o0"]);
    }

    #[test]
    fn a_declared_table_is_its_source_s_alone() {
        let declared = "schema = \"app\"\n[table.payment]\nsource = \"o0\"\nevents = [\"Payment\"]";
        let text = format!("[source.a]\nstream = \"a\"\nschema = \"app\"\n[source.o0]\nstream = \"o0\"\n{declared}\n");
        let config = Config::parse("", &text).unwrap();
        assert_eq!(config.sources[0].fills_undeclared("payment", FormatTable::Event), ["a"]);
        assert_eq!(config.sources[0].fills_undeclared("tracks", FormatTable::Event), ["a", "o0"]);
    }
}
