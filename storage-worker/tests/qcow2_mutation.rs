//! Images spoilt at random: the check answers, whatever the bytes. It neither panics nor hangs, and what it takes QEMU's
//! own check does not call corrupt.

mod fixture;

use std::path::Path;
use std::sync::LazyLock;

use fixture::has_qemu_img;
use fixture::noise;
use fixture::qemu_img;
use fixture::text;
use fixture::tool;
use proptest::prelude::*;
use sdm_storage_worker::volume::qcow2::check;
use sdm_storage_worker::work::CancelFlag;

/// Small images with every feature, and where their metadata may lie: anywhere.
static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    if !has_qemu_img("qcow2_mutation") {
        return Vec::new();
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let raw = folder.path().join("raw");
    let mut disk = vec![0; 256 * 1024];
    disk[..9000].copy_from_slice(&noise(9000, 3));
    disk[100_000..100_000 + 6200].copy_from_slice(&b"compress me, please, very much ".repeat(200));
    std::fs::write(&raw, disk).expect("the raw disk is written");
    let small = |options: &[&str]| image(folder.path(), &raw, options);
    vec![
        small(&["-o", "cluster_size=512"]),
        small(&["-c", "-o", "cluster_size=4k,compression_type=zstd"]),
        small(&["-o", "compat=0.10,cluster_size=1k"]),
        small(&["-o", "extended_l2=on,cluster_size=16k"]),
        small(&["-o", "cluster_size=512,refcount_bits=1"]),
    ]
});

fn image(folder: &Path, raw: &Path, options: &[&str]) -> Vec<u8> {
    let path = folder.join("image.qcow2");
    let _ = std::fs::remove_file(&path);
    let fixed = ["convert", "-f", "raw", "-O", "qcow2"];
    let arguments: Vec<&str> = fixed.iter().chain(options).copied().chain([text(raw), text(&path)]).collect();
    qemu_img(&arguments);
    if !options.iter().any(|option| option.contains("refcount_bits=1")) {
        qemu_img(&["snapshot", "-c", "one", text(&path)]);
        tool("qemu-io", &["-c", "write 2k 2k", text(&path)]);
    }
    if !options.iter().any(|option| option.contains("0.10")) {
        qemu_img(&["bitmap", "--add", "-g", "512", text(&path), "bits"]);
    }
    std::fs::read(&path).expect("the image is read")
}

#[derive(Debug, Clone)]
enum Change {
    Byte(u8),
    Number(u64),
    Cut,
}

fn change() -> impl Strategy<Value = (usize, Change)> {
    let number = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(1 << 62),
        Just(1 << 63),
        Just(512),
        Just(4096),
        Just(0x8000_0000_0000_0200),
        any::<u64>(),
        (0_u64..4096).prop_map(|n| n * 512),
        (0_u64..64).prop_map(|bit| 1 << bit),
    ];
    let change = prop_oneof![
        4 => any::<u8>().prop_map(Change::Byte),
        8 => number.prop_map(Change::Number),
        1 => Just(Change::Cut),
    ];
    // Half of the changes go into the header, a quarter near the front where most tables lie.
    let place = prop_oneof![2 => 0_usize..128, 1 => 0_usize..16384, 1 => any::<usize>()];
    (place, change)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_spoilt_image_is_answered(which in any::<usize>(), changes in prop::collection::vec(change(), 1..6)) {
        if IMAGES.is_empty() {
            return Ok(());
        }
        let mut bytes = IMAGES[which % IMAGES.len()].clone();
        for (place, change) in changes {
            if bytes.len() < 16 {
                break;
            }
            let at = place % bytes.len();
            match change {
                Change::Byte(byte) => bytes[at] = byte,
                Change::Number(number) => {
                    let at = (at & !7).min(bytes.len() - 8);
                    bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
                }
                Change::Cut => bytes.truncate(at.max(8)),
            }
        }
        if let Err(error) = check(bytes.as_slice(), &CancelFlag::new()) {
            prop_assert!(error.code().is_some(), "an image was refused without a code: {error}");
        }
    }
}

#[test]
fn what_is_taken_after_a_flip_qemu_does_not_call_corrupt() {
    if IMAGES.is_empty() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("image.qcow2");
    let mut judged = 0;
    for (which, good) in IMAGES.iter().enumerate() {
        for round in 0..60_u64 {
            let dice = noise(16, round * 7919 + which as u64);
            let number = |at: usize| u64::from_le_bytes(dice[at..at + 8].try_into().expect("eight bytes"));
            let mut bytes = good.clone();
            // Where tables lie, for these images: in front.
            let at = (number(0) % (bytes.len() as u64 / 2)) as usize;
            bytes[at] ^= 1 << (number(8) % 8);
            if check(bytes.as_slice(), &CancelFlag::new()).is_err() {
                continue;
            }
            std::fs::write(&path, &bytes).expect("the image is written");
            let output = std::process::Command::new("qemu-img")
                .args(["check", "-f", "qcow2", "--output=json", text(&path)])
                .output()
                .expect("qemu-img starts");
            let report = String::from_utf8_lossy(&output.stdout).into_owned();
            let is_harmless_mark = String::from_utf8_lossy(&output.stderr).contains("OFLAG_COPIED")
                || String::from_utf8_lossy(&output.stdout).contains("OFLAG_COPIED");
            assert!(
                output.status.code() != Some(2) || is_harmless_mark,
                "image {which}, byte {at}: taken, but qemu-img says {report} {}",
                String::from_utf8_lossy(&output.stderr)
            );
            judged += 1;
        }
    }
    assert!(judged > 20, "only {judged} spoilt images were taken: the test compares nothing");
}
