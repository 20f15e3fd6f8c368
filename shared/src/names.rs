//! Names in SQL: normalises the names of a source, and defines the only type of name that a statement may contain.
//!
//! Invariants: an [`Identifier`] is 1 to 63 bytes without NUL, and is always written quoted. Two different originals
//! that normalise to one name can be kept distinct ([`Identifier::with_hash_suffix`]); the same original always gets
//! the same suffix.

use std::fmt;

use sha2::{Digest, Sha256};

/// PostgreSQL truncates identifiers to `NAMEDATALEN - 1` **bytes**:
/// <https://www.postgresql.org/docs/current/limits.html>.
pub const IDENTIFIER_BYTES_MAX: usize = 63;

/// Hexadecimal digits of the suffix that distinguishes two originals: 32 bits, for at most 1,600 columns per table.
const SUFFIX_DIGITS: usize = 8;

/// A PostgreSQL identifier; the only way a name reaches SQL. `Display` writes it quoted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identifier(Box<str>);

impl Identifier {
    /// Returns `name` unchanged, if PostgreSQL can hold it without truncating it.
    pub fn exact(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= IDENTIFIER_BYTES_MAX && !name.contains('\0');
        fits.then(|| Self(name.into()))
    }

    /// Returns `name` if it fits; otherwise its beginning and a suffix derived from `original`.
    pub fn truncated(name: &str, original: &str) -> Self {
        Self::exact(name).unwrap_or_else(|| Self::with_hash_suffix(name, original))
    }

    /// Returns `name` with a suffix that depends only on `original`, for names that are too long, empty or already
    /// taken.
    pub fn with_hash_suffix(name: &str, original: &str) -> Self {
        let name = if name.is_empty() { "unnamed" } else { name };
        let name_bytes_max = IDENTIFIER_BYTES_MAX - SUFFIX_DIGITS - 1;
        let end = (0..=name_bytes_max.min(name.len())).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
        Self(format!("{}_{}", name[..end].replace('\0', "_"), short_hash(original)).into())
    }

    /// The schema of PostgreSQL's own types, functions and operators.
    pub fn pg_catalog() -> Self {
        Self("pg_catalog".into())
    }

    /// The name to try next if this one is taken, for what `original` identifies: always the same sequence of names.
    pub fn alternative(&self, original: &str) -> Self {
        if self.has_hash_suffix() {
            // The name may already be the alternative for `original`.
            return Self::with_hash_suffix(self.as_str(), &format!("{original} {}", self.as_str()));
        }
        Self::with_hash_suffix(self.as_str(), original)
    }

