//! Paths in a source's documents, as small numbers: what a value is called until the plan has found its column.
//!
//! A set of paths only grows, and only by what documents hold; [`crate::decode::Decoder::trim`] bounds it.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::names::{Naming, hex};

/// A path in the documents of a source, as a small number. [`Fields`] knows what it stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FieldId(pub u32);

impl FieldId {
    /// The document itself.
    pub const ROOT: Self = Self(0);
}

/// What is to be done with a private field before anything is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privacy {
    /// It is as if the source had not sent it.
    Drop,
    /// Its SHA-256, in hexadecimal, stands in its place.
    Sha256,
}

/// How hashes stand in a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashForm {
    /// As nothing but digits: so they are stored. Of a document that is read, that none is known for a hash.
    Plain,
    /// Behind a mark: so they are put away, to be told from values that only look like hashes.
    Prefixed,
}

/// What a hash stands behind where it is marked. A source would have to mean it.
const HASH_PREFIX: &str = "millstream:sha256:";

/// The paths met so far, each with its number. Numbers are stable for the life of the process only.
#[derive(Debug)]
pub struct FieldTree {
    naming: Naming,
    nodes: Vec<Node>,
    request_whole_objects: bool,
    /// Of the document that is at hand.
    input_hashes: HashForm,
    /// Of what becomes of it.
    output_hashes: HashForm,
}

#[derive(Debug)]
struct Node {
    parent: FieldId,
    key: Box<str>,
    path: Box<str>,
    column: Box<str>,
    children: HashMap<Box<str>, FieldId, foldhash::fast::RandomState>,
    /// The member that came first in this object when it was last seen, and the one that came after this member. Documents
    /// of one kind name their members in one order, so that most are found by one comparison.
    first_child_hint: FieldId,
    next_sibling_hint: FieldId,
    privacy: Option<Privacy>,
    private_within: bool,
    wants_whole: bool,
    synthetic: bool,
    container: bool,
    /// Whether paths and names begin anew within it: it is a table, and its members are the table's columns.
    table: bool,
}

