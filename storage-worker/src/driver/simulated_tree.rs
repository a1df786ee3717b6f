//! The tree of a simulated file system: what processes see now, and what would be left after a power cut.
//!
//! Pure memory without faults of its own; `simulated.rs` adds those and the driver's calls.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::EntryKind;
use super::EntryStat;

/// Granularity of holes.
pub(super) const PAGE_BYTES: usize = 4096;

pub(super) type NodeId = u64;
type Page = Arc<[u8]>;

/// The root folder's node.
pub(super) const ROOT: NodeId = 0;

/// Content of a file: pages that were written, everything else is a hole.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub bytes: u64,
    pub pages: BTreeMap<u64, Page>,
}

impl Content {
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let (page, within) = (at / PAGE_BYTES as u64, (at % PAGE_BYTES as u64) as usize);
            let part = (PAGE_BYTES - within).min(length - done);
            match self.pages.get(&page) {
                Some(bytes) => buffer[done..done + part].copy_from_slice(&bytes[within..within + part]),
                None => buffer[done..done + part].fill(0),
            }
            done += part;
        }
        length
    }

    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (page, within) = (at / PAGE_BYTES as u64, (at % PAGE_BYTES as u64) as usize);
            let part = (PAGE_BYTES - within).min(bytes.len() - done);
            let old = self.pages.get(&page).map_or_else(|| vec![0; PAGE_BYTES], |page| page.to_vec());
            let mut new = old;
            new[within..within + part].copy_from_slice(&bytes[done..done + part]);
            self.pages.insert(page, new.into());
            done += part;
        }
        self.bytes = self.bytes.max(offset + bytes.len() as u64);
    }

    /// Pages that a write would add.
    pub fn new_pages(&self, length: usize, offset: u64) -> u64 {
        if length == 0 {
            return 0;
        }
        let last = (offset + length as u64 - 1) / PAGE_BYTES as u64;
        let first = offset / PAGE_BYTES as u64;
        let held = self.pages.range(first..=last).count() as u64;
        last - first + 1 - held
    }
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Node {
    File(Content),
    Folder(BTreeMap<String, NodeId>),
    Special(EntryKind),
}

/// All nodes, as seen now and as last synced.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    durable: BTreeMap<NodeId, Node>,
    /// Pages that look clean and were never written: a sync of them failed.
    lost: BTreeMap<NodeId, BTreeSet<u64>>,
    next: NodeId,
}

