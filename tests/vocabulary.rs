//! Names and texts use the terms of the field.
//!
//! The rule: a name says what it is, or what it does to what, in words that a data engineer knows. A banned word may not be part
//! of a name that a Rust file defines (`show_moment` and `ShownMoment` both hold `moment`), of a file's name, or of a name in
//! SQL. Uses are not checked: each of them names a definition. The name of a test is a sentence and is held to [`PHRASES`] only,
//! as is every text that a user reads. What is stored or printed keeps its spelling by `#[serde(rename = "…")]`.

mod definitions;
mod text;
mod tokens;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millstream_tests::process::workspace;

use definitions::{Definition, DefinitionKind, definitions};
use text::{phrases_in, sql_names, words};
use tokens::{TokenKind, tokens};

/// Banned in names, each with what to say instead.
const WORDS: &[(&str, &str)] = &[
    ("admit", "lock, verify, allow"),
    ("again", "retry, redeliver, reapply"),
    ("anew", "refresh, recreate"),
    ("believe", "try, optimistic"),
    ("bury", "record a tombstone"),
    ("buried", "deleted"),
    ("careful", "fallback"),
    ("era", "origin, generation"),
    ("fate", "outcome"),
    ("fates", "outcomes"),
    ("gone", "deleted, missing, expired"),
    ("judge", "classify, select"),
    ("lack", "diff, missing"),
    ("lacking", "missing"),
    ("lacks", "diffs, missing"),
    ("look", "read, check, poll"),
    ("looked", "read, checked"),
    ("make_up", "create_missing"),
    ("meet", "resolve, reach"),
    ("mend", "fix, repair"),
    ("mended", "fixed"),
    ("met", "observed, reached"),
    ("misfit", "mismatch"),
    ("moment", "timestamp, event_time"),
    ("moments", "timestamps"),
    ("news", "newer, changes"),
    ("patience", "timeout"),
    ("place", "position, index, path"),
    ("places", "positions, indexes"),
    ("quickly", "optimistic"),
    ("rehearsal", "dry_run"),
    ("rehearse", "dry_run"),
    ("rehearsed", "dry_run"),
    ("settle", "resolve, advance"),
    ("show", "format, print"),
    ("shown", "view, formatted"),
    ("survey", "planner, check"),
    ("tell", "record, publish, print, log"),
    ("telling", "record, publish, print, log"),
    ("told", "recorded, published, reported"),
    ("untold", "unchanged"),
    ("untouched", "raw, unchanged"),
    ("verdict", "action, outcome"),
];

/// Banned in texts that users read, and as the names of tests.
const PHRASES: &[&str] = &[
    "a person must act",
    "are told",
    "for ever",
    "is told",
    "is wanted",
    "looked at",
    "made anew",
    "mended",
    "stays so",
    "what lacks",
    "whoever",
];

/// Files and folders that users read.
const PAGES: [&str; 8] =
    ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "README.md", "SECURITY.md", "docs", "infra"];

/// The definitions of all Rust files: the library and its program, the functions, the tests.
fn all_definitions() -> Vec<(String, Definition)> {
    let mut found = Vec::new();
    for (name, source) in files(&["shared/src", "functions", "tests"], &[".rs"]) {
        found.extend(definitions(&source).into_iter().map(|definition| (name.clone(), definition)));
    }
    found
}

/// The files of some folders, or files, with one of the extensions: their paths within the workspace, and their content. This
/// test is left out, for it names what it bans.
fn files(roots: &[&str], extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for root in roots {
        collect(&workspace().join(root), extensions, &mut found);
    }
    found.sort();
    assert!(!found.is_empty(), "no files in {roots:?}");
    found
}

fn collect(path: &Path, extensions: &[&str], found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.retain(|entry| !entry.ends_with("tests/vocabulary") && !entry.ends_with("tests/vocabulary.rs"));
        return entries.iter().for_each(|entry| collect(entry, extensions, found));
    }
    let name = path.strip_prefix(workspace()).unwrap().to_string_lossy().into_owned();
    if extensions.iter().any(|extension| name.ends_with(extension)) {
        found.push((name, std::fs::read_to_string(path).unwrap()));
    }
}

