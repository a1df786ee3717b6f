//! Real images by qemu-img: good ones are taken, bad ones are refused with their reason.

mod fixture;

use std::path::Path;
use std::path::PathBuf;

use fixture::has_qemu_img;
use fixture::noise;
use fixture::qemu_img;
use fixture::text;
use fixture::tool;
use sdm_storage_worker::volume::qcow2::Qcow2Error;
use sdm_storage_worker::volume::qcow2::check;
use sdm_storage_worker::work::CancelFlag;
use sdm_storage_worker::work::Qcow2Facts;
use sdm_storage_worker::work::RefusalCode;

fn check_bytes(bytes: &[u8]) -> Result<Qcow2Facts, Qcow2Error> {
    check(bytes, &CancelFlag::new())
}

fn check_file(path: &Path) -> Result<Qcow2Facts, Qcow2Error> {
    check_bytes(&std::fs::read(path).expect("the image is read"))
}

fn code(bytes: &[u8]) -> Option<RefusalCode> {
    check_bytes(bytes).expect_err("the image was taken").code()
}

/// A raw disk of some size with noise, text and holes in it.
fn raw_disk(folder: &Path, bytes: usize) -> PathBuf {
    let mut disk = vec![0; bytes];
    for (start, part) in [(0, 3000), (200_000, 70_000), (bytes - 5000, 5000)] {
        disk[start..start + part].copy_from_slice(&noise(part, start as u64));
    }
    let text = b"the same words again and again ".repeat(3000);
    disk[300_000..300_000 + text.len()].copy_from_slice(&text);
    let path = folder.join("raw");
    std::fs::write(&path, disk).expect("the raw disk is written");
    path
}

fn convert(folder: &Path, raw: &Path, options: &[&str]) -> PathBuf {
    let image = folder.join("image.qcow2");
    let _ = std::fs::remove_file(&image);
    let fixed = ["convert", "-f", "raw", "-O", "qcow2"];
    let arguments: Vec<&str> = fixed.iter().chain(options).copied().chain([text(raw), text(&image)]).collect();
    qemu_img(&arguments);
    image
}

#[test]
fn whatever_qemu_img_makes_is_taken() {
    if !has_qemu_img("whatever_qemu_img_makes_is_taken") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let raw = raw_disk(folder.path(), 3 * 1024 * 1024 + 512 * 7);
    let cases: &[&[&str]] = &[
        &["-o", "compat=0.10"],
        &["-o", "compat=1.1"],
        &["-c", "-o", "compat=0.10"],
        &["-c", "-o", "compression_type=zlib"],
        &["-c", "-o", "compression_type=zstd"],
        &["-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=512"],
        &["-o", "cluster_size=4096"],
        &["-o", "cluster_size=2M"],
        &["-c", "-o", "cluster_size=2M,compression_type=zstd"],
        &["-o", "extended_l2=on"],
        &["-o", "extended_l2=on,cluster_size=16k"],
        &["-c", "-o", "extended_l2=on,compression_type=zstd"],
        &["-o", "lazy_refcounts=on"],
        &["-o", "refcount_bits=1"],
        &["-o", "refcount_bits=4"],
        &["-o", "refcount_bits=8"],
        &["-o", "refcount_bits=64"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=falloc"],
        &["-o", "preallocation=full"],
    ];
    for options in cases {
        let image = convert(folder.path(), &raw, options);
        let facts = check_file(&image).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        assert_eq!(facts.virtual_bytes, 3 * 1024 * 1024 + 512 * 7, "{options:?}");
        assert_eq!(facts.leaked_clusters, 0, "{options:?}");
        assert!(facts.data_clusters > 0, "{options:?}");
        let is_zstd = options.iter().any(|option| option.contains("zstd"));
        assert_eq!(facts.compression, if is_zstd { "zstd" } else { "zlib" }, "{options:?}");
    }
}

#[test]
fn images_written_bit_by_bit_are_taken() {
    if !has_qemu_img("images_written_bit_by_bit_are_taken") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join("image.qcow2");
    for options in ["cluster_size=64k", "extended_l2=on,cluster_size=128k", "cluster_size=512", "compat=0.10"] {
        let _ = std::fs::remove_file(&image);
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, text(&image), "20M"]);
        check_file(&image).unwrap_or_else(|error| panic!("{options}, empty: {error}"));
        for write in ["write 0 512", "write 5M 4k", "write -z 6M 64k", "write 20971008 512", "discard 5M 1M"] {
            tool("qemu-io", &["-c", write, text(&image)]);
            let facts = check_file(&image).unwrap_or_else(|error| panic!("{options}, after {write}: {error}"));
            assert_eq!(facts.leaked_clusters, 0, "{options}, after {write}");
        }
    }
}