/// One of two, as good as at random.
fn is_drawn(seed: u64, node: NodeId, page: u64) -> bool {
    let mixed = (seed ^ node.rotate_left(32) ^ page.rotate_left(16)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed >> 63 == 1
}

pub(super) fn errno(errno: Errno) -> io::Error {
    errno.into()
}

impl Tree {
    pub fn new() -> Self {
        let root = Node::Folder(BTreeMap::new());
        Self {
            nodes: BTreeMap::from([(ROOT, root.clone())]),
            durable: BTreeMap::from([(ROOT, root)]),
            lost: BTreeMap::new(),
            next: ROOT + 1,
        }
    }

    /// Forgets what was not synced.
    pub fn crash(&mut self) {
        self.nodes = self.durable.clone();
        self.lost.clear();
    }

    /// A sync of a file fails: what it was to write stays in memory, looks clean, and is never written.
    pub fn lose(&mut self, id: NodeId) -> io::Result<()> {
        let now = self.content(id)?;
        let durable = match self.durable.get(&id) {
            Some(Node::File(durable)) => durable.pages.clone(),
            _ => BTreeMap::new(),
        };
        let lost: Vec<u64> =
            now.pages.iter().filter(|(page, bytes)| durable.get(page) != Some(bytes)).map(|(page, _)| *page).collect();
        self.lost.entry(id).or_default().extend(lost);
        Ok(())
    }

    /// A file as the storage would have it after a sync: without the pages that were lost.
    pub fn beneath_cache(&self, id: NodeId) -> io::Result<Content> {
        let mut content = self.content(id)?.clone();
        for page in self.lost.get(&id).into_iter().flatten() {
            let durable = match self.durable.get(&id) {
                Some(Node::File(durable)) => durable.pages.get(page),
                _ => None,
            };
            match durable {
                Some(bytes) => content.pages.insert(*page, bytes.clone()),
                None => content.pages.remove(page),
            };
        }
        Ok(content)
    }

    /// Lets go of what is in memory of a file that was synced.
    pub fn drop_cache(&mut self, id: NodeId) -> io::Result<()> {
        let content = self.beneath_cache(id)?;
        *self.content_mut(id)? = content;
        self.lost.remove(&id);
        Ok(())
    }

    /// Writes into a file; a page that was lost is to be written out again, all of it.
    pub fn write(&mut self, id: NodeId, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.content_mut(id)?.write(bytes, offset);
        if let (Some(lost), false) = (self.lost.get_mut(&id), bytes.is_empty()) {
            let pages = offset / PAGE_BYTES as u64..=(offset + bytes.len() as u64 - 1) / PAGE_BYTES as u64;
            lost.retain(|page| !pages.contains(page));
        }
        Ok(())
    }

    /// Makes a part of what was not synced durable, page by page; a seed determines which. Names stay as they were.
    pub fn write_out_some(&mut self, seed: u64) {
        for (id, node) in &self.nodes {
            let (Node::File(now), Some(Node::File(durable))) = (node, self.durable.get_mut(id)) else { continue };
            let mut grown = false;
            for (page, bytes) in &now.pages {
                if durable.pages.get(page) != Some(bytes) && is_drawn(seed, *id, *page) {
                    durable.pages.insert(*page, bytes.clone());
                    grown = true;
                }
            }
            if grown {
                durable.bytes = durable.bytes.max(now.bytes);
            }
        }
    }

    /// Makes a node's present state durable: a file's content, or a folder's names.
    pub fn sync(&mut self, id: NodeId) -> io::Result<()> {
        let mut node = self.nodes.get(&id).ok_or_else(|| errno(Errno::STALE))?.clone();
        if let Node::File(content) = &mut node {
            *content = self.beneath_cache(id)?;
        }
        if let Node::Folder(names) = &node {
            // A durable name leads to something: what was never synced itself is then an empty file or folder.
            for child in names.values() {
                if let (false, Some(found)) = (self.durable.contains_key(child), self.nodes.get(child)) {
                    let empty = match found {
                        Node::File(_) => Node::File(Content::default()),
                        Node::Folder(_) => Node::Folder(BTreeMap::new()),
                        Node::Special(kind) => Node::Special(*kind),
                    };
                    self.durable.insert(*child, empty);
                }
            }
        }
        self.durable.insert(id, node);
        Ok(())
    }

    pub fn node(&self, id: NodeId) -> io::Result<&Node> {
        self.nodes.get(&id).ok_or_else(|| errno(Errno::STALE))
    }

    pub fn content(&self, id: NodeId) -> io::Result<&Content> {
        match self.node(id)? {
            Node::File(content) => Ok(content),
            _ => Err(errno(Errno::STALE)),
        }
    }

    pub fn content_mut(&mut self, id: NodeId) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(content)) => Ok(content),
            _ => Err(errno(Errno::STALE)),
        }
    }

    pub fn folder(&self, id: NodeId) -> io::Result<&BTreeMap<String, NodeId>> {
        match self.node(id)? {
            Node::Folder(names) => Ok(names),
            Node::Special(EntryKind::SymbolicLink) => Err(errno(Errno::LOOP)),
            _ => Err(errno(Errno::NOTDIR)),
        }
    }

    fn folder_mut(&mut self, id: NodeId) -> io::Result<&mut BTreeMap<String, NodeId>> {
        self.folder(id)?;
        match self.nodes.get_mut(&id) {
            Some(Node::Folder(names)) => Ok(names),
            _ => Err(errno(Errno::NOTDIR)),
        }
    }

    /// Walks down plain names separated by slashes; an empty text is where it starts.
    pub fn walk(&self, from: NodeId, text: &str) -> io::Result<NodeId> {
        text.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(from, |at, name| self.folder(at)?.get(name).copied().ok_or_else(|| errno(Errno::NOENT)))
    }

    pub fn add(&mut self, folder: NodeId, name: &str, node: Node) -> io::Result<NodeId> {
        if self.folder(folder)?.contains_key(name) {
            return Err(errno(Errno::EXIST));
        }
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        self.folder_mut(folder)?.insert(name.to_owned(), id);
        Ok(id)
    }

    pub fn link(&mut self, node: NodeId, folder: NodeId, name: &str) -> io::Result<()> {
        match self.folder_mut(folder)?.entry(name.to_owned()) {
            std::collections::btree_map::Entry::Occupied(_) => Err(errno(Errno::EXIST)),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(node);
                Ok(())
            }
        }
    }

    /// Takes a name away. A node without names stays: open handles still use it.
    pub fn remove(&mut self, folder: NodeId, name: &str, wanted: EntryKind) -> io::Result<()> {
        let id = self.folder(folder)?.get(name).copied().ok_or_else(|| errno(Errno::NOENT))?;
        match (self.node(id)?, wanted) {
            (Node::Folder(names), EntryKind::Folder) if !names.is_empty() => return Err(errno(Errno::NOTEMPTY)),
            (Node::Folder(_), EntryKind::Folder) => {}
            (Node::Folder(_), _) => return Err(errno(Errno::ISDIR)),
            (_, EntryKind::Folder) => return Err(errno(Errno::NOTDIR)),
            _ => {}
        }
        self.folder_mut(folder)?.remove(name);
        Ok(())
    }

    pub fn rename(&mut self, from: (NodeId, &str), to: (NodeId, &str)) -> io::Result<()> {
        let id = self.folder(from.0)?.get(from.1).copied().ok_or_else(|| errno(Errno::NOENT))?;
        if let Some(target) = self.folder(to.0)?.get(to.1).copied() {
            match (self.node(id)?, self.node(target)?) {
                (Node::Folder(_), Node::Folder(names)) if names.is_empty() => {}
                (Node::Folder(_), Node::Folder(_)) => return Err(errno(Errno::NOTEMPTY)),
                (Node::Folder(_), _) => return Err(errno(Errno::NOTDIR)),
                (_, Node::Folder(_)) => return Err(errno(Errno::ISDIR)),
                // Two links of one inode: the rename does nothing, and says so to nobody.
                _ if target == id => return Ok(()),
                _ => {}
            }
        }
        self.folder_mut(from.0)?.remove(from.1);
        self.folder_mut(to.0)?.insert(to.1.to_owned(), id);
        Ok(())
    }

    pub fn stat(&self, id: NodeId) -> io::Result<EntryStat> {
        let (kind, bytes, pages) = match self.node(id)? {
            Node::File(content) => (EntryKind::File, content.bytes, content.pages.len()),
            Node::Folder(_) => (EntryKind::Folder, 0, 0),
            Node::Special(kind) => (*kind, 0, 0),
        };
        let names = self.nodes.values().map(|node| match node {
            Node::Folder(names) => names.values().filter(|child| **child == id).count() as u64,
            _ => 0,
        });
        Ok(EntryStat { kind, bytes, allocated_bytes: (pages * PAGE_BYTES) as u64, links: names.sum() })
    }

    /// Bytes that files take.
    pub fn used_bytes(&self) -> u64 {
        let pages = self.nodes.values().map(|node| match node {
            Node::File(content) => content.pages.len() as u64,
            _ => 0,
        });
        pages.sum::<u64>() * PAGE_BYTES as u64
    }
}
