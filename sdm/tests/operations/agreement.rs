//! That catalog, storage and model are one: every disk is as expected, oVirt reads what the catalog
//! says, qemu sees the expected content in each layer, and nothing else lies in the domains.

use super::Expected;
use super::World;
use crate::cluster::items;
use crate::cluster::text_of;
use crate::host::text;
use crate::host::until;
use crate::ovirt;
use crate::ovirt::FoundImage;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

impl World {
    /// Collects garbage and waits until what others read on the storage is up to date.
    #[track_caller]
    pub fn settle(&self) {
        until("no garbage is left", || {
            let run = self.sdm.run(&["gc", "run", "--timeout", "20s"]);
            let kept = |row: &Value| self.trash.values().any(|kept| row["id"] == kept.id.as_str());
            let ours: Vec<String> = self.catalogued().into_iter().map(|(_, name, _)| name).collect();
            let mut left = items(&self.sdm.done(&["gc", "list"]));
            // Other tests of the same cluster keep trash as well.
            left.retain(|row| {
                !kept(row) && (row["state"] != "trash" || ours.iter().any(|name| row["domain"] == name.as_str()))
            });
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?} {}", run.stderr)) }
        });
        until("every projection is confirmed", || {
            let domains = self.catalogued().into_iter().map(|(_, name, _)| self.sdm.done(&["domain", "show", &name]));
            let all = self.disks().into_values().chain(domains);
            let pending: Vec<_> = all.filter(|row| row["projection_pending"] == true).collect();
            if pending.is_empty() { Ok(()) } else { Err(format!("{pending:?}")) }
        });
    }

    /// All disks of all domains, as the catalog has them.
    #[track_caller]
    pub fn disks(&self) -> BTreeMap<String, Value> {
        let list = |(_, domain, _): (_, String, _)| items(&self.sdm.done(&["disk", "list", "--domain", &domain]));
        let all = self.catalogued().into_iter().flat_map(list);
        all.map(|disk| (text_of(&disk, "name").to_owned(), disk)).collect()
    }

    /// Checks everything.
    ///
    /// # Panics
    /// Something differs.
    #[track_caller]
    pub fn check(&self) {
        self.settle();
        let disks = self.disks();
        let (there, expected): (Vec<_>, Vec<_>) = (disks.keys().collect(), self.model.keys().collect());
        assert_eq!(there, expected, "disks in the catalog, and those expected");
        self.check_spare();
        let trash: BTreeSet<&str> = self.trash.values().map(|kept| kept.placement.as_str()).collect();
        for (number, _, folder) in &self.catalogued() {
            let mut images = ovirt::read_images(folder);
            images.retain(|image| !trash.contains(image.name.as_str()));
            ovirt::nothing_is_left_over(folder);
            let here: Vec<_> = disks.iter().filter(|(name, _)| self.model[*name].domain == *number).collect();
            let placements: BTreeSet<&str> = here.iter().map(|(_, disk)| text_of(disk, "placement_id")).collect();
            let found: BTreeSet<&str> = images.iter().map(|image| image.name.as_str()).collect();
            assert_eq!(found, placements, "folders in {}, and placements in the catalog", folder.display());
            for (name, disk) in here {
                let image = images.iter().find(|image| image.name == text_of(disk, "placement_id"));
                check_image(name, disk, image.expect("it was just compared"));
                check_expected(name, disk, &self.model[name]);
            }
        }
    }
}

/// oVirt reads what the catalog says.
#[track_caller]
fn check_image(name: &str, disk: &Value, image: &FoundImage) {
    let volumes = disk["volumes"].as_array().expect("a disk has volumes");
    let chain: Vec<&str> = volumes.iter().map(|volume| text_of(volume, "id")).collect();
    let found: Vec<&str> = image.chain.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(found, chain, "chain of {name} on the storage, and in the catalog");
    for (volume, found) in volumes.iter().zip(&image.chain) {
        let word = |condition: bool, yes: &'static str, no: &'static str| if condition { yes } else { no };
        let expected = [
            ("CAP", volume["virtual_size"].to_string()),
            ("FORMAT", word(volume["format"] == "qcow2", "COW", "RAW").to_owned()),
            ("LEGALITY", word(volume["legal"] == true, "LEGAL", "ILLEGAL").to_owned()),
            ("TYPE", word(volume["preallocated"] == true, "PREALLOCATED", "SPARSE").to_owned()),
            ("VOLTYPE", text_of(volume, "role").to_ascii_uppercase()),
        ];
        for (key, value) in expected {
            assert_eq!(found.keys[key], value, "{key} of {} of {name}: {:?}", found.name, found.keys);
        }
    }
    let leaf = image.chain.last().expect("a chain is never empty");
    let alias: Value = serde_json::from_str(&leaf.keys["DESCRIPTION"])
        .unwrap_or_else(|error| panic!("DESCRIPTION of {name}: {error}: {:?}", leaf.keys));
    assert_eq!(alias["DiskAlias"], name, "oVirt's name of {name}");
}

/// The catalog, and what a guest sees, are as expected.
#[track_caller]
fn check_expected(name: &str, disk: &Value, expected: &Expected) {
    let volumes = disk["volumes"].as_array().expect("a disk has volumes");
    assert_eq!(disk["format"], expected.format, "format of {name}");
    assert_eq!(disk["virtual_size"], expected.size, "size of {name}");
    assert_eq!(disk["template"], expected.template, "{name} is a template");
    assert_eq!(disk["description"], expected.description.as_str(), "description of {name}");
    assert_eq!(volumes.len(), expected.layers, "layers of {name}: {volumes:?}");
    let leaf = volumes.last().expect("a chain is never empty");
    assert_eq!(leaf["preallocated"], expected.preallocated, "preallocation of {name}");
    let legal = volumes.iter().all(|volume| volume["legal"] == true);
    assert_eq!(legal, expected.legal, "legality of {name}");
    let hosts = disk["attachments"].as_array().expect("a disk has a list of attachments");
    assert_eq!(!hosts.is_empty(), expected.attached, "attachments of {name}: {hosts:?}");
    let snapshots = disk["snapshots"].as_array().expect("a disk has a list of snapshots");
    let names: Vec<&str> = snapshots.iter().map(|snapshot| text_of(snapshot, "name")).collect();
    let wanted: Vec<&str> = expected.snapshots.iter().map(|frozen| frozen.name.as_str()).collect();
    assert_eq!(names, wanted, "snapshots of {name}");
    same_content(leaf, &expected.content, name);
    for (snapshot, frozen) in snapshots.iter().zip(&expected.snapshots) {
        same_content(snapshot, &frozen.content, &format!("snapshot {} of {name}", frozen.name));
    }
}

/// A guest sees this content in a layer and those beneath.
#[track_caller]
fn same_content(layer: &Value, content: &Path, what: &str) {
    let (path, format) = (text_of(layer, "path"), text_of(layer, "format"));
    let compared = crate::host::try_run("qemu-img", &["compare", "-f", format, "-F", "raw", path, text(content)]);
    let told = String::from_utf8_lossy(&compared.stdout).into_owned() + &String::from_utf8_lossy(&compared.stderr);
    assert!(compared.status.success(), "{what} is not what was written: {told}");
}
