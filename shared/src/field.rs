//! Paths in a source's documents, as small numbers. They identify values until the plan has chosen their columns.
//!
//! A tree only grows, by the paths that documents contain; [`crate::decode::Decoder::reset_if_too_large`] bounds it.

mod private;

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::names::{Naming, hex};
use private::{NameScope, PartialMatch, PrivateNames};

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
    /// The form in the current input document.
    input_hashes: HashForm,
    /// The form in the output.
    output_hashes: HashForm,
}

#[derive(Debug)]
struct Node {
    parent: FieldId,
    key: Box<str>,
    path: Box<str>,
    column: Box<str>,
    children: HashMap<Box<str>, FieldId, foldhash::fast::RandomState>,
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
}

impl FieldTree {
    /// Creates an empty tree; `naming` derives the column names.
    pub fn new(naming: Naming) -> Self {
        let mut fields = Self {
            naming,
            nodes: Vec::new(),
            private_names: PrivateNames::default(),
            request_whole_objects: false,
            input_hashes: HashForm::Plain,
            output_hashes: HashForm::Plain,
        };
        fields.push(FieldId::ROOT, "", "".into(), "".into());
        fields.set_container(FieldId::ROOT);
        fields
    }

    fn push(&mut self, parent: FieldId, key: &str, path: Box<str>, column: Box<str>) -> FieldId {
        let field = FieldId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        let children = HashMap::default();
        self.nodes.push(Node {
            parent,
            key: key.into(),
            first_child_hint: FieldId::ROOT,
            next_sibling_hint: FieldId::ROOT,
            path,
            column,
            children,
            privacy: None,
            private_within: false,
            private_matches: Vec::new(),
            wants_whole: false,
            synthetic: false,
            conventional: false,
            container: false,
            table: false,
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

    /// The member `key` of the object at `parent`.
    pub fn child(&mut self, parent: FieldId, key: &str) -> FieldId {
        match self.node(parent).children.get(key) {
            Some(&field) => field,
            None => self.add(parent, key),
        }
    }

    /// Like [`child`](Self::child), for the member that follows `before`, or the first member.
    pub fn child_after(&mut self, parent: FieldId, before: Option<FieldId>, key: &str) -> FieldId {
        let hint = before.map_or(self.node(parent).first_child_hint, |before| self.node(before).next_sibling_hint);
        if hint != FieldId::ROOT && *self.node(hint).key == *key {
            return hint;
        }
        let child = self.child(parent, key);
        match before {
            None => self.nodes[parent.0 as usize].first_child_hint = child,
            Some(before) => self.nodes[before.0 as usize].next_sibling_hint = child,
        }
        child
    }

    fn add(&mut self, parent: FieldId, key: &str) -> FieldId {
        let parent_node = self.node(parent);
        let step = key.replace('\\', "\\\\").replace('.', "\\.");
        let is_top = parent == FieldId::ROOT || parent_node.table;
        let path = if is_top { step } else { format!("{}.{step}", parent_node.path) };
        let name = self.naming.normalise(key);
        let column = match (parent_node.column.is_empty(), name.is_empty()) {
            (true, _) => name,
            (false, true) => String::new(),
            (false, false) => format!("{}_{name}", parent_node.column),
        };
        let field = self.push(parent, key, path.into(), column.into());
        self.nodes[parent.0 as usize].children.insert(key.into(), field);
        self.match_private_names(field);
        field
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
        (node.table, node.container, node.column) = (true, true, "".into());
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

    /// The path, as written in a configuration.
    pub fn path(&self, field: FieldId) -> &str {
        &self.node(field).path
    }

    /// The column name derived from the path; empty if the path has no ASCII letter or digit.
    pub fn column(&self, field: FieldId) -> &str {
        &self.node(field).column
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
        self.nodes[field.0 as usize].column = "".into();
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
            let column = self.words_up_to(field, |tree, at| tree.column(at).is_empty());
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

    /// Decides whether the field is private because of its name.
    fn match_private_names(&mut self, field: FieldId) {
        let node = self.node(field);
        if node.table {
            return;
        }
        let mut found = self.private_names.follow(&self.node(node.parent).private_matches, self.naming, &node.key);
        if node.column.is_empty() && !self.private_names.is_empty() {
            // The names of its members' columns start over.
            found.add_partial(&self.node(self.scope(field)).private_matches);
        }
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
        (self.input_hashes, self.output_hashes) = (input, output);
    }

    /// The SHA-256 that replaces a private value. A value that is already a hash is kept.
    pub fn hash(&self, value: &str) -> String {
        let existing = value.strip_prefix(HASH_PREFIX).filter(|_| self.input_hashes == HashForm::Prefixed);
        let hash = existing.map_or_else(|| hex(&Sha256::digest(value.as_bytes())), str::to_owned);
        match self.output_hashes {
            HashForm::Plain => hash,
            HashForm::Prefixed => format!("{HASH_PREFIX}{hash}"),
        }
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
        assert_eq!((fields.column(dotted), fields.column(nested)), ("a_b", "a_b"));
    }
}