impl FieldTree {
    /// An empty set; `naming` makes the column names.
    pub fn new(naming: Naming) -> Self {
        let (read, written) = (HashForm::Plain, HashForm::Plain);
        let mut fields = Self {
            naming,
            nodes: Vec::new(),
            request_whole_objects: false,
            input_hashes: read,
            output_hashes: written,
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
            wants_whole: false,
            synthetic: false,
            container: false,
            table: false,
        });
        field
    }

    fn node(&self, field: FieldId) -> &Node {
        &self.nodes[field.0 as usize]
    }

    /// How many numbers are in use; every [`Field`] is below it.
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

    /// The same, where the member is met right after `before`, or first.
    pub fn child_after(&mut self, parent: FieldId, before: Option<FieldId>, key: &str) -> FieldId {
        let guess = before.map_or(self.node(parent).first_child_hint, |before| self.node(before).next_sibling_hint);
        if guess != FieldId::ROOT && *self.node(guess).key == *key {
            return guess;
        }
        let found = self.child(parent, key);
        match before {
            None => self.nodes[parent.0 as usize].first_child_hint = found,
            Some(before) => self.nodes[before.0 as usize].next_sibling_hint = found,
        }
        found
    }

    fn add(&mut self, parent: FieldId, key: &str) -> FieldId {
        let above = self.node(parent);
        let step = key.replace('\\', "\\\\").replace('.', "\\.");
        let path = if parent == FieldId::ROOT || above.table { step } else { format!("{}.{step}", above.path) };
        let name = self.naming.normalise(key);
        let column = match (above.column.is_empty(), name.is_empty()) {
            (true, _) => name,
            (false, true) => String::new(),
            (false, false) => format!("{}_{name}", above.column),
        };
        let field = self.push(parent, key, path.into(), column.into());
        self.nodes[parent.0 as usize].children.insert(key.into(), field);
        field
    }

    /// A field that the decoder itself fills; it becomes a column only where one is declared for it.
    pub fn synthetic(&mut self, name: &str) -> FieldId {
        let field = self.child(FieldId::ROOT, name);
        self.nodes[field.0 as usize].synthetic = true;
        field
    }

    /// Whether the decoder itself fills the field.
    pub fn is_synthetic(&self, field: FieldId) -> bool {
        self.node(field).synthetic
    }

    /// A source's table, whose columns are its members.
    pub fn table(&mut self, name: &str) -> FieldId {
        let field = self.child(FieldId::ROOT, name);
        let node = &mut self.nodes[field.0 as usize];
        (node.table, node.container, node.column) = (true, true, "".into());
        field
    }

    /// The members of an object that have been met.
    pub fn members(&self, field: FieldId) -> impl Iterator<Item = FieldId> {
        self.node(field).children.values().copied()
    }

    /// The field at a configured path: steps parted by `.`, a literal dot written `\.`.
    pub fn intern_path(&mut self, path: &str) -> FieldId {
        self.intern_path_under(FieldId::ROOT, path)
    }

    /// The field at a configured path within another.
    pub fn intern_path_under(&mut self, field: FieldId, path: &str) -> FieldId {
        split_path(path).iter().fold(field, |field, step| self.child(field, step))
    }

    /// The last step of the path, as the source writes it.
    pub fn key(&self, field: FieldId) -> &str {
        &self.node(field).key
    }

    /// The path, as a configuration would write it.
    pub fn path(&self, field: FieldId) -> &str {
        &self.node(field).path
    }

    /// The column name that the path suggests; empty where it has no ASCII letter or digit.
    pub fn column(&self, field: FieldId) -> &str {
        &self.node(field).column
    }

    /// The object that the field is a member of.
    pub fn parent(&self, field: FieldId) -> FieldId {
        self.node(field).parent
    }

    /// Whether `field` is `ancestor` or lies within it.
    pub fn is_within(&self, field: FieldId, ancestor: FieldId) -> bool {
        let mut at = field;
        while at != ancestor && at != FieldId::ROOT {
            at = self.parent(at);
        }
        at == ancestor
    }

    /// Lets the members of `field` be named as if they stood at the top (Segment's `properties` and `traits`).
    pub fn without_prefix(&mut self, field: FieldId) {
        self.nodes[field.0 as usize].column = "".into();
    }

    /// Marks a field as private.
    pub fn set_privacy(&mut self, field: FieldId, privacy: Privacy) {
        self.nodes[field.0 as usize].privacy = Some(privacy);
        let mut above = field;
        while above != FieldId::ROOT {
            above = self.parent(above);
            self.nodes[above.0 as usize].private_within = true;
        }
    }

    /// Whether some member of `field`, however deep, is private.
    pub fn private_within(&self, field: FieldId) -> bool {
        self.node(field).private_within
    }

    /// What is to be done with the field before anything is stored.
    pub fn privacy(&self, field: FieldId) -> Option<Privacy> {
        self.node(field).privacy
    }

    /// Says how hashes stand in the document that comes next, and how they are to stand in what becomes of it.
    pub fn set_hash_forms(&mut self, read: HashForm, written: HashForm) {
        (self.input_hashes, self.output_hashes) = (read, written);
    }

    /// The SHA-256 that stands for a private value; a hash that was made before stays what it is.
    pub fn hash(&self, value: &str) -> String {
        let made = value.strip_prefix(HASH_PREFIX).filter(|_| self.input_hashes == HashForm::Prefixed);
        let hash = made.map_or_else(|| hex(&Sha256::digest(value.as_bytes())), str::to_owned);
        match self.output_hashes {
            HashForm::Plain => hash,
            HashForm::Prefixed => format!("{HASH_PREFIX}{hash}"),
        }
    }

    /// Asks decoders for the object at `field` as a whole, beside its members.
    pub fn request_whole_object(&mut self, field: FieldId) {
        self.nodes[field.0 as usize].wants_whole = true;
    }

    /// Asks decoders for every object as a whole, beside its members.
    pub fn request_whole_objects(&mut self) {
        self.request_whole_objects = true;
    }

    /// Whether some table wants the object at `field` as a whole.
    pub fn wants_whole_object(&self, field: FieldId) -> bool {
        self.request_whole_objects || self.node(field).wants_whole
    }

    /// Marks an object that only holds others together: its members are fields even where nested objects stay whole.
    pub fn set_container(&mut self, field: FieldId) {
        self.nodes[field.0 as usize].container = true;
    }

    /// Whether the object only holds others together.
    pub fn is_container(&self, field: FieldId) -> bool {
        self.node(field).container
    }
}

/// The steps of a configured path.
pub fn split_path(path: &str) -> Vec<String> {
    let mut steps = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' => steps.push(String::new()),
            '\\' => steps.last_mut().into_iter().for_each(|step| step.extend(characters.next())),
            _ => steps.last_mut().into_iter().for_each(|step| step.push(character)),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

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
