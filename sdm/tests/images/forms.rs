//! One file system in each form, and the proof that an exported copy is the same.

use super::tree;
use crate::host::Need;
use crate::host::Scratch;
use crate::host::run;
use crate::host::text;
use crate::host::try_run;
use serde_json::Value;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// What making and judging images needs.
pub const TOOLS: &[Need] =
    &[Need::Tool("qemu-img"), Need::Tool("qemu-io"), Need::Tool("mkfs.ext4"), Need::Tool("e2fsck")];

/// Size of the file system.
const BYTES: u64 = 512 << 20;

/// Name of the internal snapshot, and of the bitmap.
const SNAPSHOT: &str = "before-the-update";
const BITMAP: &str = "backup-0";

/// An image.
#[derive(Debug, Clone)]
pub struct Form {
    /// Name of the form, also the disk's.
    pub name: &'static str,
    /// What `--format` says: raw or qcow2.
    pub format: &'static str,
    /// The file.
    pub file: PathBuf,
}

/// All forms of one file system.
pub struct Images {
    /// Raw first.
    pub forms: Vec<Form>,
    scratch: Scratch,
}

impl Images {
    /// Makes them.
    ///
    /// # Panics
    /// A tool fails.
    pub fn make() -> Self {
        let scratch = Scratch::new("images");
        let tree = scratch.folder("tree");
        tree::make(&tree).expect("the tree is made");
        let raw = scratch.join("raw");
        let file = File::create_new(&raw).expect("the file is new");
        file.set_len(BYTES).expect("it gets its size");
        drop(file);
        run("mkfs.ext4", &["-q", "-F", "-d", text(&tree), text(&raw)]);
        std::fs::remove_dir_all(&tree).expect("the tree is needed no more");
        let mut images = Self { forms: Vec::new(), scratch };
        images.forms.push(Form { name: "raw", format: "raw", file: raw });
        images.convert("plain", &[]);
        images.convert("zlib", &["-c", "-o", "compression_type=zlib"]);
        images.convert("zstd", &["-c", "-o", "compression_type=zstd"]);
        images.convert("layered", &[]);
        add_history(&images.get("layered").file);
        images
    }

    /// A form by its name.
    ///
    /// # Panics
    /// There is none.
    pub fn get(&self, name: &str) -> &Form {
        self.forms.iter().find(|form| form.name == name).unwrap_or_else(|| panic!("there is no form {name}"))
    }

    fn convert(&mut self, name: &'static str, options: &[&str]) {
        let (raw, file) = (self.get("raw").file.clone(), self.scratch.join(name));
        let fixed = ["convert", "-f", "raw", "-O", "qcow2"];
        let arguments: Vec<&str> = fixed.iter().chain(options).copied().chain([text(&raw), text(&file)]).collect();
        run("qemu-img", &arguments);
        self.forms.push(Form { name, format: "qcow2", file });
    }
}

/// An internal snapshot, a bitmap, and a change after both: in the first sector, which ext4 leaves
/// to boot loaders.
fn add_history(image: &Path) {
    run("qemu-img", &["snapshot", "-c", SNAPSHOT, text(image)]);
    run("qemu-img", &["bitmap", "--add", "-g", "64k", text(image), BITMAP]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -q -P 0x5a 0 512", text(image)]);
}

/// Whether an exported file is what was imported, as every tool sees it. `work` is a folder for
/// a conversion.
///
/// # Panics
/// It is not.
#[track_caller]
pub fn check_export(form: &Form, exported: &Path, work: &Path) {
    let Form { name, format, file } = form;
    assert_eq!(differing_bytes(file, exported), None, "{name}: the first byte that differs");
    let formats = ["-f", format, "-F", format];
    let compared = run("qemu-img", &[&["compare"], &formats[..], &[text(file), text(exported)]].concat());
    assert!(compared.contains("identical"), "{name}: {compared}");
    let (original, copy) = (std::fs::metadata(file), std::fs::metadata(exported));
    let (original, copy) = (original.expect("the original is there"), copy.expect("the copy is there"));
    // Holes stay holes; file systems differ in a few blocks of their own.
    assert!(copy.blocks() <= original.blocks() + original.blocks() / 20 + 2048, "{name}: {copy:?} of {original:?}");
    if *format == "qcow2" {
        let checked: Value = json(&run("qemu-img", &["check", "--output=json", "-f", "qcow2", text(exported)]));
        for trouble in ["check-errors", "corruptions", "leaks"] {
            assert!(checked[trouble].as_u64().unwrap_or(0) == 0, "{name}: {checked}");
        }
    }
    check_file_system(form, exported, work);
    if *name == "layered" {
        let info = json(&run("qemu-img", &["info", "--output=json", "-f", "qcow2", text(exported)]));
        assert_eq!(info["snapshots"][0]["name"], SNAPSHOT, "{info}");
        assert_eq!(info["format-specific"]["data"]["bitmaps"][0]["name"], BITMAP, "{info}");
    }
    if ["zlib", "zstd"].contains(name) {
        let info = json(&run("qemu-img", &["info", "--output=json", "-f", "qcow2", text(exported)]));
        assert_eq!(info["format-specific"]["data"]["compression-type"], *name, "{info}");
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn check_file_system(form: &Form, exported: &Path, work: &Path) {
    let converted = work.join(format!("{}.e2fsck", form.name));
    let raw = if form.format == "raw" {
        exported
    } else {
        run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(exported), text(&converted)]);
        &converted
    };
    let checked = try_run("e2fsck", &["-fn", text(raw)]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{}: {said}", form.name);
    if raw == converted {
        std::fs::remove_file(&converted).expect("it was just made");
    }
}

/// Where two files differ first; None when they are the same.
///
/// # Panics
/// One cannot be read.
#[track_caller]
pub fn differing_bytes(a: &Path, b: &Path) -> Option<u64> {
    let open = |path: &Path| File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut a, mut b) = (open(a), open(b));
    let (mut from_a, mut from_b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offset = 0;
    loop {
        let (length_a, length_b) = (fill(&mut a, &mut from_a), fill(&mut b, &mut from_b));
        let (part_a, part_b) = (&from_a[..length_a], &from_b[..length_b]);
        if part_a != part_b {
            let same = part_a.iter().zip(part_b).take_while(|(a, b)| a == b).count();
            return Some(offset + same as u64);
        }
        if length_a == 0 {
            return None;
        }
        offset += length_a as u64;
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("a file cannot be read: {error}"),
        }
    }
    filled
}
