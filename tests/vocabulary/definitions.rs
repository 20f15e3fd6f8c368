//! Finds the names that a Rust source file defines.

use super::tokens::{Token, TokenKind, tokens};

/// What a name is the name of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefinitionKind {
    Function,
    /// A function with an attribute such as `#[test]`: its name is a sentence.
    Test,
    /// A struct, an enum, a trait or a type alias.
    Type,
    /// A type that an `impl` or a `trait` holds.
    AssociatedType,
    Constant,
    Module,
    Field,
    Variant,
}

/// A name, and the line that defines it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    pub kind: DefinitionKind,
    pub name: String,
    pub line: usize,
    /// Whether it stands in a module under `#[cfg(test)]`.
    pub in_test_module: bool,
}

/// A pair of brackets that is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Struct,
    Enum,
    /// `impl` or `trait`.
    Impl,
    TestModule,
    Other,
}

/// The definitions of a source file, in order.
pub fn definitions(source: &str) -> Vec<Definition> {
    let code: Vec<Token> = tokens(source).into_iter().filter(|token| token.kind != TokenKind::Comment).collect();
    let mut finder = Finder::default();
    for index in 0..code.len() {
        finder.read(&code, index);
    }
    finder.found
}

#[derive(Default)]
struct Finder {
    open: Vec<Block>,
    /// What the next `{` opens, once a keyword has said so.
    next: Option<Block>,
    /// Whether an attribute that names `test` precedes the item.
    is_test: bool,
    found: Vec<Definition>,
}

impl Finder {
    fn read(&mut self, code: &[Token], index: usize) {
        let token = &code[index];
        match token.text.as_str() {
            "(" | "[" if token.kind == TokenKind::Mark => self.open.push(Block::Other),
            "{" if token.kind == TokenKind::Mark => self.open_block(),
            ")" | "]" if token.kind == TokenKind::Mark => drop(self.open.pop()),
            "}" if token.kind == TokenKind::Mark => {
                self.open.pop();
                self.end_item();
            }
            ";" if token.kind == TokenKind::Mark => self.end_item(),
            "#" if token.kind == TokenKind::Mark => self.is_test |= is_test_attribute(&code[index + 1..]),
            _ if token.kind == TokenKind::Word => self.word(code, index),
            _ => {}
        }
    }

    fn open_block(&mut self) {
        let in_enum = self.open.last() == Some(&Block::Enum);
        let opened = self.next.take().unwrap_or(if in_enum { Block::Struct } else { Block::Other });
        self.open.push(opened);
        self.is_test = false;
    }

    fn end_item(&mut self) {
        self.next = None;
        self.is_test = false;
    }

    fn word(&mut self, code: &[Token], index: usize) {
        if let Some(kind) = self.member_kind(code, index) {
            return self.define(kind, &code[index]);
        }
        let keyword = code[index].text.as_str();
        let name = code.get(index + 1).filter(|token| token.kind == TokenKind::Word);
        if keyword == "impl" {
            self.next = self.next.or(Some(Block::Impl));
            return;
        }
        let Some(name) = name else { return };
        if let Some(kind) = self.item_kind(keyword, &name.text) {
            self.define(kind, name);
            self.next = self.next.or(Some(self.block_of(keyword)));
        }
    }

    /// A field or a variant, if the word is one.
    fn member_kind(&self, code: &[Token], index: usize) -> Option<DefinitionKind> {
        let before = code[..index].last()?.text.as_str();
        let after = |offset: usize| code.get(index + offset).map(|token| token.text.as_str());
        let block = *self.open.last()?;
        if block == Block::Enum {
            return matches!(before, "{" | "," | "]").then_some(DefinitionKind::Variant);
        }
        let is_field = block == Block::Struct && after(1) == Some(":") && after(2) != Some(":");
        (is_field && matches!(before, "{" | "," | ")" | "]" | "pub")).then_some(DefinitionKind::Field)
    }

    fn item_kind(&self, keyword: &str, name: &str) -> Option<DefinitionKind> {
        match keyword {
            "fn" if self.is_test => Some(DefinitionKind::Test),
            "fn" => Some(DefinitionKind::Function),
            "type" if self.open.last() == Some(&Block::Impl) => Some(DefinitionKind::AssociatedType),
            "struct" | "enum" | "trait" | "type" => Some(DefinitionKind::Type),
            "const" | "static" if !matches!(name, "fn" | "mut") => Some(DefinitionKind::Constant),
            "mod" => Some(DefinitionKind::Module),
            _ => None,
        }
    }

    fn block_of(&self, keyword: &str) -> Block {
        match keyword {
            "struct" => Block::Struct,
            "enum" => Block::Enum,
            "trait" => Block::Impl,
            "mod" if self.is_test => Block::TestModule,
            _ => Block::Other,
        }
    }

    fn define(&mut self, kind: DefinitionKind, name: &Token) {
        let in_test_module = self.open.contains(&Block::TestModule);
        self.found.push(Definition { kind, name: name.text.clone(), line: name.line, in_test_module });
    }
}

/// Whether the tokens after `#` are `[test]`, `[tokio::test]` or `[cfg(test)]`.
fn is_test_attribute(code: &[Token]) -> bool {
    let attribute = code.iter().take_while(|token| token.text != "]");
    attribute.filter(|token| token.kind == TokenKind::Word).any(|token| token.text == "test")
}

#[test]
fn every_kind_of_definition_is_found_and_uses_are_not() {
    let source = "mod lexer; type Rows = Vec<u8>;\n\
        pub struct Batch<'a, T: Copy> { #[serde(rename = \"x\")] pub(crate) size: usize, of: Kind<T>, }\n\
        enum Answer { Yes(Batch), No { reason: String }, Maybe = 3 }\n\
        trait Read { type Item; const LIMIT: usize; fn read(&self, from: &mut impl Iterator<Item = u8>) -> [u8; 4]; }\n\
        impl Read for Batch { type Item = u8; fn read(&self) { let used = Batch { size: 1 }; match used { a => b } } }\n\
        static NAME: &str = \"struct Hidden\"; const fn third() {}\n\
        #[cfg(test)] mod tests { struct Case { name: u8 } #[tokio::test] async fn it_works() { x::<fn(u8)>() } }";
    let found = definitions(source);
    let of_kind = |kind| -> Vec<&str> {
        found.iter().filter(|found| found.kind == kind).map(|found| found.name.as_str()).collect()
    };
    assert_eq!(of_kind(DefinitionKind::Module), ["lexer", "tests"]);
    assert_eq!(of_kind(DefinitionKind::Type), ["Rows", "Batch", "Answer", "Read", "Case"]);
    assert_eq!(of_kind(DefinitionKind::AssociatedType), ["Item", "Item"]);
    assert_eq!(of_kind(DefinitionKind::Field), ["size", "of", "reason", "name"]);
    assert_eq!(of_kind(DefinitionKind::Variant), ["Yes", "No", "Maybe"]);
    assert_eq!(of_kind(DefinitionKind::Function), ["read", "read", "third"]);
    assert_eq!(of_kind(DefinitionKind::Constant), ["LIMIT", "NAME"]);
    assert_eq!(of_kind(DefinitionKind::Test), ["it_works"]);
    let in_tests: Vec<&str> =
        found.iter().filter(|found| found.in_test_module).map(|found| found.name.as_str()).collect();
    assert_eq!(in_tests, ["Case", "name", "it_works"]);
    assert_eq!(found.iter().map(|found| found.line).max(), Some(7));
}
