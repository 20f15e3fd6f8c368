//! Plain JSON: any object, into the tables whose `when` is true of it.

use std::borrow::Cow;
use std::sync::Arc;

use super::declared::{self, PLACE};
use super::document::{each_member, flatten};
use super::{Target, malformed};
use crate::change::Value;
use crate::config::{Kind, Source, Table};
use crate::field::{Field, Fields};
use crate::names::{Identifier, TableName};
use crate::record::Record;
use crate::rejection::{Reason, Rejection};
use crate::spec::Tables;

/// The tables of a JSON source.
#[derive(Debug)]
pub struct Json {
    place: Field,
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    when: Option<(Field, String)>,
    target: Target,
}

impl Json {
    /// The declared tables, or one table named after the source.
    pub fn new(source: &Source, fields: &mut Fields, tables: &mut Tables) -> Self {
        let default = [default_table(source)];
        let declared = if source.tables.is_empty() { &default[..] } else { &source.tables };
        let route = |table: &Table| {
            let name = TableName { schema: source.schema.clone(), table: table.name.clone() };
            let origin = format!("source {}", source.name);
            let partition = source.partition.as_ref();
            let (spec, version) =
                declared::table(table, name, origin, vec![Field::ROOT], Vec::new(), partition, fields);
            let when = table.when.as_ref().map(|(path, text)| (fields.at(path), text.clone()));
            Route { when, target: Target { table: tables.add(spec), version } }
        };
        let routes = declared.iter().map(route).collect();
        Self { place: fields.synthetic(PLACE), routes }
    }

    /// Appends a document's values and tells the tables that take it.
    pub fn document<'a>(
        &self,
        record: &Record,
        json: &'a str,
        fields: &mut Fields,
        values: &mut Vec<(Field, Value<'a>)>,
    ) -> Result<Arc<[Target]>, Rejection> {
        let start = values.len();
        values.push((self.place, Value::Text(Cow::Owned(record.place.to_string()))));
        each_member(json, fields, |fields, field, scanner| {
            if field == self.place {
                return Err(malformed(format!("the key {PLACE} is the writer's own")));
            }
            flatten(fields, field, scanner, values)
        })?;
        let document = &values[start..];
        let targets: Arc<[Target]> =
            self.routes.iter().filter(|route| route.takes(document)).map(|route| route.target).collect();
        if targets.is_empty() { Err(Rejection::of(Reason::Unrouted)) } else { Ok(targets) }
    }
}

impl Route {
    fn takes(&self, document: &[(Field, Value<'_>)]) -> bool {
        self.when.as_ref().is_none_or(|(field, text)| {
            document.iter().rev().find(|(at, _)| at == field).is_some_and(|(_, value)| match value {
                Value::Text(found) | Value::Number(found) => found == text,
                Value::Null | Value::Bool(_) | Value::Json(_) | Value::Time(_) | Value::Date(_) => false,
                Value::NullAttribute | Value::Unchanged | Value::Bytes(_) | Value::List(_) => false,
            })
        })
    }
}

fn default_table(source: &Source) -> Table {
    Table {
        name: Identifier::fitting(&source.name, &source.name),
        from: None,
        events: Vec::new(),
        when: None,
        kind: Kind::Event { id: None },
        columns: Vec::new(),
        partition: None,
        shape: source.shape,
    }
}
