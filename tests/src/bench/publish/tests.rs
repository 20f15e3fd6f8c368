//! The pages that the benchmark writes: only what is between the markers changes, and a missing marker is named.

use super::*;

fn machine() -> Machine {
    let [processor, postgresql, date] = ["AMD EPYC", "15", "2026-02-09"].map(str::to_owned);
    Machine { processor, cores: 2, memory_gib: 23, postgresql, date }
}

fn results() -> Vec<Line> {
    let rates = |what: &str, ours: f64, raw: f64| Line {
        what: what.to_owned(),
        figure: Figure::Rates { ours, raw },
        target: String::new(),
    };
    vec![
        rates("append, batches of 4,000, against COPY (text)", 143_984.0, 162_891.0),
        rates("append, batches of 1,000", 93_345.0, 112_303.0),
        rates("merge by row, …", 101_239.0, 116_465.0),
        rates("merge by column, …", 49_082.0, 106_330.0),
        Line {
            what: "load of a 1 GB export, 1203360 items".to_owned(),
            figure: Figure::Load { rate: 59_853.0, seconds: 20.1 },
            target: String::new(),
        },
        Line::at_most("peak memory of that load", 38.1, "MB", 128.0),
        Line::at_most("process start to first poll, slowest function", 4.5, "ms", 20.0),
        Line::at_most("package size, zipped, largest function", 5.9, "MB", 5.0),
        Line::at_most("peak memory, batch of 6197355 bytes", 28.7, "MB", 64.0),
    ]
}

#[test]
fn the_table_has_a_line_for_each_result() {
    let expected = "\
Measured by `make bench` on 2026-02-09: AMD EPYC, 2 cores, 23 GiB, shared with PostgreSQL 15 and its default durability.

| measurement | result | target |
|---|---|---|
| append, batches of 4,000, against COPY (text) | 143,984 rows/s; raw 162,891 rows/s; ratio 0.88 |  |
| append, batches of 1,000 | 93,345 rows/s; raw 112,303 rows/s; ratio 0.83 |  |
| merge by row, … | 101,239 rows/s; raw 116,465 rows/s; ratio 0.87 |  |
| merge by column, … | 49,082 rows/s; raw 106,330 rows/s; ratio 0.46 |  |
| load of a 1 GB export, 1203360 items | 59,853 rows/s, 20 s |  |
| peak memory of that load | 38.1 MB | ≤ 128 MB ✓ |
| process start to first poll, slowest function | 4.5 ms | ≤ 20 ms ✓ |
| package size, zipped, largest function | 5.9 MB | ≤ 5 MB ✗ |
| peak memory, batch of 6197355 bytes | 28.7 MB | ≤ 64 MB ✓ |";
    assert_eq!(table(&machine(), &results()), expected);
}

#[test]
fn the_summary_prints_the_figures_of_the_table() {
    let expected = "\
- **Append:** 143,984 rows/s in batches of 4,000, 0.88 of text `COPY`; full-row merge 0.87 and column merge 0.46 of a raw upsert \
(2 cores shared with PostgreSQL 15).
- **Footprint:** 4.5 ms from process start to first poll, 28.7 MB peak for a 6 MB batch, 5.9 MB package; a 1 GB export loads in 20 s \
within 38.1 MB.
- **Cost:** about $0.0007 of Lambda per million events (computed; network, Kinesis, database and logs not included). One machine, \
one run: measure your own.";
    assert_eq!(summary(&machine(), &results()).unwrap(), expected);
}

#[test]
fn a_summary_without_one_of_its_lines_names_it() {
    for index in 0..results().len() {
        let mut results = results();
        let missing = results.remove(index).what;
        let PublishError::NoLine(prefix) = summary(&machine(), &results).unwrap_err() else { panic!("{missing}") };
        assert!(missing.starts_with(&prefix), "{missing}: {prefix}");
    }
}

/// A folder with both pages, removed at the end.
struct Pages(std::path::PathBuf);

impl Pages {
    fn new(name: &str, table: &str, summary: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("millstream-publish-{name}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("docs")).unwrap();
        std::fs::write(folder.join(TABLE.file), table).unwrap();
        std::fs::write(folder.join(SUMMARY.file), summary).unwrap();
        Self(folder)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn only_what_is_between_the_markers_changes() {
    let before = "# Title\n\ntext <!-- bench:begin -->old<!-- bench:end --> more\n";
    let readme = "a\n<!-- bench-summary:begin -->\n\nold\n\n<!-- bench-summary:end -->\nz";
    let pages = Pages::new("replaced", before, readme);
    for _ in 0..2 {
        publish(&pages.0, &machine(), &results()).unwrap();
        let table = table(&machine(), &results());
        let expected = format!("# Title\n\ntext <!-- bench:begin -->\n\n{table}\n\n<!-- bench:end --> more\n");
        assert_eq!(TABLE.read(&pages.0).unwrap(), expected);
        let summary = summary(&machine(), &results()).unwrap();
        let expected = format!("a\n<!-- bench-summary:begin -->\n\n{summary}\n\n<!-- bench-summary:end -->\nz");
        assert_eq!(SUMMARY.read(&pages.0).unwrap(), expected);
    }
}

#[test]
fn a_missing_marker_is_named_before_anything_is_written() {
    let good = ("<!-- bench:begin --><!-- bench:end -->", "<!-- bench-summary:begin --><!-- bench-summary:end -->");
    let cases = [
        ("<!-- bench:end -->", good.1, "docs/benchmarks.md: the marker <!-- bench:begin --> is missing"),
        ("<!-- bench:begin -->", good.1, "docs/benchmarks.md: the marker <!-- bench:end --> is missing"),
        (
            "<!-- bench:end --><!-- bench:begin -->",
            good.1,
            "docs/benchmarks.md: the marker <!-- bench:end --> is missing",
        ),
        (good.0, "nothing", "README.md: the marker <!-- bench-summary:begin --> is missing"),
        (good.0, "<!-- bench-summary:begin -->", "README.md: the marker <!-- bench-summary:end --> is missing"),
    ];
    for (index, (table, readme, expected)) in cases.into_iter().enumerate() {
        let pages = Pages::new(&format!("missing-{index}"), table, readme);
        for error in [check(&pages.0).unwrap_err(), publish(&pages.0, &machine(), &results()).unwrap_err()] {
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        assert_eq!(TABLE.read(&pages.0).unwrap(), table);
        assert_eq!(SUMMARY.read(&pages.0).unwrap(), readme);
    }
}

#[test]
fn a_page_that_is_not_there_is_named() {
    let pages = Pages::new("absent", "", "");
    std::fs::remove_file(pages.0.join(TABLE.file)).unwrap();
    assert_eq!(check(&pages.0).unwrap_err().to_string(), "reading docs/benchmarks.md failed");
}
