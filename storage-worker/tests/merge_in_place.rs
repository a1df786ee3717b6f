//! Merges in place: whatever the layers hold, a guest sees the same before, meanwhile and afterwards, and QEMU finds the
//! image sound; wherever the power is cut, too.

mod fixture;

use std::path::Path;
use std::path::PathBuf;

use fixture::create_domain;
use fixture::done;
use fixture::has_qemu_img;
use fixture::noise;
use fixture::placed;
use fixture::placement;
use fixture::placement_path;
use fixture::qemu_img;
use fixture::refusal;
use fixture::root;
use fixture::text;
use fixture::tool;
use sdm_storage_worker::domain::Domain;
use sdm_storage_worker::driver::DomainDriver;
use sdm_storage_worker::driver::DomainFile;
use sdm_storage_worker::driver::EntryPath;
use sdm_storage_worker::driver::FileStorage;
use sdm_storage_worker::driver::OpenHow;
use sdm_storage_worker::driver::SimulatedStorage;
use sdm_storage_worker::driver::Storage;
use sdm_storage_worker::volume::qcow2::Backing;
use sdm_storage_worker::volume::qcow2::check_layer;
use sdm_storage_worker::work::BuildChain;
use sdm_storage_worker::work::CancelFlag;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::Done;
use sdm_storage_worker::work::LayerSource;
use sdm_storage_worker::work::LocalPlacement;
use sdm_storage_worker::work::MergeInPlace;
use sdm_storage_worker::work::NewPlacement;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::RefusalCode;
use sdm_storage_worker::work::SourceChain;
use sdm_storage_worker::work::SourceVolume;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::VolumeSpec;
use sdm_storage_worker::work::run_on;
use uuid::Uuid;

/// A layer of a test's chain: its number and its format, base first.
type Layer = (u128, VolumeFormat);

const SIZE: u64 = 4 << 20;

fn volume(number: u128) -> Uuid {
    Uuid::from_u128(0x7000 + number)
}

fn specs(domain: &DomainRoot, layers: &[Layer], bytes: u64) -> Vec<VolumeSpec> {
    let one = placement(domain, 1, VolumeFormat::Raw, Some(bytes)).volumes[0].clone();
    let mut parent = None;
    let mut specs = Vec::new();
    for (at, (number, format)) in layers.iter().enumerate() {
        let sequence = u32::try_from(at + 1).expect("few");
        specs.push(VolumeSpec { volume: volume(*number), format: *format, parent, sequence, ..one.clone() });
        parent = Some(volume(*number));
    }
    specs
}

fn sources(layers: &[Layer]) -> Vec<SourceVolume> {
    let of = |(number, format): &Layer| SourceVolume { volume: volume(*number), format: *format, expected_hash: None };
    layers.iter().map(of).collect()
}

fn source_chain(domain: &DomainRoot, from: u128, layers: &[Layer]) -> SourceChain {
    let at = LocalPlacement {
        domain: domain.clone(),
        placement: Uuid::from_u128(0xF000_0000 + from),
        token: format!("1-{from}-0"),
    };
    SourceChain { at, volumes: sources(layers) }
}

/// Placement 1, all layers empty.
fn fresh(domain: &DomainRoot, layers: &[Layer], bytes: u64) -> Order {
    let mut new = placement(domain, 1, VolumeFormat::Raw, None);
    new.volumes = specs(domain, layers, bytes);
    Order::BuildChain(BuildChain {
        placement: new,
        source: None,
        layers: layers.iter().map(|_| LayerSource::Fresh).collect(),
        rebase: None,
    })
}

fn merge(domain: &DomainRoot, layers: &[Layer]) -> MergeInPlace {
    MergeInPlace {
        domain: domain.clone(),
        placement: Uuid::from_u128(0xF000_0001),
        token: "1-1-0".to_owned(),
        volumes: sources(layers),
        settle_only: false,
    }
}

/// Placement 2: links of all but the last but one.
fn left_out(domain: &DomainRoot, layers: &[Layer], bytes: u64) -> Order {
    let mut left = layers.to_vec();
    left.remove(layers.len() - 2);
    let mut new = placement(domain, 2, VolumeFormat::Raw, None);
    new.volumes = specs(domain, &left, bytes);
    Order::BuildChain(BuildChain {
        placement: new,
        source: Some(source_chain(domain, 1, layers)),
        layers: left.iter().map(|_| LayerSource::Link).collect(),
        rebase: layers.last().map(|(number, _)| volume(*number)),
    })
}

