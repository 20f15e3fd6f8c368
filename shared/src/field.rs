//! Paths in a source's documents, as small numbers. They identify values until the plan has chosen their columns.
//!
//! A tree only grows, by the paths that documents contain; [`crate::decode::Decoder::reset_if_too_large`] bounds it. A node
//! holds only its own name: paths and column names are built when a column is resolved or an error is reported. The
//! limits below bound what one document can make of them.

mod private;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::names::{Naming, hex};
use crate::rejection::{DocumentLimit, Rejection, RejectionReason};
use private::{NameMatches, NameScope, PartialMatch, PrivateNames};

/// The name of a member in a document has at most this many bytes: PostgreSQL's names have 63, and longer ones are data.
pub const KEY_BYTES_MAX: usize = 1_024;

/// The path of a member in a document has at most this many bytes. Each value in `_overflow` carries its path, so a few
/// bytes per member under a long path would become as many paths.
pub const PATH_BYTES_MAX: usize = 2_048;

/// A document has at most this many fields, nested ones included: six times as many as a table has columns. At 2 KiB
/// each, their paths fit in memory.
pub const FIELDS_PER_DOCUMENT_MAX: u32 = 10_000;

/// An error shows at most this many bytes of a path that exceeds a limit.
const REPORTED_PATH_BYTES_MAX: usize = 100;

/// A path in the documents of a source, as a small number, which [`FieldTree`] resolves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FieldId(pub u32);

impl FieldId {
    /// The document itself.
    pub const ROOT: Self = Self(0);
}

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

/// The paths seen so far, each with its number. Numbers are stable only for the life of the tree.
#[derive(Debug)]
pub struct FieldTree {
    naming: Naming,
    nodes: Vec<Node>,
    private_names: PrivateNames,
    request_whole_objects: bool,
    /// The fields of the current document so far, and the bytes of their paths together.
    document_fields: u32,
    document_path_bytes: usize,
    /// The form in the current input document.
    input_hashes: HashForm,
    /// The form in the output, and how many hashes have been written in it.
    output_hashes: HashForm,
    hashes_written: usize,
}

#[derive(Debug)]
struct Node {
    parent: FieldId,
    key: Arc<str>,
    /// The length of the path.
    path_bytes: usize,
    children: HashMap<Arc<str>, FieldId, foldhash::fast::RandomState>,
    /// The first member of this object when it was last read, and the member that followed this one. Documents of one
    /// kind list their members in the same order, so one comparison finds most of them.
    first_child_hint: FieldId,
    next_sibling_hint: FieldId,
    privacy: Option<Privacy>,
    private_within: bool,
    /// The private names that a member of this object, at any depth, may complete.
    private_matches: Vec<PartialMatch>,
    wants_whole: bool,
    synthetic: bool,
    /// Whether the format itself defines the field.
    conventional: bool,
    container: bool,
    /// Whether it is a table whose members are its columns: paths and names start over within it.
    table: bool,
    /// Whether the column names of its members start over.
    without_prefix: bool,
}

impl FieldTree {
    /// Creates an empty tree; `naming` derives the column names.
    pub fn new(naming: Naming) -> Self {
        let mut fields = Self {
            naming,
            nodes: Vec::new(),
            private_names: PrivateNames::default(),
            request_whole_objects: false,
            document_fields: 0,
            document_path_bytes: 0,
            input_hashes: HashForm::Plain,
            output_hashes: HashForm::Plain,
            hashes_written: 0,
        };
        fields.push(FieldId::ROOT, "".into(), 0);
        fields.set_container(FieldId::ROOT);
        fields.set_without_prefix(FieldId::ROOT);
        fields
    }

    fn push(&mut self, parent: FieldId, key: Arc<str>, path_bytes: usize) -> FieldId {
        let field = FieldId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        let children = HashMap::default();
        self.nodes.push(Node {
            parent,
            key,
            first_child_hint: FieldId::ROOT,
            next_sibling_hint: FieldId::ROOT,
            path_bytes,
            children,
            privacy: None,
            private_within: false,
            private_matches: Vec::new(),
            wants_whole: false,
            synthetic: false,
            conventional: false,
            container: false,
            table: false,
            without_prefix: false,
        });
        field
    }