/// Adds a finding for each banned word of a name.
fn check_name(location: &str, name: &str, findings: &mut Vec<String>) {
    let words = words(name);
    for (banned, instead) in WORDS {
        let banned_words: Vec<&str> = banned.split('_').collect();
        if words.windows(banned_words.len()).any(|window| window == banned_words) {
            findings.push(format!("{location}: `{name}` holds the banned word `{banned}`: say {instead}"));
        }
    }
}

#[test]
fn no_name_holds_a_banned_word() {
    let mut findings = Vec::new();
    let definitions = all_definitions();
    assert!(definitions.len() > 1_000, "only {} definitions were found", definitions.len());
    for (file, definition) in definitions {
        if definition.kind != DefinitionKind::Test {
            check_name(&format!("{file}:{}", definition.line), &definition.name, &mut findings);
        }
    }
    for (file, source) in files(&["shared/src", "functions", "tests"], &[".rs", ".sql"]) {
        let stem = Path::new(&file).file_stem().unwrap().to_string_lossy().into_owned();
        check_name(&file, &stem, &mut findings);
        if file.ends_with(".sql") {
            for (line, name) in sql_names(&source) {
                check_name(&format!("{file}:{line}"), &name, &mut findings);
            }
        }
    }
    assert!(findings.is_empty(), "{} banned words in names:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn no_text_that_a_user_reads_holds_a_banned_phrase() {
    let mut findings = Vec::new();
    let mut check = |file: &str, line: usize, text: &str| {
        for (offset, phrase) in phrases_in(text, PHRASES) {
            findings.push(format!("{file}:{}: the banned phrase \"{phrase}\"", line + offset));
        }
    };
    for (file, text) in files(&PAGES, &[".md", ".yaml", ".py", "Makefile"]) {
        check(&file, 1, &text);
    }
    for (file, source) in files(&["shared/src", "functions", "tests"], &[".rs"]) {
        let help = file.starts_with("shared/src/bin/");
        for token in tokens(&source) {
            let is_help = help && token.kind == TokenKind::Comment && token.text.starts_with("///");
            if token.kind == TokenKind::Text || is_help {
                check(&file, token.line, &token.text);
            }
        }
    }
    for (file, definition) in all_definitions() {
        if definition.kind == DefinitionKind::Test {
            check(&file, definition.line, &definition.name.replace('_', " "));
        }
    }
    assert!(findings.is_empty(), "{} banned phrases:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn no_two_types_of_the_library_share_a_name() {
    let library = all_definitions().into_iter().filter(|(file, _)| file.starts_with("shared/src"));
    let shared = types_sharing_a_name(library);
    assert!(shared.is_empty(), "{} type names are used more than once:\n{}", shared.len(), shared.join("\n"));
}

/// The names that several types have, each with its definitions. Types of unit tests and associated types are not counted.
fn types_sharing_a_name(definitions: impl Iterator<Item = (String, Definition)>) -> Vec<String> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, definition) in definitions {
        if definition.kind == DefinitionKind::Type && !definition.in_test_module {
            by_name.entry(definition.name).or_default().push(format!("{file}:{}", definition.line));
        }
    }
    by_name.retain(|_, found| found.len() > 1);
    by_name.into_iter().map(|(name, found)| format!("`{name}`: {}", found.join(", "))).collect()
}

#[test]
fn types_that_share_a_name_are_found() {
    let source = "struct Row; enum Page {}\nmod inner { pub type Row = u8; trait Page2 { type Row; } }\n\
        impl Read for Row { type Row = u8; }\n#[cfg(test)] mod tests { struct Page; fn row() { let Row = 1; } }";
    let found = definitions(source).into_iter().map(|definition| ("a.rs".to_owned(), definition));
    assert_eq!(types_sharing_a_name(found), ["`Row`: a.rs:1, a.rs:2"]);
}

#[test]
fn a_banned_word_is_found_in_either_case_and_only_whole() {
    let found = |name: &str| -> usize {
        let mut findings = Vec::new();
        check_name("here", name, &mut findings);
        findings.len()
    };
    for name in ["tell", "Told", "TableLack", "show_moment", "MOMENTS", "make_up", "MakeUp", "is_told", "r2_lack"] {
        assert!(found(name) > 0, "{name}");
    }
    for name in ["teller", "placement", "replace", "make", "up", "momentum", "cooperation", "moment_um"] {
        assert_eq!(found(name), usize::from(name == "moment_um"), "{name}");
    }
}
