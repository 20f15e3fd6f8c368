//! What a replicated table's records do not tell, settled by what the database has: the key, and a name of its own.

use crate::catalog::{Catalog, Table};
use crate::field::{Field, Fields};
use crate::names::{Identifier, TableName};
use crate::spec::{ColumnSpec, TableId, TableSpec, Tables};

/// Settles what is open about the tables. Changed ones have to be looked up in the database again.
pub fn settle(tables: &mut Tables, fields: &Fields, catalog: &Catalog) {
    for id in (0..tables.count() as u32).map(TableId) {
        let spec = tables.get(id);
        if !spec.replicated || !catalog.knows(&spec.name) {
            continue;
        }
        let table = catalog.table(&spec.name);
        let settled = match (table, table.and_then(|table| table.origin.as_ref())) {
            // Two tables of the source have names that are one after normalising. The second keeps a name of its own, which
            // is made from the source's and therefore always the same.
            (_, Some(origin)) if *origin != spec.origin => Some(renamed(spec)),
            (None, _) if is_second(id, spec, tables) => Some(renamed(spec)),
            (Some(table), _) => keyed(spec, table, fields),
            (None, _) => None,
        };
        if let Some(spec) = settled {
            tables.replace(id, spec);
        }
    }
}

/// Whether a table that was met earlier has the name, which is nobody's yet in the database.
fn is_second(id: TableId, spec: &TableSpec, tables: &Tables) -> bool {
    (0..id.0).map(|earlier| tables.get(TableId(earlier))).any(|earlier| earlier.name == spec.name)
}

fn renamed(spec: &TableSpec) -> TableSpec {
    let table = Identifier::distinct(spec.name.table.as_str(), &spec.origin);
    TableSpec { name: TableName { schema: spec.name.schema.clone(), table }, ..spec.clone() }
}

/// The specification with the table's own key, where the source has told none.
fn keyed(spec: &TableSpec, table: &Table, fields: &Fields) -> Option<TableSpec> {
    let names = table.unique.first().filter(|_| spec.key.is_empty())?;
    let mut keyed = spec.clone();
    for name in names {
        let place = match keyed.columns.iter().position(|column| column.name == *name) {
            Some(place) => place,
            None => {
                keyed.columns.push(ColumnSpec::of(name.clone(), field_of(name, spec, table, fields)?));
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
fn field_of(name: &Identifier, spec: &TableSpec, table: &Table, fields: &Fields) -> Option<Field> {
    let original = table.columns.iter().find(|column| column.name == *name)?.original.as_deref();
    let fills = |field: &Field| match original {
        Some(original) => fields.path(*field) == original,
        None => fields.column(*field) == name.as_str(),
    };
    let fields_of = |scope: &Field| fields.members(*scope).filter(fills);
    // Of an owner's column without a comment, rather the field that is called exactly so.
    spec.scope.iter().flat_map(fields_of).max_by_key(|field| fields.key(*field) == name.as_str())
}