#[test]
fn snapshots_and_bitmaps_are_taken_and_counted() {
    if !has_qemu_img("snapshots_and_bitmaps_are_taken_and_counted") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let raw = raw_disk(folder.path(), 4 * 1024 * 1024);
    for options in ["cluster_size=64k", "cluster_size=512", "extended_l2=on", "refcount_bits=64"] {
        let image = convert(folder.path(), &raw, &["-o", options]);
        qemu_img(&["snapshot", "-c", "before", text(&image)]);
        tool("qemu-io", &["-c", "write 0 200k", text(&image)]);
        qemu_img(&["snapshot", "-c", "after", text(&image)]);
        qemu_img(&["bitmap", "--add", "-g", "4k", text(&image), "changes"]);
        tool("qemu-io", &["-c", "write 1M 8k", text(&image)]);
        qemu_img(&["bitmap", "--add", "--disable", text(&image), "other"]);
        let facts = check_file(&image).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert_eq!((facts.snapshots, facts.bitmaps, facts.leaked_clusters), (2, 2, 0), "{options}");
        qemu_img(&["snapshot", "-d", "before", text(&image)]);
        check_file(&image).unwrap_or_else(|error| panic!("{options}, a snapshot less: {error}"));
    }
}

/// A plain image to spoil.
fn good_image(test: &str) -> Option<(tempfile::TempDir, Vec<u8>)> {
    if !has_qemu_img(test) {
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let raw = raw_disk(folder.path(), 2 * 1024 * 1024);
    let image = convert(folder.path(), &raw, &[]);
    let bytes = std::fs::read(image).expect("the image is read");
    Some((folder, bytes))
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn with(bytes: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut spoilt = bytes.to_vec();
    spoilt[at..at + value.len()].copy_from_slice(value);
    spoilt
}

#[test]
fn an_image_of_more_than_one_file_is_refused() {
    let Some((folder, _)) = good_image("an_image_of_more_than_one_file_is_refused") else { return };
    let base = folder.path().join("base.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", text(&base), "1M"]);
    let overlay = folder.path().join("overlay.qcow2");
    let json =
        format!("json:{{\"driver\":\"qcow2\",\"file\":{{\"driver\":\"file\",\"filename\":\"{}\"}}}}", text(&base));
    for backing in [text(&base), "base.qcow2", &json, "overlay.qcow2", "/etc/shadow"] {
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, text(&overlay), "1M"]);
        let error = check_file(&overlay).expect_err("a backing file was taken");
        assert_eq!(error.code(), Some(RefusalCode::Qcow2BackingFile), "{backing}");
        assert!(error.to_string().contains(&backing.escape_debug().to_string()), "{error}");
    }
    let data = folder.path().join("data.raw");
    for raw in ["on", "off"] {
        let options = format!("data_file={},data_file_raw={raw}", text(&data));
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, text(&overlay), "1M"]);
        let mut bytes = std::fs::read(&overlay).expect("the image is read");
        assert_eq!(code(&bytes), Some(RefusalCode::Qcow2DataFile));
        // The bit is cleared, the name is still there.
        bytes[72..80].fill(0);
        bytes[88..96].fill(0);
        assert_eq!(code(&bytes), Some(RefusalCode::Qcow2DataFile));
    }
}

#[test]
fn an_encrypted_image_is_refused() {
    if !has_qemu_img("an_encrypted_image_is_refused") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join("image.qcow2");
    let options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10";
    let secret = "secret,id=key,data=abc";
    qemu_img(&["create", "-q", "--object", secret, "-f", "qcow2", "-o", options, text(&image), "1M"]);
    let mut bytes = std::fs::read(&image).expect("the image is read");
    assert_eq!(code(&bytes), Some(RefusalCode::Qcow2Encrypted));
    // The method is hidden, the key header is still there.
    bytes[32..36].fill(0);
    assert_eq!(code(&bytes), Some(RefusalCode::Qcow2Encrypted));
    bytes[32..36].copy_from_slice(&1_u32.to_be_bytes());
    assert_eq!(code(&bytes), Some(RefusalCode::Qcow2Encrypted));
}