    fn has_hash_suffix(&self) -> bool {
        self.as_str().rsplit_once('_').is_some_and(|(_, suffix)| {
            suffix.len() == SUFFIX_DIGITS && suffix.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// The name without quotes, for messages and for comparison with the catalog.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// The first hexadecimal digits of the SHA-256 of `original`.
fn short_hash(original: &str) -> String {
    let mut digits = hex(&Sha256::digest(original.as_bytes()));
    digits.truncate(SUFFIX_DIGITS);
    digits
}

/// Formats bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Millstream's own schema.
pub const SYSTEM_SCHEMA: &str = "millstream";

/// A schema-qualified table. `Display` writes it quoted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableName {
    /// The PostgreSQL schema.
    pub schema: Identifier,
    /// The table within it.
    pub table: Identifier,
}

impl TableName {
    /// A table whose name PostgreSQL returned, which therefore fits.
    pub fn from_catalog(schema: &str, table: &str) -> Self {
        Self { schema: Identifier::truncated(schema, schema), table: Identifier::truncated(table, table) }
    }

    /// `schema.table` without quotes, for messages.
    pub fn unquoted(&self) -> String {
        format!("{}.{}", self.schema.as_str(), self.table.as_str())
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// Writes `text` as a SQL string literal. No statement can contain U+0000: names that contain it are rejected before they
/// get here, and a text that still does is written with the escape `\u0000`.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\0', "\\u0000").replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// How the names of a source become table and column names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naming {
    /// Segment's warehouses: <https://segment.com/docs/connections/storage/warehouses/schema/>; `HTTPServer` →
    /// `httpserver`.
    Segment,
    /// RudderStack's warehouses: acronyms are split, and a name that starts with a digit or is a reserved word gets the
    /// prefix `_`.
    Rudder,
    /// `HTTPServer` → `http_server`, `order2Items` → `order2_items`.
    Snake,
    /// As the source spells it.
    Exact,
}

impl Naming {
    /// The normalised form of `original`; except for `Exact`, empty if it contains no ASCII letter or digit.
    pub fn normalise(self, original: &str) -> String {
        match self {
            Self::Segment => join_words(original, segment_word_len),
            Self::Snake => join_words(original, snake_word_len),
            Self::Exact => original.to_owned(),
            Self::Rudder => {
                let name = join_words(original, rudder_word_len);
                let needs_prefix = name.starts_with(|c: char| c.is_ascii_digit()) || RESERVED.contains(&name.as_str());
                if needs_prefix { format!("_{name}") } else { name }
            }
        }
    }
}

impl Naming {
    /// The words of `original`, joined by `_`. Two names with the same [normalised form](Self::normalise) have the same words;
    /// with [`Exact`](Self::Exact), so have names that differ only in case and separators. Never empty, except for a blank name.
    pub fn words(self, original: &str) -> String {
        let words = match self {
            Self::Segment => join_words(original, segment_word_len),
            Self::Snake => join_words(original, snake_word_len),
            // Without the prefix, which depends on the whole name.
            Self::Rudder => join_words(original, rudder_word_len),
            Self::Exact => unicode_words(original),
        };
        if !words.is_empty() {
            return words;
        }
        let words = unicode_words(original);
        if words.is_empty() { original.trim().to_owned() } else { words }
    }
}

/// Runs of letters and digits of any script, in lower case.
fn unicode_words(original: &str) -> String {
    let runs = original.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty());
    runs.map(str::to_lowercase).collect::<Vec<_>>().join("_")
}

/// Joins the words that `word_len` finds in runs of ASCII letters and digits; all other characters are separators.
fn join_words(original: &str, word_len: fn(&[u8]) -> usize) -> String {
    let mut name = String::with_capacity(original.len() + 4);
    for run in original.split(|c: char| !c.is_ascii_alphanumeric()).filter(|run| !run.is_empty()) {
        let mut rest = run;
        while !rest.is_empty() {
            let (word, tail) = rest.split_at(word_len(rest.as_bytes()));
            if !name.is_empty() {
                name.push('_');
            }
            name.push_str(&word.to_ascii_lowercase());
            rest = tail;
        }
    }
    name
}

/// A word in Segment's naming: capitals and digits, then lower-case letters and digits.
fn segment_word_len(run: &[u8]) -> usize {
    let capitals = run.iter().take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit()).count();
    capitals + run[capitals..].iter().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit()).count()
}

/// A word in snake case: an acronym up to the capital that begins the next word, or a capitalised word; digits stay
/// with it.
fn snake_word_len(run: &[u8]) -> usize {
    let digits = run.iter().take_while(|c| c.is_ascii_digit()).count();
    let capitals = run[digits..].iter().take_while(|c| c.is_ascii_uppercase()).count();
    let lower = run[digits + capitals..].iter().take_while(|c| c.is_ascii_lowercase()).count();
    let letters = if capitals > 1 && lower > 0 { capitals - 1 } else { capitals + lower };
    digits + letters + run[digits + letters..].iter().take_while(|c| c.is_ascii_digit()).count()
}

/// A word in RudderStack's naming: an acronym up to the capital that begins the next word, a capitalised word, or a
/// number.
fn rudder_word_len(run: &[u8]) -> usize {
    let digits = run.iter().take_while(|c| c.is_ascii_digit()).count();
    if digits > 0 {
        return digits;
    }
    let capitals = run.iter().take_while(|c| c.is_ascii_uppercase()).count();
    let lower = run[capitals..].iter().take_while(|c| c.is_ascii_lowercase()).count();
    if capitals > 1 && lower > 0 { capitals - 1 } else { capitals + lower }
}

/// Words that PostgreSQL reserves and RudderStack prefixes:
/// <https://www.postgresql.org/docs/current/sql-keywords-appendix.html>.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "cross",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "new",
    "not",
    "notnull",
    "null",
    "off",
    "offset",
    "old",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "verbose",
    "when",
    "where",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_follow_its_warehouses() {
        for (original, name) in [
            ("HTTPServer", "httpserver"),
            ("camelCase2FA", "camel_case2_fa"),
            ("2FA Enabled", "2fa_enabled"),
            ("Bet Placed", "bet_placed"),
            ("homeTeam", "home_team"),
            ("  --x__y ", "x_y"),
            ("Überschuss", "berschuss"),
            ("事件", ""),
        ] {
            assert_eq!(Naming::Segment.normalise(original), name, "{original}");
        }
    }

