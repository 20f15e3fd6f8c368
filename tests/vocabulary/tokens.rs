//! Splits Rust source into tokens: enough to tell names, comments and string literals apart.

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// An identifier or a keyword.
    Word,
    /// The content of a string literal.
    Text,
    /// A comment, with its marks.
    Comment,
    /// A lifetime, a number or a character literal.
    Other,
    /// One character of punctuation.
    Mark,
}

/// A token, and the line on which it begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    pub kind: TokenKind,
    pub text: String,
    pub line: usize,
}

/// The tokens of a source file, in order.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next_token() {
        tokens.push(token);
    }
    tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl Lexer<'_> {
    fn next_token(&mut self) -> Option<Token> {
        self.take_while(char::is_whitespace);
        let line = self.line;
        let (kind, text) = self.token(self.rest.chars().next()?);
        Some(Token { kind, text, line })
    }

    fn token(&mut self, first: char) -> (TokenKind, String) {
        if self.rest.starts_with("//") {
            return (TokenKind::Comment, self.take_while(|character| character != '\n'));
        }
        if self.rest.starts_with("/*") {
            return (TokenKind::Comment, self.block_comment());
        }
        if let Some((prefix, hashes)) = string_opening(self.rest) {
            self.take(prefix);
            let text = match hashes {
                Some(hashes) => self.raw_string(hashes),
                None => self.string(),
            };
            return (TokenKind::Text, text);
        }
        if self.rest.starts_with("r#") {
            self.take(2);
            return (TokenKind::Word, self.take_while(is_word));
        }
        if first == '\'' {
            return (TokenKind::Other, self.character_or_lifetime());
        }
        if first.is_numeric() {
            return (TokenKind::Other, self.take_while(is_word));
        }
        if is_word(first) {
            return (TokenKind::Word, self.take_while(is_word));
        }
        (TokenKind::Mark, self.take(first.len_utf8()))
    }

    /// Comments nest.
    fn block_comment(&mut self) -> String {
        let mut text = self.take(2);
        let mut depth = 1;
        while depth > 0 && !self.rest.is_empty() {
            if self.rest.starts_with("/*") {
                depth += 1;
            } else if self.rest.starts_with("*/") {
                depth -= 1;
            } else {
                text += &self.take(self.first_len());
                continue;
            }
            text += &self.take(2);
        }
        text
    }

    /// The content of a literal after its opening quote. A backslash at the end of a line joins it to the next one.
    fn string(&mut self) -> String {
        let mut text = String::new();
        while let Some(character) = self.rest.chars().next() {
            self.take(character.len_utf8());
            match character {
                '"' => break,
                '\\' if self.rest.starts_with('\n') => drop(self.take_while(char::is_whitespace)),
                '\\' => text += &escaped(&self.take(self.first_len())),
                _ => text.push(character),
            }
        }
        text
    }

    fn raw_string(&mut self, hashes: usize) -> String {
        let end = format!("\"{}", "#".repeat(hashes));
        let length = self.rest.find(&end).unwrap_or(self.rest.len());
        let text = self.take(length);
        self.take(end.len().min(self.rest.len()));
        text
    }

    /// `'a'` and `'\''` are characters, `'a` is a lifetime.
    fn character_or_lifetime(&mut self) -> String {
        let mut text = self.take(1);
        let mut ahead = self.rest.chars();
        if ahead.next() == Some('\\') {
            text += &self.take(1);
            text += &self.take(self.first_len());
            text += &self.take_while(|character| character != '\'');
            return text + &self.take(1);
        }
        if ahead.next() == Some('\'') {
            return text + &self.take(self.first_len()) + &self.take(1);
        }
        text + &self.take_while(is_word)
    }

    fn first_len(&self) -> usize {
        self.rest.chars().next().map_or(0, char::len_utf8)
    }

    fn take_while(&mut self, accept: fn(char) -> bool) -> String {
        let length = self.rest.find(|character| !accept(character)).unwrap_or(self.rest.len());
        self.take(length)
    }

    fn take(&mut self, bytes: usize) -> String {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken.to_owned()
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The length of what opens a string literal here, and the number of its `#` if it is raw.
fn string_opening(rest: &str) -> Option<(usize, Option<usize>)> {
    let letters = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    if letters > 2 {
        return None;
    }
    let (prefix, rest) = rest.split_at(letters);
    if !prefix.ends_with('r') {
        return rest.starts_with('"').then_some((letters + 1, None));
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some((letters + hashes + 1, Some(hashes)))
}

/// What an escape stands for, as far as it separates words.
fn escaped(letter: &str) -> String {
    match letter {
        "n" | "r" | "t" => "\n".to_owned(),
        _ => letter.to_owned(),
    }
}

#[test]
fn strings_comments_and_characters_are_distinguished() {
    let source = "fn a<'x>(b: &'x str) { /* c /* d */ */ let e = \"f \\\n     g\\\"h\"; // i\n r#\"j\"k\"#; 'l'; '\\''; b\"m\" }";
    let of_kind = |kind| -> Vec<String> {
        tokens(source).into_iter().filter(|token| token.kind == kind).map(|token| token.text).collect()
    };
    assert_eq!(of_kind(TokenKind::Text), ["f g\"h", "j\"k", "m"]);
    assert_eq!(of_kind(TokenKind::Comment), ["/* c /* d */ */", "// i"]);
    assert_eq!(of_kind(TokenKind::Other), ["'x", "'x", "'l'", "'\\''"]);
    assert_eq!(of_kind(TokenKind::Word), ["fn", "a", "b", "str", "let", "e"]);
    let line = tokens("a\n/*\n*/ b \"c\nd\" e").into_iter().map(|token| token.line).collect::<Vec<_>>();
    assert_eq!(line, [1, 2, 3, 3, 4]);
}
