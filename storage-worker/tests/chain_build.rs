//! Chains built layer by layer: snapshots, merges, reverts, clones and conversions, with QEMU as the judge of what a
//! guest sees and of whether the images are sound.

mod fixture;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use fixture::create_domain;
use fixture::done;
use fixture::has_qemu_img;
use fixture::images;
use fixture::placed;
use fixture::placement;
use fixture::placement_path;
use fixture::qemu_img;
use fixture::refusal;
use fixture::root;
use fixture::text;
use fixture::tool;
use sdm_storage_worker::domain::VolumeMetadata;
use sdm_storage_worker::work::BuildChain;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::FileHash;
use sdm_storage_worker::work::LayerSource;
use sdm_storage_worker::work::LocalPlacement;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::RefusalCode;
use sdm_storage_worker::work::SourceChain;
use sdm_storage_worker::work::SourceVolume;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::VolumeRole;
use sdm_storage_worker::work::VolumeSpec;
use sdm_storage_worker::work::run;
use uuid::Uuid;

const MIB: u64 = 1 << 20;

/// A layer to be: its number, format, size, and where it comes from.
type Layer = (u128, VolumeFormat, u64, LayerSource);

fn volume(number: u128) -> Uuid {
    Uuid::from_u128(0x5000 + number)
}

fn specs(layers: &[Layer]) -> Vec<VolumeSpec> {
    let mut parent = None;
    let count = layers.len();
    let spec = |(n, (number, format, bytes, _)): (usize, &Layer)| {
        let spec = VolumeSpec {
            volume: volume(*number),
            format: *format,
            parent,
            role: if n + 1 == count { VolumeRole::Leaf } else { VolumeRole::Internal },
            sequence: u32::try_from(n + 1).expect("a short chain"),
            virtual_bytes: Some(*bytes),
            true_bytes: None,
            preallocated: false,
            illegal: false,
            expected_hash: None,
            announced_bytes: None,
        };
        parent = Some(volume(*number));
        spec
    };
    layers.iter().enumerate().map(spec).collect()
}

/// Placement `to` from the layers given; they come from placement `from`, whose chain is `source`.
fn order(domain: &DomainRoot, to: u128, layers: &[Layer], source: Option<(u128, &[Layer])>) -> BuildChain {
    let mut placement = placement(domain, to, VolumeFormat::Raw, None);
    placement.volumes = specs(layers);
    BuildChain {
        placement,
        source: source.map(|(from, layers)| SourceChain {
            at: LocalPlacement {
                domain: domain.clone(),
                placement: Uuid::from_u128(0xF000_0000 + from),
                token: format!("1-{from}-0"),
            },
            volumes: layers
                .iter()
                .map(|(number, format, ..)| SourceVolume {
                    volume: volume(*number),
                    format: *format,
                    expected_hash: None,
                })
                .collect(),
        }),
        layers: layers.iter().map(|(.., from)| from.clone()).collect(),
        rebase: None,
    }
}

async fn execute(order: BuildChain) -> Outcome {
    run(Order::BuildChain(order), Ports::silent()).await
}

async fn new_domain(path: &Path) -> DomainRoot {
    let domain = root(path, 1);
    done(run(Order::CreateDomain(create_domain(domain.clone())), Ports::silent()).await);
    domain
}

fn file(domain: &DomainRoot, placement: u128, number: u128) -> PathBuf {
    placement_path(domain, placement).join(volume(number).to_string())
}

fn metadata(domain: &DomainRoot, placement: u128, number: u128) -> VolumeMetadata {
    let path = placement_path(domain, placement).join(format!("{}.meta", volume(number)));
    VolumeMetadata::decode(&std::fs::read_to_string(path).expect("a .meta")).expect("it reads")
}

fn qemu_io(image: &Path, format: &str, commands: &[&str]) {
    let mut arguments = vec!["-f", format];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    arguments.push(text(image));
    tool("qemu-io", &arguments);
}