    fn node(&self, field: FieldId) -> &Node {
        &self.nodes[field.0 as usize]
    }

    /// How many numbers are in use; every [`FieldId`] is less than this.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The member `key` of the object at `parent`, added if it is new. For names of the configuration and of tables; the
    /// members of a document are found by [`child_after`](Self::child_after), which applies the limits.
    pub fn child(&mut self, parent: FieldId, key: &str) -> FieldId {
        self.find(parent, key).unwrap_or_else(|| self.add(parent, key, self.path_bytes_of(parent, key)))
    }

    /// The member `key` of the object at `parent`, if it is known. A private field may not be: it may be another spelling.
    pub fn find(&self, parent: FieldId, key: &str) -> Option<FieldId> {
        self.node(parent).children.get(key).copied()
    }

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

    /// Starts to count the fields of the next document.
    pub fn begin_document(&mut self) {
        (self.document_fields, self.document_path_bytes) = (0, 0);
    }

    /// The bytes of the paths of the current document's fields: as many as `_overflow` holds if no field has a column.
    pub fn document_path_bytes(&self) -> usize {
        self.document_path_bytes
    }

    /// The next member of a document's object at `parent`, which follows `before` or is the first. It is added if it is new.
    ///
    /// # Errors
    /// Returns a rejection if the document exceeds a limit.
    pub fn child_after(&mut self, parent: FieldId, before: Option<FieldId>, key: &str) -> Result<FieldId, Rejection> {
        self.document_fields += 1;
        if self.document_fields > FIELDS_PER_DOCUMENT_MAX {
            return Err(self.limit_rejection(parent, key, DocumentLimit::Fields));
        }
        let hint = before.map_or(self.node(parent).first_child_hint, |before| self.node(before).next_sibling_hint);
        if hint != FieldId::ROOT && *self.node(hint).key == *key {
            self.document_path_bytes += self.node(hint).path_bytes;
            return Ok(hint);
        }
        let child = match self.find(parent, key) {
            Some(child) => child,
            None => self.add_within_limits(parent, key)?,
        };
        self.document_path_bytes += self.node(child).path_bytes;
        match before {
            None => self.nodes[parent.0 as usize].first_child_hint = child,
            Some(before) => self.nodes[before.0 as usize].next_sibling_hint = child,
        }
        Ok(child)
    }

    fn add_within_limits(&mut self, parent: FieldId, key: &str) -> Result<FieldId, Rejection> {
        let path_bytes = self.path_bytes_of(parent, key);
        if key.len() > KEY_BYTES_MAX {
            Err(self.limit_rejection(parent, key, DocumentLimit::KeyBytes))
        } else if path_bytes > PATH_BYTES_MAX {
            Err(self.limit_rejection(parent, key, DocumentLimit::PathBytes))
        } else {
            Ok(self.add(parent, key, path_bytes))
        }
    }

    /// The rejection of a document that exceeds a limit at the member `key` of `parent`, with the beginning of its path.
    #[cold]
    fn limit_rejection(&self, parent: FieldId, key: &str, limit: DocumentLimit) -> Rejection {
        let mut path = String::new();
        if !self.starts_path(parent) {
            self.push_path(parent, &mut path);
            path.push('.');
        }
        push_step(&key[..key.floor_char_boundary(REPORTED_PATH_BYTES_MAX)], &mut path);
        if path.len() > REPORTED_PATH_BYTES_MAX || key.len() > REPORTED_PATH_BYTES_MAX {
            path.truncate(path.floor_char_boundary(REPORTED_PATH_BYTES_MAX));
            path.push('…');
        }
        Rejection::new(RejectionReason::LimitExceeded { path, limit })
    }

    fn add(&mut self, parent: FieldId, key: &str, path_bytes: usize) -> FieldId {
        let key: Arc<str> = key.into();
        let field = self.push(parent, key.clone(), path_bytes);
        self.nodes[parent.0 as usize].children.insert(key, field);
        self.match_private_names(field);
        field
    }

    /// Whether the paths of an object's members begin with their own names.
    fn starts_path(&self, parent: FieldId) -> bool {
        parent == FieldId::ROOT || self.node(parent).table
    }

