//! Which fields are private, and how their values are hashed.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::private_names::{NameMatches, NameScope};
use super::{FieldId, FieldTree};
use crate::names::hex;

/// How a private field is redacted before anything is stored.
/// The stricter one is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Privacy {
    /// The value is replaced by its SHA-256, in hexadecimal.
    Sha256,
    /// The field is removed, as if the source had not sent it.
    Drop,
}

/// The form of hashes in a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashForm {
    /// Hexadecimal digits only, as stored in tables. In an input document, no value counts as a hash.
    Plain,
    /// With a prefix, as archived, which distinguishes hashes from values that only look like them.
    Prefixed,
}

/// The prefix of an archived hash. A source could send it only on purpose.
const HASH_PREFIX: &str = "millstream:sha256:";

impl FieldTree {
    /// The member `key` of the object at `parent` if it is known, is private, or may contain a private field, in any spelling.
    /// Only the last two are added, so that a document can be redacted whose other members exceed the limits.
    pub fn find_private(&mut self, parent: FieldId, key: &str) -> Option<FieldId> {
        self.find(parent, key).or_else(|| {
            let has_column = !self.naming.normalise(key).is_empty();
            let found = self.name_matches(parent, key, has_column);
            let is_private = found.path.is_some() || found.column.is_some() || !found.partial.is_empty();
            is_private.then(|| self.child(parent, key))
        })
    }

    /// Marks fields as private, and with them every field whose path is another spelling of theirs or whose column would
    /// have the same name. Both are decided once per field, when it is first seen.
    pub fn set_private(&mut self, private: &[(FieldId, Privacy)]) {
        for &(field, privacy) in private {
            self.nodes[field.0 as usize].privacy = Some(privacy);
            let mut ancestor = field;
            while ancestor != FieldId::ROOT {
                ancestor = self.parent(ancestor);
                self.nodes[ancestor.0 as usize].private_within = true;
            }
            let path = self.words_up_to(field, |tree, at| at == tree.scope(at));
            self.add_private_name(field, path, privacy, NameScope::Path);
            let column = self.words_up_to(field, |tree, at| !tree.has_column(at));
            self.add_private_name(field, column, privacy, NameScope::Column);
        }
        for &(field, _) in private {
            self.match_members(self.scope(field));
        }
    }

    /// Makes the fields private that would share a column called `name` with the private field `field`.
    pub fn set_private_column(&mut self, field: FieldId, name: &str) {
        if let Some(privacy) = self.privacy(field) {
            self.add_private_name(field, self.naming.words(name), privacy, NameScope::Column);
            self.match_members(self.scope(field));
        }
    }

    fn add_private_name(&mut self, field: FieldId, name: String, privacy: Privacy, name_scope: NameScope) {
        if !name.is_empty() {
            let scope = self.scope(field);
            let start = self.private_names.add(name, privacy, name_scope);
            self.nodes[scope.0 as usize].private_matches.push(start);
        }
    }

    /// Matches the fields that were seen before a name was added.
    fn match_members(&mut self, scope: FieldId) {
        let mut unmatched: Vec<FieldId> = self.members(scope).collect();
        while let Some(field) = unmatched.pop() {
            self.match_private_names(field);
            unmatched.extend(self.members(field));
        }
    }

    /// The words of the path's steps from the last one up to, but without, the first for which `stop` is true.
    fn words_up_to(&self, field: FieldId, stop: fn(&Self, FieldId) -> bool) -> String {
        let (mut words, mut at) = (Vec::new(), field);
        while !stop(self, at) {
            words.push(self.naming.words(self.key(at)));
            at = self.parent(at);
        }
        words.reverse();
        words.join("_")
    }

    /// The table that the field belongs to, or the document.
    fn scope(&self, field: FieldId) -> FieldId {
        let mut scope = field;
        while scope != FieldId::ROOT && !self.node(scope).table {
            scope = self.parent(scope);
        }
        scope
    }

    /// Whether the field has a column name: the names of the members' columns then begin with it.
    fn has_column(&self, field: FieldId) -> bool {
        let node = self.node(field);
        !node.without_prefix && !self.naming.normalise(&node.key).is_empty()
    }

    /// What the name of the member `key` of `parent` says about its privacy.
    fn name_matches(&self, parent: FieldId, key: &str, has_column: bool) -> NameMatches {
        let mut found = self.private_names.follow(&self.node(parent).private_matches, self.naming, key);
        if !has_column && !self.private_names.is_empty() {
            // The names of its members' columns start over.
            found.add_partial(&self.node(self.scope(parent)).private_matches);
        }
        found
    }

    /// Decides whether the field is private because of its name.
    pub(super) fn match_private_names(&mut self, field: FieldId) {
        let node = self.node(field);
        if node.table {
            return;
        }
        let found = self.name_matches(node.parent, &node.key, self.has_column(field));
        let privacy = if node.conventional { found.path } else { found.path.max(found.column) };
        let node = &mut self.nodes[field.0 as usize];
        node.privacy = node.privacy.or(privacy);
        node.private_matches = found.partial;
    }

    /// Marks a field that the format defines: it is private only at its own path, never for its column's name.
    pub fn set_conventional(&mut self, field: FieldId) {
        self.nodes[field.0 as usize].conventional = true;
    }

    /// Whether a member of `field`, at any depth, is or may be private.
    pub fn has_private_descendant(&self, field: FieldId) -> bool {
        let node = self.node(field);
        node.private_within || !node.private_matches.is_empty()
    }

    /// How the field is redacted before anything is stored, if it is private.
    pub fn privacy(&self, field: FieldId) -> Option<Privacy> {
        self.node(field).privacy
    }

    /// Sets the form of hashes in the next document, and their form in the output.
    pub fn set_hash_forms(&mut self, input: HashForm, output: HashForm) {
        (self.input_hashes, self.output_hashes, self.hashes_written) = (input, output, 0);
    }

    /// The SHA-256 that replaces a private value. A value that is already a hash is kept.
    pub fn hash(&mut self, value: &str) -> String {
        self.hashes_written += 1;
        let existing = value.strip_prefix(HASH_PREFIX).filter(|_| self.input_hashes == HashForm::Prefixed);
        let hash = existing.map_or_else(|| hex(&Sha256::digest(value.as_bytes())), str::to_owned);
        match self.output_hashes {
            HashForm::Plain => hash,
            HashForm::Prefixed => format!("{HASH_PREFIX}{hash}"),
        }
    }

    /// Forgets the hashes that `write` has written if it fails: then its output is not used.
    pub fn count_hashes<T, E>(&mut self, write: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let before = self.hashes_written;
        write(self).inspect_err(|_| self.hashes_written = before)
    }

    /// The document that was written with prefixed hashes since the forms were set, with hashes in their plain form; `None` if
    /// the document holds the prefix elsewhere, too.
    pub fn without_hash_prefixes<'d>(&self, document: &'d str) -> Option<Cow<'d, str>> {
        if self.hashes_written == 0 {
            return Some(Cow::Borrowed(document));
        }
        let has_others = document.matches(HASH_PREFIX).count() != self.hashes_written;
        (!has_others).then(|| Cow::Owned(document.replace(HASH_PREFIX, "")))
    }
}
