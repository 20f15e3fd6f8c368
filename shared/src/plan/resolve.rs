//! Resolves what only the database knows: the key of a replicated table whose records do not provide it, and the name of a
//! table whose own name belongs to something else.

use crate::catalog::comment::names_source;
use crate::catalog::{Catalog, DbTable};
use crate::field::{FieldId, FieldTree};
use crate::names::Identifier;
use crate::spec::{ColumnSpec, TableId, TableRegistry, TableSpec};

/// Resolves missing keys and conflicting names. A renamed table must be loaded from the database again.
pub fn resolve_keys_and_names(tables: &mut TableRegistry, fields: &FieldTree, catalog: &Catalog) {
    for id in (0..tables.count() as u32).map(TableId) {
        let spec = tables.get(id);
        if !catalog.is_loaded(&spec.name) {
            continue;
        }
        let resolved = match catalog.table(&spec.name) {
            Some(table) if accepts_table(spec, table.source_label.as_deref()) => with_catalog_key(spec, table, fields),
            // A table of the owner or of another source, a partition, or another table of this source, whose name is equal
            // after normalization.
            Some(_) => Some(with_alternative_name(spec)),
            None if catalog.is_taken(&spec.name) || is_second(id, spec, tables) => Some(with_alternative_name(spec)),
            None if was_renamed(spec, catalog) => Some(with_alternative_name(spec)),
            None => None,
        };
        if let Some(spec) = resolved {
            tables.replace(id, spec);
        }
    }
}

/// Whether rows may be written to an existing table with this note in its comment: only to tables of the source, those of
/// another source that defines them alike, and those that the configuration declares. What another source keeps for a shorter
/// time would be dropped, with the rows of both. A partition has a note that names its parent.
fn accepts_table(spec: &TableSpec, note: Option<&str>) -> bool {
    match note {
        Some(note) if spec.replicated => note == spec.source_label,
        // What follows the name may change with the configuration; several events may share a table.
        Some(note) => spec.filled_with.iter().any(|source| names_source(note, source)),
        None => spec.declared,
    }
}

/// Whether the table exists under its alternative name. It keeps that name after its own has become free.
fn was_renamed(spec: &TableSpec, catalog: &Catalog) -> bool {
    catalog
        .table(&spec.alternative_name())
        .is_some_and(|table| table.source_label.is_some() && accepts_table(spec, table.source_label.as_deref()))
}

/// Whether an earlier table has the same name, which no table in the database has yet.
fn is_second(id: TableId, spec: &TableSpec, tables: &TableRegistry) -> bool {
    spec.replicated && (0..id.0).map(|earlier| tables.get(TableId(earlier))).any(|earlier| earlier.name == spec.name)
}

fn with_alternative_name(spec: &TableSpec) -> TableSpec {
    let own_name = spec.own_name.clone().unwrap_or_else(|| spec.name.clone());
    TableSpec { name: spec.alternative_name(), own_name: Some(own_name), ..spec.clone() }
}

/// The specification with the existing table's key, if the source provides none.
fn with_catalog_key(spec: &TableSpec, table: &DbTable, fields: &FieldTree) -> Option<TableSpec> {
    let names = table.unique.first().filter(|_| spec.key.is_empty())?;
    let mut with_key = spec.clone();
    for name in names {
        let index = match with_key.columns.iter().position(|column| column.name == *name) {
            Some(index) => index,
            None => {
                with_key.columns.push(ColumnSpec::new(name.clone(), key_field(name, spec, table, fields)?));
                with_key.columns.len() - 1
            }
        };
        let column = &mut with_key.columns[index];
        *column = column.clone().required();
        with_key.key.push(index);
    }
    Some(with_key)
}

/// The field that fills a column: the one that its comment names, or the one with the column's name.
fn key_field(name: &Identifier, spec: &TableSpec, table: &DbTable, fields: &FieldTree) -> Option<FieldId> {
    let source_path = table.columns.iter().find(|column| column.name == *name)?.source_path.as_deref();
    let fills = |field: &FieldId| match source_path {
        Some(source_path) => fields.path(*field) == source_path,
        None => fields.column(*field) == name.as_str(),
    };
    let fields_of = |scope: &FieldId| fields.members(*scope).filter(fills);
    // For a column without a comment, prefer the field whose key is exactly the column's name.
    spec.scope.iter().flat_map(fields_of).max_by_key(|field| fields.key(*field) == name.as_str())
}
