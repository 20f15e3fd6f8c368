//! Writes the page: Markdown with a diagram that GitHub and most editors render (<https://mermaid.js.org/syntax/flowchart.html>).
//!
//! Sections without content are omitted.

use super::system::{FunctionEntry, NamedSql, SourceEntry, StreamEntry, SumEntry, System, TableEntry, TotalEntry};

/// The scheduled function that maintains partitions.
const MAINTENANCE: &str = "maintain";
/// The scheduled function that recomputes totals.
const RECOMPUTE: &str = "recompute";

/// Writes the page.
pub fn write(system: &System) -> String {
    let files: Vec<String> = system.files.iter().map(|file| format!("`{file}`")).collect();
    let head = format!(
        "# {}\n\nWritten by `millstream catalogue` (`make catalogue`) from {}.\n",
        system.name,
        files.join(", ")
    );
    let sections =
        [diagram(system), sources(system), tables(system), totals(system), private(system), functions(system)];
    sections.into_iter().flatten().fold(head, |page, section| format!("{page}\n{section}"))
}

/// Returns a Markdown table under a heading; `None` without rows.
fn section(heading: &str, columns: &[&str], rows: Vec<Vec<String>>) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let titles: Vec<String> = columns.iter().map(|&title| title.to_owned()).collect();
    let rule = format!("|{}\n", "---|".repeat(columns.len()));
    let body: String = rows.iter().map(|row| line(row)).collect();
    Some(format!("## {heading}\n\n{}{rule}{body}", line(&titles)))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn codes(texts: &[String]) -> String {
    texts.iter().map(|text| code(text)).collect::<Vec<_>>().join(", ")
}

fn none() -> String {
    "–".to_owned()
}

fn sources(system: &System) -> Option<String> {
    let row = |source: &SourceEntry| {
        let streams: Vec<String> = source.streams.iter().map(|stream| stream.name.clone()).collect();
        let mut fed: Vec<usize> = source.streams.iter().flat_map(|stream| stream.functions.clone()).collect();
        fed.sort_unstable();
        fed.dedup();
        let functions: Vec<String> = fed.iter().map(|&index| system.functions[index].name.clone()).collect();
        let functions = if functions.is_empty() { none() } else { codes(&functions) };
        let backup = if source.backup { "on S3" } else { "–" };
        let cells = [code(&source.name), codes(&streams), source.format.to_owned(), functions, code(&source.schema)];
        cells.into_iter().chain([backup.to_owned()]).collect()
    };
    let columns = ["source", "streams", "format", "function", "schema", "backup"];
    section("Sources", &columns, system.sources.iter().map(row).collect())
}

fn tables(system: &System) -> Option<String> {
    let row = |table: &TableEntry| {
        let row = match (&table.newest, &table.key[..]) {
            (None, key) => format!("one row per event, unique by {}", codes(key)),
            (Some(_), []) => "one row per source key".to_owned(),
            (Some(_), key) => format!("one row per {}", codes(key)),
        };
        let (partition, retention) = match &table.partition {
            None => (none(), "forever".to_owned()),
            Some(entry) => {
                let partition = format!("{} of {}, {} ahead", entry.every, code(&entry.by), entry.ahead);
                (partition, entry.keep.clone().unwrap_or_else(|| "forever".to_owned()))
            }
        };
        let newest = table.newest.clone().unwrap_or_else(none);
        let deletes = table.deletes.map_or_else(none, str::to_owned);
        vec![code(&table.name), table.takes.clone(), row, newest, deletes, partition, retention]
    };
    let columns = ["table", "accepts", "rows", "latest wins by", "on delete", "partition", "retention"];
    section("Tables", &columns, system.sources.iter().flat_map(|source| &source.tables).map(row).collect())
}

fn totals(system: &System) -> Option<String> {
    let group = |NamedSql { name, sql }: &NamedSql| match name == sql {
        true => code(name),
        false => format!("{} = {}", code(name), code(&escaped(sql))),
    };
    let sum = |SumEntry { name, sql, condition }: &SumEntry| {
        let condition = condition.as_ref().map(|condition| format!(" where {}", code(&escaped(condition))));
        format!("{} = {}{}", code(name), code(&escaped(sql)), condition.unwrap_or_default())
    };
    let row = |total: &TotalEntry| {
        let sums: Vec<String> = std::iter::once(code("rows")).chain(total.sums.iter().map(sum)).collect();
        vec![
            code(&total.view),
            code(&total.table),
            total.groups.iter().map(group).collect::<Vec<_>>().join(", "),
            sums.join(", "),
            total.condition.as_ref().map_or_else(none, |condition| code(&escaped(condition))),
            total.keep.clone().unwrap_or_else(|| "forever".to_owned()),
        ]
    };
    let columns = ["total", "table", "groups", "sums", "condition", "retention"];
    section("Totals", &columns, system.totals.iter().map(row).collect())
}

