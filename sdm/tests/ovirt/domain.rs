//! A domain: its metadata, and what lies in `images/`.

use super::image::FoundImage;
use super::image::read_image;
use super::names::all_names;
use super::names::is_uuid;
use super::names::visible_names;
use super::volume::FoundVolume;
use super::volume::keys_of;
use crate::host::text;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

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

/// Reads the domain in this folder and checks all that oVirt relies on. Answers with its volumes.
///
/// # Panics
/// Something is not as oVirt wants it.
#[track_caller]
pub fn read_domain(folder: &Path) -> Vec<FoundVolume> {
    read_images(folder).into_iter().flat_map(|image| image.chain).collect()
}

/// The same; answers with its images.
///
/// # Panics
/// Something is not as oVirt wants it.
#[track_caller]
pub fn read_images(folder: &Path) -> Vec<FoundImage> {
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
    let images: Vec<_> = visible.iter().map(|image| read_image(&folder.join("images").join(image), id)).collect();
    check_sharing(&images);
    images
}

/// A volume that lies in several images is a template's: SHARED in each, and the same file in all.
fn check_sharing(images: &[FoundImage]) {
    let mut places: BTreeMap<&str, Vec<&FoundVolume>> = BTreeMap::new();
    for volume in images.iter().flat_map(|image| &image.chain) {
        places.entry(&volume.name).or_default().push(volume);
    }
    for (name, places) in places.iter().filter(|(_, places)| places.len() > 1) {
        for volume in places {
            assert_eq!(volume.keys["VOLTYPE"], "SHARED", "{name} lies in several images, and {} ...", volume.image);
            for key in ["CAP", "FORMAT", "PUUID", "LEGALITY", "TYPE"] {
                assert_eq!(volume.keys[key], places[0].keys[key], "{key} of {name} in {}", volume.image);
            }
        }
        let inode = |volume: &FoundVolume| std::fs::metadata(&volume.file).expect("it was just read").ino();
        let first = inode(places[0]);
        assert!(places.iter().all(|volume| inode(volume) == first), "{name} is not one file in all images");
    }
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

fn sha1(text: &str) -> String {
    let mut command = Command::new("sha1sum");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("sha1sum is part of every system");
    child.stdin.take().expect("it has a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}
