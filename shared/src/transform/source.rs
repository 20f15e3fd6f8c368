//! Reads the transforms of a configuration: the files `transforms/*.sql` next to it.

use super::file::{TransformFile, parse};
use super::graph::Graph;
use crate::config::{FileError, FilePath, Files};

/// The folder, next to the configuration.
const FOLDER: &str = "transforms";

/// The ending of the files.
const EXTENSION: &str = "sql";

/// The transforms of a configuration, and what is wrong with the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransformSet {
    /// Those whose headers are valid.
    pub transforms: Vec<TransformFile>,
    /// Their order.
    pub graph: Graph,
    /// The names of files that cannot be read as transforms, each with what is wrong.
    pub rejected: Vec<(String, String)>,
}

impl TransformSet {
    /// Puts transforms in order. `files` are their names, their paths and their texts.
    pub fn new(files: &[(String, String, String)]) -> Self {
        let (mut transforms, mut rejected) = (Vec::new(), Vec::new());
        for (name, path, text) in files {
            // An editor's byte order mark is no part of the query.
            match parse(name, path, text.strip_prefix('\u{feff}').unwrap_or(text)) {
                Ok(transform) => transforms.push(transform),
                Err(mistakes) => rejected.push((name.clone(), mistakes.join("; "))),
            }
        }
        Self { graph: Graph::new(&transforms), transforms, rejected }
    }

    /// Whether there is no file at all.
    pub fn is_empty(&self) -> bool {
        self.transforms.is_empty() && self.rejected.is_empty()
    }

    /// The names of all transforms, also of those that are rejected.
    pub fn names(&self) -> Vec<&str> {
        let valid = self.transforms.iter().map(|transform| &*transform.name);
        let mut names: Vec<&str> = valid.chain(self.rejected.iter().map(|(name, _)| &**name)).collect();
        names.sort_unstable();
        names
    }
}

/// Reads all transforms of a configuration; none if there is no folder.
///
/// # Errors
/// Returns an error if the folder or a file cannot be read. A file that is no transform is a part of the result.
pub async fn read_transforms(files: &Files) -> Result<TransformSet, FileError> {
    let Ok(folder) = FilePath::parse(FOLDER) else { return Ok(TransformSet::new(&[])) };
    let mut read = Vec::new();
    for path in files.list(&folder, EXTENSION).await? {
        let name = path.stem(EXTENSION).unwrap_or_default().to_owned();
        read.push((name, files.name(&path), files.read(&path).await?));
    }
    Ok(TransformSet::new(&read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_transform_does_not_hide_the_others() {
        let file = |name: &str, text: &str| (name.to_owned(), format!("{name}.sql"), text.to_owned());
        let set = TransformSet::new(&[
            file("a", "SELECT 1"),
            file("b", "\u{feff}-- target: s.b\n-- every: 1 hour\nSELECT 1"),
        ]);
        assert_eq!(set.names(), ["a", "b"]);
        assert_eq!(set.transforms.len(), 1);
        assert!(set.rejected[0].1.starts_with("a.sql:1:1: the header names no target"), "{:?}", set.rejected);
    }
}
