//! Words of names, names in SQL, and phrases in texts.

/// The words of a name in `snake_case`, `CamelCase` or `CONSTANT_CASE`, in lower case.
pub fn words(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (index, character) in characters.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| characters[before]);
        let next_is_lower = characters.get(index + 1).is_some_and(|next| next.is_lowercase());
        let begins = match before {
            Some(before) if character.is_uppercase() => !before.is_uppercase() || next_is_lower,
            _ => false,
        };
        if begins || !character.is_alphanumeric() {
            words.push(String::new());
        }
        if character.is_alphanumeric() {
            words.last_mut().unwrap().extend(character.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The names and keywords of a SQL file, without its comments and literals, each with its line.
pub fn sql_names(source: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (number, line) in (1..).zip(source.lines()) {
        let code = line.split("--").next().unwrap_or_default();
        for (index, part) in code.split('\'').enumerate() {
            if index % 2 == 0 {
                let found = part.split(|character: char| !character.is_alphanumeric() && character != '_');
                names.extend(found.filter(|name| !name.is_empty()).map(|name| (number, name.to_owned())));
            }
        }
    }
    names
}

/// The phrases that a text holds as whole words, in any case and across line breaks: how many lines after the first, and which.
pub fn phrases_in<'a>(text: &str, phrases: &[&'a str]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    let words: Vec<(usize, String)> = words_with_lines(text);
    for phrase in phrases {
        let banned: Vec<&str> = phrase.split(' ').collect();
        for window in words.windows(banned.len()) {
            if window.iter().zip(&banned).all(|((_, word), banned)| word == banned) {
                found.push((window[0].0, *phrase));
            }
        }
    }
    found.sort_unstable();
    found
}

fn words_with_lines(text: &str) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let found = line.split(|character: char| !character.is_alphanumeric());
        words.extend(found.filter(|word| !word.is_empty()).map(|word| (number, word.to_lowercase())));
    }
    words
}

#[test]
fn names_are_split_into_words() {
    let cases = [
        ("show_moment", "show moment"),
        ("TableLack", "table lack"),
        ("KEPT_MAX", "kept max"),
        ("HTTPServer2Go", "http server2 go"),
        ("_private", "private"),
        ("NotKnownYet", "not known yet"),
    ];
    for (name, expected) in cases {
        assert_eq!(words(name).join(" "), expected);
    }
}

#[test]
fn names_in_sql_are_neither_comments_nor_literals() {
    let found = sql_names("-- the place\nSELECT t.place, 'a place' AS \"Place\" -- place\nFROM told_of");
    let named: Vec<(usize, &str)> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
    let expected = [(2, "SELECT"), (2, "t"), (2, "place"), (2, "AS"), (2, "Place"), (3, "FROM"), (3, "told_of")];
    assert_eq!(named, expected);
}

#[test]
fn phrases_are_whole_words_across_lines() {
    let text = "A value is wanted.\nNobody is\n  told, and the thesis toldoff is unwanted; it IS `wanted`";
    assert_eq!(phrases_in(text, &["is wanted", "is told"]), [(0, "is wanted"), (1, "is told"), (2, "is wanted")]);
    assert_eq!(phrases_in("is wantedly, this told", &["is wanted", "is told"]), []);
}