/// Small numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).expect("an index")]
    }
}

/// A chain that QEMU makes in a folder, with random content, under the volumes' names.
fn plant(folder: &Path, layers: &[Layer], dice: &mut Dice) {
    let mut bytes = SIZE - dice.below(3) * 4096 * 37;
    let mut backing: Option<Layer> = None;
    for (at, (number, format)) in layers.iter().enumerate() {
        let image = folder.join(volume(*number).to_string());
        _ = std::fs::remove_file(&image);
        let is_last = at + 1 == layers.len();
        if is_last {
            bytes = SIZE;
        }
        let size = bytes.to_string();
        let cluster = dice.of(if is_last { &[65536, 65536, 4096, 512] } else { &[65536, 4096, 512, 1 << 20] });
        match (format, backing) {
            (VolumeFormat::Raw, _) => _ = qemu_img(&["create", "-q", "-f", "raw", text(&image), &size]),
            (VolumeFormat::Qcow2, None) => {
                let options = format!("cluster_size={cluster}");
                qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, text(&image), &size]);
            }
            (VolumeFormat::Qcow2, Some((beneath, format))) => {
                let format = if format == VolumeFormat::Raw { "raw" } else { "qcow2" };
                let options = format!("cluster_size={cluster},backing_file={},backing_fmt={format}", volume(beneath));
                qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-o", &options, text(&image), &size]);
            }
        }
        scribble(&image, *format, bytes, cluster, dice);
        backing = Some((*number, *format));
        bytes += dice.below(2) * 4096;
        bytes = bytes.min(SIZE);
    }
}

fn scribble(image: &Path, format: VolumeFormat, bytes: u64, cluster: u64, dice: &mut Dice) {
    let mut commands = Vec::new();
    // Compressed ones first, each once: QEMU writes none over what is there.
    let compressed: std::collections::BTreeSet<u64> = (0..dice.below(4)).map(|_| dice.below(bytes / cluster)).collect();
    if format == VolumeFormat::Qcow2 {
        let write = |at: u64| format!("write -c -P {} {} {cluster}", 1 + at % 250, at * cluster);
        commands.extend(compressed.into_iter().map(write));
    }
    for _ in 0..3 + dice.below(8) {
        let (from, value) = (dice.below(bytes / 512) * 512, 1 + dice.below(250));
        let length = (1 + dice.below(400)) * 512;
        let length = length.min(bytes - from);
        commands.push(match dice.below(4) {
            0 if format == VolumeFormat::Qcow2 => format!("write -z {from} {length}"),
            _ => format!("write -P {value} {from} {length}"),
        });
    }
    let format = if format == VolumeFormat::Raw { "raw" } else { "qcow2" };
    let mut words = vec!["-f", format];
    words.extend(commands.iter().flat_map(|command| ["-c", command]));
    words.push(text(image));
    tool("qemu-io", &words);
}

/// What a guest sees, as QEMU reads it.
fn seen(folder: &Path, number: u128) -> Vec<u8> {
    let (image, raw) = (folder.join(volume(number).to_string()), folder.join("seen.raw"));
    qemu_img(&["convert", "-q", "-f", "qcow2", "-O", "raw", text(&image), text(&raw)]);
    let bytes = std::fs::read(&raw).expect("it reads");
    std::fs::remove_file(raw).expect("gone");
    bytes
}

fn image(folder: &Path, number: u128) -> PathBuf {
    folder.join(volume(number).to_string())
}

async fn new_domain<S: Storage>(storage: &S, path: &Path) -> DomainRoot {
    let domain = root(path, 1);
    done(run_on(storage, Order::CreateDomain(create_domain(domain.clone())), Ports::silent()).await);
    domain
}

/// Held by each test on real files: a tool that another one starts has, from its fork to its exec, every file that is
/// open here, and with it the lock on an image that was just closed.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn execute(order: Order) -> Outcome {
    run_on(&FileStorage, order, Ports::silent()).await
}

const QCOW2: VolumeFormat = VolumeFormat::Qcow2;
const CHAINS: [&[Layer]; 4] = [
    &[(1, QCOW2), (2, QCOW2), (3, QCOW2)],
    &[(1, VolumeFormat::Raw), (2, QCOW2), (3, QCOW2)],
    &[(2, VolumeFormat::Raw), (3, QCOW2)],
    &[(2, QCOW2), (3, QCOW2)],
];