/// What a guest sees through a leaf, as a raw file beside the domain.
fn seen(leaf: &Path, format: &str, to: &Path) -> PathBuf {
    qemu_img(&["convert", "-f", format, "-O", "raw", text(leaf), text(to)]);
    to.to_owned()
}

fn same(a: &Path, b: &Path, b_format: &str) {
    qemu_img(&["compare", "-f", "raw", "-F", b_format, text(a), text(b)]);
}

fn sound(image: &Path) {
    qemu_img(&["check", "-q", "-f", "qcow2", text(image)]);
}

/// Random numbers that a seed determines.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// Writes, explicit zeros and discards at random places.
    fn commands(&mut self, bytes: u64, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| {
                let at = self.next(bytes / 512) * 512;
                let length = (512 * (1 + self.next(300))).min(bytes - at);
                match self.next(5) {
                    0 => format!("write -z {at} {length}"),
                    1 => format!("write -z -u {at} {length}"),
                    _ => format!("write -P {} {at} {length}", 1 + self.next(250)),
                }
            })
            .collect()
    }

    fn write(&mut self, image: &Path, bytes: u64, count: usize) {
        let commands = self.commands(bytes, count);
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        qemu_io(image, "qcow2", &commands);
    }
}

/// A disk with a raw or qcow2 base and four snapshots, written to at random between them, growing on its way. Each
/// snapshot is a new placement with links of all before and a new leaf.
async fn snapshots(domain: &DomainRoot, base: VolumeFormat, dice: &mut Dice) -> Vec<Layer> {
    let size = |n: u128| 5 * MIB + u64::try_from(n).expect("small") * MIB + if n > 2 { 512 } else { 0 };
    let mut chain: Vec<Layer> = vec![(1, base, size(1), LayerSource::Fresh)];
    placed(execute(order(domain, 1, &chain, None)).await);
    if base == VolumeFormat::Raw {
        qemu_io(&file(domain, 1, 1), "raw", &["write -P 9 64k 3M", "write -P 8 4100k 100k"]);
    } else {
        dice.write(&file(domain, 1, 1), size(1), 12);
    }
    for number in 2..=5 {
        let source: Vec<Layer> = chain.clone();
        chain.iter_mut().for_each(|(.., from)| *from = LayerSource::Link);
        chain.push((number, VolumeFormat::Qcow2, size(number), LayerSource::Fresh));
        let report = placed(execute(order(domain, number, &chain, Some((number - 1, &source)))).await);
        assert_eq!(report.volumes.len(), chain.len());
        dice.write(&file(domain, number, number), size(number), 10);
    }
    chain
}

#[tokio::test]
async fn a_snapshot_links_what_is_frozen_and_adds_a_leaf_that_qemu_opens_over_it() {
    if !has_qemu_img("a_snapshot_links_what_is_frozen") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    let chain = snapshots(&domain, VolumeFormat::Raw, &mut Dice(1)).await;
    let leaf = file(&domain, 5, 5);
    let info = qemu_img(&["info", "--backing-chain", "--output=json", text(&leaf)]);
    assert_eq!(info.matches("\"full-backing-filename\"").count(), 4, "{info}");
    assert!(info.contains(&format!("\"backing-filename\": \"{}\"", volume(1))), "{info}");
    assert!(info.contains("\"backing-filename-format\": \"raw\""), "{info}");
    for (number, ..) in &chain {
        let found = std::fs::metadata(file(&domain, 5, *number)).expect("the file");
        assert_eq!(found.nlink(), 6 - u64::try_from(*number).expect("small"), "volume {number}");
        let meta = metadata(&domain, 5, *number);
        assert_eq!(meta.sequence, u32::try_from(*number).expect("small"));
        assert_eq!(meta.parent, (*number > 1).then(|| volume(number - 1)));
        assert_eq!(meta.role, if *number == 5 { VolumeRole::Leaf } else { VolumeRole::Internal });
        assert!(meta.virtual_bytes >= 5 * MIB);
    }
    // Done again, it answers the same.
    let mut source = chain.clone();
    source.pop();
    let again = placed(execute(order(&domain, 5, &chain, Some((4, &source)))).await);
    assert_eq!(again.volumes.len(), 5);
    assert_eq!(std::fs::read_dir(images(&domain)).expect("images").count(), 5);
}

