//! docs/configuration.md describes every key and every environment variable that the code accepts.

use millstream::config::Config;

use super::read;

/// A key that no section knows and that resembles none, so that the parser answers with those that it knows.
const UNKNOWN: &str = "qqqqqqqqqqqqqqqq";

/// A configuration with the unknown key in every kind of section.
const SECTIONS: &str = r#"
[source.a]
stream = "a"
format = "json"
qqqqqqqqqqqqqqqq = 1
partition = { by = "at", qqqqqqqqqqqqqqqq = 1 }
[table.t]
source = "a"
qqqqqqqqqqqqqqqq = 1
when = { path = "p", is = "x", qqqqqqqqqqqqqqqq = 1 }
columns = { c = { path = "c", qqqqqqqqqqqqqqqq = 1 } }
[total.a]
table = "t"
qqqqqqqqqqqqqqqq = 1
bucket = { at = "c", every = "day", qqqqqqqqqqqqqqqq = 1 }
sums = { s = { of = "c", qqqqqqqqqqqqqqqq = 1 } }
board = { value = "rows", qqqqqqqqqqqqqqqq = 1 }
[report.a]
function = "a.f"
qqqqqqqqqqqqqqqq = 1
columns = { c = "text" }
"#;

/// The keys that a section accepts, by the parser's own message about the unknown one.
fn accepted_keys(section: &str) -> Vec<String> {
    let message = Config::parse("test.toml", SECTIONS).map(|_config| ()).unwrap_err().to_string();
    let key = format!(": {section}.{UNKNOWN}: ");
    let line = message.lines().find(|line| line.contains(&key)).unwrap_or_else(|| panic!("{section}:\n{message}"));
    let list = line.rsplit(": ").next().unwrap_or_default();
    list.split(", ").map(str::to_owned).collect()
}

/// The first cells of the table rows under a heading of docs/configuration.md.
fn described(heading: &str) -> String {
    let page = read("docs/configuration.md");
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let section = section.split("\n#").next().unwrap_or_default();
    section.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next()).collect()
}

#[test]
fn every_configuration_key_is_described() {
    for (section, heading, least) in [
        ("source.a", "## `[source.NAME]`", 15),
        ("source.a.partition", "### Partitions", 5),
        ("table.t", "## `[table.NAME]`", 14),
        ("table.t.columns.c", "### Columns", 4),
        ("total.a", "## `[total.NAME]`", 7),
        ("total.a.bucket", "## `[total.NAME]`", 3),
        ("total.a.board", "## `[total.NAME]`", 6),
        ("report.a", "## `[report.NAME]`", 3),
    ] {
        let keys = accepted_keys(section);
        assert!(keys.len() >= least, "{section}: {keys:?}");
        let described = described(heading);
        for key in keys {
            assert!(described.contains(&format!("`{key}`")), "`{key}` is not described under {heading}");
        }
    }
    for key in accepted_keys("table.t.when") {
        assert!(read("docs/configuration.md").contains(&format!("`{key}`")), "`{key}` of `when` is not described");
    }
    assert_eq!(accepted_keys("total.a.sums.s"), ["of", "where"], "docs/configuration.md describes `{{ of, where }}`");
}

/// Whether a literal of the code is the name of an environment variable.
fn is_variable(literal: &str) -> bool {
    literal.contains('_') && literal.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[test]
fn every_environment_variable_is_described() {
    let code = read("shared/src/config/environment.rs");
    let mut names: Vec<&str> = code.split('"').filter(|literal| is_variable(literal)).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() >= 12, "{names:?}");
    let described = described("## Environment");
    for name in names {
        assert!(described.contains(&format!("`{name}`")), "{name} is not described in docs/configuration.md");
    }
}
