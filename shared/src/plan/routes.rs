//! Where the values of a source's fields go in one table.

use crate::field::FieldId;
use crate::spec::OnMismatch;

/// The routes of so many fields are allocated together.
const PAGE_FIELDS: usize = 64;

/// Where a field's values go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldRoute {
    /// Not resolved yet.
    Unresolved,
    /// The table does not accept the field.
    Ignored,
    /// An existing column, by its index in the table.
    Column(usize, OnMismatch),
    /// A missing column, by its index among the pending ones.
    NewColumn(usize),
    /// The overflow column.
    Overflow,
    /// The table is strict and has no such column, its column is computed by PostgreSQL, or no column or overflow can hold the
    /// field's name: the record is rejected.
    Rejected,
}

/// The route of each field of the source. A source may have many tables, and a table has few of its fields: only the pages of
/// those are allocated.
#[derive(Debug)]
pub struct FieldRoutes(Vec<Option<Box<[FieldRoute; PAGE_FIELDS]>>>);

impl FieldRoutes {
    /// No route is resolved yet; every [`FieldId`] is less than `fields`.
    pub fn new(fields: usize) -> Self {
        Self(vec![None; fields.div_ceil(PAGE_FIELDS)])
    }

    /// The route of a field.
    pub fn get(&self, field: FieldId) -> FieldRoute {
        let index = field.0 as usize;
        self.0[index / PAGE_FIELDS].as_ref().map_or(FieldRoute::Unresolved, |page| page[index % PAGE_FIELDS])
    }

    /// Sets the route of a field.
    pub fn set(&mut self, field: FieldId, route: FieldRoute) {
        let index = field.0 as usize;
        let page = self.0[index / PAGE_FIELDS].get_or_insert_with(|| Box::new([FieldRoute::Unresolved; PAGE_FIELDS]));
        page[index % PAGE_FIELDS] = route;
    }

    /// The routes that are resolved, in the order of the fields.
    pub fn iter(&self) -> impl Iterator<Item = FieldRoute> {
        self.0.iter().flatten().flat_map(|page| page.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_unresolved_until_it_is_set() {
        let mut routes = FieldRoutes::new(2 * PAGE_FIELDS + 1);
        let last = FieldId(2 * PAGE_FIELDS as u32);
        routes.set(last, FieldRoute::Overflow);
        assert_eq!([FieldId(0), last].map(|field| routes.get(field)), [FieldRoute::Unresolved, FieldRoute::Overflow]);
        assert_eq!(routes.iter().filter(|route| *route == FieldRoute::Overflow).count(), 1);
    }
}
