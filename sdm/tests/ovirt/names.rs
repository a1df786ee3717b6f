//! Names in folders.

use std::path::Path;

/// What globs find.
pub fn visible_names(folder: &Path) -> Vec<String> {
    all_names(folder).into_iter().filter(|name| !name.starts_with('.')).collect()
}

/// All, sorted.
pub fn all_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a folder can be listed").file_name().into_string().expect("names are text"))
        .collect();
    names.sort();
    names
}

/// Whether vdsm takes it for an id.
pub fn is_uuid(name: &str) -> bool {
    let shape = |(at, c): (usize, char)| match at {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_digit() || ('a'..='f').contains(&c),
    };
    name.len() == 36 && name.chars().enumerate().all(shape)
}
