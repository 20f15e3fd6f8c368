//! SQL that is built from scripts and templates.

use crate::names::Identifier;

/// Replaces each `{name}` of a template by its value; values are not searched again.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let (before, after) = rest.split_at(start);
        filled.push_str(before);
        let value = after.find('}').and_then(|end| {
            let name = &after[1..end];
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value, end))
        });
        match value {
            Some((value, end)) => {
                filled.push_str(value);
                rest = &after[end + 1..];
            }
            None => {
                filled.push('{');
                rest = &after[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// The statements of a script that holds no semicolon within one, each on one line, without the lines that are comments.
pub fn split_script(script: &str) -> Vec<String> {
    let lines: Vec<&str> = script.lines().filter(|line| !line.starts_with("--")).collect();
    let on_one_line = |statement: &str| statement.split_whitespace().collect::<Vec<_>>().join(" ");
    lines.join("\n").split(';').map(on_one_line).collect()
}

/// A name of an object that exists, as it is written in SQL.
pub fn quoted(name: &str) -> String {
    Identifier::truncated(name, name).to_string()
}
