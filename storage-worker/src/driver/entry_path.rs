//! A path beneath a driver's root: parts that are plain names, nothing else.

use std::fmt;

/// Longest name that every file system in use takes.
const NAME_BYTES_MAX: usize = 255;

/// A relative path without empty parts, `.`, `..` or NUL. The empty path is the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryPath(String);

/// A name that may not stand in an [`EntryPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a name for a file or folder", .0.escape_debug())]
pub struct InvalidEntryPath(String);

impl EntryPath {
    /// The root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Goes one name down.
    ///
    /// # Errors
    /// When `name` is empty, `.`, `..`, too long, or holds a slash or NUL.
    pub fn join(&self, name: &str) -> Result<Self, InvalidEntryPath> {
        let is_plain = !name.is_empty()
            && name != "."
            && name != ".."
            && name.len() <= NAME_BYTES_MAX
            && !name.contains(['/', '\0']);
        if !is_plain {
            return Err(InvalidEntryPath(name.to_owned()));
        }
        if self.0.is_empty() { Ok(Self(name.to_owned())) } else { Ok(Self(format!("{}/{name}", self.0))) }
    }

    /// Parses names separated by slashes.
    ///
    /// # Errors
    /// When any of them is not a plain name.
    pub fn parse(text: &str) -> Result<Self, InvalidEntryPath> {
        text.split('/').try_fold(Self::root(), |path, name| path.join(name))
    }

    /// The path as text; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder that holds this entry, and its name there; `None` for the root.
    pub fn split_last(&self) -> Option<(EntryPath, &str)> {
        match self.0.rsplit_once('/') {
            Some((parent, name)) => Some((Self(parent.to_owned()), name)),
            None if self.0.is_empty() => None,
            None => Some((Self::root(), &self.0)),
        }
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_make_a_path() {
        let path = EntryPath::parse("images/abc").expect("two plain names");
        assert_eq!(path.as_str(), "images/abc");
        assert_eq!(path.split_last(), Some((EntryPath::parse("images").expect("a name"), "abc")));
        let long = "x".repeat(256);
        for bad in ["", "/etc", "a//b", "../x", "a/..", ".", "a\0b", &long] {
            assert!(EntryPath::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