#[tokio::test]
async fn whatever_the_layers_hold_a_guest_sees_the_same_over_either() {
    let _alone = ALONE.lock().await;
    if !has_qemu_img("whatever_the_layers_hold_a_guest_sees_the_same_over_either") {
        return;
    }
    let rounds = std::env::var("SDM_MERGE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(24_u64);
    for round in 0..rounds {
        let mut dice = Dice(round + 1);
        let layers = dice.of(&CHAINS);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let domain = new_domain(&FileStorage, folder.path()).await;
        placed(execute(fresh(&domain, layers, SIZE)).await);
        let first = placement_path(&domain, 1);
        plant(&first, layers, &mut dice);
        let before = seen(&first, 3);
        for _ in 0..2 {
            let Done::Merged(report) = done(execute(Order::MergeInPlace(merge(&domain, layers))).await) else {
                panic!("round {round}: not merged")
            };
            assert_eq!(report.volumes[0].virtual_bytes, SIZE, "round {round}");
            qemu_img(&["check", "-q", "-f", "qcow2", text(&image(&first, 3))]);
            assert!(seen(&first, 3) == before, "round {round}: another content over the volume that is to go");
        }
        // Twice: the report of the first time may be lost.
        for _ in 0..2 {
            placed(execute(left_out(&domain, layers, SIZE)).await);
            let second = placement_path(&domain, 2);
            assert!(!image(&second, 2).exists());
            qemu_img(&["check", "-q", "-f", "qcow2", text(&image(&second, 3))]);
            assert!(seen(&second, 3) == before, "round {round}: another content over the volume beneath");
        }
        done(execute(Order::DeletePlacement(fixture::delete_order(&domain, 1))).await);
        assert!(seen(&placement_path(&domain, 2), 3) == before, "round {round}: it needed what is gone");
        // Merged already: whoever asks again finds it so.
        let again = MergeInPlace {
            placement: Uuid::from_u128(0xF000_0002),
            token: "1-2-0".to_owned(),
            ..merge(&domain, layers)
        };
        done(execute(Order::MergeInPlace(again)).await);
    }
}

#[tokio::test]
async fn what_is_not_of_our_own_making_or_not_alone_is_left_as_it_is() {
    let _alone = ALONE.lock().await;
    if !has_qemu_img("what_is_not_of_our_own_making_is_left_as_it_is") {
        return;
    }
    let layers = CHAINS[3];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(&FileStorage, folder.path()).await;
    placed(execute(fresh(&domain, layers, SIZE)).await);
    let first = placement_path(&domain, 1);
    let (below, leaf) = (image(&first, 2), image(&first, 3));
    tool("qemu-io", &["-f", "qcow2", "-c", "write -P 7 64k 300k", text(&below)]);
    let over = format!("backing_file={},backing_fmt=qcow2", volume(2));
    for (options, words) in [
        (format!("{over},refcount_bits=8"), "refcounts of 8 bits"),
        (format!("{over},extended_l2=on"), "subclusters"),
        (format!("{over},compat=0.10"), "version 2"),
    ] {
        std::fs::remove_file(&leaf).expect("the one before");
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-o", &options, text(&leaf), &SIZE.to_string()]);
        let before = std::fs::read(&leaf).expect("read");
        let refused = refusal(execute(Order::MergeInPlace(merge(&domain, layers))).await);
        assert_eq!(refused.code, RefusalCode::Qcow2Unsupported, "{refused}");
        assert!(refused.message.contains(words), "{refused}");
        assert!(std::fs::read(&leaf).expect("read") == before, "it was written into");
    }
    std::fs::remove_file(&leaf).expect("the one before");
    qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-o", &over, text(&leaf), &SIZE.to_string()]);
    // What the second half could not keep is refused by the first.
    let before = std::fs::read(&leaf).expect("read");
    let strange = with_strange_extension(&before);
    std::fs::write(&leaf, &strange).expect("written");
    let refused = refusal(execute(Order::MergeInPlace(merge(&domain, layers))).await);
    assert_eq!(refused.code, RefusalCode::Qcow2Unsupported, "{refused}");
    assert!(refused.message.contains("0x12345678"), "{refused}");
    assert!(std::fs::read(&leaf).expect("read") == strange, "it was written into");
    std::fs::write(&leaf, &before).expect("written");
    let second = folder.path().join("second");
    std::fs::hard_link(&leaf, &second).expect("a second name");
    let refused = refusal(execute(Order::MergeInPlace(merge(&domain, layers))).await);
    assert_eq!(refused.code, RefusalCode::VolumeShared);
    // What only settles looks at nothing.
    let settle = MergeInPlace { settle_only: true, ..merge(&domain, layers) };
    let before = std::fs::read(&leaf).expect("read");
    done(execute(Order::MergeInPlace(settle)).await);
    assert!(std::fs::read(&leaf).expect("read") == before);
    std::fs::remove_file(second).expect("gone");
    let other = MergeInPlace { token: "1-9-0".to_owned(), ..merge(&domain, layers) };
    assert_eq!(refusal(execute(Order::MergeInPlace(other)).await).code, RefusalCode::EvidenceMismatch);
    done(execute(Order::MergeInPlace(merge(&domain, layers))).await);
}

/// The image with a header extension that nobody knows, in place of the names of features.
fn with_strange_extension(image: &[u8]) -> Vec<u8> {
    let mut bytes = image.to_vec();
    let names = 0x6803_F857_u32.to_be_bytes();
    let at = bytes.windows(4).take(4096).position(|part| part == names).expect("QEMU names its features");
    bytes[at..at + 4].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    bytes
}

/// Somebody has the leaf of placement 1 open.
fn use_leaf(storage: &SimulatedStorage, domain: &DomainRoot) {
    let folder = format!("/srv/{}/images/{}", domain.domain, Uuid::from_u128(0xF000_0001));
    storage.use_image(&image(Path::new(&folder), 3)).expect("the leaf");
}

/// A simulated storage with a chain that QEMU made.
async fn stage(files: &[(u128, Vec<u8>)], layers: &[Layer]) -> (SimulatedStorage, DomainRoot) {
    let storage = SimulatedStorage::new();
    storage.mount(Path::new("/srv")).expect("a mount");
    let domain = new_domain(&storage, Path::new("/srv")).await;
    placed(run_on(&storage, fresh(&domain, layers, SIZE), Ports::silent()).await);
    let opened = Domain::open(&storage, &domain).await.expect("it opens");
    for (number, bytes) in files {
        let file = opened.change_volume(Uuid::from_u128(0xF000_0001), volume(*number)).await.expect("a volume");
        let present = usize::try_from(file.stat().expect("a size").bytes).expect("small");
        let mut bytes = bytes.clone();
        bytes.resize(bytes.len().max(present), 0);
        file.extend_to(bytes.len() as u64).expect("longer");
        file.write_at(&bytes, 0).expect("written");
        file.sync().expect("synced");
    }
    (storage, domain)
}

async fn file_of(storage: &SimulatedStorage, domain: &DomainRoot, from: u128, number: u128) -> Vec<u8> {
    let driver = Domain::open(storage, domain).await.expect("the domain").driver().clone();
    let path = format!("images/{}/{}", Uuid::from_u128(0xF000_0000 + from), volume(number));
    let file = driver.open(&EntryPath::parse(&path).expect("a path"), OpenHow::READ).await.expect("a file");
    let mut bytes = vec![0; usize::try_from(file.stat().expect("a size").bytes).expect("small")];
    let length = bytes.len();
    assert_eq!(file.read_at(&mut bytes, 0).expect("read"), length);
    bytes
}

/// What a guest sees through a chain of a placement: flattened into a raw volume of another one.
async fn flattened(storage: &SimulatedStorage, domain: &DomainRoot, from: u128, layers: &[Layer], to: u128) -> Vec<u8> {
    let mut new = placement(domain, to, VolumeFormat::Raw, Some(SIZE));
    new.volumes[0].volume = volume(99);
    let order = Order::BuildChain(BuildChain {
        placement: new,
        source: Some(source_chain(domain, from, layers)),
        layers: vec![LayerSource::Flatten { volumes: layers.iter().map(|(number, _)| volume(*number)).collect() }],
        rebase: None,
    });
    placed(run_on(storage, order, Ports::silent()).await);
    file_of(storage, domain, to, 99).await
}

/// A chain with small clusters above, so that refcount blocks and their table have to grow.
fn small_clusters() -> Vec<(u128, Vec<u8>)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let make = |number: u128, cluster: &str, backing: Option<u128>, commands: &[&str]| {
        let file = image(folder.path(), number);
        let over = backing.map(|beneath| format!(",backing_file={},backing_fmt=qcow2", volume(beneath)));
        let options = format!("cluster_size={cluster}{}", over.unwrap_or_default());
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-o", &options, text(&file), &SIZE.to_string()]);
        let mut words = vec!["-f", "qcow2"];
        words.extend(commands.iter().flat_map(|command| ["-c", *command]));
        words.push(text(&file));
        tool("qemu-io", &words);
    };
    make(1, "64k", None, &["write -P 1 0 300k", "write -P 2 3M 64k"]);
    make(2, "4k", Some(1), &["write -P 3 100k 260k", "write -z 64k 8k", "write -c -P 4 1M 4k", "write -P 5 3900k 8k"]);
    make(3, "512", Some(2), &["write -P 6 90k 20k", "write -z 200k 1k", "write -P 7 2M 3k"]);
    let read = |number| (number, std::fs::read(image(folder.path(), number)).expect("read"));
    vec![read(1), read(2), read(3)]
}

