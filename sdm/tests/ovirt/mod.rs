//! A reader of storage domains, written from oVirt's rules alone and sharing no code with the
//! product: what vdsm would find in the folder. Checksums come from `sha1sum`, sizes of images from
//! `qemu-img`.

// Each test binary uses a part of it.
#![allow(dead_code)]

use crate::host::run;
use crate::host::text;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

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

/// Keys that a domain of version 5 has.
const DOMAIN_KEYS: [&str; 16] = [
    "ALIGNMENT",
    "BLOCK_SIZE",
    "CLASS",
    "DESCRIPTION",
    "IOOPTIMEOUTSEC",
    "LEASERETRIES",
    "LEASETIMESEC",
    "LOCKPOLICY",
    "LOCKRENEWALINTERVALSEC",
    "POOL_UUID",
    "REMOTE_PATH",
    "ROLE",
    "SDUUID",
    "TYPE",
    "VERSION",
    "_SHA_CKSUM",
];

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

/// Reads the domain in this folder and checks all that oVirt relies on. Answers with its volumes.
///
/// # Panics
/// Something is not as oVirt wants it.
#[track_caller]
pub fn read_domain(folder: &Path) -> Vec<FoundVolume> {
    let id = folder.file_name().and_then(|name| name.to_str()).expect("the folder has a name");
    assert!(is_uuid(id), "{id} is no name of a domain");
    let keys = domain_keys(folder);
    let expect = |key: &str, value: &str| assert_eq!(keys[key], value, "{key} of {id}");
    expect("SDUUID", id);
    expect("VERSION", "5");
    expect("TYPE", "LOCALFS");
    expect("CLASS", "Data");
    expect("ROLE", "Regular");
    expect("REMOTE_PATH", text(folder.parent().expect("it lies in a folder")));
    assert!(is_uuid(&keys["POOL_UUID"]), "POOL_UUID is {:?}", keys["POOL_UUID"]);
    for (file, bytes) in [("inbox", 16 << 20), ("outbox", 16 << 20), ("ids", 0), ("leases", 0)] {
        let length = std::fs::metadata(folder.join("dom_md").join(file)).expect("vdsm wants it").len();
        assert_eq!(length, bytes, "length of {file}");
    }
    let visible = visible_names(&folder.join("images"));
    visible.iter().flat_map(|image| read_image(&folder.join("images").join(image), id)).collect()
}

/// What no domain holds once all garbage was collected: names with a dot, besides our mark in each
/// folder, and images without volumes.
///
/// # Panics
/// Something is left over.
#[track_caller]
pub fn nothing_is_left_over(folder: &Path) {
    let hidden: Vec<_> = all_names(&folder.join("images")).into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(hidden.is_empty(), "left over in {}: {hidden:?}", folder.display());
    for name in all_names(folder.parent().expect("it lies in a folder")) {
        assert!(!name.starts_with(".sdm"), "left over beside the domain: {name}");
    }
}

fn domain_keys(folder: &Path) -> BTreeMap<String, String> {
    let content = std::fs::read_to_string(folder.join("dom_md/metadata")).expect("metadata is text");
    let lines: Vec<&str> = content.lines().collect();
    let (sum, others): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.starts_with("_SHA_CKSUM="));
    assert_eq!(sum, [format!("_SHA_CKSUM={}", sha1(&others.concat()))], "checksum of {content}");
    assert!(others.is_sorted(), "vdsm sorts the lines: {content}");
    let keys = keys_of(&lines);
    assert_eq!(keys.keys().map(String::as_str).collect::<Vec<_>>(), DOMAIN_KEYS, "keys of {content}");
    assert!(keys["DESCRIPTION"].len() <= 50, "DESCRIPTION of {content}");
    keys
}

fn keys_of(lines: &[&str]) -> BTreeMap<String, String> {
    let pair = |line: &&str| {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no KEY=VALUE"));
        (key.to_owned(), value.to_owned())
    };
    lines.iter().map(pair).collect()
}

/// An image's folder: its volumes, of which one is the leaf.
fn read_image(folder: &Path, domain: &str) -> Vec<FoundVolume> {
    let image = folder.file_name().and_then(|name| name.to_str()).expect("it has a name").to_owned();
    assert!(is_uuid(&image), "{image} is no name of an image");
    let mut volumes = Vec::new();
    for name in visible_names(folder) {
        let Some(volume) = name.strip_suffix(".meta") else {
            assert!(is_uuid(&name), "{image}/{name} is no name of a volume");
            assert!(folder.join(format!("{name}.meta")).is_file(), "{image}/{name} has no .meta: vdsm thinks it new");
            continue;
        };
        let keys = volume_keys(&folder.join(&name));
        assert_eq!((keys["DOMAIN"].as_str(), keys["IMAGE"].as_str()), (domain, image.as_str()), "of {name}");
        let file = folder.join(volume);
        check_size(&file, &keys);
        volumes.push(FoundVolume { image: image.clone(), name: volume.to_owned(), file, keys });
    }
    let leaves = volumes.iter().filter(|volume| volume.keys["VOLTYPE"] == "LEAF").count();
    assert_eq!(leaves, 1, "leaves of image {image}");
    volumes
}

fn volume_keys(path: &Path) -> BTreeMap<String, String> {
    let content = std::fs::read_to_string(path).expect("a .meta is text");
    assert!(content.len() <= 512, "{} has {} bytes", path.display(), content.len());
    let lines: Vec<&str> = content.lines().collect();
    let (last, lines) = lines.split_last().expect("a .meta has lines");
    assert_eq!(*last, "EOF", "{content}");
    let order: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(order, VOLUME_KEYS, "{content}");
    let keys = keys_of(lines);
    let number = |key: &str| keys[key].parse::<u64>().unwrap_or_else(|_| panic!("{key} of {content}"));
    assert!(number("GEN") <= 999 && number("CTIME") > 1_500_000_000 && u32::try_from(number("SEQ")).is_ok());
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

/// CAP is what a guest sees; a raw file has that very length.
fn check_size(file: &Path, keys: &BTreeMap<String, String>) {
    let format = if keys["FORMAT"] == "COW" { "qcow2" } else { "raw" };
    let info = run("qemu-img", &["info", "--output=json", "-f", format, text(file)]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("qemu-img prints JSON");
    assert_eq!(info["virtual-size"].to_string(), keys["CAP"], "CAP of {}", file.display());
}

/// What globs find.
fn visible_names(folder: &Path) -> Vec<String> {
    all_names(folder).into_iter().filter(|name| !name.starts_with('.')).collect()
}

fn all_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a folder can be listed").file_name().into_string().expect("names are text"))
        .collect();
    names.sort();
    names
}

fn is_uuid(name: &str) -> bool {
    let shape = |(at, c): (usize, char)| match at {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_digit() || ('a'..='f').contains(&c),
    };
    name.len() == 36 && name.chars().enumerate().all(shape)
}

fn sha1(text: &str) -> String {
    let mut command = Command::new("sha1sum");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("sha1sum is part of every system");
    child.stdin.take().expect("it has a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}