#[test]
fn nothing_and_noise_are_refused_each_with_its_reason() {
    assert_eq!(code(&[]), Some(RefusalCode::ImageEmpty));
    assert_eq!(code(&noise(100_000, 1)), Some(RefusalCode::Qcow2Invalid));
    assert_eq!(code(&[0; 100_000]), Some(RefusalCode::Qcow2Invalid));
    assert_eq!(code(b"QFI\xfb\0\0\0\x03"), Some(RefusalCode::Qcow2Truncated));
    let mut noisy = b"QFI\xfb\0\0\0\x03".to_vec();
    noisy.extend(noise(100_000, 2));
    assert!(code(&noisy).is_some());
}

#[test]
fn a_truncated_image_is_refused_wherever_it_was_cut() {
    let Some((folder, good)) = good_image("a_truncated_image_is_refused_wherever_it_was_cut") else { return };
    for cut in [1, 511, 4096, 65536, good.len() / 3, good.len() / 2, good.len() - 200, good.len() - 60] {
        let error = check_bytes(&good[..good.len() - cut]).expect_err("a cut image was taken");
        assert_eq!(error.code(), Some(RefusalCode::Qcow2Truncated), "cut by {cut}: {error}");
    }
    let compressed = convert(folder.path(), &folder.path().join("raw"), &["-c", "-o", "compression_type=zstd"]);
    let compressed = std::fs::read(compressed).expect("the image is read");
    let error = check_bytes(&compressed[..compressed.len() - 70_000]).expect_err("a cut image was taken");
    assert_eq!(error.code(), Some(RefusalCode::Qcow2Truncated), "{error}");
}

#[test]
fn marks_and_features_that_forbid_use_are_refused() {
    let Some((_folder, good)) = good_image("marks_and_features_that_forbid_use_are_refused") else { return };
    let incompatible = |bits: u64| with(&good, 72, &bits.to_be_bytes());
    assert_eq!(code(&incompatible(1)), Some(RefusalCode::Qcow2Dirty));
    assert_eq!(code(&incompatible(2)), Some(RefusalCode::Qcow2Corrupt));
    assert_eq!(code(&incompatible(4)), Some(RefusalCode::Qcow2DataFile));
    assert_eq!(code(&incompatible(1 << 40)), Some(RefusalCode::Qcow2Unsupported));
    assert_eq!(code(&with(&good, 4, &4_u32.to_be_bytes())), Some(RefusalCode::Qcow2Unsupported));
    for bits in [0_u32, 8, 22, 63, u32::MAX] {
        assert_eq!(code(&with(&good, 20, &bits.to_be_bytes())), Some(RefusalCode::Qcow2Invalid), "{bits}");
    }
    for (size, why) in [(0, RefusalCode::Qcow2Invalid), ((16 << 40) + 1, RefusalCode::SizeInvalid)] {
        assert_eq!(code(&with(&good, 24, &u64::to_be_bytes(size))), Some(why), "{size}");
    }
}

#[test]
fn tables_outside_the_file_are_refused() {
    let Some((_folder, good)) = good_image("tables_outside_the_file_are_refused") else { return };
    let far = (1_u64 << 40).to_be_bytes();
    let wrapping = (u64::MAX - 0xFFFF).to_be_bytes();
    let (l1, refcounts) = (number(&good, 40) as usize, number(&good, 48) as usize);
    let l2 = (number(&good, l1) & 0x00FF_FFFF_FFFF_FE00) as usize;
    for at in [40, 48, refcounts, l1, l2] {
        assert_eq!(code(&with(&good, at, &far)), Some(RefusalCode::Qcow2Truncated), "at {at}");
    }
    for at in [40, 48] {
        assert_eq!(code(&with(&good, at, &wrapping)), Some(RefusalCode::Qcow2Truncated), "at {at}");
    }
    let snapshots = with(&with(&good, 60, &9_u32.to_be_bytes()), 64, &far);
    assert_eq!(code(&snapshots), Some(RefusalCode::Qcow2Truncated));
    assert_eq!(code(&with(&good, 60, &u32::MAX.to_be_bytes())), Some(RefusalCode::Qcow2Unsupported));
    assert_eq!(code(&with(&good, 56, &u32::MAX.to_be_bytes())), Some(RefusalCode::Qcow2Unsupported));
    assert_eq!(code(&with(&good, 36, &u32::MAX.to_be_bytes())), Some(RefusalCode::Qcow2Unsupported));
    let compressed = ((1_u64 << 62) | (1 << 41)).to_be_bytes();
    assert_eq!(code(&with(&good, l2, &compressed)), Some(RefusalCode::Qcow2Truncated));
    assert_eq!(code(&with(&good, l2, &0x1_0200_u64.to_be_bytes())), Some(RefusalCode::Qcow2Invalid));
}