    /// The length of the path of the member `key` of `parent`.
    fn path_bytes_of(&self, parent: FieldId, key: &str) -> usize {
        let prefix = if self.starts_path(parent) { 0 } else { self.node(parent).path_bytes + 1 };
        prefix + key.len() + key.matches(NEEDS_ESCAPE).count()
    }

    fn push_path(&self, field: FieldId, path: &mut String) {
        let node = self.node(field);
        if !self.starts_path(node.parent) {
            self.push_path(node.parent, path);
            path.push('.');
        }
        push_step(&node.key, path);
    }

    fn push_column(&self, field: FieldId, column: &mut String) {
        let node = self.node(field);
        if node.without_prefix {
            return;
        }
        self.push_column(node.parent, column);
        let name = self.naming.normalise(&node.key);
        if name.is_empty() {
            column.clear();
        } else if column.is_empty() {
            *column = name;
        } else {
            column.push('_');
            column.push_str(&name);
        }
    }

    /// A field that the decoder fills. It becomes a column only if one is declared for it.
    pub fn intern_synthetic(&mut self, name: &str) -> FieldId {
        let field = self.child(FieldId::ROOT, name);
        self.nodes[field.0 as usize].synthetic = true;
        field
    }

    /// Whether the decoder fills the field.
    pub fn is_synthetic(&self, field: FieldId) -> bool {
        self.node(field).synthetic
    }

    /// A table of the source, whose members are its columns.
    pub fn intern_table(&mut self, name: &str) -> FieldId {
        let field = self.child(FieldId::ROOT, name);
        let node = &mut self.nodes[field.0 as usize];
        (node.table, node.container, node.without_prefix) = (true, true, true);
        field
    }

    /// The members of an object seen so far.
    pub fn members(&self, field: FieldId) -> impl Iterator<Item = FieldId> {
        self.node(field).children.values().copied()
    }

    /// The field at a configured path: steps separated by `.`, a literal dot written as `\.`.
    pub fn intern_path(&mut self, path: &str) -> FieldId {
        self.intern_path_under(FieldId::ROOT, path)
    }

    /// The field at a configured path within another field.
    pub fn intern_path_under(&mut self, field: FieldId, path: &str) -> FieldId {
        split_path(path).iter().fold(field, |field, step| self.child(field, step))
    }

    /// The last step of the path, as the source spells it.
    pub fn key(&self, field: FieldId) -> &str {
        &self.node(field).key
    }

    /// Builds the path, as written in a configuration.
    pub fn path(&self, field: FieldId) -> String {
        let mut path = String::with_capacity(self.node(field).path_bytes);
        self.push_path(field, &mut path);
        path
    }

    /// Builds the column name derived from the path; empty if the path has no ASCII letter or digit.
    pub fn column(&self, field: FieldId) -> String {
        let mut column = String::new();
        self.push_column(field, &mut column);
        column
    }

    /// The object that the field is a member of.
    pub fn parent(&self, field: FieldId) -> FieldId {
        self.node(field).parent
    }

    /// Whether `field` is `ancestor` or lies within it.
    pub fn is_within(&self, field: FieldId, ancestor: FieldId) -> bool {
        let mut current = field;
        while current != ancestor && current != FieldId::ROOT {
            current = self.parent(current);
        }
        current == ancestor
    }

