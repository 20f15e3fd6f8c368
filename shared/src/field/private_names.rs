//! The names that make a field private.
//!
//! A private path covers all spellings that column naming makes equal, and every other path whose column would have the
//! same name. Both are comparisons of words joined by `_`. A field's path is matched step by step as the tree grows: a
//! field continues the names that its parent has begun, so nothing is compared for a value.

use super::Privacy;
use crate::names::Naming;

/// The names of a tree's private fields.
#[derive(Default, Debug)]
pub struct PrivateNames(Vec<PrivateName>);

#[derive(Debug)]
struct PrivateName {
    text: Box<str>,
    privacy: Privacy,
    scope: NameScope,
}

/// Which fields a name makes private.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameScope {
    /// Those at this path, in any spelling.
    Path,
    /// Those that would have this column.
    Column,
}

/// A name that begins with the words of a field's path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartialMatch {
    name: u32,
    /// Where the rest of the name begins.
    rest: u32,
}

/// What is known of a field from its name.
#[derive(Default, Debug)]
pub struct NameMatches {
    /// How it is redacted because of its path.
    pub path: Option<Privacy>,
    /// How it is redacted because of its column.
    pub column: Option<Privacy>,
    /// What its members may complete.
    pub partial: Vec<PartialMatch>,
}

impl PrivateNames {
    /// Adds a name and returns where its matches start.
    pub fn add(&mut self, text: String, privacy: Privacy, scope: NameScope) -> PartialMatch {
        let name = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push(PrivateName { text: text.into(), privacy, scope });
        PartialMatch { name, rest: 0 }
    }

    /// Whether nothing is private.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Continues matches with the key of a member. A key with dots is also read as a path: `"u.email"` as `u.email`, and
    /// `"u.email.domain"` as a part of that.
    pub fn follow(&self, begun: &[PartialMatch], naming: Naming, key: &str) -> NameMatches {
        let mut found = NameMatches::default();
        if begun.is_empty() {
            return found;
        }
        self.step(begun, &naming.words(key), &mut found);
        if !key.contains('.') {
            return found;
        }
        let mut begun = begun.to_vec();
        for step in key.split('.') {
            let words = naming.words(step);
            if !words.is_empty() {
                let mut next = NameMatches::default();
                self.step(&begun, &words, &mut next);
                found.path = found.path.max(next.path);
                found.column = found.column.max(next.column);
                begun = next.partial;
            }
        }
        found.add_partial(&begun);
        found
    }

    fn step(&self, begun: &[PartialMatch], words: &str, found: &mut NameMatches) {
        for &PartialMatch { name, rest } in begun {
            let private = &self.0[name as usize];
            let Some(after) = private.text[rest as usize..].strip_prefix(words) else { continue };
            if after.is_empty() {
                let privacy = match private.scope {
                    NameScope::Path => &mut found.path,
                    NameScope::Column => &mut found.column,
                };
                *privacy = (*privacy).max(Some(private.privacy));
            } else if after.starts_with('_') {
                found.partial.push(PartialMatch { name, rest: rest + words.len() as u32 + 1 });
            }
        }
    }
}

impl NameMatches {
    /// Adds what members may complete.
    pub fn add_partial(&mut self, partial: &[PartialMatch]) {
        for begun in partial {
            if !self.partial.contains(begun) {
                self.partial.push(*begun);
            }
        }
    }
}
