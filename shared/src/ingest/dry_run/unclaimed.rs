//! Tables whose comments name a source that is not configured, for example because it was renamed: no source fills them, and
//! `maintain` drops none of their partitions.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{DeclaredTable, IngestError};
use crate::catalog::CatalogError;
use crate::catalog::comment::{label, names_source, split_note, with_note};
use crate::config::{Config, Format, SourceConfig};
use crate::names::{TableName, quote_literal};

/// The tables of each source's schema that the source could take over.
pub async fn tables(client: &Client, config: &Config) -> Result<Vec<DeclaredTable>, IngestError> {
    let mut unclaimed = Vec::new();
    for source in &config.sources {
        let parameters = [(&source.schema.as_str() as _, Type::TEXT)];
        let rows = client.query_typed(include_str!("unclaimed.sql"), &parameters).await.map_err(CatalogError::from)?;
        for row in rows {
            let name = TableName::from_catalog(source.schema.as_str(), row.get("relname"));
            unclaimed.extend(table(config, source, &name, row.get("comment")));
        }
    }
    Ok(unclaimed)
}

fn table(config: &Config, source: &SourceConfig, name: &TableName, comment: &str) -> Option<DeclaredTable> {
    let (owner, note) = split_note(comment);
    let note = note.filter(|note| !config.sources.iter().any(|source| names_source(note, &source.name)))?;
    let label = label(note).filter(|label| may_have_label(source.format, label))?;
    let comment = with_note(owner, &format!("source {}{label}", source.name));
    let remark = format!(
        "its comment names a source that is not configured ({note}), so no source fills it; to hand it over to this one, run: \
         COMMENT ON TABLE {name} IS {}",
        quote_literal(&comment)
    );
    let (source, table) = (source.name.clone(), name.unquoted());
    Some(DeclaredTable { source, table, ddl: Vec::new(), remarks: vec![remark] })
}

fn may_have_label(format: Format, label: &str) -> bool {
    match format {
        Format::Segment => !label.is_empty(),
        Format::Json => label.is_empty(),
        Format::Dynamodb | Format::Dms | Format::Debezium => false,
    }
}