    /// Names the members of `field` as if they were at the top level (Segment's `properties` and `traits`).
    pub fn set_without_prefix(&mut self, field: FieldId) {
        self.nodes[field.0 as usize].without_prefix = true;
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
    fn match_private_names(&mut self, field: FieldId) {
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

    /// Requests the object at `field` as a whole, in addition to its members.
    pub fn request_whole_object(&mut self, field: FieldId) {
        self.nodes[field.0 as usize].wants_whole = true;
    }

    /// Requests every object as a whole, in addition to its members.
    pub fn request_whole_objects(&mut self) {
        self.request_whole_objects = true;
    }

    /// Whether a table needs the object at `field` as a whole.
    pub fn wants_whole_object(&self, field: FieldId) -> bool {
        self.request_whole_objects || self.node(field).wants_whole
    }

    /// Marks an object that only groups its members: they are fields even if nested objects are stored whole.
    pub fn set_container(&mut self, field: FieldId) {
        self.nodes[field.0 as usize].container = true;
    }

    /// Whether the object only groups its members.
    pub fn is_container(&self, field: FieldId) -> bool {
        self.node(field).container
    }
}

/// The characters that a step of a path escapes.
const NEEDS_ESCAPE: [char; 2] = ['\\', '.'];

/// Appends one step of a path.
fn push_step(key: &str, path: &mut String) {
    for character in key.chars() {
        if NEEDS_ESCAPE.contains(&character) {
            path.push('\\');
        }
        path.push(character);
    }
}

/// The steps of a configured path.
pub fn split_path(path: &str) -> Vec<String> {
    let mut steps = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        if character == '.' {
            steps.push(String::new());
            continue;
        }
        let literal = if character == '\\' { characters.next() } else { Some(character) };
        if let Some(step) = steps.last_mut() {
            step.extend(literal);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields at these paths that are private, each with its privacy.
    fn private(fields: &mut FieldTree, paths: &[&str]) -> Vec<String> {
        let mut private = Vec::new();
        for path in paths {
            let field = fields.intern_path(path);
            private.extend(fields.privacy(field).map(|privacy| format!("{path} {privacy:?}")));
        }
        private
    }

    #[test]
    fn a_private_path_covers_other_spellings_and_what_shares_its_column() {
        let mut fields = FieldTree::new(Naming::Segment);
        let before = fields.intern_path("u.E-mail");
        let email = fields.intern_path("u.e_mail");
        let card = fields.intern_path("card_number");
        fields.set_private(&[(email, Privacy::Sha256), (card, Privacy::Drop)]);
        assert_eq!(fields.privacy(before), Some(Privacy::Sha256));
        let covered = [r"u\.eMail", "u_e_mail", "U.e-mail ", r"u\.e\.mail", "u_eMail", r"u\.e_mail\.domain"];
        assert_eq!(private(&mut fields, &covered), covered.map(|path| format!("{path} Sha256")));
        let covered = ["cardNumber", "Card Number", "card.number", r"card\.number"];
        assert_eq!(private(&mut fields, &covered), covered.map(|path| format!("{path} Drop")));
        let others = ["u.mail", "u.e", "e_mail", "u_e_mail_verified", "x.u.e_mail", "card", "card_number_last4"];
        assert_eq!(private(&mut fields, &others), [""; 0]);
        let (inside, other) = (fields.intern_path("Card"), fields.intern_path("cards"));
        assert!(fields.has_private_descendant(inside) && !fields.has_private_descendant(other));
    }

    #[test]
    fn a_field_of_the_format_is_private_only_at_its_own_path() {
        let mut fields = FieldTree::new(Naming::Segment);
        let (name, properties) = (fields.intern_path("name"), fields.intern_path("properties"));
        fields.set_conventional(name);
        fields.set_without_prefix(properties);
        let private_field = fields.intern_path("properties.name");
        fields.set_private(&[(private_field, Privacy::Drop)]);
        let covered = ["Name", "traits.x", r"properties\.name", "Properties.Name", "name"];
        let private = private(&mut fields, &covered);
        assert_eq!(private, ["Name Drop", r"properties\.name Drop", "Properties.Name Drop"]);
        fields.set_private(&[(name, Privacy::Drop)]);
        assert_eq!(fields.privacy(name), Some(Privacy::Drop));
    }

    #[test]
    fn the_stricter_of_two_paths_for_one_column_applies_except_to_their_own_spellings() {
        let mut fields = FieldTree::new(Naming::Exact);
        let (hashed, dropped) = (fields.intern_path("Email"), fields.intern_path("email"));
        fields.set_private(&[(hashed, Privacy::Sha256), (dropped, Privacy::Drop)]);
        assert_eq!(private(&mut fields, &["Email", "email", "EMAIL"]), ["Email Sha256", "email Drop", "EMAIL Drop"]);
    }

    #[test]
    fn names_without_ascii_letters_are_matched_too() {
        let mut fields = FieldTree::new(Naming::Snake);
        let name = fields.intern_path("u.名前");
        fields.set_private(&[(name, Privacy::Drop)]);
        assert_eq!(private(&mut fields, &["U.名前 ", r"u\.名前", "u.名"]).len(), 2);
        let email = fields.intern_path("email");
        fields.set_private(&[(email, Privacy::Drop)]);
        // The column of a member of `名` has no prefix.
        assert_eq!(private(&mut fields, &["u.名.Email", r"名\.email", "名"]).len(), 2);
    }

    #[test]
    fn a_dot_in_a_key_is_not_a_step() {
        let mut fields = FieldTree::new(Naming::Segment);
        let dotted = fields.child(FieldId::ROOT, "a.b");
        let nested = fields.intern_path("a.b");
        assert_ne!(dotted, nested);
        assert_eq!(fields.path(dotted), r"a\.b");
        assert_eq!(fields.intern_path(r"a\.b"), dotted);
        assert_eq!((&*fields.column(dotted), &*fields.column(nested)), ("a_b", "a_b"));
    }

    #[test]
    fn columns_are_named_after_their_paths() {
        let mut fields = FieldTree::new(Naming::Segment);
        let properties = fields.intern_path("properties");
        fields.set_without_prefix(properties);
        let table = fields.intern_table("shop.orders");
        let in_table = fields.intern_path_under(table, "a.b");
        for (path, column) in [
            ("context.device.advertisingId", "context_device_advertising_id"),
            ("properties.homeTeam", "home_team"),
            ("properties", ""),
            ("context.事件", ""),
            // A name without a letter has no column, and those of its members start over.
            ("context.事件.id", "id"),
        ] {
            let field = fields.intern_path(path);
            assert_eq!((&*fields.path(field), &*fields.column(field)), (path, column));
        }
        assert_eq!((&*fields.path(in_table), &*fields.column(in_table)), ("a.b", "a_b"));
        assert_eq!(fields.path(FieldId::ROOT), "");
    }

    fn exceeded(result: Result<FieldId, Rejection>) -> (String, DocumentLimit) {
        let reason = result.unwrap_err().reason;
        let RejectionReason::LimitExceeded { path, limit } = reason else { panic!("{reason}") };
        (path, limit)
    }

    #[test]
    fn names_and_paths_beyond_the_limits_are_rejected_and_not_kept() {
        let mut fields = FieldTree::new(Naming::Segment);
        let longest = "é".repeat(KEY_BYTES_MAX / 2);
        let parent = fields.child_after(FieldId::ROOT, None, &longest).unwrap();
        let count = fields.count();
        let (path, limit) = exceeded(fields.child_after(FieldId::ROOT, Some(parent), &format!("{longest}x")));
        assert_eq!((path, limit), (format!("{}…", "é".repeat(REPORTED_PATH_BYTES_MAX / 2)), DocumentLimit::KeyBytes));
        let fits = "x".repeat(PATH_BYTES_MAX - KEY_BYTES_MAX - 1);
        let (path, limit) = exceeded(fields.child_after(parent, None, &format!("{}.", &fits[1..])));
        assert_eq!((path.chars().last(), limit), (Some('…'), DocumentLimit::PathBytes));
        assert_eq!(fields.count(), count);
        let longest_path = fields.child_after(parent, None, &fits).unwrap();
        assert_eq!(fields.path(longest_path).len(), PATH_BYTES_MAX);
        // A table's columns have paths of their own.
        let table = fields.intern_table(&"t".repeat(PATH_BYTES_MAX));
        assert!(fields.child_after(table, None, &longest).is_ok());
    }

    #[test]
    fn the_fields_of_each_document_are_counted() {
        let mut fields = FieldTree::new(Naming::Segment);
        for _document in 0..2 {
            fields.begin_document();
            let mut previous = None;
            for _field in 0..FIELDS_PER_DOCUMENT_MAX {
                previous = Some(fields.child_after(FieldId::ROOT, previous, "a").unwrap());
            }
            let (path, limit) = exceeded(fields.child_after(FieldId::ROOT, previous, "one.more"));
            assert_eq!((&*path, limit), (r"one\.more", DocumentLimit::Fields));
        }
        assert_eq!(fields.count(), 2);
    }
}
