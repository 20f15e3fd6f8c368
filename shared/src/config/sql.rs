//! Static checks of the SQL in a configuration: a type is one type and nothing else, an expression one expression.
//! PostgreSQL parses both again before they become a part of a statement.

/// Types whose names are several words; `interval` is followed by fields.
const PHRASES: &[&str] = &[
    "double precision",
    "character varying",
    "char varying",
    "bit varying",
    "national character",
    "national char",
    "national character varying",
    "national char varying",
    "nchar varying",
    "timestamp with time zone",
    "timestamp without time zone",
    "time with time zone",
    "time without time zone",
    "interval year",
    "interval month",
    "interval day",
    "interval hour",
    "interval minute",
    "interval second",
    "interval year to month",
    "interval day to hour",
    "interval day to minute",
    "interval day to second",
    "interval hour to minute",
    "interval hour to second",
    "interval minute to second",
];

/// Whether the text is exactly one type: a name, perhaps qualified, or one of the phrases of the SQL standard; then
/// perhaps numbers in parentheses, and perhaps `[]`.
pub fn is_type(text: &str) -> bool {
    let mut scalar = text;
    while let Some(element) = scalar.strip_suffix("[]") {
        scalar = element.trim_end();
    }
    let Some(name) = without_modifier(scalar) else { return false };
    let words: Vec<&str> = name.split_whitespace().collect();
    match &words[..] {
        [name] => name.split('.').all(is_word) && name.split('.').count() <= 2,
        _ => PHRASES.contains(&words.join(" ").to_ascii_lowercase().as_str()),
    }
}

/// The name without the numbers in parentheses; `None` if what is in parentheses is anything else.
fn without_modifier(text: &str) -> Option<String> {
    let Some((name, rest)) = text.split_once('(') else { return Some(text.to_owned()) };
    let (numbers, after) = rest.split_once(')')?;
    let all_numbers = numbers.split(',').all(|number| number.trim().parse::<u32>().is_ok());
    // `timestamp(3) with time zone`: anything after the parentheses is a part of the phrase.
    (all_numbers && !after.contains('(')).then(|| format!("{name} {after}"))
}

fn is_word(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && word.starts_with(|c: char| !c.is_ascii_digit())
}

/// Why a text is not exactly one expression, as far as its tokens tell.
///
/// What remains after this check cannot end the expression, the constraint or the statement that contains it in
/// parentheses: quotes and parentheses are closed, and there is no comment, dollar quote, semicolon or second expression.
pub fn expression_mistake(text: &str) -> Option<&'static str> {
    let mut open: Vec<char> = Vec::new();
    let mut characters = text.chars().peekable();
    let mut previous = ' ';
    while let Some(character) = characters.next() {
        match character {
            '\'' if matches!(previous, 'e' | 'E' | '&') => {
                return Some("contains an escape string; write it without its prefix");
            }
            // A doubled quote closes and opens again.
            '\'' | '"' if !characters.by_ref().any(|next| next == character) => {
                return Some("contains a quote that is not closed");
            }
            '(' | '[' => open.push(character),
            ')' | ']' if open.pop() != Some(if character == ')' { '(' } else { '[' }) => {
                return Some("closes a parenthesis that it does not open");
            }
            ',' if open.is_empty() => return Some("contains more than one expression"),
            ';' => return Some("contains a semicolon"),
            '$' | '\\' | '\0' => {
                return Some("contains a character that is only allowed in a string: `$`, `\\` or U+0000");
            }
            '-' if characters.peek() == Some(&'-') => return Some("contains a comment"),
            '/' if characters.peek() == Some(&'*') => return Some("contains a comment"),
            _ => {}
        }
        previous = character;
    }
    if !open.is_empty() {
        return Some("contains a parenthesis that is not closed");
    }
    text.trim().is_empty().then_some("is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_type_is_accepted_and_nothing_else() {
        for text in [
            "text",
            "numeric(12,2)",
            "numeric( 12 , 2 )[]",
            "varchar(7)",
            "int[][]",
            "ext.citext",
            "double precision",
            "Character Varying (7)",
            "timestamp(3) with time zone",
            "timestamp with time zone[]",
            "interval day to second(3)",
        ] {
            assert!(is_type(text), "{text}");
        }
        for text in [
            "",
            "[]",
            "text unique",
            "text unique default current_user",
            "integer references canary",
            "text); DROP TABLE y; --",
            "numeric(12,2) unique",
            "numeric(12) check (1)",
            "text collate \"C\"",
            "setof text",
            "a.b.c",
            "a.",
            "1",
            "table%type",
            "timestamp(3) with time zone default now()",
        ] {
            assert!(!is_type(text), "{text}");
        }
    }

    #[test]
    fn one_expression_is_accepted_and_nothing_else() {
        for text in [
            "stake > 0",
            "status IN ('a', 'b;', 'it''s -- (')",
            r"phone ~ '^\d+$'",
            "\"odd)name\" > 0 AND (tags)[1] = 'x'",
            "(a, b) IS NOT NULL",
            "n - -1 > a / b",
        ] {
            assert_eq!(expression_mistake(text), None, "{text}");
        }
        for (text, mistake) in [
            ("true)); DROP TABLE public.canary; CREATE TABLE s.owned (a int CHECK (true", "closes a parenthesis"),
            ("true), CHECK (true", "closes a parenthesis"),
            ("a[1)", "closes a parenthesis"),
            ("(true", "not closed"),
            ("a = 'x", "quote"),
            ("\"a > 0", "quote"),
            ("a > 0 -- ", "comment"),
            ("a > 0 /* ", "comment"),
            ("a > $$)$$", "`$`"),
            ("a > E'\\')'", "escape string"),
            ("a > U&'x'", "escape string"),
            ("a > 0; b", "semicolon"),
            ("a > 0, b", "more than one"),
            (" ", "empty"),
        ] {
            let found = expression_mistake(text).unwrap_or_default();
            assert!(found.contains(mistake), "{text}: {found}");
        }
    }
}
