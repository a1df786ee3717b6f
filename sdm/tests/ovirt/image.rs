//! An image: a folder with a chain of volumes.

use super::names::all_names;
use super::names::is_uuid;
use super::volume::FoundVolume;
use super::volume::volume_keys;
use std::path::Path;

/// An image as vdsm sees it.
#[derive(Debug, Clone)]
pub struct FoundImage {
    /// The folder's name.
    pub name: String,
    /// Root first; never empty.
    pub chain: Vec<FoundVolume>,
}

/// Our mark: the only other file in the folder. vdsm's globs do not see it.
const MARK: &str = ".sdm";

/// Reads an image's folder: volumes that form one chain, and nothing else.
///
/// # Panics
/// Something is not as oVirt wants it.
#[track_caller]
pub fn read_image(folder: &Path, domain: &str) -> FoundImage {
    let image = folder.file_name().and_then(|name| name.to_str()).expect("it has a name").to_owned();
    assert!(is_uuid(&image), "{image} is no name of an image");
    let mut volumes = Vec::new();
    for name in all_names(folder) {
        if name == MARK {
            continue;
        }
        let Some(volume) = name.strip_suffix(".meta") else {
            assert!(is_uuid(&name), "{image}/{name} is no name of a volume");
            assert!(folder.join(format!("{name}.meta")).is_file(), "{image}/{name} has no .meta: vdsm thinks it new");
            continue;
        };
        assert!(is_uuid(volume), "{image}/{name} is of no volume");
        let keys = volume_keys(&folder.join(&name));
        assert_eq!((keys["DOMAIN"].as_str(), keys["IMAGE"].as_str()), (domain, image.as_str()), "of {name}");
        let found = FoundVolume { image: image.clone(), name: volume.to_owned(), file: folder.join(volume), keys };
        found.check_file();
        volumes.push(found);
    }
    let chain = chain_of(&image, volumes);
    check_chain(&image, &chain);
    FoundImage { name: image, chain }
}

/// The volumes from the root to the top, each above its parent: all of them, without a fork or a loop.
fn chain_of(image: &str, mut left: Vec<FoundVolume>) -> Vec<FoundVolume> {
    assert!(!left.is_empty(), "image {image} holds no volume");
    let mut chain: Vec<FoundVolume> = Vec::new();
    while !left.is_empty() {
        let beneath = chain.last().map(|volume: &FoundVolume| volume.name.clone());
        let (mut next, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|volume| volume.parent() == beneath.as_deref());
        let names =
            |of: &[FoundVolume]| of.iter().map(|v| format!("{} on {:?}", v.name, v.parent())).collect::<Vec<_>>();
        assert_eq!(
            next.len(),
            1,
            "image {image}: on {beneath:?} lie {:?}, and besides {:?}",
            names(&next),
            names(&others)
        );
        chain.extend(next.pop());
        left = others;
    }
    chain
}

fn check_chain(image: &str, chain: &[FoundVolume]) {
    let kinds: Vec<&str> = chain.iter().map(|volume| volume.keys["VOLTYPE"].as_str()).collect();
    let (top, beneath) = kinds.split_last().expect("a chain is never empty");
    // A template is one volume, or several, which nobody writes; any other image has one leaf, at its top.
    let template = chain.len() == 1 && *top == "SHARED";
    assert!(template || *top == "LEAF", "image {image} has no leaf at its top: {kinds:?}");
    assert!(!beneath.contains(&"LEAF"), "image {image} has two leaves: {kinds:?}");
    for (lower, upper) in chain.iter().zip(chain.iter().skip(1)) {
        assert!(upper.number("SEQ") > lower.number("SEQ"), "SEQ does not rise in {image}: {chain:?}");
        assert!(upper.number("CAP") >= lower.number("CAP"), "a child is smaller than its parent in {image}: {chain:?}");
        // What is shared stands on what is shared: vdsm's templates have no private parents.
        let shared = |volume: &FoundVolume| volume.keys["VOLTYPE"] == "SHARED";
        assert!(!shared(upper) || shared(lower), "{} is SHARED on a private parent in {image}", upper.name);
    }
    let mut parent = None;
    for volume in chain {
        volume.check_backing(parent);
        parent = Some(volume);
    }
}
