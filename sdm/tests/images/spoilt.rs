//! qcow2 files that must not become disks: those that name other files, and those that are broken.

use crate::host::run;
use crate::host::text;
use std::path::Path;
use std::path::PathBuf;

/// Such a file.
#[derive(Debug)]
pub struct Spoilt {
    /// What is wrong with it; also the disk's name.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Reasons with which it may be refused: some are wrong in two ways at once.
    pub reasons: &'static [&'static str],
    /// What the message must mention.
    pub mentions: String,
}

const BACKING: &[&str] = &["QCOW2_BACKING_FILE"];
const DATA_FILE: &[&str] = &["QCOW2_DATA_FILE"];
const OUTSIDE: &[&str] = &["QCOW2_TRUNCATED"];

/// Makes them all in this folder, beside a file that some of them name and that must never be read.
///
/// # Panics
/// qemu-img fails.
pub fn spoilt_images(folder: &Path) -> Vec<Spoilt> {
    let secret = folder.join("secret.raw");
    std::fs::write(&secret, b"the host's own file ".repeat(60_000)).expect("the file is written");
    let mut all = Vec::new();
    for (name, backing) in names_of(&secret, "itself-backed.qcow2") {
        let file = folder.join(format!("{name}-backed.qcow2"));
        run("qemu-img", &["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &backing, text(&file), "1M"]);
        all.push(Spoilt { name: format!("{name}-backed"), file, reasons: BACKING, mentions: "backing".to_owned() });
    }
    for (name, data) in names_of(&secret, "itself-data.qcow2") {
        let file = folder.join(format!("{name}-data.qcow2"));
        with_data_file(&file, &data);
        all.push(Spoilt {
            name: format!("{name}-data"),
            file,
            reasons: DATA_FILE,
            mentions: "another file".to_owned(),
        });
    }
    let encrypted = folder.join("encrypted.qcow2");
    let options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10";
    let key = "secret,id=key,data=abc";
    run("qemu-img", &["create", "-q", "--object", key, "-f", "qcow2", "-o", options, text(&encrypted), "1M"]);
    all.push(Spoilt {
        name: "encrypted".to_owned(),
        file: encrypted,
        reasons: &["QCOW2_ENCRYPTED"],
        mentions: "encrypted".to_owned(),
    });
    all.extend(broken(folder));
    all
}

/// Ways to name another file.
fn names_of(file: &Path, own: &'static str) -> [(&'static str, String); 4] {
    let json = format!("json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{}\"}}}}", text(file));
    [
        ("absolute", text(file).to_owned()),
        ("relative", "secret.raw".to_owned()),
        ("json", json),
        ("itself", own.to_owned()),
    ]
}

/// qemu-img makes an image with a data file of its own; the name in the header is then replaced, as
/// somebody would who wants to read what is not his.
fn with_data_file(image: &Path, data: &str) {
    // As long as the name that is to stand there, so that it only has to be overwritten.
    let folder = image.parent().expect("it lies in a folder");
    let place = format!("{}/", text(folder));
    let own = format!("{place}{}", "d".repeat(data.len().saturating_sub(place.len()).max(1)));
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &format!("data_file={own}"), text(image), "1M"]);
    let mut bytes = std::fs::read(image).expect("the image is read");
    let at = bytes.windows(own.len()).position(|window| window == own.as_bytes()).expect("the name stands in it");
    // The extension's length stands in the four bytes before the name.
    let length = u32::try_from(data.len()).expect("a short name");
    bytes[at - 4..at].copy_from_slice(&length.to_be_bytes());
    let room = own.len().max(data.len()).next_multiple_of(8);
    bytes[at..at + room].fill(0);
    bytes[at..at + data.len()].copy_from_slice(data.as_bytes());
    std::fs::write(image, bytes).expect("the image is written");
    _ = std::fs::remove_file(own);
}

fn broken(folder: &Path) -> Vec<Spoilt> {
    let raw = folder.join("content.raw");
    let mut noise = vec![0; 3 << 20];
    blake3::Hasher::new().update(b"content").finalize_xof().fill(&mut noise);
    std::fs::write(&raw, noise).expect("the content is written");
    let good = folder.join("good.qcow2");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&good)]);
    let good = std::fs::read(good).expect("the image is read");
    let far = (1_u64 << 40).to_be_bytes();
    let number = |at: usize| u64::from_be_bytes(good[at..at + 8].try_into().expect("eight bytes"));
    let l1 = usize::try_from(number(40)).expect("a small image");
    let l2 = usize::try_from(number(l1) & 0x00FF_FFFF_FFFF_FE00).expect("a small image");
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let mut random = vec![0; 300_000];
    blake3::Hasher::new().update(b"no image").finalize_xof().fill(&mut random);
    let cases: [(&str, Vec<u8>, &'static [&'static str], &str); 9] = [
        ("truncated", good[..good.len() - 300_000].to_vec(), OUTSIDE, "outside the file"),
        ("cut-header", good[..60].to_vec(), OUTSIDE, "outside the file"),
        ("l1-outside", with(40, &far), OUTSIDE, "outside the file"),
        ("l2-outside", with(l1, &far), OUTSIDE, "outside the file"),
        ("refcounts-outside", with(48, &far), OUTSIDE, "outside the file"),
        ("cluster-outside", with(l2, &far), OUTSIDE, "outside the file"),
        ("marked-corrupt", with(72, &2_u64.to_be_bytes()), &["QCOW2_CORRUPT"], "corrupt"),
        ("random", random, &["QCOW2_INVALID"], "qcow2"),
        ("snapshots-outside", with(60, &[&1_u32.to_be_bytes()[..], &far].concat()), OUTSIDE, "outside the file"),
    ];
    let write = |(name, bytes, reasons, mentions): (&str, Vec<u8>, _, &str)| {
        let file = folder.join(name);
        std::fs::write(&file, bytes).expect("the image is written");
        Spoilt { name: name.to_owned(), file, reasons, mentions: mentions.to_owned() }
    };
    cases.into_iter().map(write).collect()
}
