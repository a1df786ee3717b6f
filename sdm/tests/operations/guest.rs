//! A guest that writes: through qemu, into the leaf, as long as the disk is attached to its host.

use super::World;
use super::world::DISK_BYTES;
use crate::cluster::text_of;
use crate::host::run;
use crate::host::text;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

impl World {
    /// Writes so many KiB of a byte at an offset, on the storage and in the model.
    ///
    /// # Panics
    /// It cannot.
    #[track_caller]
    pub fn guest_writes(&mut self, disk: &str, at_kib: u64, kib: u64, byte: u8) {
        self.sdm.done(&["disk", "attach", disk, "--host", self.host]);
        let leaf = self.leaf_of(disk);
        let write = format!("write -P {byte} {at_kib}k {kib}k");
        run("qemu-io", &["-f", self.model[disk].format, "-c", &write, "-c", "flush", text(&leaf)]);
        self.sdm.done(&["disk", "detach", disk]);
        let content = self.own_content(disk);
        let bytes = vec![byte; usize::try_from(kib << 10).expect("some KiB")];
        let file = File::options().write(true).open(content).expect("the model's file is there");
        file.write_all_at(&bytes, at_kib << 10).expect("it is written");
    }

    /// Makes the file that is to become a disk.
    ///
    /// # Panics
    /// It cannot.
    pub fn make_file(&self, disk: &str) {
        let file = File::create_new(self.file_of(disk)).expect("the file is new");
        file.set_len(DISK_BYTES).and_then(|()| file.write_all_at(&[0x66; 70_000], 5000)).expect("it is written");
    }

    /// The file of a disk's leaf.
    #[track_caller]
    pub fn leaf_of(&self, disk: &str) -> PathBuf {
        let shown = self.sdm.done(&["disk", "show", disk]);
        let leaf = shown["volumes"].as_array().and_then(|volumes| volumes.last()).expect("a chain is never empty");
        Path::new(text_of(leaf, "path")).to_owned()
    }
}