/// An expression within a cell: `|` would end it.
fn escaped(sql: &str) -> String {
    sql.replace('|', "\\|").replace('\n', " ")
}

fn private(system: &System) -> Option<String> {
    let rows = system.sources.iter().flat_map(|source| {
        source.private.iter().map(|field| vec![code(&source.name), code(&field.path), field.becomes.to_owned()])
    });
    section("Private fields", &["source", "field", "is"], rows.collect())
}

fn functions(system: &System) -> Option<String> {
    let row = |function: &FunctionEntry| {
        let starts = match (&function.starts[..], function.on) {
            (_, false) => "disabled".to_owned(),
            ([], true) => "manual invocation".to_owned(),
            (starts, true) => starts.join("; "),
        };
        vec![code(&function.name), function.description.clone(), starts]
    };
    section("Functions", &["function", "purpose", "triggered by"], system.functions.iter().map(row).collect())
}

fn diagram(system: &System) -> Option<String> {
    let mut lines = vec!["flowchart LR".to_owned()];
    let drawn = |(number, function): &(usize, &FunctionEntry)| {
        function.on && (is_scheduled(system, function) || feeds(system, *number))
    };
    let functions = || system.functions.iter().enumerate().filter(drawn);
    for (number, function) in functions() {
        lines.push(format!("    function{number}[{}]", label(&function.name)));
        if function.scheduled {
            lines.push(format!("    schedule{number}([{}]) --> function{number}", label(&schedule(function))));
        }
    }
    for (number, source) in system.sources.iter().enumerate() {
        lines.extend(flow(number, source));
    }
    for (number, function) in functions() {
        if function.dead_letters && feeds(system, number) {
            lines.push(format!("    function{number} -. rejected .-> letters[/{}/]", label("dead letters")));
        }
        if function.name == MAINTENANCE {
            lines.extend((0..system.sources.len()).map(|source| format!("    function{number} -.-> schema{source}")));
        }
        if function.name == RECOMPUTE {
            let summed = system.sources.iter().enumerate().filter(|(_, source)| has_totals(system, source));
            lines.extend(summed.map(|(source, _)| format!("    function{number} -.-> schema{source}")));
        }
    }
    Some(format!("```mermaid\n{}\n```\n", lines.join("\n")))
}

/// Whether a function runs on a schedule and has something to do.
fn is_scheduled(system: &System, function: &FunctionEntry) -> bool {
    function.scheduled && (function.name != RECOMPUTE || !system.totals.is_empty())
}

fn has_totals(system: &System, source: &SourceEntry) -> bool {
    system.totals.iter().any(|total| total.source == source.name)
}

fn feeds(system: &System, function: usize) -> bool {
    system.sources.iter().flat_map(|source| &source.streams).any(|stream| stream.functions.contains(&function))
}

fn schedule(function: &FunctionEntry) -> String {
    function.starts.iter().map(|start| start.trim_matches('`')).collect::<Vec<_>>().join(", ")
}

/// Draws the flow from a source's streams to its tables.
fn flow(number: usize, source: &SourceEntry) -> Vec<String> {
    let mut lines = vec![format!("    subgraph schema{number}[{}]", label(&format!("PostgreSQL: {}", source.schema)))];
    for (index, table) in source.tables.iter().enumerate() {
        lines.push(format!("        table{number}_{index}[({})]", label(&table.name)));
    }
    lines.push("    end".to_owned());
    for (index, stream) in source.streams.iter().enumerate() {
        let name = format!("stream{number}_{index}");
        lines.push(format!("    {name}>{}]", label(&stream_label(stream))));
        for function in &stream.functions {
            lines.push(format!("    {name} --> function{function}"));
        }
        if stream.functions.is_empty() {
            lines.push(format!("    {name} --> schema{number}"));
        }
    }
    let mut fed: Vec<usize> = source.streams.iter().flat_map(|stream| stream.functions.clone()).collect();
    fed.sort_unstable();
    fed.dedup();
    lines.extend(fed.iter().map(|function| format!("    function{function} --> schema{number}")));
    lines
}

fn stream_label(stream: &StreamEntry) -> String {
    let name = if stream.name == "*" { "every stream" } else { &stream.name };
    stream.kind.map_or(name.to_owned(), |kind| format!("{kind}: {name}"))
}

/// Quotes a label, so that no character in it ends it early.
fn label(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "#quot;"))
}