fn sound_over(bytes: &[u8], beneath: u128) -> bool {
    let name = volume(beneath).to_string();
    check_layer(bytes, Backing::Named(&name), &CancelFlag::new()).is_ok()
}

#[tokio::test]
async fn a_power_cut_at_any_call_of_the_first_half_leaves_the_same_content_and_it_goes_on() {
    if !has_qemu_img("a_power_cut_at_any_call_of_the_first_half") {
        return;
    }
    let (files, layers) = (small_clusters(), CHAINS[0]);
    let (storage, domain) = stage(&files, layers).await;
    let whole = flattened(&storage, &domain, 1, layers, 8).await;
    assert!(whole.chunks(512).any(|sector| sector[0] == 4), "the compressed cluster shows");
    let order = || Order::MergeInPlace(merge(&domain, layers));
    let before = storage.calls();
    done(run_on(&storage, order(), Ports::silent()).await);
    let calls = storage.calls() - before;
    assert!(calls > 600, "{calls}");
    let table_moved = file_of(&storage, &domain, 1, 3).await[48..56] != files[2].1[48..56];
    assert!(table_moved, "the refcount table had to grow");
    let mut gone_on = 0;
    // Every call where tables are written would take minutes: a prime step meets all kinds.
    for call in (1..=calls).step_by(13).chain(calls.saturating_sub(40)..=calls) {
        let torn = [None, Some(call * 7919)][usize::try_from(call % 2).expect("a bit")];
        let (storage, domain) = stage(&files, layers).await;
        storage.cut_power_at(call, torn);
        let outcome = run_on(&storage, order(), Ports::silent()).await;
        assert!(!matches!(outcome, Outcome::Done(_)), "call {call}");
        storage.crash();
        assert!(sound_over(&file_of(&storage, &domain, 1, 3).await, 2), "not sound after the cut at call {call}");
        assert!(flattened(&storage, &domain, 1, layers, 8).await == whole, "another content after call {call}");
        done(run_on(&storage, order(), Ports::silent()).await);
        gone_on += 1;
        let image = file_of(&storage, &domain, 1, 3).await;
        assert!(sound_over(&image, 2) && flattened(&storage, &domain, 1, layers, 9).await == whole, "call {call}");
    }
    assert!(gone_on > 40, "{gone_on}");
}

