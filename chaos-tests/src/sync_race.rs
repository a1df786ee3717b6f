//! File systems are shut down under writers that append records, as a member's log does, and sync each of
//! them. After the next mount every record must be there that was called durable.
//!
//! It shows what a sync of the kernel is worth at the very moment of a cut, without a member in between:
//! with `--bare` what fdatasync alone said is believed, otherwise what the members believe, by the very
//! function that they call (`sdm_raft_store::disk::sync_data`).

use crate::loop_fs::FsKind;
use crate::loop_fs::LoopFs;
use crate::power_cut;
use crate::requirements;
use crate::run_folder::RunFolder;
use anyhow::Context;
use anyhow::Result;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

/// File systems that are shut down together, as the members of a cluster are.
const TOGETHER: usize = 3;

/// How long the writers work before a cut, in milliseconds.
const LOAD_MS: Range<u64> = 20..120;

/// Bytes of a record: whole pages and parts of them.
const RECORD_BYTES: Range<u64> = 300..4_300;

/// The file of the records.
const LOG: &str = "log";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct SyncRace {
    /// Cuts of each kind of file system, each of [`TOGETHER`] at once.
    pub rounds: u32,
    /// On which file systems.
    pub kinds: Vec<FsKind>,
    /// Believe fdatasync alone. Success is then that something is lost.
    pub bare: bool,
    /// What the times of the cuts follow from.
    pub seed: u64,
    /// Where the run's folder is made.
    pub base: PathBuf,
}

/// What became of one kind of file system.
#[derive(Debug, Default)]
struct Tally {
    shutdowns: u32,
    /// Records that were called durable.
    durable: u64,
    /// Shutdowns in which the newest of them was called so after the cut had begun.
    late: u32,
    /// Shutdowns after which one was not there.
    lost: u32,
}

impl SyncRace {
    /// Runs it.
    ///
    /// # Errors
    /// Something about this host.
    pub fn run(&self) -> Result<ExitCode> {
        let run = RunFolder::make(&self.base)?;
        if let Some(why) = requirements::missing(&run, &self.kinds) {
            return Ok(requirements::skipped("sync-race", &why));
        }
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut lost = 0;
        for kind in &self.kinds {
            let tally = self.race(&run, *kind, &mut random)?;
            let believed = if self.bare { "fdatasync alone" } else { "as members do" };
            println!("sync-race: {kind}, {believed}: {tally}; seed {}", self.seed);
            lost += tally.lost;
        }
        let expected = (lost > 0) == self.bare;
        println!("sync-race: {}", if expected { "PASSED" } else { "BROKEN" });
        Ok(if expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn race(&self, run: &RunFolder, kind: FsKind, random: &mut StdRng) -> Result<Tally> {
        let folder = run.folder(&kind.to_string())?;
        let make = |number| LoopFs::make(&folder, &format!("disk-{number}"), kind, kind.bytes_min());
        let mut disks = (1..=TOGETHER).map(make).collect::<Result<Vec<_>>>()?;
        let mut tally = Tally::default();
        for round in 1..=self.rounds {
            let load = Duration::from_millis(random.random_range(LOAD_MS));
            let (cut_at, writers) = self.cut_under_load(&disks, load)?;
            for (number, (disk, writer)) in disks.iter_mut().zip(&writers).enumerate() {
                disk.unmount()?;
                disk.mount()?;
                let found = records_in(disk.mount_point())?;
                tally.take(writer, found, cut_at);
                if found < writer.durable {
                    println!("{kind} round {round} disk {}: {}", number + 1, writer.tell(found, cut_at));
                }
                std::fs::remove_file(disk.mount_point().join(LOG))?;
            }
        }
        Ok(tally)
    }

    /// Has a writer on each disk, and shuts all of them down. The writers end by the errors that follow.
    fn cut_under_load(&self, disks: &[LoopFs], load: Duration) -> Result<(Instant, Vec<Writer>)> {
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            let mut switches = Vec::new();
            for disk in disks {
                let mut writer = Writer::begin(disk.mount_point(), self.bare)?;
                switches.push(disk.switch()?);
                threads.push(scope.spawn(move || {
                    writer.write();
                    writer
                }));
            }
            std::thread::sleep(load);
            let cut_at = Instant::now();
            power_cut::throw(switches)?;
            let ended =
                threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a writer panicked")));
            Ok((cut_at, ended.collect::<Result<_>>()?))
        })
    }
}

