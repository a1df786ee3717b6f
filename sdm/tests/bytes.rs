//! Files of every size and every kind of qcow2 keep their bytes through import, move and export, and
//! what is made here is what qemu-img would make.

mod cluster;
mod host;
mod images;
mod ovirt;

use cluster::Cluster;
use cluster::Shape;
use cluster::nothing_is_open;
use cluster::text_of;
use host::Need;
use host::Scratch;
use host::ready;
use host::run;
use host::text;
use images::differing_bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// The oracle.
const QEMU: Need = Need::Tool("qemu-img");

/// Where a file has data: offsets and lengths.
type Stretches<'a> = &'a [(u64, usize)];

/// A file whose bytes depend on its name, with data in these stretches.
fn file(folder: &Path, name: &str, size: u64, data: Stretches) -> PathBuf {
    let path = folder.join(name);
    let file = File::create_new(&path).expect("the name is new");
    file.set_len(size).expect("it gets its size");
    let mut noise = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
    for (offset, length) in data {
        let mut bytes = vec![0; *length];
        noise.fill(&mut bytes);
        file.write_all_at(&bytes, *offset).expect("it is written");
    }
    path
}

fn blake3_of(file: &Path) -> String {
    blake3::hash(&std::fs::read(file).expect("it is there")).to_hex().to_string()
}

/// Raw files: sizes that are no multiple of anything, and holes at either end.
fn raw_files(folder: &Path) -> Vec<(String, PathBuf)> {
    const MIB: u64 = 1 << 20;
    let cases: [(&str, u64, Stretches); 10] = [
        ("one-byte", 1, &[(0, 1)]),
        ("511-bytes", 511, &[(0, 511)]),
        ("a-sector", 512, &[(0, 512)]),
        ("4095-bytes", 4095, &[(0, 4095)]),
        ("a-page", 4096, &[(0, 4096)]),
        ("5000-bytes", 5000, &[(0, 5000)]),
        ("past-a-mib", MIB + 1, &[(0, 1 << 20), (MIB, 1)]),
        ("nothing-but-a-hole", 10 * MIB, &[]),
        ("hole-first", 6 * MIB + 777, &[(6 * MIB, 777)]),
        ("hole-last", 9 * MIB + 3, &[(0, 70_000), (3 * MIB + 5, 70_000)]),
    ];
    cases.iter().map(|(name, size, data)| ((*name).to_owned(), file(folder, name, *size, data))).collect()
}

