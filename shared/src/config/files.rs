//! The files that belong to a configuration: JSON Schemas and SQL transforms in folders next to `millstream.toml`, on disk or
//! under the same `s3://` prefix.
//!
//! A [`FilePath`] never leads out of the configuration's folder: not by `..`, not as an absolute path, and on disk not through
//! a symbolic link either.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::aws::Aws;
use crate::object_store::{self, ListMode, ObjectError, ObjectStore};

/// The longest key of an object on S3 is 1,024 bytes; this leaves as much for the folder of the configuration.
const PATH_BYTES_MAX: usize = 512;

/// The path of a file, or of a folder, relative to the folder of the configuration: `schemas/user.created.json`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FilePath(String);

/// Why a text is not a path in the folder of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilePathError {
    /// Absolute, or with more `..` than folders.
    #[error("leaves the folder of the configuration; files must be in it or in a folder below it")]
    Outside,
    /// Empty, too long, or with an empty step, a backslash or a control character.
    #[error("must be a relative path of at most {PATH_BYTES_MAX} bytes, such as \"schemas/user.created.json\"")]
    Invalid,
}

impl FilePath {
    /// Reads a path that is relative to the folder of the configuration.
    ///
    /// # Errors
    /// See [`FilePathError`].
    pub fn parse(text: &str) -> Result<Self, FilePathError> {
        Self::resolve("", text)
    }

    /// Reads a path that is relative to the folder of this file, as a file refers to another one.
    ///
    /// # Errors
    /// See [`FilePathError`].
    pub fn sibling(&self, text: &str) -> Result<Self, FilePathError> {
        Self::resolve(self.0.rsplit_once('/').map_or("", |(folder, _)| folder), text)
    }

    /// The text of the path, with `/` between its steps.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the file, without its folder and the ending `.extension`; `None` if it ends otherwise.
    pub fn stem(&self, extension: &str) -> Option<&str> {
        let name = self.0.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(extension)?.strip_suffix('.').filter(|stem| !stem.is_empty())
    }