/// Who appends records to one file.
#[derive(Debug)]
struct Writer {
    /// Closed when it ended: what is open would keep the file system busy.
    file: Option<File>,
    bare: bool,
    /// Records that were called durable.
    durable: u64,
    /// When the newest of them was written and its sync called, and when that said so.
    newest: Option<(Instant, Instant)>,
}

impl Writer {
    fn begin(folder: &Path, bare: bool) -> Result<Self> {
        let path = folder.join(LOG);
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(Writer { file: Some(file), bare, durable: 0, newest: None })
    }

    /// Until the disk is gone.
    fn write(&mut self) {
        let Some(file) = self.file.take() else { return };
        let mut at = 0;
        while let Ok(end) = self.append(&file, at) {
            at = end;
        }
    }

    fn append(&mut self, file: &File, at: u64) -> io::Result<u64> {
        let record = record(self.durable + 1);
        file.write_all_at(&record, at)?;
        let called = Instant::now();
        match self.bare {
            true => file.sync_data()?,
            false => sdm_raft_store::disk::sync_data(file)?,
        }
        self.durable += 1;
        self.newest = Some((called, Instant::now()));
        Ok(at + record.len() as u64)
    }

    fn tell(&self, found: u64, cut_at: Instant) -> String {
        let from_cut = |at: Instant| match at.checked_duration_since(cut_at) {
            Some(after) => format!("{:.1} ms after", after.as_secs_f64() * 1e3),
            None => format!("{:.1} ms before", cut_at.duration_since(at).as_secs_f64() * 1e3),
        };
        let newest = self.newest.map(|(called, said)| {
            format!("; the newest {} the cut began, by a call from {} it", from_cut(said), from_cut(called))
        });
        format!("{} records were called durable{}; {found} are there", self.durable, newest.unwrap_or_default())
    }
}

impl Tally {
    fn take(&mut self, writer: &Writer, found: u64, cut_at: Instant) {
        self.shutdowns += 1;
        self.durable += writer.durable;
        self.late += u32::from(writer.newest.is_some_and(|(_, said)| said > cut_at));
        self.lost += u32::from(found < writer.durable);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} shutdowns, {} records called durable, the newest after the cut began {} times; lost {} times",
            self.shutdowns, self.durable, self.late, self.lost
        )
    }
}

/// The record of a number: its length and its bytes follow from it.
fn record(number: u64) -> Vec<u8> {
    let length = RECORD_BYTES.start + number.wrapping_mul(7_919) % (RECORD_BYTES.end - RECORD_BYTES.start);
    let bytes = number.to_le_bytes().into_iter().cycle();
    bytes.zip(0..length).map(|(byte, at)| byte ^ at.to_le_bytes()[0]).collect()
}

/// How many records stand in a folder's file, from the first on without a gap.
fn records_in(folder: &Path) -> Result<u64> {
    let bytes = std::fs::read(folder.join(LOG))?;
    let mut rest = bytes.as_slice();
    for number in 1.. {
        match rest.strip_prefix(record(number).as_slice()) {
            Some(behind) => rest = behind,
            None => return Ok(number - 1),
        }
    }
    Ok(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_up_to_the_first_that_is_not_whole() {
        let folder = tempfile();
        let mut bytes: Vec<u8> = (1..=3).flat_map(record).collect();
        std::fs::write(folder.join(LOG), &bytes).expect("written");
        assert_eq!(records_in(&folder).expect("readable"), 3);
        bytes.pop();
        std::fs::write(folder.join(LOG), &bytes).expect("written");
        assert_eq!(records_in(&folder).expect("readable"), 2);
        std::fs::remove_dir_all(folder).expect("removed");
    }

    fn tempfile() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("sdm-sync-race-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("made");
        folder
    }
}