/// qcow2 files as qemu-img makes them from one raw file, with options that real images have.
fn qcow2_files(folder: &Path) -> Vec<(String, PathBuf)> {
    let raw = file(folder, "content", 24 << 20, &[(0, 70_000), (5 << 20, 3 << 20), (20 << 20, 100_000)]);
    let options: [&[&str]; 9] = [
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-o", "extended_l2=on"],
        &["-o", "lazy_refcounts=on"],
        &["-o", "refcount_bits=64"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=full"],
        &["-c", "-o", "compat=0.10"],
    ];
    let convert = |(number, options): (usize, &&[&str])| {
        let name = format!("qcow2-{number}");
        let path = folder.join(&name);
        let fixed = ["convert", "-f", "raw", "-O", "qcow2"];
        run("qemu-img", &[&fixed[..], options, &[text(&raw), text(&path)]].concat());
        (name, path)
    };
    options.iter().enumerate().map(convert).collect()
}

#[test]
fn files_come_back_as_they_were_whatever_their_size_and_kind() {
    let has_qemu = ready("files_come_back_as_they_were (qcow2, and the domain as oVirt reads it)", &[QEMU]);
    let cluster = Cluster::start(&Shape::two_shelves());
    let (from, to) = (cluster.make_domain("shelf-1"), cluster.make_domain("shelf-2"));
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let mut all: Vec<(&str, (String, PathBuf))> =
        raw_files(files.path()).into_iter().map(|case| ("raw", case)).collect();
    if has_qemu {
        all.extend(qcow2_files(files.path()).into_iter().map(|case| ("qcow2", case)));
    }
    for (format, (name, file)) in &all {
        let line = ["disk", "import", text(file), "--name", name, "--domain", "shelf-1", "--format", format];
        let imported = sdm.done(&line);
        assert_eq!(imported["file_blake3"], blake3_of(file), "{name}: the file's own, whatever its padding");
        assert_eq!(imported["file_bytes"], std::fs::metadata(file).expect("it is there").len(), "{name}");
    }
    if has_qemu {
        assert_eq!(ovirt::read_domain(&from).len(), all.len());
    }
    for (_, (name, file)) in &all {
        let moved = sdm.done(&["disk", "move", name, "--to", "shelf-2"]);
        let size = std::fs::metadata(file).expect("it is there").len();
        let volume = &moved["disk"]["volumes"][0];
        assert!(volume["file_size"].as_u64() >= Some(size), "{name}: {volume}");
        let exported = files.join("exported");
        let told = sdm.done(&["disk", "export", name, text(&exported), "--overwrite"]);
        assert_eq!((&told["blake3"], &told["bytes"]), (&blake3_of(file).into(), &size.into()), "{name}");
        assert_eq!(differing_bytes(file, &exported), None, "{name}");
        assert_eq!(std::fs::metadata(&exported).expect("it is there").len(), size, "{name}");
    }
    sdm.done(&["gc", "run"]);
    if has_qemu {
        assert_eq!(ovirt::read_domain(&from).len(), 0);
        assert_eq!(ovirt::read_domain(&to).len(), all.len());
    }
    ovirt::nothing_is_left_over(&from);
    ovirt::nothing_is_left_over(&to);
    nothing_is_open(&sdm);
}

#[test]
fn an_empty_disk_takes_no_space_and_is_what_qemu_img_takes() {
    let has_qemu = ready("an_empty_disk_takes_no_space_and_is_what_qemu_img_takes (by qemu-img)", &[QEMU]);
    let cluster = Cluster::start(&Shape::smallest());
    let folder = cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    for (format, size, bytes) in
        [("raw", "10G", 10_u64 << 30), ("qcow2", "10G", 10 << 30), ("raw", "1", 4096), ("qcow2", "5000", 8192)]
    {
        let name = format!("{format}-{size}");
        let made = sdm.done(&["disk", "create", &name, "--domain", "shelf-1", "--size", size, "--format", format]);
        let (disk, volume) = (&made["disk"], &made["disk"]["volumes"][0]);
        assert_eq!((&disk["format"], &disk["virtual_size"]), (&format.into(), &bytes.into()), "{disk}");
        let path = text_of(volume, "path");
        let file = std::fs::metadata(path).expect("the volume is there");
        assert_eq!(volume["file_size"], file.len(), "{volume}");
        assert!(file.blocks() * 512 < 1 << 20, "{name} takes {} blocks", file.blocks());
        if has_qemu && format == "qcow2" {
            run("qemu-img", &["check", "-q", "-f", "qcow2", path]);
        }
    }
    if has_qemu {
        assert_eq!(ovirt::read_domain(&folder).len(), 4);
    }
}

#[test]
fn the_reader_of_domains_sees_what_ovirt_would_not_take() {
    if !ready("the_reader_of_domains_sees_what_ovirt_would_not_take", &[QEMU]) {
        return;
    }
    let cluster = Cluster::start(&Shape::smallest());
    let folder = cluster.make_domain("shelf-1");
    let made = cluster.sdm().done(&["disk", "create", "web-01", "--domain", "shelf-1", "--size", "1M"]);
    let volume = PathBuf::from(text_of(&made["disk"]["volumes"][0], "path"));
    assert_eq!(ovirt::read_domain(&folder).len(), 1);
    let meta = volume.with_extension("meta");
    let replace = |file: &Path, from: &str, to: &str| {
        let content = std::fs::read_to_string(file).expect("it is text");
        assert!(content.contains(from), "no {from} in {content}");
        std::fs::write(file, content.replace(from, to)).expect("it is written");
    };
    let metadata = folder.join("dom_md/metadata");
    for (file, from, to) in [
        (&metadata, "VERSION=5", "VERSION=4"),
        (&metadata, "LEASERETRIES=3", "LEASERETRIES=4"),
        (&meta, "VOLTYPE=LEAF", "VOLTYPE=INTERNAL"),
        (&meta, "CAP=1048576", "CAP=2097152"),
        (&meta, "EOF\n", "\n"),
        (&meta, "GEN=0", "GEN=1000"),
        (&meta, "DESCRIPTION=", &format!("DESCRIPTION={}", "x".repeat(300))),
    ] {
        let kept = std::fs::read(file).expect("it is there");
        replace(file, from, to);
        let read = std::panic::catch_unwind(|| ovirt::read_domain(&folder));
        assert!(read.is_err(), "{from} -> {to} was taken");
        std::fs::write(file, kept).expect("it is written");
    }
    std::fs::write(folder.join("images/.sdm-9-9-9"), "").expect("it is written");
    assert!(std::panic::catch_unwind(|| ovirt::nothing_is_left_over(&folder)).is_err());
    assert_eq!(ovirt::read_domain(&folder).len(), 1);
}

#[test]
fn an_import_of_odd_length_tells_both_its_hashes_and_a_repetition_that_the_file_was_not_read() {
    let cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let (first, second) =
        (file(files.path(), "first", 5000, &[(0, 5000)]), file(files.path(), "second", 5000, &[(0, 5000)]));
    let id = cluster::request_id(&sdm);
    let line = |file| {
        ["disk", "import", text(file), "--name", "odd", "--domain", "shelf-1", "--format", "raw", "--request-id", &id]
    };
    let told = sdm.run(&line(&first)).stdout;
    let mut padded = std::fs::read(&first).expect("it is there");
    padded.resize(8192, 0);
    for hash in [blake3_of(&first), blake3::hash(&padded).to_hex().to_string()] {
        assert!(told.contains(&hash), "{told}");
    }
    let again = sdm.run(&line(&second));
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(again.stderr.contains("was not read") && again.stderr.contains("--request-id"), "{}", again.stderr);
    assert!(!again.stdout.contains(&blake3_of(&second)), "{}", again.stdout);
    let exported = files.join("exported");
    sdm.done(&["disk", "export", "odd", text(&exported)]);
    assert_eq!(differing_bytes(&first, &exported), None);
}