/// Merges layer `number` with its child, which keeps its id, format and size.
fn merged(chain: &[Layer], number: u128) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for (n, format, bytes, _) in chain {
        let from = if *n == number + 1 {
            LayerSource::Flatten { volumes: vec![volume(number), volume(number + 1)] }
        } else {
            LayerSource::Link
        };
        if *n != number {
            layers.push((*n, *format, *bytes, from));
        }
    }
    layers
}

#[tokio::test]
async fn every_snapshot_of_a_chain_can_be_merged_into_its_child_and_no_guest_sees_a_difference() {
    if !has_qemu_img("every_snapshot_of_a_chain_can_be_merged") {
        return;
    }
    for (seed, base) in [(2, VolumeFormat::Raw), (3, VolumeFormat::Qcow2), (4, VolumeFormat::Qcow2)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let domain = new_domain(folder.path()).await;
        let chain = snapshots(&domain, base, &mut Dice(seed)).await;
        // What is seen at each layer, before.
        let views: Vec<PathBuf> = (1..=5_u128)
            .map(|n| {
                let format = if n == 1 && base == VolumeFormat::Raw { "raw" } else { "qcow2" };
                seen(&file(&domain, 5, n), format, &folder.path().join(format!("view-{n}")))
            })
            .collect();
        for number in 1..=4_u128 {
            let to = 10 + number;
            let layers = merged(&chain, number);
            let report = placed(execute(order(&domain, to, &layers, Some((5, &chain)))).await);
            for (index, (n, ..)) in layers.iter().enumerate() {
                let image = file(&domain, to, *n);
                let (format, is_qcow2) = match (n, base) {
                    (1, VolumeFormat::Raw) => ("raw", false),
                    _ => ("qcow2", true),
                };
                if is_qcow2 {
                    sound(&image);
                }
                same(&views[usize::try_from(*n).expect("small") - 1], &image, format);
                if *n == number + 1 {
                    let bytes = std::fs::read(&image).expect("the image");
                    assert_eq!(report.volumes[index].hash, Some(FileHash::from(blake3::hash(&bytes))));
                    assert_eq!(metadata(&domain, to, *n).parent, (number > 1).then(|| volume(number - 1)));
                    let info = qemu_img(&["info", "--output=json", text(&image)]);
                    assert_eq!(info.contains("backing-filename\""), number > 1, "{info}");
                }
            }
            // The old placement is whole.
            same(&views[4], &file(&domain, 5, 5), "qcow2");
        }
        // All into one, in both formats.
        for (to, format, name) in [(20, VolumeFormat::Raw, "raw"), (21, VolumeFormat::Qcow2, "qcow2")] {
            let volumes: Vec<Uuid> = (1..=5).map(volume).collect();
            let layers = [(50, format, chain[4].2, LayerSource::Flatten { volumes })];
            let report = placed(execute(order(&domain, to, &layers, Some((5, &chain)))).await);
            let image = file(&domain, to, 50);
            let bytes = std::fs::read(&image).expect("the image");
            assert_eq!(report.volumes[0].hash, Some(FileHash::from(blake3::hash(&bytes))));
            if format == VolumeFormat::Qcow2 {
                sound(&image);
                same(&views[4], &image, name);
            } else {
                // A raw file is rounded up to whole blocks.
                let view = std::fs::read(&views[4]).expect("the view");
                assert!(bytes.starts_with(&view) && bytes[view.len()..].iter().all(|byte| *byte == 0));
            }
        }
    }
}

