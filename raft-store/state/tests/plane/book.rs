//! The book: what users may expect of their disks, snapshots, domains and hosts, by what they asked for and
//! were told was done. It knows no volumes, placements, locks or attempts beyond the names by which users
//! speak of them.

use super::storage::Blocks;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::token::Token;
use sdm_state::command::Begin;
use sdm_state::domain_catalog::DomainCatalog;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// A disk at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    pub name: String,
    /// By which users name it, too.
    pub volume: VolumeId,
    pub blocks: Blocks,
    pub size: u64,
}

/// A disk.
#[derive(Clone, Debug, PartialEq)]
pub struct BookDisk {
    pub name: String,
    pub about: String,
    pub domain: DomainId,
    pub template: bool,
    /// What a guest sees.
    pub blocks: Blocks,
    pub size: u64,
    /// The most that the file may have grown to by attempts to grow it that did not win.
    pub size_most: u64,
    /// Oldest first.
    pub shots: Vec<Shot>,
}

/// A deleted disk.
#[derive(Clone, Debug)]
pub struct Trash {
    pub id: DiskId,
    pub disk: BookDisk,
    /// Before this nobody deletes it unasked.
    pub until_ms: u64,
    pub doomed: bool,
}

/// A domain.
#[derive(Clone, Debug, PartialEq)]
pub struct BookDomain {
    pub name: String,
    pub path: String,
    pub active: bool,
    pub retention_ms: Option<u64>,
}

/// A detached domain.
#[derive(Clone, Debug)]
pub struct Away {
    pub path: String,
    pub catalog: DomainCatalog,
    pub disks: BTreeMap<DiskId, BookDisk>,
    pub retention_ms: Option<u64>,
}

/// A disk at a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    pub disk: DiskId,
    pub host: usize,
    pub write: bool,
    /// The client's session, and what it drew; None: durable.
    pub session: Option<(u64, String)>,
    pub unfenced: bool,
}

/// A host, as operators know it.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub live: bool,
    pub known: bool,
    pub drained: bool,
    pub last_session: u64,
    /// The last session that was confirmed down.
    pub down: u64,
}

/// A request that was sent.
#[derive(Clone, Debug)]
pub struct Asked {
    pub begin: Begin,
    /// Its outcome's word, once it has one.
    pub ended: Option<&'static str>,
    /// Bytes of an import.
    pub sent: Blocks,
}

/// The book.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub disks: BTreeMap<DiskId, BookDisk>,
    pub trash: BTreeMap<Token, Trash>,
    pub domains: BTreeMap<DomainId, BookDomain>,
    pub away: BTreeMap<DomainId, Away>,
    /// Catalogs of earlier detaches.
    pub stale: Vec<(DomainId, Away)>,
    pub attached: Vec<Attached>,
    pub hosts: [Host; 3],
    /// Clients' sessions and what they drew.
    pub clients: BTreeMap<u64, String>,
    pub held: BTreeSet<Token>,
    /// Trash that somebody had deleted before its time.
    pub purged: BTreeSet<Token>,
    pub illegal: BTreeSet<VolumeId>,
    pub asked: BTreeMap<TxnId, Asked>,
}

impl Book {
    pub fn disk_named(&self, name: &str) -> Option<DiskId> {
        self.disks.iter().find(|(_, disk)| disk.name == name).map(|(id, _)| *id)
    }

    pub fn attached_to(&self, disk: DiskId) -> impl Iterator<Item = &Attached> {
        self.attached.iter().filter(move |at| at.disk == disk)
    }

    pub fn has_writer(&self, disk: DiskId) -> bool {
        self.attached_to(disk).any(|at| at.write)
    }

    /// The attachment that a detach means, where it means one.
    pub fn meant(&self, disk: DiskId, host: Option<usize>) -> Result<&Attached, &'static str> {
        let fitting: Vec<&Attached> =
            self.attached_to(disk).filter(|at| host.is_none_or(|host| at.host == host)).collect();
        match fitting[..] {
            [] => Err("NOT_ATTACHED"),
            [one] => Ok(one),
            _ => Err("HOST_NEEDED"),
        }
    }

    /// Whether nothing proves that a guest at the host of an attachment writes no more.
    pub fn may_write_on(&self, at: &Attached) -> bool {
        let host = &self.hosts[at.host];
        at.unfenced || (at.write && !host.live && host.down < host.last_session)
    }

    /// A client's session is over: nobody misses who read, and whoever wrote may write on.
    pub fn client_ended(&mut self, session: u64) {
        self.clients.remove(&session);
        let of = |at: &Attached| at.session.as_ref().is_some_and(|(id, _)| *id == session) && !at.unfenced;
        self.attached.retain(|at| !of(at) || at.write);
        for at in self.attached.iter_mut().filter(|at| of(at)) {
            at.unfenced = true;
        }
    }

    /// A client is back that had drawn this.
    pub fn client_opened(&mut self, session: u64, nonce: &str) {
        self.clients.insert(session, nonce.to_owned());
        let of = |at: &Attached| at.unfenced && at.session.as_ref().is_some_and(|(_, drawn)| drawn == nonce);
        for at in self.attached.iter_mut().filter(|at| of(at)) {
            at.unfenced = false;
            at.session = Some((session, nonce.to_owned()));
        }
    }

    /// Nothing at the host writes any more: what nobody owns there is free.
    pub fn fenced(&mut self, host: usize) {
        self.attached.retain(|at| at.host != host || !at.unfenced);
    }

    pub fn retention_ms(&self, domain: DomainId, usual: u64) -> u64 {
        self.domains.get(&domain).and_then(|domain| domain.retention_ms).unwrap_or(usual)
    }
}
