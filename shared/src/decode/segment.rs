//! Segment's calls, by its warehouse conventions: <https://segment.com/docs/connections/storage/warehouses/schema/>.
//!
//! | call | event table | entity |
//! |---|---|---|
//! | track | `tracks` (common columns only), and one table per event | those that the configuration declares |
//! | identify | `identifies` | `users`, by `userId` |
//! | page, screen | `pages`, `screens` | |
//! | group | `groups` | `accounts`, by `groupId` |
//! | alias | `aliases` | |
//!
//! Where Segment defines nothing or loses data, these rules apply: the id of an event without `messageId` is its stream
//! position, and its `receivedAt` defaults to its arrival; a property that collides with a common column goes to the
//! overflow column; two events whose names normalise to the same name share a table (as with Segment), but never the
//! table of another call.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::declared;
use super::flatten::{each_member, flatten};
use super::{TargetTable, check_name, malformed};
use crate::change::Value;
use crate::config::{FormatTable, SourceConfig};
use crate::field::{FieldId, FieldTree};
use crate::json_scanner::JsonScanner;
use crate::names::{Identifier, TableName};
use crate::record::Record;
use crate::rejection::Rejection;
use crate::spec::{Coercion, ColumnSpec, DeleteMode, MergeBy, MissingColumns, TableRegistry, TableSpec, WriteMode};
use crate::timestamp::Timestamp;

/// Parts of a call that Segment's warehouses do not store.
const NOT_STORED: &[&str] =
    &["channel", "metadata", "_metadata", "projectId", "type", "version", "integrations", "writeKey"];

/// Tables of the calls themselves; a track event with such a name gets a table with a hash suffix.
const RESERVED_TABLES: &[&str] =
    &["tracks", "identifies", "users", "pages", "screens", "groups", "accounts", "aliases"];

/// The fields and tables of a source, and which tables each event goes to.
#[derive(Debug)]
pub struct Segment {
    source: SourceConfig,
    field: SegmentFields,
    not_stored: Vec<FieldId>,
    calls: CallTables,
    /// Keyed by the event's name as the source writes it.
    events: HashMap<Box<str>, TrackEvent, foldhash::fast::RandomState>,
    /// Declared tables, keyed by event.
    declared: HashMap<String, Vec<TargetTable>>,
}

/// The fields that the conventions name.
#[derive(Clone, Copy, Debug)]
struct SegmentFields {
    id: FieldId,
    received_at: FieldId,
    sent_at: FieldId,
    original: FieldId,
    timestamp: FieldId,
    kind: FieldId,
    event: FieldId,
    slug: FieldId,
    user: FieldId,
    group: FieldId,
    anonymous: FieldId,
    previous: FieldId,
    name: FieldId,
    category: FieldId,
    context: FieldId,
    properties: FieldId,
    traits: FieldId,
}

#[derive(Debug)]
struct CallTables {
    tracks: TargetTable,
    /// Without and with `users`.
    identify: [Arc<[TargetTable]>; 2],
    page: Arc<[TargetTable]>,
    screen: Arc<[TargetTable]>,
    /// Without and with `accounts`.
    group: [Arc<[TargetTable]>; 2],
    alias: Arc<[TargetTable]>,
}

#[derive(Debug)]
struct TrackEvent {
    slug: Box<str>,
    targets: Arc<[TargetTable]>,
}

/// The type of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CallType {
    Track,
    Identify,
    Page,
    Screen,
    Group,
    Alias,
}

impl CallType {
    fn read(scanner: &mut JsonScanner<'_>) -> Result<Option<Self>, Rejection> {
        let unknown = || malformed("`type` must be one of track, identify, page, screen, group, alias");
        let Value::Text(text) = scanner.scalar()? else { return Err(unknown()) };
        Ok(Some(match &*text {
            "track" => Self::Track,
            "identify" => Self::Identify,
            "page" => Self::Page,
            "screen" => Self::Screen,
            "group" => Self::Group,
            "alias" => Self::Alias,
            _ => return Err(unknown()),
        }))
    }
}

/// What determines a call's tables and derived values.
#[derive(Default)]
struct Call<'a> {
    kind: Option<CallType>,
    event: Option<Cow<'a, str>>,
    has_id: bool,
    has_user: bool,
    has_group: bool,
    received_at: Option<Timestamp>,
    sent_at: Option<Timestamp>,
    original_timestamp: Option<Timestamp>,
    has_timestamp: bool,
}

