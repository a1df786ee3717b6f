//! Layers spoilt at random, and storage that shares blocks: a flatten answers whatever the bytes, and what it shares it
//! does not change.

mod fixture;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use fixture::has_qemu_img;
use fixture::noise;
use fixture::qemu_img;
use fixture::text;
use fixture::tool;
use sdm_storage_worker::driver::DomainDriver;
use sdm_storage_worker::driver::DomainFile;
use sdm_storage_worker::driver::EntryPath;
use sdm_storage_worker::driver::FileStorage;
use sdm_storage_worker::driver::OpenHow;
use sdm_storage_worker::driver::SimulatedStorage;
use sdm_storage_worker::driver::Storage;
use sdm_storage_worker::flatten::ChainBuilder;
use sdm_storage_worker::flatten::FlattenError;
use sdm_storage_worker::flatten::FlattenPorts;
use sdm_storage_worker::flatten::Flattened;
use sdm_storage_worker::flatten::LayerFormat;
use sdm_storage_worker::flatten::flatten_to_qcow2;
use sdm_storage_worker::flatten::flatten_to_raw;
use sdm_storage_worker::work::CancelFlag;

const MODE: u32 = 0o660;

/// Small images with data, zeros, and both kinds of compression.
fn samples(folder: &Path) -> Vec<Vec<u8>> {
    let raw = folder.join("raw");
    let mut disk = vec![0; 768 * 1024];
    disk[..150_000].copy_from_slice(&noise(150_000, 3));
    disk[300_000..300_000 + 62_000].copy_from_slice(&b"compress me, please, very much ".repeat(2000));
    std::fs::write(&raw, disk).expect("the raw disk is written");
    [
        vec!["-o", "cluster_size=512"],
        vec!["-c", "-o", "cluster_size=64k"],
        vec!["-c", "-o", "cluster_size=4k,compression_type=zstd"],
        vec!["-o", "compat=0.10,cluster_size=1k"],
        vec!["-o", "extended_l2=on,cluster_size=16k"],
    ]
    .into_iter()
    .map(|options| {
        let path = folder.join("image");
        let _ = std::fs::remove_file(&path);
        let arguments: Vec<&str> = ["convert", "-f", "raw", "-O", "qcow2"]
            .into_iter()
            .chain(options)
            .chain([text(&raw), text(&path)])
            .collect();
        qemu_img(&arguments);
        tool("qemu-io", &["-f", "qcow2", "-c", "write -z 64k 32k", text(&path)]);
        std::fs::read(&path).expect("the image is read")
    })
    .collect()
}

async fn flatten_file<S: Storage>(
    storage: &S,
    folder: &Path,
    format: LayerFormat<'_>,
    to_raw: bool,
) -> Result<Flattened, FlattenError> {
    let driver = storage.open_root(folder).await.expect("the folder");
    let path = |name: &str| EntryPath::root().join(name).expect("a name");
    let _ = driver.unlink(&path("target")).await;
    let source = Arc::new(driver.open(&path("source"), OpenHow::READ_VOLUME).await.expect("the source"));
    let target = Arc::new(driver.open(&path("target"), OpenHow::create_volume(MODE)).await.expect("the target"));
    let cancel = CancelFlag::new();
    let mut builder = ChainBuilder::default();
    builder.flattened(source, format, &cancel)?;
    let chain = builder.finish(0);
    let bytes = chain.virtual_bytes().next_multiple_of(4096);
    let ports = FlattenPorts { progress: &|_, _| {}, cancel: &cancel };
    if to_raw {
        flatten_to_raw(chain, target, bytes, driver.io_threads(), ports).await
    } else {
        flatten_to_qcow2(chain, target, bytes, None, driver.io_threads(), ports).await
    }
}

