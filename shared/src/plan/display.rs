//! A plan as text: its DDL and its rows. Golden files contain it.

use std::fmt;

use super::cell::format_cell;
use super::{KeyChanges, NewColumn, Plan, RowChange, TableDiff, TableWrite};
use crate::catalog::comment::{partition_note, with_note};
use crate::change::Operation;
use crate::names::quote_literal;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diff in &self.diffs {
            write!(f, "{diff}")?;
        }
        for table in &self.writes {
            write!(f, "{table}")?;
        }
        for (unwritable, _) in self.unwritable() {
            writeln!(f, "-- {unwritable}")?;
        }
        for (record, rejection) in &self.rejected {
            let table = rejection.table.as_deref().map(|table| format!(" by {table}")).unwrap_or_default();
            writeln!(f, "record {record} rejected{table}: {rejection}")?;
        }
        for object in &self.owner_objects {
            writeln!(f, "-- {object}")?;
        }
        for (outcome, records) in [("expired", &self.expired), ("repeated", &self.repeated_in_batch)] {
            for record in records {
                writeln!(f, "record {record} {outcome}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for TableDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for statement in self.statements() {
            writeln!(f, "{statement};")?;
        }
        Ok(())
    }
}

impl TableDiff {
    /// The statements that create what is missing, in order.
    pub fn statements(&self) -> Vec<String> {
        let table = &self.table;
        let mut statements = Vec::new();
        match &self.source_label {
            Some(origin) => {
                statements.push(format!(
                    "CREATE TABLE {table} ({}){}",
                    self.definitions().join(", "),
                    self.partitioning()
                ));
                statements.push(format!("COMMENT ON TABLE {table} IS {}", quote_literal(&with_note(None, origin))));
            }
            None if self.columns.is_empty() => {}
            None => {
                // A column that is added to an existing table is nullable, and its check is not validated: that would hold
                // the lock while the whole table is scanned.
                let column = |column: &NewColumn| format!("ADD COLUMN {} {}", column.name, column.sql_type);
                let check = |column: &NewColumn| Some(format!("ADD CHECK ({}) NOT VALID", column.check.as_ref()?));
                let columns = self.columns.iter().map(column).chain(self.columns.iter().filter_map(check));
                statements.push(format!("ALTER TABLE {table} {}", columns.collect::<Vec<_>>().join(", ")));
            }
        }
        let path_comment =
            |column: &NewColumn| Some((column.name.clone(), with_note(None, column.source_path.as_ref()?)));
        for (column, comment) in self.columns.iter().filter_map(path_comment) {
            statements.push(format!("COMMENT ON COLUMN {table}.{column} IS {}", quote_literal(&comment)));
        }
        statements.extend(self.partitions.iter().flat_map(|partition| self.partition_statements(partition)));
        statements
    }

    fn definitions(&self) -> Vec<String> {
        let mut definitions: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        if !self.key_is_by_partition() {
            definitions.push(format!("PRIMARY KEY ({})", self.key_columns()));
        }
        definitions
    }

    fn key_columns(&self) -> String {
        self.key.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    fn partitioning(&self) -> String {
        self.partition_column.as_ref().map(|by| format!(" PARTITION BY RANGE ({by})")).unwrap_or_default()
    }

    /// `CREATE TABLE … PARTITION OF` would lock out every reader and writer of the table; attaching does not.
    fn partition_statements(&self, partition: &super::NewPartition) -> Vec<String> {
        let (table, name) = (&self.table, &partition.name);
        let bound = |timestamp: Option<crate::timestamp::Timestamp>, open: &str| {
            timestamp.map_or(open.to_owned(), |timestamp| quote_literal(&timestamp.to_string()))
        };
        let (from, to) = (bound(partition.bounds.from, "MINVALUE"), bound(partition.bounds.to, "MAXVALUE"));
        let mut statements = vec![format!(
            "CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE)"
        )];
        if self.key_is_by_partition() {
            statements.push(format!("ALTER TABLE {name} ADD PRIMARY KEY ({})", self.key_columns()));
        }
        let comment = with_note(None, &partition_note(&table.unquoted(), partition.bounds));
        statements.push(format!("COMMENT ON TABLE {name} IS {}", quote_literal(&comment)));
        statements.push(format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"));
        statements
    }
}

impl fmt::Display for super::NewColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.sql_type)?;
        if self.required {
            write!(f, " NOT NULL")?;
        }
        if let Some(default) = self.default {
            write!(f, " DEFAULT {default}")?;
        }
        match &self.check {
            Some(check) => write!(f, " CHECK ({check})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TableWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({:?}): {} rows", self.table.name.unquoted(), self.write_mode, self.rows.len())?;
        for ChangeView { record, operation, partition, cells } in self.change_views() {
            write!(f, "  record {record}")?;
            if operation == Operation::Delete {
                write!(f, " deletes")?;
            }
            if let Some(partition) = partition {
                write!(f, " in {partition}")?;
            }
            for (column, value) in cells {
                write!(f, " {column}={value}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A change of a row, as text.
#[derive(Debug)]
pub struct ChangeView<'w> {
    /// The record that the change comes from.
    pub record: usize,
    /// What it does to the row.
    pub operation: Operation,
    /// The partition's table, if the table is partitioned.
    pub partition: Option<&'w str>,
    /// The columns that the change carries, with human-readable values.
    pub cells: Vec<(&'w str, String)>,
}

impl TableWrite {
    /// The changes in the order in which they are written.
    pub fn change_views(&self) -> impl Iterator<Item = ChangeView<'_>> {
        self.rows.iter().flat_map(move |row| {
            self.changes[row.changes.clone()].iter().map(move |change| self.change_view(row, change))
        })
    }

    fn change_view(&self, row: &KeyChanges, change: &RowChange) -> ChangeView<'_> {
        let cell = |column: usize| {
            let table_column = &self.table.columns[self.column_indexes[column]];
            (table_column.name.as_str(), format_cell(table_column.column_type, self.cell(change, column)))
        };
        let carried = (0..self.column_indexes.len()).filter(|&column| !self.cell(change, column).is_empty());
        ChangeView {
            record: change.record,
            operation: change.operation,
            partition: self.table.partitions.get(row.partition).map(|partition| partition.name.table.as_str()),
            cells: carried.map(cell).collect(),
        }
    }
}
