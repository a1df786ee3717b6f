//! Storage as naive as can be: folders of files, files of blocks, and in each block the number of the write
//! that filled it. It knows nothing of the catalog: what a guest would see in a folder follows from the
//! files alone.

use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::token::Token;
use sdm_state::catalog::Format;
use sdm_state::domain_catalog::DomainCatalog;
use std::collections::BTreeMap;

/// Bytes of a block; all sizes are whole numbers of them.
pub const BLOCK: u64 = 1 << 20;

/// Number of the write that filled a block; 0: zeroes were written.
pub type Write = u64;

/// Blocks by number. What is not there is a hole.
pub type Blocks = BTreeMap<u64, Write>;

/// A file.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    pub format: Format,
    /// What a guest sees, in bytes.
    pub size: u64,
    /// Name of the file beneath, in the same folder.
    pub backing: Option<VolumeId>,
    pub blocks: Blocks,
}

/// A published folder, or one that is still being built.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// What its mark says.
    pub made_by: Token,
    pub txn: TxnId,
    /// Numbers of files: two folders may link one.
    pub files: BTreeMap<VolumeId, usize>,
    /// What stands beside the files for others to read.
    pub words: String,
}

/// A domain's own folder.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub name: String,
    /// Set while no cluster has it.
    pub given_up: Option<DomainCatalog>,
    pub folders: BTreeMap<String, Folder>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    pub files: Vec<File>,
    pub domains: BTreeMap<DomainId, Place>,
}

/// A call that failed.
pub type Broken = &'static str;

impl Storage {
    /// A domain that is ours.
    pub fn open(&mut self, id: DomainId) -> Result<&mut Place, Broken> {
        self.domains.get_mut(&id).filter(|place| place.given_up.is_none()).ok_or("this is not our domain")
    }

    pub fn folder(&self, domain: DomainId, name: &str) -> Option<&Folder> {
        self.domains.get(&domain)?.folders.get(name)
    }

    pub fn add(&mut self, file: File) -> usize {
        self.files.push(file);
        self.files.len() - 1
    }

    /// How many folders link a file.
    pub fn links(&self, file: usize) -> usize {
        let folders = self.domains.values().flat_map(|place| place.folders.values());
        folders.flat_map(|folder| folder.files.values()).filter(|number| **number == file).count()
    }

    pub fn file(&self, domain: DomainId, folder: &str, volume: VolumeId) -> Option<&File> {
        self.files.get(*self.folder(domain, folder)?.files.get(&volume)?)
    }

    /// What a guest sees through a volume: holes and zeroes are the same to it. None where a file is missing.
    pub fn seen(&self, domain: DomainId, folder: &str, volume: VolumeId) -> Option<Blocks> {
        let top = self.file(domain, folder, volume)?;
        let mut seen = Blocks::new();
        for block in 0..top.size / BLOCK {
            let write = self.block(domain, folder, top, block)?;
            if write != 0 {
                seen.insert(block, write);
            }
        }
        Some(seen)
    }

    fn block(&self, domain: DomainId, folder: &str, top: &File, block: u64) -> Option<Write> {
        let mut file = top;
        loop {
            if block >= file.size / BLOCK {
                return Some(0);
            }
            if let Some(write) = file.blocks.get(&block) {
                return Some(*write);
            }
            let Some(beneath) = file.backing else { return Some(0) };
            file = self.file(domain, folder, beneath)?;
        }
    }

    /// BLAKE3 of a file, as far as it can differ.
    pub fn hash(&self, file: &File) -> [u8; 32] {
        *blake3::hash(format!("{file:?}").as_bytes()).as_bytes()
    }

    /// What layers hold together, over whatever lies beneath the lowest: a hole stays one only where all have one.
    pub fn flattened(&self, layers: &[&File]) -> Blocks {
        let last = layers.iter().map(|file| file.size / BLOCK).max().unwrap_or_default();
        let mut blocks = Blocks::new();
        for block in 0..last {
            for file in layers.iter().rev() {
                if block >= file.size / BLOCK {
                    // Beyond its end nothing shines through from beneath.
                    blocks.insert(block, 0);
                    break;
                }
                match file.blocks.get(&block) {
                    Some(write) => _ = blocks.insert(block, *write),
                    None if file.format == Format::Raw => _ = blocks.insert(block, 0),
                    None => continue,
                }
                break;
            }
        }
        blocks
    }
}
