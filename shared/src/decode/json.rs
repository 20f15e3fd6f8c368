//! Plain JSON: any object, stored in the tables whose `when` matches it.

use std::borrow::Cow;
use std::sync::Arc;

use super::declared::{self, POSITION_FIELD};
use super::flatten::{each_member, flatten};
use super::{TargetTable, malformed};
use crate::change::Value;
use crate::config::{SourceConfig, TableConfig, TableKind};
use crate::field::{FieldId, FieldTree};
use crate::names::Identifier;
use crate::record::Record;
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::TableRegistry;

/// The tables of a JSON source.
#[derive(Debug)]
pub struct Json {
    position_field: FieldId,
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    when: Option<(FieldId, String)>,
    target: TargetTable,
}

impl Json {
    /// The declared tables, or one table named after the source.
    pub fn new(source: &SourceConfig, fields: &mut FieldTree, tables: &mut TableRegistry) -> Self {
        let default = [default_table(source)];
        let declared = if source.tables.is_empty() { &default[..] } else { &source.tables };
        let mut routes = Vec::new();
        for table in declared {
            let source_label = format!("source {}", source.name);
            let (spec, version) = declared::table(source, table, source_label, vec![FieldId::ROOT], Vec::new(), fields);
            let when = table.when.as_ref().map(|(path, text)| (fields.intern_path(path), text.clone()));
            routes.push(Route { when, target: TargetTable { table: tables.add(spec), version } });
        }
        Self { position_field: fields.intern_synthetic(POSITION_FIELD), routes }
    }

    /// Appends a document's values and returns the tables that it goes to.
    pub fn document<'a>(
        &self,
        record: &Record,
        json: &'a str,
        fields: &mut FieldTree,
        values: &mut Vec<(FieldId, Value<'a>)>,
    ) -> Result<Arc<[TargetTable]>, Rejection> {
        let start = values.len();
        values.push((self.position_field, Value::Text(Cow::Owned(record.position.to_string()))));
        each_member(json, fields, |fields, field, scanner| {
            if field == self.position_field {
                return Err(malformed(format!("the document uses the reserved key {POSITION_FIELD}")));
            }
            flatten(fields, field, scanner, values)
        })?;
        let document = &values[start..];
        let targets: Arc<[TargetTable]> =
            self.routes.iter().filter(|route| route.matches(document)).map(|route| route.target).collect();
        if targets.is_empty() { Err(Rejection::new(RejectionReason::Unrouted)) } else { Ok(targets) }
    }
}

impl Route {
    fn matches(&self, document: &[(FieldId, Value<'_>)]) -> bool {
        self.when.as_ref().is_none_or(|(field, text)| {
            document.iter().rev().find(|(candidate, _)| candidate == field).is_some_and(|(_, value)| match value {
                Value::Text(value) | Value::Number(value) => value == text,
                Value::Null | Value::Bool(_) | Value::Json(_) | Value::Time(_) | Value::Date(_) => false,
                Value::TypedNull | Value::Unchanged | Value::Bytes(_) | Value::List(_) => false,
            })
        })
    }
}

fn default_table(source: &SourceConfig) -> TableConfig {
    TableConfig {
        name: Identifier::truncated(&source.name, &source.name),
        from: None,
        events: Vec::new(),
        when: None,
        kind: TableKind::Event { id: None },
        columns: Vec::new(),
        partition: None,
        schema_policy: source.schema_policy,
    }
}
