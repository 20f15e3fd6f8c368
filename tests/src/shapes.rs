//! Batches that are small as they arrive and large once they are unpacked, decoded or stored. The tests and the benchmark
//! measure the memory that each of them takes.

use crate::packed::{aggregate_under, gzip};
use crate::random::Random;

/// The smallest function that Lambda offers.
pub const MEGABYTES_MAX: u64 = 128;

/// The configuration of the shapes: one table, whose other fields go to `_overflow` after a hundred columns.
pub const CONFIG: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\nmax_columns = 100\n";

/// The same with as many columns as a table gets by default.
pub const WIDE: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n";

/// The same, but a field without a column rejects its document.
pub const STRICT: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\nschema_mode = \"strict\"\n\
    [table.s]\nsource = \"s\"\ncolumns = { good = { path = \"good\", type = \"text\" } }\n";

/// A batch, and what becomes of it.
pub struct Shape {
    /// What it is.
    pub what: &'static str,
    /// [`CONFIG`], [`WIDE`] or [`STRICT`].
    pub config: &'static str,
    /// The data of its records.
    pub records: Vec<Vec<u8>>,
    /// How many documents are written.
    pub applied: u64,
    /// How many records or documents are dead letters.
    pub rejected: u64,
}

impl Shape {
    fn applied(what: &'static str, applied: u64, records: Vec<Vec<u8>>) -> Self {
        Self { what, config: CONFIG, records, applied, rejected: 0 }
    }

    fn rejected(what: &'static str, rejected: u64, record: Vec<u8>) -> Self {
        Self { what, config: CONFIG, records: vec![record], applied: 0, rejected }
    }
}

/// All shapes.
pub fn all() -> Vec<Shape> {
    let documents = |count: usize| gzip("{\"k\":1}\n".repeat(count).as_bytes());
    vec![
        Shape::rejected("2,000,000 documents in 23 KB of gzip", 1, documents(2_000_000)),
        Shape::applied("200,000 documents in one record of gzip", 200_000, vec![documents(200_000)]),
        Shape {
            config: STRICT,
            ..Shape::rejected("200,000 rejected documents in one record", 200_000, documents(200_000))
        },
        Shape::applied("4 records of 1 MB, each gzip of NDJSON", 4 * 25_000, (0..4).map(clicks).collect()),
        Shape::applied("12 records of gzip that unpack to 16 MB each", 24, vec![gzip(&texts(2, 8_000_000)); 12]),
        Shape::applied("one record of gzip that unpacks to 30 MB", 3, vec![gzip(&texts(3, 10_000_000))]),
        Shape::rejected("60,000 members under a key of 100 KB", 1, members(&["k".repeat(100_000)], "k", 60_000)),
        Shape::applied(
            "5,000 records in a KPL aggregate under a key of 200 KB",
            5_000,
            vec![aggregate_under(&"k".repeat(200_000), &[b"{\"n\":1}" as &[u8]; 5_000])],
        ),
        Shape::applied("30 documents of 4,000 fields under paths of 2 KB", 30, vec![long_paths(4_000); 30]),
        Shape::applied("60 documents of 150 fields under paths of 2 KB", 60, vec![long_paths(150); 60]),
        Shape::applied("one document of 9,900 fields under paths of 2 KB", 1, vec![long_paths(9_900)]),
        Shape::applied("70 documents of 5,000 fields, all distinct", 70, (0..70).map(distinct_fields).collect()),
        Shape {
            config: WIDE,
            ..Shape::applied("30,000 documents of one field each, 1,000 columns", 30_000, vec![sparse(30_000)])
        },
    ]
}

/// NDJSON as it is usual: clicks of many users.
fn clicks(seed: u64) -> Vec<u8> {
    let (mut random, mut lines) = (Random::new(seed), String::new());
    for number in 0..25_000 {
        let (user, page) = (random.number(), random.below(5_000));
        lines.push_str(&format!(
            "{{\"event\":\"click\",\"number\":{number},\"user\":\"{user:016x}{:016x}\",\"page\":\"/products/{page}\",\
             \"referrer\":\"https://www.example.com/search\",\"duration_ms\":{}}}\n",
            random.number(),
            random.below(10_000)
        ));
    }
    gzip(lines.as_bytes())
}

/// So many documents, each with a field that only some others have.
fn sparse(count: usize) -> Vec<u8> {
    let lines: String = (0..count).map(|number| format!("{{\"f{}\":{number}}}\n", number % 990)).collect();
    gzip(lines.as_bytes())
}

/// So many documents with a text of this length.
fn texts(count: usize, bytes: usize) -> Vec<u8> {
    format!("{{\"text\":\"{}\"}}\n", "t".repeat(bytes)).repeat(count).into_bytes()
}

/// So many members in nested objects.
pub fn members(path: &[String], name: &str, count: usize) -> Vec<u8> {
    let members: Vec<String> = (0..count).map(|number| format!("\"{name}{number}\":1")).collect();
    let open: String = path.iter().map(|step| format!("{{\"{step}\":")).collect();
    format!("{open}{{{}}}{}", members.join(","), "}".repeat(path.len())).into_bytes()
}

/// So many members whose paths are almost as long as they may be.
fn long_paths(count: usize) -> Vec<u8> {
    members(&["p".repeat(1_020), "p".repeat(1_020)], "k", count)
}

fn distinct_fields(document: usize) -> Vec<u8> {
    members(&[], &format!("d{document}_"), 5_000)
}