/// Flattened disks: several groups of layers become one each, and frozen ones get a copy under another id.
#[tokio::test]
async fn layers_are_taken_into_those_above_at_several_places_of_a_chain_at_once() {
    if !has_qemu_img("layers_are_taken_into_those_above") {
        return;
    }
    let flatten = |volumes: &[u128]| LayerSource::Flatten { volumes: volumes.iter().copied().map(volume).collect() };
    let bytes = |of: u128| LayerSource::Bytes { volume: volume(of) };
    for (seed, base) in [(31, VolumeFormat::Raw), (32, VolumeFormat::Qcow2)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let domain = new_domain(folder.path()).await;
        let chain = snapshots(&domain, base, &mut Dice(seed)).await;
        let format_of = |n: u128| if n == 1 { base } else { VolumeFormat::Qcow2 };
        let word = |format| if format == VolumeFormat::Raw { "raw" } else { "qcow2" };
        let view = |n: u128| folder.path().join(format!("view-{n}"));
        for n in 1..=5 {
            seen(&file(&domain, 5, n), word(format_of(n)), &view(n));
        }
        // The new id of each layer, the one of the source whose view it has, and where it comes from.
        let shapes: [&[(u128, u128, LayerSource)]; 5] = [
            &[(2, 2, flatten(&[1, 2])), (4, 4, flatten(&[3, 4])), (5, 5, LayerSource::Link)],
            &[(60, 1, bytes(1)), (2, 2, flatten(&[2])), (5, 5, flatten(&[3, 4, 5]))],
            &[(61, 2, flatten(&[1, 2])), (3, 3, flatten(&[3])), (4, 4, LayerSource::Link), (5, 5, LayerSource::Link)],
            &[(1, 1, LayerSource::Link), (62, 2, bytes(2)), (63, 4, flatten(&[3, 4])), (5, 5, flatten(&[5]))],
            &[(64, 3, flatten(&[1, 2, 3])), (65, 4, flatten(&[4])), (5, 5, flatten(&[5]))],
        ];
        for (to, shape) in (20..).zip(shapes) {
            let size = |of: u128| chain[usize::try_from(of - 1).expect("small")].2;
            let layers: Vec<Layer> =
                shape.iter().map(|(id, of, from)| (*id, format_of(*of), size(*of), from.clone())).collect();
            placed(execute(order(&domain, to, &layers, Some((5, &chain)))).await);
            for (id, of, _) in shape {
                let image = file(&domain, to, *id);
                if format_of(*of) == VolumeFormat::Qcow2 {
                    sound(&image);
                }
                same(&view(*of), &image, word(format_of(*of)));
            }
            same(&view(5), &file(&domain, 5, 5), "qcow2");
        }
        // What is left out beneath is not what lies beneath the source's layers.
        let gap = [(1, base, chain[0].2, LayerSource::Link), (3, VolumeFormat::Qcow2, chain[2].2, flatten(&[3]))];
        let refused = refusal(execute(order(&domain, 40, &gap, Some((5, &chain)))).await);
        assert_eq!(refused.code, RefusalCode::InvalidOrder);
    }
}

/// A chain made by QEMU with unlike images, put in a placement's place.
fn planted(domain: &DomainRoot, placement: u128, layers: &[(u128, u64, &[&str])]) -> Vec<Layer> {
    let mut beneath: Option<String> = None;
    let mut chain = Vec::new();
    for (number, bytes, options) in layers {
        let path = file(domain, placement, *number);
        std::fs::remove_file(&path).expect("the empty one");
        let size = bytes.to_string();
        let mut arguments = vec!["create", "-q", "-f", "qcow2"];
        if !options.is_empty() {
            arguments.push("-o");
            arguments.extend(*options);
        }
        if let Some(beneath) = &beneath {
            arguments.extend(["-u", "-b", beneath, "-F", "qcow2"]);
        }
        arguments.extend([text(&path), &size]);
        qemu_img(&arguments);
        beneath = Some(volume(*number).to_string());
        chain.push((*number, VolumeFormat::Qcow2, *bytes, LayerSource::Link));
    }
    chain
}

async fn empty_chain(domain: &DomainRoot, placement: u128, sizes: &[u64]) {
    let layers: Vec<Layer> = (1_u128..)
        .zip(sizes)
        .map(|(number, bytes)| (number, VolumeFormat::Qcow2, *bytes, LayerSource::Fresh))
        .collect();
    placed(execute(order(domain, placement, &layers, None)).await);
}

