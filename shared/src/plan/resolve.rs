//! What a replicated table's records do not tell, settled by what the database has: the key, and a name of its own.

use crate::catalog::{Catalog, DbTable};
use crate::field::{FieldId, FieldTree};
use crate::names::{Identifier, TableName};
use crate::spec::{ColumnSpec, TableId, TableRegistry, TableSpec};

/// Settles what is open about the tables. Changed ones have to be looked up in the database again.
pub fn resolve_keys_and_names(tables: &mut TableRegistry, fields: &FieldTree, catalog: &Catalog) {
    for id in (0..tables.count() as u32).map(TableId) {
        let spec = tables.get(id);
        if !spec.replicated || !catalog.is_loaded(&spec.name) {
            continue;
        }
        let table = catalog.table(&spec.name);
        let settled = match (table, table.and_then(|table| table.origin.as_ref())) {
            // Two tables of the source have names that are one after normalising. The second keeps a name of its own, which
            // is made from the source's and therefore always the same.
            (_, Some(origin)) if *origin != spec.source_label => Some(with_own_name(spec)),
            (None, _) if is_second(id, spec, tables) => Some(with_own_name(spec)),
            (Some(table), _) => with_catalog_key(spec, table, fields),
            (None, _) => None,
        };
        if let Some(spec) = settled {
            tables.replace(id, spec);
        }
    }
}

/// Whether a table that was met earlier has the name, which is nobody's yet in the database.
fn is_second(id: TableId, spec: &TableSpec, tables: &TableRegistry) -> bool {
    (0..id.0).map(|earlier| tables.get(TableId(earlier))).any(|earlier| earlier.name == spec.name)
}

fn with_own_name(spec: &TableSpec) -> TableSpec {
    let table = Identifier::with_hash_suffix(spec.name.table.as_str(), &spec.source_label);
    TableSpec { name: TableName { schema: spec.name.schema.clone(), table }, ..spec.clone() }
}

/// The specification with the table's own key, where the source has told none.
fn with_catalog_key(spec: &TableSpec, table: &DbTable, fields: &FieldTree) -> Option<TableSpec> {
    let names = table.unique.first().filter(|_| spec.key.is_empty())?;
    let mut keyed = spec.clone();
    for name in names {
        let place = match keyed.columns.iter().position(|column| column.name == *name) {
            Some(place) => place,
            None => {
                keyed.columns.push(ColumnSpec::new(name.clone(), key_field(name, spec, table, fields)?));
                keyed.columns.len() - 1
            }
        };
        let column = &mut keyed.columns[place];
        *column = column.clone().required();
        keyed.key.push(place);
    }
    Some(keyed)
}

/// The field that fills a column: the one that its comment names, or whose name is the column's.
fn key_field(name: &Identifier, spec: &TableSpec, table: &DbTable, fields: &FieldTree) -> Option<FieldId> {
    let original = table.columns.iter().find(|column| column.name == *name)?.source_path.as_deref();
    let fills = |field: &FieldId| match original {
        Some(original) => fields.path(*field) == original,
        None => fields.column(*field) == name.as_str(),
    };
    let fields_of = |scope: &FieldId| fields.members(*scope).filter(fills);
    // Of an owner's column without a comment, rather the field that is called exactly so.
    spec.scope.iter().flat_map(fields_of).max_by_key(|field| fields.key(*field) == name.as_str())
}
