//! A domain for what is done to domains themselves, and the trash: both in the model, so that the
//! proof of agreement covers them.

use super::Expected;
use super::World;
use crate::cluster::items;
use crate::cluster::text_of;
use crate::host::text;
use crate::host::until;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Number of the spare domain, where a disk's domain is a number.
pub const SPARE: usize = 2;

/// How a domain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// For use.
    Active,
    /// Nothing new begins in it.
    Maintained,
    /// Given up by the cluster, with its disks.
    Detached,
}

/// A third domain.
#[derive(Debug)]
pub struct Spare {
    /// Its name.
    pub name: String,
    /// Its own folder.
    pub folder: PathBuf,
    /// How it stands.
    pub stands: Stands,
    /// What it took along when it was detached.
    stash: BTreeMap<String, Expected>,
}

/// A deleted disk that is kept.
#[derive(Debug)]
pub struct InTrash {
    /// The id of its garbage.
    pub id: String,
    /// The name of its folder.
    pub placement: String,
    /// What comes back.
    disk: Expected,
}

impl World {
    /// The domains that the catalog has: their numbers, names and folders.
    pub fn catalogued(&self) -> Vec<(usize, String, PathBuf)> {
        let usual = self.domains.iter().cloned().enumerate().map(|(number, (name, folder))| (number, name, folder));
        let spare = self.spare.as_ref().filter(|spare| spare.stands != Stands::Detached);
        usual.chain(spare.map(|spare| (SPARE, spare.name.clone(), spare.folder.clone()))).collect()
    }