#[tokio::test]
async fn layers_of_unlike_clusters_merge_with_what_shows_from_beneath() {
    if !has_qemu_img("layers_of_unlike_clusters_merge") {
        return;
    }
    let options: [[&str; 4]; 3] = [
        ["cluster_size=64k", "cluster_size=4k", "cluster_size=512", "cluster_size=2M"],
        ["compat=0.10,cluster_size=1k", "cluster_size=32k,extended_l2=on", "cluster_size=64k", "cluster_size=4k"],
        ["cluster_size=2M", "cluster_size=64k,extended_l2=on", "compat=0.10,cluster_size=64k", "cluster_size=8k"],
    ];
    for (seed, options) in (10_u64..).zip(options) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let domain = new_domain(folder.path()).await;
        let sizes = [4 * MIB, 5 * MIB + 1024, 7 * MIB, 7 * MIB];
        empty_chain(&domain, 1, &sizes).await;
        let layers: Vec<(u128, u64, Vec<&str>)> =
            (1..).zip(sizes).zip(options).map(|((number, bytes), option)| (number, bytes, vec![option])).collect();
        let layers: Vec<(u128, u64, &[&str])> =
            layers.iter().map(|(number, bytes, options)| (*number, *bytes, options.as_slice())).collect();
        let chain = planted(&domain, 1, &layers);
        let mut dice = Dice(seed);
        for (number, bytes, ..) in &layers {
            dice.write(&file(&domain, 1, *number), *bytes, 14);
        }
        let view = seen(&file(&domain, 1, 4), "qcow2", &folder.path().join("view"));
        for number in 1..=3_u128 {
            let merged = merged(&chain, number);
            placed(execute(order(&domain, 10 + number, &merged, Some((1, &chain)))).await);
            sound(&file(&domain, 10 + number, number + 1));
            same(&view, &file(&domain, 10 + number, 4), "qcow2");
        }
        // Two at once, in the middle.
        let flatten = LayerSource::Flatten { volumes: vec![volume(2), volume(3), volume(4)] };
        let layers = [chain[0].clone(), (4, VolumeFormat::Qcow2, sizes[3], flatten)];
        placed(execute(order(&domain, 20, &layers, Some((1, &chain)))).await);
        same(&view, &file(&domain, 20, 4), "qcow2");
    }
}

#[tokio::test]
async fn compressed_clusters_of_both_kinds_are_read() {
    if !has_qemu_img("compressed_clusters_of_both_kinds_are_read") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    let raw = folder.path().join("plain");
    let mut plain = vec![0; 6 << 20];
    for (n, chunk) in plain.chunks_mut(100_000).enumerate().filter(|(n, _)| n % 3 != 1) {
        chunk.fill(u8::try_from(n + 1).unwrap_or(7));
        let length = chunk.len() / 2;
        chunk[..length].copy_from_slice(&fixture::noise(length, n as u64));
    }
    std::fs::write(&raw, &plain).expect("written");
    let kinds = [(1, "cluster_size=64k"), (2, "compression_type=zstd"), (3, "cluster_size=2M"), (4, "cluster_size=4k")];
    for (number, option) in kinds {
        let layers = [(number, VolumeFormat::Qcow2, 6 * MIB, LayerSource::Fresh)];
        placed(execute(order(&domain, number, &layers, None)).await);
        let image = file(&domain, number, number);
        std::fs::remove_file(&image).expect("the empty one");
        qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", option, text(&raw), text(&image)]);
        for (to, format, name) in [(10 + number, VolumeFormat::Raw, "raw"), (20 + number, VolumeFormat::Qcow2, "qcow2")]
        {
            let new = [(50, format, 6 * MIB, LayerSource::Flatten { volumes: vec![volume(number)] })];
            placed(execute(order(&domain, to, &new, Some((number, &layers)))).await);
            same(&raw, &file(&domain, to, 50), name);
        }
    }
}