#[tokio::test]
async fn a_power_cut_at_any_call_of_the_second_half_leaves_the_old_chain_or_the_new_one() {
    if !has_qemu_img("a_power_cut_at_any_call_of_the_second_half") {
        return;
    }
    let (files, layers) = (small_clusters(), CHAINS[0]);
    let (storage, domain) = stage(&files, layers).await;
    done(run_on(&storage, Order::MergeInPlace(merge(&domain, layers)), Ports::silent()).await);
    let whole = flattened(&storage, &domain, 1, layers, 8).await;
    let merged = vec![files[0].clone(), files[1].clone(), (3, file_of(&storage, &domain, 1, 3).await)];
    let before = storage.calls();
    placed(run_on(&storage, left_out(&domain, layers, SIZE), Ports::silent()).await);
    let calls = storage.calls() - before;
    let left = [layers[0], layers[2]];
    let (mut old, mut new) = (0, 0);
    for call in 1..=calls {
        for torn in [None, Some(call * 7919)] {
            let (storage, domain) = stage(&merged, layers).await;
            storage.cut_power_at(call, torn);
            let outcome = run_on(&storage, left_out(&domain, layers, SIZE), Ports::silent()).await;
            assert!(!matches!(outcome, Outcome::Done(_)), "call {call}");
            storage.crash();
            let leaf = file_of(&storage, &domain, 1, 3).await;
            let content = match (sound_over(&leaf, 2), sound_over(&leaf, 1)) {
                (true, false) => {
                    old += 1;
                    flattened(&storage, &domain, 1, layers, 8).await
                }
                (false, true) => {
                    new += 1;
                    flattened(&storage, &domain, 1, &left, 8).await
                }
                other => panic!("{other:?} after the cut at call {call}"),
            };
            assert!(content == whole, "another content after call {call}");
            placed(run_on(&storage, left_out(&domain, layers, SIZE), Ports::silent()).await);
            assert!(flattened(&storage, &domain, 2, &left, 9).await == whole, "call {call}");
        }
    }
    assert!(old > 0 && new > 0, "{old} over the old one, {new} over the new one");
}

