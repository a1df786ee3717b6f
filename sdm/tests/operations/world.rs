//! Two domains of a cluster, the disks in them, and the model of both.

use super::Expected;
use super::expected::Frozen;
use super::spare::InTrash;
use super::spare::SPARE;
use super::spare::Spare;
use crate::cluster::Cluster;
use crate::cluster::Sdm;
use crate::host::Scratch;
use crate::host::text;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

/// Size of a disk unless a test says otherwise. Small: what matters is the number of operations.
pub const DISK_BYTES: u64 = 8 << 20;

/// The domains and their disks.
pub struct World {
    /// The operator, who knows all members.
    pub sdm: Sdm,
    /// The worker at which guests run.
    pub host: &'static str,
    /// Name and own folder of each domain.
    pub domains: [(String, PathBuf); 2],
    /// What is to be there: all disks of both domains, by name.
    pub model: BTreeMap<String, Expected>,
    /// The domain to which something is done.
    pub spare: Option<Spare>,
    /// Deleted disks that are kept, by name.
    pub trash: BTreeMap<String, InTrash>,
    /// The last plan of a collection.
    pub plan: String,
    scratch: Scratch,
    files: u32,
}

impl World {
    /// Two new domains of this cluster.
    #[track_caller]
    pub fn new(cluster: &Cluster, name: &str) -> Self {
        let domain = |number: u32| {
            let name = format!("{name}-{number}");
            let folder = cluster.make_domain(&name);
            (name, folder)
        };
        let domains = [domain(1), domain(2)];
        for (domain, _) in &domains {
            cluster.await_reach(domain, &["host-1"]);
        }
        let (sdm, scratch) = (cluster.sdm(), Scratch::new("content"));
        let (spare, trash, plan) = (None, BTreeMap::new(), String::new());
        Self { sdm, host: "host-1", domains, model: BTreeMap::new(), spare, trash, plan, scratch, files: 0 }
    }

    /// A domain's name.
    pub fn domain(&self, number: usize) -> &str {
        &self.domains[number].0
    }

    /// A new folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.scratch.folder(name)
    }

    /// The file that is to become a disk.
    pub fn file_of(&self, disk: &str) -> PathBuf {
        self.scratch.join(&format!("{disk}.img"))
    }

    /// A number that no earlier call has got.
    pub fn number(&mut self) -> u32 {
        self.files += 1;
        self.files
    }

    /// A new file for content.
    pub fn new_file(&mut self) -> PathBuf {
        let number = self.number();
        self.scratch.join(&format!("content-{number}"))
    }

    /// A new, empty content of this size.
    pub fn zeros(&mut self, bytes: u64) -> PathBuf {
        let path = self.new_file();
        let file = File::create_new(&path).expect("the file is new");
        file.set_len(bytes).expect("it gets its size");
        path
    }

    /// A copy of some content, to be changed.
    pub fn copy_of(&mut self, content: &Path) -> PathBuf {
        let path = self.new_file();
        std::fs::copy(content, &path).expect("content can be copied");
        path
    }

    /// The content of a disk, which no snapshot or other disk has in common with it any more.
    pub fn own_content(&mut self, disk: &str) -> PathBuf {
        let copy = self.copy_of(&self.model[disk].content.clone());
        self.expected(disk).content.clone_from(&copy);
        copy
    }

    /// What a disk is to be.
    #[track_caller]
    pub fn expected(&mut self, disk: &str) -> &mut Expected {
        self.model.get_mut(disk).unwrap_or_else(|| panic!("the model has no disk {disk}"))
    }

    /// Makes an empty disk in the first domain.
    #[track_caller]
    pub fn create(&mut self, disk: &str, format: &'static str) {
        self.create_in(0, disk, format);
    }

    /// Makes an empty disk in a domain.
    #[track_caller]
    pub fn create_in(&mut self, number: usize, disk: &str, format: &'static str) {
        let size = DISK_BYTES.to_string();
        let domain = if number == SPARE { self.spare().name.clone() } else { self.domain(number).to_owned() };
        self.sdm.done(&["disk", "create", disk, "--domain", &domain, "--size", &size, "--format", format]);
        let content = self.zeros(DISK_BYTES);
        self.model.insert(disk.to_owned(), Expected::plain(number, format, DISK_BYTES, content));
    }

    /// Makes an empty raw disk whose blocks are all allocated.
    #[track_caller]
    pub fn create_preallocated(&mut self, disk: &str) {
        let size = DISK_BYTES.to_string();
        let domain = self.domain(0).to_owned();
        self.sdm.done(&["disk", "create", disk, "--domain", &domain, "--size", &size, "--preallocate"]);
        let content = self.zeros(DISK_BYTES);
        let expected = Expected { preallocated: true, ..Expected::plain(0, "raw", DISK_BYTES, content) };
        self.model.insert(disk.to_owned(), expected);
    }

    /// Makes a disk into which a guest has written.
    #[track_caller]
    pub fn written(&mut self, disk: &str, format: &'static str) {
        self.create(disk, format);
        self.guest_writes(disk, 0, 512, 0x11);
        self.guest_writes(disk, 3000, 300, 0x22);
    }

    /// Takes a snapshot.
    #[track_caller]
    pub fn snapshot(&mut self, disk: &str, name: &str) {
        self.sdm.done(&["snapshot", "create", disk, name]);
        self.has_snapshot(disk, name);
    }

    /// In the model only: the disk has a snapshot of what it holds now.
    pub fn has_snapshot(&mut self, disk: &str, name: &str) {
        let expected = self.expected(disk);
        let frozen = Frozen { name: name.to_owned(), content: expected.content.clone() };
        expected.snapshots.push(frozen);
        expected.layers += 1;
        expected.format = "qcow2";
        expected.preallocated = false;
    }

    /// Makes a template of a disk, under this name.
    #[track_caller]
    pub fn template(&mut self, disk: &str, name: &str) {
        self.sdm.done(&["template", "make", disk, name]);
        self.has_copy(disk, name);
        self.expected(name).template = true;
    }

    /// In the model only: there is a disk with this one's content, of one volume, in the same domain.
    pub fn has_copy(&mut self, disk: &str, name: &str) {
        let Expected { domain, format, size, content, .. } = self.model[disk].clone();
        self.model.insert(name.to_owned(), Expected::plain(domain, format, size, content));
    }

    /// In the model only: there is a disk with one layer on all of this one's.
    pub fn has_linked_clone(&mut self, disk: &str, name: &str) {
        self.has_copy(disk, name);
        let layers = self.model[disk].layers;
        let clone = self.expected(name);
        clone.format = "qcow2";
        clone.layers = layers + 1;
    }

    /// In the model only: a disk is larger now.
    pub fn has_grown(&mut self, disk: &str, bytes: u64) {
        let content = self.own_content(disk);
        File::options().write(true).open(content).and_then(|file| file.set_len(bytes)).expect("the file grows");
        self.expected(disk).size = bytes;
    }

    /// A path as an argument.
    pub fn text(path: &Path) -> &str {
        text(path)
    }
}