    fn resolve(folder: &str, text: &str) -> Result<Self, FilePathError> {
        if text.starts_with('/') {
            return Err(FilePathError::Outside);
        }
        if text.contains(|character: char| character == '\\' || character.is_control()) {
            return Err(FilePathError::Invalid);
        }
        let mut steps: Vec<&str> = folder.split('/').filter(|step| !step.is_empty()).collect();
        for step in text.split('/') {
            match step {
                "" => return Err(FilePathError::Invalid),
                "." => {}
                ".." => {
                    steps.pop().ok_or(FilePathError::Outside)?;
                }
                step => steps.push(step),
            }
        }
        let path = steps.join("/");
        if path.is_empty() || path.len() > PATH_BYTES_MAX { Err(FilePathError::Invalid) } else { Ok(Self(path)) }
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a file of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file does not exist, or the process may not read it.
    #[error("could not read {file}: {source}")]
    Disk {
        /// The file.
        file: String,
        /// What failed.
        source: std::io::Error,
    },
    /// A symbolic link leads out of the folder of the configuration.
    #[error("{file} is a symbolic link out of the folder of the configuration; copy the file into the folder")]
    Link {
        /// The file.
        file: String,
    },
    /// S3 rejected the request, or the object is not UTF-8.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// Reads the files next to a configuration.
#[derive(Clone, Debug)]
pub struct Files(Folder);

#[derive(Clone, Debug)]
enum Folder {
    Disk(PathBuf),
    /// The store's own bucket is that of the configuration; the prefix is empty or ends with `/`.
    Bucket(ObjectStore, String),
}

impl Files {
    /// The files next to the configuration at an address: a path, or `s3://bucket/key`.
    ///
    /// # Errors
    /// Returns an error for an `s3://` address without a key.
    pub fn beside(config: &str, aws: &Aws) -> Result<Self, ObjectError> {
        if !object_store::is_address(config) {
            return Ok(Self(Folder::Disk(Path::new(config).parent().unwrap_or(Path::new("")).to_owned())));
        }
        let (bucket, key) = object_store::bucket_and_key(config)?;
        let prefix = key.rfind('/').map_or("", |slash| &key[..=slash]);
        Ok(Self(Folder::Bucket(ObjectStore::new(aws.clone(), Some(bucket.to_owned())), prefix.to_owned())))
    }

    /// The whole path or address of a file, for messages.
    pub fn name(&self, path: &FilePath) -> String {
        match &self.0 {
            Folder::Disk(folder) => folder.join(&path.0).display().to_string(),
            Folder::Bucket(store, prefix) => store.address(&format!("{prefix}{path}")).unwrap_or_default(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not UTF-8, or is a link out of the folder.
    pub async fn read(&self, path: &FilePath) -> Result<String, FileError> {
        let file = self.name(path);
        match &self.0 {
            Folder::Disk(folder) => read_file(folder, &folder.join(&path.0), &file),
            Folder::Bucket(store, _) => Ok(store.read_text(&file).await?),
        }
    }

    /// Lists the files of a folder that end in `.extension`, in the order of their names. Without the folder, there are none.
    /// Files of its own folders, and those whose names begin with a dot, are not listed.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be listed, or the name of a file is not a valid path.
    pub async fn list(&self, folder: &FilePath, extension: &str) -> Result<Vec<FilePath>, FileError> {
        let names = match &self.0 {
            Folder::Disk(root) => list_folder(&root.join(&folder.0))
                .map_err(|source| FileError::Disk { file: self.name(folder), source })?,
            Folder::Bucket(store, prefix) => list_prefix(store, &format!("{prefix}{folder}/")).await?,
        };
        let mut paths = Vec::new();
        for name in names {
            if name.starts_with('.') {
                continue;
            }
            let invalid = |error: FilePathError| FileError::Disk {
                file: format!("{}/{}", self.name(folder), name.escape_debug()),
                source: std::io::Error::new(std::io::ErrorKind::InvalidInput, error),
            };
            let path = FilePath::parse(&format!("{folder}/{name}")).map_err(invalid)?;
            if path.stem(extension).is_some() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

/// Reads a file of a folder, if it is in the folder once links have been followed.
fn read_file(folder: &Path, path: &Path, file: &str) -> Result<String, FileError> {
    let on_disk = |source| FileError::Disk { file: file.to_owned(), source };
    // The folder of a configuration without a folder in its path is the current one.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let (folder, path) = (folder.canonicalize().map_err(on_disk)?, path.canonicalize().map_err(on_disk)?);
    if !path.starts_with(folder) {
        return Err(FileError::Link { file: file.to_owned() });
    }
    std::fs::read_to_string(path).map_err(on_disk)
}

/// The names of the files in a folder; none if it does not exist.
fn list_folder(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        // A link counts as what it leads to: mounted configurations consist of links.
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// The names of the objects under a prefix, without those in folders of it.
async fn list_prefix(store: &ObjectStore, prefix: &str) -> Result<Vec<String>, ObjectError> {
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = store.list(prefix, &after, ListMode::CommonPrefixes).await?;
        names.extend(page.keys.iter().filter_map(|key| key.strip_prefix(prefix).map(str::to_owned)));
        let last = page.keys.into_iter().chain(page.folders).max();
        match last.filter(|_| page.more) {
            Some(last) => after = last,
            None => break,
        }
    }
    // The console creates an object with the name of the folder itself.
    names.retain(|name| !name.is_empty());
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_folder_of_the_configuration() {
        for (text, expected) in [
            ("schemas/a.json", Ok("schemas/a.json")),
            ("./schemas/../a.json", Ok("a.json")),
            ("..a", Ok("..a")),
            ("../a.json", Err(FilePathError::Outside)),
            ("schemas/../../a.json", Err(FilePathError::Outside)),
            ("/etc/passwd", Err(FilePathError::Outside)),
            ("a\\..\\b", Err(FilePathError::Invalid)),
            ("a//b", Err(FilePathError::Invalid)),
            ("a/", Err(FilePathError::Invalid)),
            ("", Err(FilePathError::Invalid)),
            (".", Err(FilePathError::Invalid)),
            ("a\nb", Err(FilePathError::Invalid)),
        ] {
            let found = FilePath::parse(text);
            assert_eq!(found.as_ref().map(FilePath::as_str).map_err(|error| *error), expected, "{text}");
        }
        assert_eq!(FilePath::parse(&"a".repeat(PATH_BYTES_MAX + 1)), Err(FilePathError::Invalid));
    }

    #[test]
    fn a_reference_is_relative_to_the_file_that_holds_it() {
        let schema = FilePath::parse("schemas/user.json").unwrap();
        assert_eq!(schema.sibling("money.json").unwrap().as_str(), "schemas/money.json");
        assert_eq!(schema.sibling("../types/money.json").unwrap().as_str(), "types/money.json");
        assert_eq!(schema.sibling("../../money.json"), Err(FilePathError::Outside));
        assert_eq!(FilePath::parse("user.json").unwrap().sibling("money.json").unwrap().as_str(), "money.json");
    }

    #[test]
    fn the_stem_of_a_file_is_its_name_without_the_ending() {
        let stem = |text: &str| FilePath::parse(text).unwrap().stem("sql").map(str::to_owned);
        assert_eq!(stem("transforms/velocity.sql").as_deref(), Some("velocity"));
        assert_eq!(stem("transforms/a.b.sql").as_deref(), Some("a.b"));
        assert_eq!(
            (stem("transforms/velocity.sql~"), stem("transforms/.sql"), stem("transforms/xsql")),
            (None, None, None)
        );
    }

    #[tokio::test]
    async fn files_are_read_and_listed_next_to_the_configuration() {
        let root = std::env::temp_dir().join(format!("millstream-files-{}", std::process::id()));
        let folder = root.join("system");
        std::fs::create_dir_all(folder.join("schemas/old")).unwrap();
        for (file, text) in [("b.json", "b"), ("a.json", "a"), ("a.txt", ""), (".a.json", ""), ("old/c.json", "")] {
            std::fs::write(folder.join("schemas").join(file), text).unwrap();
        }
        std::fs::write(root.join("outside.json"), "secret").unwrap();
        std::os::unix::fs::symlink(root.join("outside.json"), folder.join("link.json")).unwrap();
        std::os::unix::fs::symlink("schemas/a.json", folder.join("inside.json")).unwrap();
        let files = Files::beside(&folder.join("millstream.toml").to_string_lossy(), &Aws::default()).unwrap();
        let path = |text: &str| FilePath::parse(text).unwrap();

        let listed = files.list(&path("schemas"), "json").await.unwrap();
        assert_eq!(listed, [path("schemas/a.json"), path("schemas/b.json")]);
        assert_eq!(files.list(&path("transforms"), "sql").await.unwrap(), []);
        assert_eq!(files.read(&path("schemas/b.json")).await.unwrap(), "b");
        assert_eq!(files.read(&path("inside.json")).await.unwrap(), "a");
        assert!(matches!(files.read(&path("link.json")).await, Err(FileError::Link { .. })));
        let missing = files.read(&path("schemas/c.json")).await.unwrap_err().to_string();
        assert!(missing.contains("system/schemas/c.json: No such file"), "{missing}");
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_folder_on_s3_is_the_prefix_of_the_configuration() {
        let name = |config: &str| {
            Files::beside(config, &Aws::default()).map(|files| files.name(&FilePath::parse("schemas/a.json").unwrap()))
        };
        assert_eq!(name("s3://bucket/system/millstream.toml").unwrap(), "s3://bucket/system/schemas/a.json");
        assert_eq!(name("s3://bucket/millstream.toml").unwrap(), "s3://bucket/schemas/a.json");
        assert_eq!(name("millstream.toml").unwrap(), "schemas/a.json");
        assert!(name("s3://bucket").is_err());
    }
}