impl Segment {
    /// Adds the tables of the calls, and those that the configuration declares.
    pub fn new(source: &SourceConfig, fields: &mut FieldTree, tables: &mut TableRegistry) -> Self {
        let field = SegmentFields::new(fields);
        let mut specs = SpecBuilder { source, field, fields };
        let calls = CallTables::new(&mut specs, tables);
        let mut declared: HashMap<String, Vec<TargetTable>> = HashMap::new();
        for table in &source.tables {
            let target = specs.declared(tables, table);
            for event in &table.events {
                declared.entry(event.clone()).or_default().push(target);
            }
        }
        let not_stored: Vec<FieldId> = NOT_STORED.iter().map(|name| fields.child(FieldId::ROOT, name)).collect();
        for field in &not_stored {
            fields.set_conventional(*field);
        }
        Self { source: source.clone(), field, not_stored, calls, events: HashMap::default(), declared }
    }

    /// Appends a call's values and returns the tables that it goes to.
    pub fn document<'a>(
        &mut self,
        record: &Record,
        json: &'a str,
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
        values: &mut Vec<(FieldId, Value<'a>)>,
    ) -> Result<Arc<[TargetTable]>, Rejection> {
        let start = values.len();
        let mut call = Call::default();
        each_member(json, fields, |fields, field, scanner| {
            if field == self.field.kind {
                call.kind = CallType::read(scanner)?;
                Ok(())
            } else if fields.is_synthetic(field) {
                Err(malformed("the document uses a reserved key"))
            } else if self.not_stored.contains(&field) {
                scanner.skip_value()?;
                Ok(())
            } else {
                flatten(fields, field, scanner, values)
            }
        })?;
        for (field, value) in &mut values[start..] {
            self.collect_routing_fields(*field, value, &mut call);
        }
        self.add_derived_fields(&call, record, start, values);
        self.targets(call, fields, tables, values)
    }

