//! Query results as `psql` prints them by default.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Types whose values `psql` aligns to the right.
const NUMBERS: [Type; 6] = [Type::INT2, Type::INT4, Type::INT8, Type::FLOAT4, Type::FLOAT8, Type::NUMERIC];

struct Column {
    name: String,
    is_number: bool,
    width: usize,
}

impl Column {
    /// As wide as its name.
    fn new(column: &tokio_postgres::Column) -> Self {
        let name = column.name().to_owned();
        Self { is_number: NUMBERS.contains(column.type_()), width: name.chars().count(), name }
    }
}

/// Runs a query and formats its result, without blanks at the ends of lines.
pub async fn print(client: &Client, query: &str) -> String {
    let statement = client.prepare(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let mut columns: Vec<Column> = statement.columns().iter().map(Column::new).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for message in client.simple_query(query).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..columns.len()).map(|index| row.get(index).unwrap_or_default().to_owned()).collect());
        }
    }
    for row in &rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.width = column.width.max(value.chars().count());
        }
    }
    let mut lines = vec![header(&columns), rule(&columns)];
    lines.extend(rows.iter().map(|row| line(&columns, row)));
    lines.push(if rows.len() == 1 { "(1 row)".to_owned() } else { format!("({} rows)", rows.len()) });
    lines.join("\n")
}

fn header(columns: &[Column]) -> String {
    let cells: Vec<String> = columns.iter().map(|column| format!(" {:^1$} ", column.name, column.width)).collect();
    cells.join("|").trim_end().to_owned()
}

fn rule(columns: &[Column]) -> String {
    let cells: Vec<String> = columns.iter().map(|column| "-".repeat(column.width + 2)).collect();
    cells.join("+")
}

fn line(columns: &[Column], row: &[String]) -> String {
    let mut cells = Vec::new();
    for (column, value) in columns.iter().zip(row) {
        let width = column.width;
        cells.push(if column.is_number { format!(" {value:>width$} ") } else { format!(" {value:<width$} ") });
    }
    cells.join("|").trim_end().to_owned()
}