    #[test]
    fn snake_case_separates_words_and_keeps_digits_with_them() {
        for (original, name) in [
            ("customerID", "customer_id"),
            ("HTTPServer", "http_server"),
            ("order2Items", "order2_items"),
            ("2FA Enabled", "2fa_enabled"),
            ("Shop-Orders.v2", "shop_orders_v2"),
            ("order", "order"),
        ] {
            assert_eq!(Naming::Snake.normalise(original), name, "{original}");
        }
    }

    #[test]
    fn rudder_names_split_acronyms_and_prefix_reserved_words() {
        for (original, name) in
            [("HTTPServer", "http_server"), ("2FA Enabled", "_2_fa_enabled"), ("order", "_order"), ("betID", "bet_id")]
        {
            assert_eq!(Naming::Rudder.normalise(original), name, "{original}");
        }
    }

    #[test]
    fn names_of_one_column_have_the_same_words() {
        for (naming, names) in [
            (Naming::Segment, &["cardNumber", "Card Number", "card_number", "card.number"][..]),
            (Naming::Snake, &["HTTPServer", "http-server"]),
            (Naming::Rudder, &["order", "Order", "_order"]),
            (Naming::Exact, &["Email", "email ", "EMAIL"]),
            (Naming::Segment, &["事件", " 事件 "]),
            (Naming::Segment, &["!", "! "]),
        ] {
            let words: Vec<String> = names.iter().map(|name| naming.words(name)).collect();
            assert!(!words[0].is_empty() && words.iter().all(|other| *other == words[0]), "{words:?}");
        }
        assert_ne!(Naming::Segment.words("e-mail"), Naming::Segment.words("email"));
    }

    #[test]
    fn long_and_empty_names_get_distinct_stable_names_of_at_most_63_bytes() {
        let long = "é".repeat(40);
        let (a, b) = (Identifier::truncated(&long, "one"), Identifier::truncated(&long, "two"));
        assert!(a.as_str().len() <= IDENTIFIER_BYTES_MAX);
        assert_ne!(a, b);
        assert_eq!(a, Identifier::truncated(&long, "one"));
        assert_ne!(Identifier::truncated("", "事件"), Identifier::truncated("", "イベント"));
    }

    #[test]
    fn quoting_cannot_be_escaped() {
        assert_eq!(Identifier::truncated("a\"; drop", "").to_string(), "\"a\"\"; drop\"");
        assert_eq!(quote_literal(r"it's \ here"), r"E'it''s \\ here'");
        assert_eq!(quote_literal("a\0b"), r"E'a\\u0000b'");
    }
}