#[tokio::test]
async fn a_full_storage_breaks_it_off_and_the_content_stays() {
    let layers = CHAINS[3];
    let folder = tempfile::tempdir().expect("a temporary folder");
    if !has_qemu_img("a_full_storage_breaks_it_off") {
        return;
    }
    let domain = new_domain(&FileStorage, folder.path()).await;
    placed(execute(fresh(&domain, layers, SIZE)).await);
    let first = placement_path(&domain, 1);
    let data = folder.path().join("data");
    std::fs::write(&data, noise(1 << 20, 5)).expect("written");
    let command = format!("write -s {} 1M 1M", text(&data));
    tool("qemu-io", &["-f", "qcow2", "-c", &command, text(&image(&first, 2))]);
    let files: Vec<_> = [2, 3].map(|number| (number, std::fs::read(image(&first, number)).expect("read"))).into();
    let (storage, domain) = stage(&files, layers).await;
    let whole = flattened(&storage, &domain, 1, layers, 8).await;
    storage.fail("write", 6, 28);
    let refused = refusal(run_on(&storage, Order::MergeInPlace(merge(&domain, layers)), Ports::silent()).await);
    assert_eq!(refused.code, RefusalCode::NoSpace, "{refused}");
    storage.heal();
    assert!(flattened(&storage, &domain, 1, layers, 9).await == whole);
    done(run_on(&storage, Order::MergeInPlace(merge(&domain, layers)), Ports::silent()).await);
    assert!(flattened(&storage, &domain, 1, layers, 10).await == whole);
}

#[tokio::test]
async fn without_room_for_all_of_it_nothing_is_written() {
    if !has_qemu_img("without_room_for_all_of_it_nothing_is_written") {
        return;
    }
    let (files, layers) = (small_clusters(), CHAINS[0]);
    let (storage, domain) = stage(&files, layers).await;
    let driver = Domain::open(&storage, &domain).await.expect("the domain").driver().clone();
    let space = driver.space().await.expect("its space");
    let used = space.total_bytes - space.free_bytes;
    storage.set_capacity(used + (4 << 10));
    let before = file_of(&storage, &domain, 1, 3).await;
    let refused = refusal(run_on(&storage, Order::MergeInPlace(merge(&domain, layers)), Ports::silent()).await);
    assert_eq!(refused.code, RefusalCode::NoSpace, "{refused}");
    let missing = refused.missing_bytes.expect("how much is missing");
    assert!(file_of(&storage, &domain, 1, 3).await == before, "it was written into");
    // Space is given in pages.
    storage.set_capacity(used + (8 << 10) + missing);
    done(run_on(&storage, Order::MergeInPlace(merge(&domain, layers)), Ports::silent()).await);
}

