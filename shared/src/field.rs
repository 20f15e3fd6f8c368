//! Paths in a source's documents, as small numbers. They identify values until the plan has chosen their columns.
//!
//! A tree only grows, by the paths that documents contain; [`crate::decode::Decoder::reset_if_too_large`] bounds it. A node
//! holds only its own name: paths and column names are built when a column is resolved or an error is reported. The
//! limits below bound what one document can make of them.

mod privacy;
mod private_names;

use std::collections::HashMap;
use std::sync::Arc;

use crate::names::Naming;
use crate::rejection::{DocumentLimit, Rejection, RejectionReason};
pub use privacy::{HashForm, Privacy};
use private_names::{PartialMatch, PrivateNames};

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
mod tests;