#[tokio::test]
async fn explicit_zeros_hide_what_lies_beneath_and_stay_holes_of_a_volume_without_parent() {
    if !has_qemu_img("explicit_zeros_hide_what_lies_beneath") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    let sizes = [4 * MIB; 3];
    empty_chain(&domain, 1, &sizes).await;
    let chain = planted(&domain, 1, &[(1, sizes[0], &[]), (2, sizes[1], &[]), (3, sizes[2], &[])]);
    qemu_io(&file(&domain, 1, 1), "qcow2", &["write -P 1 0 4M"]);
    qemu_io(&file(&domain, 1, 2), "qcow2", &["write -z 1M 1M", "write -P 2 3M 64k"]);
    // Zeros written as data.
    qemu_io(&file(&domain, 1, 3), "qcow2", &["write -P 0 2M 128k", "write -z 3M 64k"]);
    let view = seen(&file(&domain, 1, 3), "qcow2", &folder.path().join("view"));
    let layers = merged(&chain, 2);
    let report = placed(execute(order(&domain, 2, &layers, Some((1, &chain)))).await);
    same(&view, &file(&domain, 2, 3), "qcow2");
    let map = qemu_img(&["map", "--output=json", text(&file(&domain, 2, 3))]);
    assert!(
        map.contains("\"start\": 1048576, \"length\": 1179648, \"depth\": 0, \"present\": true, \"zero\": true"),
        "{map}"
    );
    // All zeros: nothing of the guest's is stored.
    assert!(report.volumes[1].file_bytes < 512 * 1024, "{:?}", report.volumes);
    let whole = LayerSource::Flatten { volumes: vec![volume(1), volume(2), volume(3)] };
    placed(execute(order(&domain, 3, &[(9, VolumeFormat::Qcow2, 4 * MIB, whole)], Some((1, &chain)))).await);
    same(&view, &file(&domain, 3, 9), "qcow2");
}

#[tokio::test]
async fn a_terabyte_of_nothing_costs_nothing() {
    if !has_qemu_img("a_terabyte_of_nothing_costs_nothing") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    let bytes = 1 << 40;
    let mut chain: Vec<Layer> = vec![(1, VolumeFormat::Raw, bytes, LayerSource::Fresh)];
    placed(execute(order(&domain, 1, &chain, None)).await);
    qemu_io(&file(&domain, 1, 1), "raw", &["write -P 5 700G 128k"]);
    let source = chain.clone();
    chain[0].3 = LayerSource::Link;
    chain.push((2, VolumeFormat::Qcow2, bytes, LayerSource::Fresh));
    placed(execute(order(&domain, 2, &chain, Some((1, &source)))).await);
    qemu_io(&file(&domain, 2, 2), "qcow2", &["write -P 6 1023G 64k", "write -z 700G 64k"]);
    let whole = LayerSource::Flatten { volumes: vec![volume(1), volume(2)] };
    let report = placed(execute(order(&domain, 3, &[(2, VolumeFormat::Qcow2, bytes, whole)], Some((2, &chain)))).await);
    assert!(report.volumes[0].file_bytes < 2 * MIB, "{:?}", report.volumes);
    let image = file(&domain, 3, 2);
    sound(&image);
    qemu_io(
        &image,
        "qcow2",
        &["read -P 6 1023G 64k", "read -P 0 700G 64k", "read -P 5 734003264k 64k", "read -P 0 5G 1M"],
    );
}

