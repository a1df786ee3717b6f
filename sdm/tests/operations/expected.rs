//! What a disk is to be.

use std::path::PathBuf;

/// A disk.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Number of its domain: 0 or 1, or that of the spare one.
    pub domain: usize,
    /// Of its leaf: raw or qcow2.
    pub format: &'static str,
    /// What a guest sees, in bytes.
    pub size: u64,
    /// A raw file with that content.
    pub content: PathBuf,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Frozen>,
    /// Volumes of its chain, the leaf among them.
    pub layers: usize,
    /// Whether it is a template.
    pub template: bool,
    /// What is written about it.
    pub description: String,
    /// Whether its leaf is preallocated.
    pub preallocated: bool,
    /// Whether all its volumes may be used.
    pub legal: bool,
    /// Whether a host has it.
    pub attached: bool,
}

/// A snapshot.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// Its name.
    pub name: String,
    /// A raw file with what a guest saw then.
    pub content: PathBuf,
}

impl Expected {
    /// A disk of one volume.
    pub fn plain(domain: usize, format: &'static str, size: u64, content: PathBuf) -> Self {
        let (snapshots, description) = (Vec::new(), String::new());
        let (layers, template, preallocated, legal, attached) = (1, false, false, true, false);
        Self { domain, format, size, content, snapshots, layers, template, description, preallocated, legal, attached }
    }
}