    /// The spare domain.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn spare(&self) -> &Spare {
        self.spare.as_ref().expect("there is a spare domain")
    }

    /// Has the spare domain stand so, however the last operation left it.
    #[track_caller]
    pub fn spare_stands(&mut self, disk: &str, wanted: Stands) {
        let stands = match &self.spare {
            Some(spare) => spare.stands,
            None => self.make_spare(disk),
        };
        match (stands, wanted) {
            (Stands::Active, Stands::Maintained) => self.spare_verb("maintenance"),
            (Stands::Maintained, Stands::Active) => self.spare_verb("activate"),
            (Stands::Detached, Stands::Active | Stands::Maintained) => {
                self.sdm.done(&["domain", "attach", text(&self.spare().folder), "--local"]);
                self.spare_is_attached();
                self.await_spare();
                self.spare_stands(disk, wanted);
            }
            (Stands::Active, Stands::Detached) => {
                self.spare_stands(disk, Stands::Maintained);
                self.spare_stands(disk, wanted);
            }
            (Stands::Maintained, Stands::Detached) => {
                self.sdm.done(&["domain", "detach", &self.spare().name, "--yes"]);
                self.spare_is_detached();
            }
            (Stands::Active, Stands::Active)
            | (Stands::Maintained, Stands::Maintained)
            | (Stands::Detached, Stands::Detached) => {}
        }
        if self.spare().stands != Stands::Detached {
            self.spare_is(wanted);
        }
    }

    fn make_spare(&mut self, disk: &str) -> Stands {
        let (name, path) = (format!("{disk}-spare"), self.folder(&format!("{disk}-spare")));
        let made = self.sdm.done(&["domain", "create", &name, "--path", text(&path), "--local"]);
        let folder = path.join(text_of(&made["domain"], "id"));
        self.spare = Some(Spare { name, folder, stands: Stands::Active, stash: BTreeMap::new() });
        self.await_spare();
        Stands::Active
    }

    #[track_caller]
    fn spare_verb(&self, verb: &str) {
        self.sdm.done(&["domain", verb, &self.spare().name]);
    }

    #[track_caller]
    fn await_spare(&self) {
        until("the spare domain is reached", || {
            let shown = self.sdm.done(&["domain", "show", &self.spare().name]);
            let reached = shown["workers"].as_array().is_some_and(|workers| workers.iter().any(|at| at == self.host));
            if reached { Ok(()) } else { Err(shown.to_string()) }
        });
    }

    /// Leaves no disk in the spare domain, and has it in maintenance.
    #[track_caller]
    pub fn empty_spare(&mut self, disk: &str) {
        self.spare_stands(disk, Stands::Active);
        let inside: Vec<String> =
            self.model.iter().filter(|(_, disk)| disk.domain == SPARE).map(|(name, _)| name.clone()).collect();
        for name in inside {
            self.sdm.done(&["disk", "delete", &name]);
            self.model.remove(&name);
        }
        self.settle();
        self.spare_stands(disk, Stands::Maintained);
    }

    /// In the model only: so the spare domain stands.
    pub fn spare_is(&mut self, stands: Stands) {
        self.spare.as_mut().expect("there is a spare domain").stands = stands;
    }

    /// In the model only: it is gone, with all that was in it.
    pub fn spare_is_gone(&mut self) {
        self.spare = None;
    }

    /// In the model only: its disks went with it.
    pub fn spare_is_detached(&mut self) {
        let (inside, others) = std::mem::take(&mut self.model).into_iter().partition(|(_, disk)| disk.domain == SPARE);
        self.model = others;
        let spare = self.spare.as_mut().expect("there is a spare domain");
        (spare.stands, spare.stash) = (Stands::Detached, inside);
    }

    /// In the model only: its disks came back with it.
    pub fn spare_is_attached(&mut self) {
        let spare = self.spare.as_mut().expect("there is a spare domain");
        spare.stands = Stands::Active;
        self.model.append(&mut spare.stash);
    }

    /// In the model only: it is called so.
    pub fn spare_is_called(&mut self, name: &str) {
        name.clone_into(&mut self.spare.as_mut().expect("there is a spare domain").name);
    }

    /// Checks the spare domain, if there is one.
    #[track_caller]
    pub fn check_spare(&self) {
        let Some(spare) = &self.spare else { return };
        let shown = self.sdm.run(&["domain", "show", &spare.name]);
        if spare.stands == Stands::Detached {
            assert_eq!(shown.code, 3, "a detached domain is unknown: {shown:?}");
            assert!(spare.folder.join("images").is_dir(), "its disks stay where they are");
            return;
        }
        let shown = shown.result();
        assert_eq!(shown["maintenance"].is_object(), spare.stands == Stands::Maintained, "{shown}");
        let metadata = std::fs::read_to_string(spare.folder.join("dom_md/metadata")).expect("it has metadata");
        let described = format!("DESCRIPTION={}", spare.name);
        assert!(metadata.lines().any(|line| line == described), "no {described} in {metadata}");
    }

    /// Deletes a disk of the first domain that is kept for a while.
    #[track_caller]
    pub fn trash(&mut self, disk: &str) {
        let placement = text_of(&self.sdm.done(&["disk", "show", disk]), "placement_id").to_owned();
        let domain = self.domain(0).to_owned();
        self.sdm.done(&["domain", "set", &domain, "--retention", "1h"]);
        self.sdm.done(&["disk", "delete", disk]);
        self.sdm.done(&["domain", "set", &domain, "--retention", "default"]);
        let rows = items(&self.sdm.done(&["gc", "trash", "list", "--domain", &domain]));
        let row = rows.iter().find(|row| row["disk"] == disk).expect("it is in the trash");
        let expected = self.model.remove(disk).expect("it was made");
        self.trash.insert(disk.to_owned(), InTrash { id: text_of(row, "id").to_owned(), placement, disk: expected });
    }

    /// In the model only: a deleted disk is back.
    pub fn is_restored(&mut self, disk: &str) {
        let back = self.trash.remove(disk).expect("it was in the trash");
        self.model.insert(disk.to_owned(), back.disk);
    }

    /// Has it written down what a collection of the first domain deletes, the trash included.
    #[track_caller]
    pub fn plan_collection(&mut self) {
        let plan = self.sdm.done(&["gc", "plan", "--trash", "--domain", self.domain(0)]);
        self.plan = plan["plan"].to_string();
    }
}
