//! A volume: its file and its `.meta`.

use super::names::is_uuid;
use crate::host::run;
use crate::host::text;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// PUUID of a volume that has no parent.
pub const NO_PARENT: &str = "00000000-0000-0000-0000-000000000000";

/// A volume as vdsm sees it.
#[derive(Debug, Clone)]
pub struct FoundVolume {
    /// The image's folder.
    pub image: String,
    /// The volume's name.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Keys of its `.meta`.
    pub keys: BTreeMap<String, String>,
}

/// Keys that a volume has, in the order in which they stand.
const VOLUME_KEYS: [&str; 13] = [
    "CAP",
    "CTIME",
    "DESCRIPTION",
    "DISKTYPE",
    "DOMAIN",
    "FORMAT",
    "GEN",
    "IMAGE",
    "LEGALITY",
    "PUUID",
    "SEQ",
    "TYPE",
    "VOLTYPE",
];

impl FoundVolume {
    /// A key that is a number.
    pub fn number(&self, key: &str) -> u64 {
        self.keys[key].parse().unwrap_or_else(|_| panic!("{key} of {}: {:?}", self.name, self.keys))
    }

    /// As qemu calls it.
    pub fn format(&self) -> &'static str {
        if self.keys["FORMAT"] == "COW" { "qcow2" } else { "raw" }
    }

    /// The volume beneath; None for the base.
    pub fn parent(&self) -> Option<&str> {
        Some(self.keys["PUUID"].as_str()).filter(|parent| *parent != NO_PARENT)
    }

    /// Checks the file against its keys.
    ///
    /// # Panics
    /// They disagree.
    pub fn check_file(&self) {
        let (name, file) = (&self.name, &self.file);
        let metadata = std::fs::symlink_metadata(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(metadata.is_file(), "{name} is no regular file");
        let info = run("qemu-img", &["info", "--output=json", "-f", self.format(), text(file)]);
        let info: serde_json::Value = serde_json::from_str(&info).expect("qemu-img prints JSON");
        let (seen, cap) = (info["virtual-size"].as_u64().expect("a size"), self.number("CAP"));
        if self.format() == "raw" {
            // What a guest sees is the file's length.
            assert_eq!(cap, seen, "CAP of {name}");
        } else {
            // vdsm "repairs" a smaller one.
            assert!(cap >= seen, "CAP of {name} is {cap}, and a guest sees {seen}");
            run("qemu-img", &["check", "-q", "-f", "qcow2", text(file)]);
        }
        let magic = std::fs::File::open(file).and_then(|mut file| {
            let mut start = [0_u8; 4];
            std::io::Read::read_exact(&mut file, &mut start).map(|()| start)
        });
        let is_qcow2 = magic.is_ok_and(|start| start == *b"QFI\xfb");
        assert!(is_qcow2 || self.format() == "raw", "{name} says COW and is none");
        if self.keys["TYPE"] == "PREALLOCATED" {
            let allocated = metadata.blocks() * 512;
            assert!(allocated >= cap, "{name} says PREALLOCATED and has {allocated} bytes of {cap}");
            assert_eq!(self.format(), "raw", "{name}: oVirt preallocates raw volumes only");
        }
    }

    /// Checks that qemu finds the same layer beneath, by a bare name and in its recorded format.
    ///
    /// # Panics
    /// It does not.
    pub fn check_backing(&self, parent: Option<&Self>) {
        if self.format() == "raw" {
            assert!(parent.is_none(), "{} is raw and has a parent: oVirt wants COW there", self.name);
            return;
        }
        let info = run("qemu-img", &["info", "--output=json", "-f", "qcow2", text(&self.file)]);
        let info: serde_json::Value = serde_json::from_str(&info).expect("qemu-img prints JSON");
        let backing = (info["backing-filename"].as_str(), info["backing-filename-format"].as_str());
        let expected = (parent.map(|parent| parent.name.as_str()), parent.map(Self::format));
        assert_eq!(backing, expected, "backing of {} in {}", self.name, self.image);
    }
}

/// Lines KEY=VALUE.
pub fn keys_of(lines: &[&str]) -> BTreeMap<String, String> {
    let pair = |line: &&str| {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no KEY=VALUE"));
        (key.to_owned(), value.to_owned())
    };
    lines.iter().map(pair).collect()
}

/// Reads a `.meta` and checks each key by itself.
///
/// # Panics
/// vdsm could not read it.
pub fn volume_keys(path: &Path) -> BTreeMap<String, String> {
    let content = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(content.len() <= 512, "{} has {} bytes", path.display(), content.len());
    let lines: Vec<&str> = content.lines().collect();
    let (last, lines) = lines.split_last().expect("a .meta has lines");
    assert_eq!(*last, "EOF", "{content}");
    let order: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(order, VOLUME_KEYS, "{content}");
    let keys = keys_of(lines);
    let number = |key: &str| keys[key].parse::<u64>().unwrap_or_else(|_| panic!("{key} of {content}"));
    assert!(number("GEN") <= 999 && number("CTIME") > 1_500_000_000 && u32::try_from(number("SEQ")).is_ok());
    assert!(number("CAP") > 0, "{content}");
    for (key, one_of) in [
        ("DISKTYPE", &["DATA"][..]),
        ("FORMAT", &["RAW", "COW"]),
        ("LEGALITY", &["LEGAL", "ILLEGAL"]),
        ("TYPE", &["SPARSE", "PREALLOCATED"]),
        ("VOLTYPE", &["LEAF", "INTERNAL", "SHARED"]),
    ] {
        assert!(one_of.contains(&keys[key].as_str()), "{key} of {content}");
    }
    assert!(is_uuid(&keys["PUUID"]) && keys["DESCRIPTION"].len() <= 210, "{content}");
    keys
}