#[test]
fn references_that_a_write_would_destroy_are_refused_and_leaks_are_told() {
    let test = "references_that_a_write_would_destroy_are_refused_and_leaks_are_told";
    let Some((_folder, good)) = good_image(test) else { return };
    let (l1, refcounts) = (number(&good, 40), number(&good, 48));
    let block = number(&good, refcounts as usize) as usize;
    let l2 = (number(&good, l1 as usize) & 0x00FF_FFFF_FFFF_FE00) as usize;
    let first = number(&good, l2);
    // Guest data that lies over a table.
    for table in [0x8000_0000_0000_0000, l1 | 1 << 63, refcounts | 1 << 63, l2 as u64 | 1 << 63] {
        let spoilt = with(&good, l2, &u64::to_be_bytes(table));
        if table & 0x00FF_FFFF_FFFF_FE00 == 0 {
            continue;
        }
        assert_eq!(code(&spoilt), Some(RefusalCode::Qcow2Corrupt), "{table:#x}");
    }
    // Two tables in one place.
    assert_eq!(code(&with(&good, 40, &refcounts.to_be_bytes())), Some(RefusalCode::Qcow2Corrupt));
    // Two guest clusters in one host cluster, whose refcount knows one.
    assert_eq!(code(&with(&good, l2 + 8, &first.to_be_bytes())), Some(RefusalCode::Qcow2Corrupt));
    // A refcount of zero for a cluster in use.
    let cluster = (first & 0x00FF_FFFF_FFFF_FE00) >> 16;
    let entry = block + 2 * cluster as usize;
    assert_eq!(code(&with(&good, entry, &[0, 0])), Some(RefusalCode::Qcow2Corrupt));
    // Shared, counted rightly, but marked as unshared.
    let shared = with(&with(&good, l2 + 8, &first.to_be_bytes()), entry, &[0, 2]);
    assert_eq!(code(&shared), Some(RefusalCode::Qcow2Corrupt));
    // One reference less than counted: a leak, which harms nobody.
    let leaky = with(&good, l2, &[0; 8]);
    let facts = check_bytes(&leaky).expect("leaks are allowed");
    assert_eq!(facts.leaked_clusters, 1);
}

#[test]
fn a_refcount_block_that_counts_nothing_of_the_file_is_refused() {
    let test = "a_refcount_block_that_counts_nothing_of_the_file_is_refused";
    let Some((_folder, good)) = good_image(test) else { return };
    let refcounts = number(&good, 48) as usize;
    // Each block counts 2 GiB of the file; the second one is far behind its end.
    let appended = (good.len().next_multiple_of(1 << 16) as u64).to_be_bytes();
    let mut spoilt = with(&good, refcounts + 8, &appended);
    spoilt.resize(good.len().next_multiple_of(1 << 16) + (1 << 16), 0);
    let error = check_bytes(&spoilt).expect_err("such a block is of no use");
    assert_eq!(error.code(), Some(RefusalCode::Qcow2Invalid));
    assert!(error.to_string().contains("beyond the end"), "{error}");
}

#[test]
fn a_stopped_check_says_so() {
    let Some((_folder, good)) = good_image("a_stopped_check_says_so") else { return };
    let cancel = CancelFlag::new();
    cancel.set();
    assert!(matches!(check(good.as_slice(), &cancel), Err(Qcow2Error::Cancelled)));
}