#[tokio::test]
async fn what_a_merge_would_lose_is_refused_and_what_is_no_chain_is_refused() {
    if !has_qemu_img("what_a_merge_would_lose_is_refused") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    let sizes = [2 * MIB; 2];
    empty_chain(&domain, 1, &sizes).await;
    let source: Vec<Layer> = vec![
        (1, VolumeFormat::Qcow2, sizes[0], LayerSource::Link),
        (2, VolumeFormat::Qcow2, sizes[1], LayerSource::Link),
    ];
    let whole = || LayerSource::Flatten { volumes: vec![volume(1), volume(2)] };
    let merge = |to| order(&domain, to, &[(2, VolumeFormat::Qcow2, 2 * MIB, whole())], Some((1, &source)));
    qemu_img(&["bitmap", "--add", text(&file(&domain, 1, 2)), "backup"]);
    let refused = refusal(execute(merge(2)).await);
    assert_eq!(refused.code, RefusalCode::Qcow2Unsupported);
    assert!(refused.message.contains("1 dirty bitmaps") && refused.hint.contains("qemu-img bitmap"), "{refused}");
    qemu_img(&["bitmap", "--remove", text(&file(&domain, 1, 2)), "backup"]);
    qemu_img(&["snapshot", "-c", "inner", text(&file(&domain, 1, 1))]);
    let refused = refusal(execute(merge(2)).await);
    assert!(refused.message.contains("1 internal snapshots"), "{refused}");
    qemu_img(&["snapshot", "-d", "inner", text(&file(&domain, 1, 1))]);
    // Another backing name than the layer beneath: it is named, and not followed.
    qemu_img(&["rebase", "-u", "-b", "/etc/shadow", "-F", "raw", text(&file(&domain, 1, 2))]);
    let refused = refusal(execute(merge(2)).await);
    assert_eq!(refused.code, RefusalCode::Qcow2BackingFile);
    assert!(refused.message.contains("/etc/shadow"), "{refused}");
    qemu_img(&["rebase", "-u", "-b", &volume(1).to_string(), "-F", "qcow2", text(&file(&domain, 1, 2))]);
    assert!(!placement_path(&domain, 2).exists());
    placed(execute(merge(2)).await);
    // Orders that make no sense.
    let link = |n| (n, VolumeFormat::Qcow2, 2 * MIB, LayerSource::Link);
    let flatten = |n, of: &[u128]| {
        let volumes = of.iter().map(|n| volume(*n)).collect();
        (n, VolumeFormat::Qcow2, 2 * MIB, LayerSource::Flatten { volumes })
    };
    let fresh = |n, bytes| (n, VolumeFormat::Qcow2, bytes, LayerSource::Fresh);
    for (layers, code) in [
        (vec![flatten(2, &[2])], RefusalCode::InvalidOrder),
        (vec![link(1), flatten(2, &[1, 2])], RefusalCode::InvalidOrder),
        (vec![flatten(2, &[2, 1])], RefusalCode::InvalidOrder),
        (vec![flatten(2, &[])], RefusalCode::InvalidOrder),
        (vec![flatten(2, &[7])], RefusalCode::InvalidOrder),
        (vec![link(7)], RefusalCode::InvalidOrder),
        (vec![link(1), fresh(3, MIB)], RefusalCode::SizeInvalid),
        (vec![(2, VolumeFormat::Qcow2, MIB, whole())], RefusalCode::SizeInvalid),
    ] {
        let refused = refusal(execute(order(&domain, 3, &layers, Some((1, &source)))).await);
        assert_eq!(refused.code, code, "{layers:?}: {refused}");
        assert!(!placement_path(&domain, 3).exists());
    }
}

#[tokio::test]
async fn a_volume_that_a_guest_writes_is_neither_linked_nor_merged() {
    use std::os::fd::AsRawFd;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    empty_chain(&domain, 1, &[MIB]).await;
    let source: Vec<Layer> = vec![(1, VolumeFormat::Qcow2, MIB, LayerSource::Link)];
    let image = std::fs::OpenOptions::new().read(true).write(true).open(file(&domain, 1, 1)).expect("it opens");
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (libc::F_RDLCK as libc::c_short, 101, 1);
    // SAFETY: the descriptor is open, and the call reads one `flock`.
    assert_eq!(unsafe { libc::fcntl(image.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }, 0);
    let snapshot = [source[0].clone(), (2, VolumeFormat::Qcow2, MIB, LayerSource::Fresh)];
    let refused = refusal(execute(order(&domain, 2, &snapshot, Some((1, &source)))).await);
    assert_eq!(refused.code, RefusalCode::VolumeInUse);
    drop(image);
    placed(execute(order(&domain, 2, &snapshot, Some((1, &source)))).await);
}