#[tokio::test]
async fn a_spoilt_layer_is_refused_or_read_and_nothing_panics() {
    if !has_qemu_img("a_spoilt_layer_is_refused_or_read") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let samples = samples(folder.path());
    let source = folder.path().join("source");
    let (mut read, mut refused) = (0, 0);
    for round in 0..600_u64 {
        let which = usize::try_from(round).expect("small") % samples.len();
        let mut bytes = samples[which].clone();
        let dice = noise(64, round);
        let number = |at: usize| u64::from_le_bytes(dice[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
        for n in 0..1 + number(0) as usize % 3 {
            let place = match number(1 + n) % 3 {
                0 => number(2 + n) % 128,
                1 => number(2 + n) % 20_000,
                _ => number(2 + n) % bytes.len() as u64,
            } as usize;
            match number(3 + n) % 4 {
                0 => bytes[place] ^= 1 << (number(4 + n) % 8),
                1 => bytes[place] = number(4 + n) as u8,
                2 => {
                    let at = (place & !7).min(bytes.len() - 8);
                    bytes[at..at + 8].copy_from_slice(&(number(4 + n) % 2048 * 512).to_be_bytes());
                }
                _ => bytes.truncate(bytes.len() - place % 3000),
            }
        }
        std::fs::write(&source, &bytes).expect("written");
        let to_raw = round % 2 == 0;
        match flatten_file(&FileStorage, folder.path(), LayerFormat::Qcow2 { backing: None }, to_raw).await {
            Ok(written) => {
                read += 1;
                let target = std::fs::read(folder.path().join("target")).expect("the target");
                assert_eq!(written.hash, blake3::hash(&target).into(), "round {round}");
                if !to_raw {
                    qemu_img(&["check", "-q", "-f", "qcow2", text(&folder.path().join("target"))]);
                }
            }
            Err(FlattenError::Layer { .. }) => refused += 1,
            Err(other) => panic!("round {round}: {other:?}"),
        }
    }
    assert!(read > 60 && refused > 60, "{read} read, {refused} refused: the test tells little");
}

#[tokio::test]
async fn blocks_are_shared_where_the_storage_can_and_the_bytes_are_the_same() {
    let bytes = noise(3 << 20, 9);
    let mut hashes = Vec::new();
    for shares in [false, true] {
        let storage = SimulatedStorage::new();
        let folder = Path::new("/srv");
        storage.mount(folder).expect("a mount");
        if shares {
            storage.share_blocks();
        }
        let driver = storage.open_root(folder).await.expect("the folder");
        let source = EntryPath::root().join("source").expect("a name");
        let file = driver.open(&source, OpenHow::create_volume(MODE)).await.expect("a file");
        file.write_at(&bytes, 0).expect("written");
        for to_raw in [true, false] {
            let written = flatten_file(&storage, folder, LayerFormat::Raw, to_raw).await.expect("flattened");
            hashes.push(written.hash);
        }
    }
    assert_eq!(hashes[..2], hashes[2..]);
    assert_eq!(hashes[0], blake3::hash(&bytes).into());
}

/// A loop-mounted XFS, which shares blocks; unmounted when dropped.
struct Xfs(tempfile::TempDir);

impl Xfs {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        std::fs::create_dir(&mount).expect("a folder");
        std::fs::File::create(&image).and_then(|file| file.set_len(400 << 20)).expect("an image");
        let ran = |program: &str, arguments: &[&str]| {
            Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
        };
        let is_there =
            ran("mkfs.xfs", &["-q", text(&image)]) && ran("mount", &["-o", "loop", text(&image), text(&mount)]);
        is_there.then_some(Self(folder))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("mount")
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).output();
    }
}

#[tokio::test]
async fn on_a_file_system_that_shares_blocks_a_flatten_takes_little_room() {
    let Some(xfs) = Xfs::new() else {
        println!("SKIPPED: on_a_file_system_that_shares_blocks: needs root, mkfs.xfs (xfsprogs) and loop mounts");
        return;
    };
    let path = xfs.path();
    std::fs::write(path.join("source"), noise(64 << 20, 4)).expect("written");
    tool("sync", &["-f", text(&path.join("source"))]);
    let free = || {
        let found = rustix::fs::statvfs(&path).expect("statvfs");
        found.f_bfree * found.f_frsize
    };
    for to_raw in [true, false] {
        let before = free();
        let written = flatten_file(&FileStorage, &path, LayerFormat::Raw, to_raw).await.expect("flattened");
        let target = path.join("target");
        assert_eq!(written.hash, blake3::hash(&std::fs::read(&target).expect("the target")).into());
        if has_qemu_img("on_a_file_system_that_shares_blocks") && !to_raw {
            qemu_img(&["check", "-q", "-f", "qcow2", text(&target)]);
            qemu_img(&["compare", "-f", "raw", "-F", "qcow2", text(&path.join("source")), text(&target)]);
        }
        let taken = before.saturating_sub(free());
        assert!(taken < 16 << 20, "{taken} bytes were taken for 64 MiB that could be shared (raw: {to_raw})");
    }
}
