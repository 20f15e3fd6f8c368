//! The little of SQL that a header needs: names, and where comments end. And durations, which are not SQL.

use std::time::Duration;

use crate::names::Identifier;

/// A schedule or a timeout is at most this long; a longer one is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Reads names that are separated by dots, as in SQL; `None` if one of them is none, or PostgreSQL would truncate it.
pub fn parse_names(text: &str) -> Option<Vec<Identifier>> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = parse_name(rest)?;
        names.push(Identifier::exact(&name)?);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(names),
        }
    }
}

/// The first name of a text, and what follows it.
fn parse_name(text: &str) -> Option<(String, &str)> {
    if let Some(mut rest) = text.strip_prefix('"') {
        let mut name = String::new();
        loop {
            let (part, after) = rest.split_once('"')?;
            name.push_str(part);
            // A doubled quote stands for one.
            match after.strip_prefix('"') {
                Some(next) => {
                    name.push('"');
                    rest = next;
                }
                None => return Some((name, after)),
            }
        }
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let end = text.find(|c: char| !is_part(c)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    // PostgreSQL folds only ASCII letters in a database with several bytes per character.
    (name.starts_with(|c: char| c.is_alphabetic() || c == '_')).then(|| (name.to_ascii_lowercase(), after))
}

/// Reads a duration in whole minutes, hours, days or weeks.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_once(' ')?;
    let seconds = match unit.trim() {
        "minute" | "minutes" => 60,
        "hour" | "hours" => 3_600,
        "day" | "days" => 86_400,
        "week" | "weeks" => 7 * 86_400,
        _ => return None,
    };
    let count: u64 = count.parse().ok()?;
    let duration = Duration::from_secs(count.checked_mul(seconds)?);
    (!duration.is_zero() && duration <= DURATION_MAX).then_some(duration)
}

/// The text without the white space and the comments that it begins with.
pub fn skip_comments(text: &str) -> &str {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if rest.starts_with("/*") {
            rest = skip_block_comment(rest);
        } else {
            return rest;
        }
    }
}

/// The text after the block comment that it begins with. In PostgreSQL, block comments nest.
fn skip_block_comment(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("/*") {
            (depth, rest) = (depth + 1, after);
        } else if let Some(after) = rest.strip_prefix("*/") {
            (depth, rest) = (depth - 1, after);
            if depth == 0 {
                return rest;
            }
        } else {
            let mut characters = rest.chars();
            if characters.next().is_none() {
                return "";
            }
            rest = characters.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_in_sql() {
        let names = |text: &str| {
            parse_names(text).map(|names| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>())
        };
        for (text, expected) in [
            ("a.b", Some(vec!["a", "b"])),
            ("Abc_$1", Some(vec!["abc_$1"])),
            ("\"A.\"\"b\".c", Some(vec!["A.\"b", "c"])),
            ("Ünï", Some(vec!["Ünï"])),
            ("a.", None),
            ("1a", None),
            ("a b", None),
            ("\"a", None),
            ("\"\"", None),
        ] {
            assert_eq!(names(text), expected.map(|names| names.into_iter().map(str::to_owned).collect()), "{text}");
        }
        assert_eq!(names(&"x".repeat(64)), None);
    }
}
