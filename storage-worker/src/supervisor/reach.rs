//! Which paths this worker may use: those beneath one of its prefixes. Compared as text, name by
//! name; nothing is looked up, because a lookup could hang.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

/// The prefixes; none given means every path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach(Vec<PathBuf>);

impl Reach {
    pub(crate) fn new(prefixes: Vec<PathBuf>) -> Self {
        Self(prefixes)
    }

    /// Whether a domain at this path is this worker's affair.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
        plain && (self.0.is_empty() || self.0.iter().any(|prefix| path.starts_with(prefix)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_whole_names_beneath_it_and_nothing_else() {
        let reach = Reach::new(vec!["/srv/nfs1".into()]);
        let covered = |path: &str| reach.covers(Path::new(path));
        assert!(covered("/srv/nfs1") && covered("/srv/nfs1/a"));
        assert!(!covered("/srv/nfs10") && !covered("/srv") && !covered("/srv/nfs1/../nfs2") && !covered("srv/nfs1"));
        assert!(Reach::default().covers(Path::new("/anywhere")));
    }
}
