//! A plan as text: the DDL that it asks for, and its rows. Golden files hold it.

use std::fmt;

use super::cell::show;
use super::{Member, NewColumn, Plan, Row, TableLack, TableWrite};
use crate::catalog::comment::telling;
use crate::change::Operation;
use crate::names::literal;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for lack in &self.lacks {
            write!(f, "{lack}")?;
        }
        for table in &self.writes {
            write!(f, "{table}")?;
        }
        for (record, rejection) in &self.rejected {
            let table = rejection.table.as_deref().map(|table| format!(" by {table}")).unwrap_or_default();
            writeln!(f, "record {record} rejected{table}: {rejection}")?;
        }
        for (word, records) in [("expired", &self.expired), ("repeated", &self.repeated)] {
            for record in records {
                writeln!(f, "record {record} {word}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for TableLack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for statement in self.statements() {
            writeln!(f, "{statement};")?;
        }
        Ok(())
    }
}

impl TableLack {
    /// The statements that make up for what is lacking, in their order.
    pub fn statements(&self) -> Vec<String> {
        let table = &self.table;
        let mut statements = Vec::new();
        match &self.create {
            Some(origin) => {
                statements.push(format!(
                    "CREATE TABLE {table} ({}){}",
                    self.definitions().join(", "),
                    self.partitioning()
                ));
                statements.push(format!("COMMENT ON TABLE {table} IS {}", literal(&telling(None, origin))));
            }
            None if self.columns.is_empty() => {}
            None => {
                // Into a table with rows, a column comes nullable, and its check is not run over them: that would hold
                // the lock for as long as the table is large.
                let column = |column: &NewColumn| format!("ADD COLUMN {} {}", column.name, column.sql_type);
                let check = |column: &NewColumn| Some(format!("ADD CHECK ({}) NOT VALID", column.check.as_ref()?));
                let columns = self.columns.iter().map(column).chain(self.columns.iter().filter_map(check));
                statements.push(format!("ALTER TABLE {table} {}", columns.collect::<Vec<_>>().join(", ")));
            }
        }
        let of_column = |column: &NewColumn| Some((column.name.clone(), telling(None, column.original.as_ref()?)));
        for (column, comment) in self.columns.iter().filter_map(of_column).chain(self.claims.iter().cloned()) {
            statements.push(format!("COMMENT ON COLUMN {table}.{column} IS {}", literal(&comment)));
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
        self.partition_by.as_ref().map(|by| format!(" PARTITION BY RANGE ({by})")).unwrap_or_default()
    }

    /// `CREATE TABLE … PARTITION OF` would lock out every reader and writer of the table; attaching does not.
    fn partition_statements(&self, partition: &super::NewPartition) -> Vec<String> {
        let (table, name) = (&self.table, &partition.name);
        let bound = |moment: Option<crate::timestamp::Timestamp>, open: &str| {
            moment.map_or(open.to_owned(), |moment| literal(&moment.to_string()))
        };
        let (from, to) = (bound(partition.bounds.from, "MINVALUE"), bound(partition.bounds.to, "MAXVALUE"));
        let mut statements = vec![format!(
            "CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE)"
        )];
        if self.key_is_by_partition() {
            statements.push(format!("ALTER TABLE {name} ADD PRIMARY KEY ({})", self.key_columns()));
        }
        let comment = format!("Millstream: partition of {} {}", table.plain(), partition.bounds);
        statements.push(format!("COMMENT ON TABLE {name} IS {}", literal(&comment)));
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
        writeln!(f, "{} ({:?}): {} rows", self.table.name.plain(), self.rule, self.rows.len())?;
        for ShownChange { record, operation, partition, cells } in self.shown() {
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
pub struct ShownChange<'w> {
    /// The record that says it.
    pub record: usize,
    /// What it does to the row.
    pub operation: Operation,
    /// The partition's table, where there is one.
    pub partition: Option<&'w str>,
    /// The columns that the change carries, and their values as a person reads them.
    pub cells: Vec<(&'w str, String)>,
}

impl TableWrite {
    /// The changes in the order in which they are written.
    pub fn shown(&self) -> impl Iterator<Item = ShownChange<'_>> {
        self.rows.iter().flat_map(move |row| {
            self.members[row.members.clone()].iter().map(move |member| self.shown_change(row, member))
        })
    }

    fn shown_change(&self, row: &Row, member: &Member) -> ShownChange<'_> {
        let cell = |column: usize| {
            let known = &self.table.columns[self.columns[column]];
            (known.name.as_str(), show(known.kind, self.cell(member, column)))
        };
        let carried = (0..self.columns.len()).filter(|&column| !self.cell(member, column).is_empty());
        ShownChange {
            record: member.record,
            operation: member.operation,
            partition: self.table.partitions.get(row.partition).map(|partition| partition.name.table.as_str()),
            cells: carried.map(cell).collect(),
        }
    }
}
