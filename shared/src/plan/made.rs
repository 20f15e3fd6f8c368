//! The table as it will look once what it lacks is made: what a dry run reckons with, where a writer would have made it.

use super::TableLack;
use crate::catalog::comment::{telling, told};
use crate::catalog::{Column, Kind, Partition, Table};
use crate::names::Identifier;

impl TableLack {
    /// The table after [`TableLack::statements`], for which it was `before`. `kind` tells the kind and the number of a type.
    pub fn made(&self, before: Option<&Table>, kind: impl Fn(&str) -> (Kind, u32)) -> Table {
        let mut table = before.cloned().unwrap_or_else(|| self.created());
        let checked = self.columns.iter().any(|column| column.check.is_some());
        table.checked |= checked;
        for new in &self.columns {
            let (kind, type_oid) = kind(&new.sql_type);
            // Into a table that is there a column comes nullable.
            let kept = before.is_none() && (new.required || self.key.contains(&new.name));
            table.columns.push(Column {
                name: new.name.clone(),
                kind,
                type_oid,
                sql_type: new.sql_type.clone(),
                original: new.original.clone(),
                comment: new.original.as_deref().map(|path| telling(None, path)),
                required: kept && new.default.is_none(),
                guarded: kept,
                generated: false,
            });
        }
        for (name, comment) in &self.claims {
            for column in table.columns.iter_mut().filter(|column| column.name == *name) {
                column.original = told(comment).map(str::to_owned);
                column.comment = Some(comment.clone());
            }
        }
        let unique = if self.key_is_by_partition() { vec![self.key.clone()] } else { table.unique.clone() };
        let partitions = self.partitions.iter().map(|new| Partition {
            name: new.name.clone(),
            bounds: new.bounds,
            unique: unique.clone(),
        });
        table.partitions.extend(partitions);
        table.partitions.sort_by_key(|partition| partition.bounds.from);
        table.cast_arrays();
        table
    }

    fn created(&self) -> Table {
        let unique: Vec<Vec<Identifier>> = if self.key_is_by_partition() { Vec::new() } else { vec![self.key.clone()] };
        Table {
            name: self.table.clone(),
            oid: 0,
            row_type: (0, 0),
            origin: self.create.clone(),
            owned: true,
            checked: false,
            columns: Vec::new(),
            partitioned_by: self.partition_by.clone(),
            partitioned_otherwise: false,
            partitions: Vec::new(),
            unique,
            fingerprint: String::new(),
        }
    }
}