#[tokio::test]
async fn zeros_are_entered_in_batches_too() {
    if !has_qemu_img("zeros_are_entered_in_batches_too") {
        return;
    }
    const LARGE: u64 = 40 << 20;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let make = |number: u128, backing: Option<u128>, command: &str| {
        let file = image(folder.path(), number);
        let over = backing.map(|beneath| format!(",backing_file={},backing_fmt=qcow2", volume(beneath)));
        let options = format!("cluster_size=512{}", over.unwrap_or_default());
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-o", &options, text(&file), &LARGE.to_string()]);
        tool("qemu-io", &["-f", "qcow2", "-c", command, text(&file)]);
        (number, std::fs::read(file).expect("read"))
    };
    let files =
        [make(1, None, "write -P 1 0 64k"), make(2, Some(1), "write -z 0 40M"), make(3, Some(2), "write -P 2 0 1k")];
    let layers = CHAINS[0];
    let (storage, domain) = stage(&files, layers).await;
    let steps = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = steps.clone();
    let progress = std::sync::Arc::new(move |_| _ = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let ports = Ports { progress, ..Ports::silent() };
    done(run_on(&storage, Order::MergeInPlace(merge(&domain, layers)), ports).await);
    let steps = steps.load(std::sync::atomic::Ordering::Relaxed);
    assert!(steps >= 3, "81,918 entries of zeros in {steps} steps");
    assert!(sound_over(&file_of(&storage, &domain, 1, 3).await, 2));
}

#[tokio::test]
async fn what_refuses_the_second_half_comes_before_the_header_is_changed_and_says_so() {
    if !has_qemu_img("what_refuses_the_second_half_comes_before_the_header_is_changed") {
        return;
    }
    let (files, layers) = (small_clusters(), CHAINS[0]);
    let (storage, domain) = stage(&files, layers).await;
    done(run_on(&storage, Order::MergeInPlace(merge(&domain, layers)), Ports::silent()).await);
    let leaf = file_of(&storage, &domain, 1, 3).await;
    use_leaf(&storage, &domain);
    let refused = refusal(run_on(&storage, left_out(&domain, layers, SIZE), Ports::silent()).await);
    assert_eq!(refused.code, RefusalCode::NotRebased, "{refused}");
    assert!(refused.message.contains("VOLUME_IN_USE"), "{refused}");
    assert!(file_of(&storage, &domain, 1, 3).await == leaf, "it lies over what it lay over");
    let merged = vec![files[0].clone(), files[1].clone(), (3, leaf)];
    let (storage, domain) = stage(&merged, layers).await;
    let leaf = file_of(&storage, &domain, 1, 3).await;
    let whole = flattened(&storage, &domain, 1, layers, 8).await;
    let left = [layers[0], layers[2]];
    // Without links everything is copied first: where that has no room, the header is as it was, too.
    storage.fail("link", 0, 18);
    let driver = Domain::open(&storage, &domain).await.expect("the domain").driver().clone();
    let space = driver.space().await.expect("its space");
    storage.set_capacity(space.total_bytes - space.free_bytes + (64 << 10));
    let refused = refusal(run_on(&storage, left_out(&domain, layers, SIZE), Ports::silent()).await);
    assert_eq!(refused.code, RefusalCode::NotRebased, "{refused}");
    assert!(refused.message.contains("NO_SPACE"), "{refused}");
    assert!(file_of(&storage, &domain, 1, 3).await == leaf);
    storage.set_capacity(space.total_bytes);
    placed(run_on(&storage, left_out(&domain, layers, SIZE), Ports::silent()).await);
    assert!(sound_over(&file_of(&storage, &domain, 2, 3).await, 1), "the copy lies over what it is to");
    assert!(sound_over(&file_of(&storage, &domain, 1, 3).await, 2), "the source of a copy is left as it is");
    assert!(flattened(&storage, &domain, 2, &left, 10).await == whole);
    assert!(flattened(&storage, &domain, 1, layers, 11).await == whole);
}

#[tokio::test]
async fn a_refusal_after_the_header_was_changed_does_not_say_that_it_was_not() {
    if !has_qemu_img("a_refusal_after_the_header_was_changed") {
        return;
    }
    let (files, layers) = (small_clusters(), CHAINS[0]);
    let (storage, domain) = stage(&files, layers).await;
    done(run_on(&storage, Order::MergeInPlace(merge(&domain, layers)), Ports::silent()).await);
    placed(run_on(&storage, left_out(&domain, layers, SIZE), Ports::silent()).await);
    // Its report was lost, and the next attempt meets somebody who has the leaf open.
    use_leaf(&storage, &domain);
    let Order::BuildChain(mut again) = left_out(&domain, layers, SIZE) else { panic!("a chain") };
    again.placement =
        NewPlacement { volumes: again.placement.volumes, ..placement(&domain, 3, VolumeFormat::Raw, None) };
    let refused = refusal(run_on(&storage, Order::BuildChain(again), Ports::silent()).await);
    assert_eq!(refused.code, RefusalCode::VolumeInUse, "{refused}");
}