    /// Collects what determines the call's tables and derived values. Valid timestamps are parsed here, once for all
    /// tables.
    fn collect_routing_fields<'a>(&self, field: FieldId, value: &mut Value<'a>, call: &mut Call<'a>) {
        let Value::Text(text) = value else {
            let is_number = matches!(value, Value::Number(_));
            call.has_user |= is_number && field == self.field.user;
            call.has_group |= is_number && field == self.field.group;
            call.has_id |= is_number && field == self.field.id;
            return;
        };
        let fields = &self.field;
        let is_time = [fields.received_at, fields.sent_at, fields.original, fields.timestamp].contains(&field);
        if is_time && let Some(timestamp) = Timestamp::parse(text) {
            if field == fields.received_at {
                call.received_at = Some(timestamp);
            } else if field == fields.sent_at {
                call.sent_at = Some(timestamp);
            } else if field == fields.original {
                call.original_timestamp = Some(timestamp);
            }
            *value = Value::Time(timestamp);
        } else if field == fields.event {
            call.event = Some(text.clone());
            return;
        }
        call.has_timestamp |= field == fields.timestamp;
        call.has_id |= field == fields.id;
        call.has_user |= field == fields.user;
        call.has_group |= field == fields.group;
    }

    /// Adds the values that the conventions derive: the id, the time of arrival, and the corrected time of the event,
    /// `received_at - (sent_at - original_timestamp)`. The call's own values begin at `start`; those before it belong to
    /// other records of the batch.
    fn add_derived_fields(
        &self,
        call: &Call<'_>,
        record: &Record,
        start: usize,
        values: &mut Vec<(FieldId, Value<'_>)>,
    ) {
        let is_arrival =
            |(field, value): &(FieldId, Value<'_>)| *field == self.field.received_at && *value != Value::Null;
        let has_arrival = values[start..].iter().any(is_arrival);
        if !call.has_id {
            values.push((self.field.id, Value::Text(Cow::Owned(record.position.to_string()))));
        }
        let received_at = call.received_at.unwrap_or(record.arrival);
        if call.received_at.is_none() && !has_arrival {
            values.push((self.field.received_at, Value::Time(received_at)));
        }
        if !call.has_timestamp {
            let skew = match (call.sent_at, call.original_timestamp) {
                (Some(sent_at), Some(original)) => sent_at.0.saturating_sub(original.0),
                _ => 0,
            };
            values.push((self.field.timestamp, Value::Time(received_at.saturating_add(-skew))));
        }
    }

    fn targets(
        &mut self,
        call: Call<'_>,
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
        values: &mut Vec<(FieldId, Value<'_>)>,
    ) -> Result<Arc<[TargetTable]>, Rejection> {
        match call.kind {
            Some(CallType::Track) => {
                let name =
                    call.event.filter(|name| !name.is_empty()).ok_or_else(|| malformed("track call has no `event`"))?;
                let slug = self.field.slug;
                let event = self.event(&name, fields, tables)?;
                values.push((slug, Value::Text(Cow::Owned(String::from(&*event.slug)))));
                Ok(event.targets.clone())
            }
            Some(CallType::Identify) => Ok(self.calls.identify[usize::from(call.has_user)].clone()),
            Some(CallType::Page) => Ok(self.calls.page.clone()),
            Some(CallType::Screen) => Ok(self.calls.screen.clone()),
            Some(CallType::Group) => Ok(self.calls.group[usize::from(call.has_group)].clone()),
            Some(CallType::Alias) => Ok(self.calls.alias.clone()),
            None => Err(malformed("`type` is missing")),
        }
    }

    /// The tables of a track event; its own table is added when the event is first seen.
    fn event(
        &mut self,
        name: &str,
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
    ) -> Result<&TrackEvent, Rejection> {
        if !self.events.contains_key(name) {
            check_name(name)?;
            let slug = self.source.naming.normalise(name);
            let is_taken = RESERVED_TABLES.contains(&slug.as_str())
                || self.source.tables.iter().any(|table| table.name.as_str() == slug);
            let table =
                if is_taken { Identifier::with_hash_suffix(&slug, name) } else { Identifier::truncated(&slug, name) };
            let mut specs = SpecBuilder { source: &self.source, field: self.field, fields };
            let label = format!("track event {name}");
            let event_table = specs.event(tables, table.as_str(), &label, &[FieldId::ROOT], &specs.event_columns());
            let declared = self.declared.get(name).into_iter().flatten().copied();
            let targets = [self.calls.tracks, event_table].into_iter().chain(declared).collect();
            let slug = if slug.is_empty() { table.as_str().into() } else { slug.into() };
            self.events.insert(name.into(), TrackEvent { slug, targets });
        }
        Ok(&self.events[name])
    }
}

impl CallTables {
    fn new(specs: &mut SpecBuilder<'_>, tables: &mut TableRegistry) -> Self {
        let (field, document) = (specs.field, &[FieldId::ROOT]);
        let tracks = specs.event(tables, "tracks", "track calls", &[field.context], &specs.event_columns());
        let identifies = specs.event(tables, "identifies", "identify calls", document, &[]);
        let users = specs.entity(tables, "users", "identify calls", field.user);
        let page = specs.event(tables, "pages", "page calls", document, &specs.page_columns());
        let screen = specs.event(tables, "screens", "screen calls", document, &specs.page_columns());
        let groups =
            specs.event(tables, "groups", "group calls", document, &specs.text_column("group_id", field.group));
        let accounts = specs.entity(tables, "accounts", "group calls", field.group);
        let previous = specs.text_column("previous_id", field.previous);
        let alias = specs.event(tables, "aliases", "alias calls", document, &previous);
        Self {
            tracks,
            identify: [Arc::new([identifies]), Arc::new([identifies, users])],
            page: Arc::new([page]),
            screen: Arc::new([screen]),
            group: [Arc::new([groups]), Arc::new([groups, accounts])],
            alias: Arc::new([alias]),
        }
    }
}

impl SegmentFields {
    fn new(fields: &mut FieldTree) -> Self {
        let mut child = |name: &str| {
            let field = fields.child(FieldId::ROOT, name);
            fields.set_conventional(field);
            field
        };
        let segment_fields = Self {
            id: child("messageId"),
            received_at: child("receivedAt"),
            sent_at: child("sentAt"),
            original: child("originalTimestamp"),
            timestamp: child("timestamp"),
            kind: child("type"),
            event: child("event"),
            user: child("userId"),
            group: child("groupId"),
            anonymous: child("anonymousId"),
            previous: child("previousId"),
            name: child("name"),
            category: child("category"),
            context: child("context"),
            properties: child("properties"),
            traits: child("traits"),
            slug: fields.intern_synthetic("(event)"),
        };
        for container in [segment_fields.context, segment_fields.properties, segment_fields.traits] {
            fields.set_container(container);
        }
        fields.set_without_prefix(segment_fields.properties);
        fields.set_without_prefix(segment_fields.traits);
        segment_fields
    }
}

/// Builds the specs of a source's tables.
struct SpecBuilder<'s> {
    source: &'s SourceConfig,
    field: SegmentFields,
    fields: &'s mut FieldTree,
}

impl SpecBuilder<'_> {
    fn column(name: &str, field: FieldId, sql_type: &str) -> ColumnSpec {
        ColumnSpec::new(Identifier::truncated(name, name), field).with_type(sql_type)
    }

    fn text_column(&self, name: &str, field: FieldId) -> Vec<ColumnSpec> {
        vec![Self::column(name, field, "text")]
    }

    fn event_columns(&self) -> Vec<ColumnSpec> {
        vec![Self::column("event", self.field.slug, "text"), Self::column("event_text", self.field.event, "text")]
    }

    fn page_columns(&self) -> Vec<ColumnSpec> {
        vec![Self::column("name", self.field.name, "text"), Self::column("category", self.field.category, "text")]
    }

    /// The columns that every event table has; the first is the event's id.
    fn common(&self) -> Vec<ColumnSpec> {
        let field = &self.field;
        let mut columns = vec![
            Self::column("id", field.id, "text").required(),
            Self::column("received_at", field.received_at, "timestamptz").required(),
            Self::column("sent_at", field.sent_at, "timestamptz"),
            Self::column("original_timestamp", field.original, "timestamptz"),
            Self::column("timestamp", field.timestamp, "timestamptz"),
            Self::column("anonymous_id", field.anonymous, "text"),
            Self::column("user_id", field.user, "text"),
        ];
        columns.push(Self::loaded_at());
        columns
    }

    /// `uuid_ts`: when the row was written, which the database sets by the column's default.
    fn loaded_at() -> ColumnSpec {
        let name = Identifier::truncated("uuid_ts", "uuid_ts");
        let column = ColumnSpec::new(name, FieldId::ROOT).with_type("timestamptz");
        ColumnSpec { field: None, default: Some("now()"), ..column }
    }

    fn spec(
        &self,
        name: &str,
        label: &str,
        columns: Vec<ColumnSpec>,
        scope: &[FieldId],
        write_mode: WriteMode,
    ) -> TableSpec {
        let shape = self.source.schema_policy;
        let kind = match write_mode {
            WriteMode::Append => FormatTable::Event,
            WriteMode::Merge(_) => FormatTable::Entity,
        };
        TableSpec {
            name: TableName { schema: self.source.schema.clone(), table: Identifier::truncated(name, name) },
            source_label: format!("source {}, {label}", self.source.name),
            filled_with: self.source.fills_undeclared(name, kind),
            columns,
            scope: scope.to_vec(),
            key: vec![0],
            write_mode,
            deletes: DeleteMode::Never,
            missing_columns: MissingColumns::default_for(write_mode),
            replicated: false,
            own_name: None,
            declared: false,
            coercion: Coercion::Convert,
            text_characters_max: shape.text_characters_max,
            partition: None,
            schema_mode: shape.mode,
            nested: shape.nested,
            arrays: shape.arrays,
            columns_max: shape.columns_max,
            on_unwritable: shape.on_unwritable,
        }
    }

    fn event(
        &mut self,
        tables: &mut TableRegistry,
        name: &str,
        label: &str,
        scope: &[FieldId],
        extra_columns: &[ColumnSpec],
    ) -> TargetTable {
        let columns = [self.common(), extra_columns.to_vec()].concat();
        let mut builder = declared::TableSpecBuilder { fields: self.fields, columns };
        let partition = builder.partition(self.source.partition.as_ref());
        let columns = builder.columns;
        let mut spec = self.spec(name, label, columns, scope, WriteMode::Append);
        spec.partition = partition;
        TargetTable { table: tables.add(spec), version: None }
    }

    /// `users` and `accounts`: the latest traits of each.
    fn entity(&mut self, tables: &mut TableRegistry, name: &str, label: &str, key: FieldId) -> TargetTable {
        let columns = vec![
            Self::column("id", key, "text").required(),
            Self::column("received_at", self.field.received_at, "timestamptz"),
            Self::loaded_at(),
        ];
        let scope = [self.field.context, self.field.traits];
        let spec = self.spec(name, label, columns, &scope, WriteMode::Merge(MergeBy::Column));
        TargetTable { table: tables.add(spec), version: Some(self.field.timestamp) }
    }

    fn declared(&mut self, tables: &mut TableRegistry, table: &crate::config::TableConfig) -> TargetTable {
        let source_label = format!("source {}, track events {}", self.source.name, table.events.join(", "));
        let is_event = matches!(table.kind, crate::config::TableKind::Event { .. });
        let inherited = if is_event { [self.common(), self.event_columns()].concat() } else { Vec::new() };
        let scope = vec![self.field.properties];
        let (spec, version) = declared::table(self.source, table, source_label, scope, inherited, self.fields);
        TargetTable { table: tables.add(spec), version }
    }
}
