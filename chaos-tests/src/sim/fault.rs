//! What can go wrong in a simulation, with what is needed to take it back.

use rustix::io::Errno;
use std::collections::BTreeSet;
use std::time::Duration;

/// A fault, with what is needed to take it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Links that lose everything, by direction.
    Cut(&'static str, BTreeSet<(String, String)>),
    /// Processes that are dead, with their machines or without.
    Down(&'static str, Vec<String>),
    /// Links whose messages take up to so long.
    Slow(Vec<(String, String)>, Duration),
    /// Links whose messages are held, to be delivered late.
    Held(Vec<(String, String)>),
    /// A member's disk whose syncs take so long.
    SlowDisk(String, Duration),
    /// A worker whose calls of the storage hang.
    HungStorage(String),
    /// A domain in which all calls hang, whoever makes them.
    HungDomain(&'static str),
    /// A worker of whose calls of the storage one of so many fails with this error.
    FailingStorage(String, u32, Errno),
    /// The storage has no room.
    FullStorage,
    /// A member's disk that fails: how, and whose. Its process may end by itself.
    SickDisk(SickDisk, String),
    /// The wall clocks of all hosts are off by so many milliseconds.
    WallClock(i64),
    /// Links that lose everything, and again do not, and again.
    Flapping(BTreeSet<(String, String)>),
    /// Members are killed and started again, one after the other: who is down, and who follows.
    RollingRestart(Option<String>, Vec<String>),
    /// A worker that nobody hears, and whose calls of the storage hang: as a process that was stopped.
    Paused(String, BTreeSet<(String, String)>),
}

/// What fails on a member's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SickDisk {
    /// Whatever is synced: it is lost then.
    Syncs,
    /// Whatever is written.
    Writes,
    /// So many bytes of room are left.
    Full(u64),
    /// New files, and so snapshots; the log goes on.
    Files,
}

impl Fault {
    /// As the coverage has it.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Cut(name, _) | Fault::Down(name, _) => name,
            Fault::Slow(..) => "slow-links",
            Fault::Held(_) => "held-messages",
            Fault::SlowDisk(..) => "slow-disk",
            Fault::HungStorage(_) => "hung-storage",
            Fault::HungDomain(_) => "hung-domain",
            Fault::FailingStorage(..) => "failing-storage",
            Fault::FullStorage => "full-storage",
            Fault::SickDisk(SickDisk::Full(_), _) => "disk-full",
            Fault::SickDisk(SickDisk::Files, _) => "snapshots-fail",
            Fault::SickDisk(..) => "disk-eio",
            Fault::WallClock(_) => "wall-clock-jump",
            Fault::Flapping(_) => "flapping",
            Fault::RollingRestart(..) => "rolling-restart",
            Fault::Paused(..) => "paused-worker",
        }
    }
}
