//! Power cuts under load: the file systems of all members, or of one, are shut down without flushing
//! anything, at a random moment; then the processes are killed, the file systems mounted again and the
//! members started on what is left. After each cut the clients pause, and what the members say is
//! compared with what the clients were told.
//!
//! The order matters: power first, processes second. A process that is killed first leaves its dirty
//! pages to the kernel, which still writes them.

mod campaign;
mod cut;
mod summary;

use crate::loop_fs::FsKind;
use crate::process::Program;
use crate::requirements;
use crate::run_folder::RunFolder;
use anyhow::Result;
use campaign::Campaign;
use std::path::PathBuf;
use std::process::ExitCode;
use summary::Summary;

pub use cut::cut_power;
pub use cut::throw;

/// Whose power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Victims {
    /// All members at once.
    All,
    /// One member, half of the time the leader.
    One,
    /// All or one, at random.
    Mixed,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct PowerCut {
    /// How many cuts.
    pub cuts: u32,
    /// On which file systems: one cluster after the other.
    pub kinds: Vec<FsKind>,
    /// Whose power.
    pub victims: Victims,
    /// What all random choices follow from. The moments of a run depend on the machine as well.
    pub seed: u64,
    /// Members of a cluster.
    pub members: usize,
    /// Clients that take locks.
    pub clients: usize,
    /// What runs as a member.
    pub program: Program,
    /// Where the run's folder is made.
    pub base: PathBuf,
}

impl PowerCut {
    /// Runs it. With a planted bug, success is that the bug was found.
    ///
    /// # Errors
    /// Something about this host, not about the members.
    pub fn run(&self) -> Result<ExitCode> {
        let run = RunFolder::make(&self.base)?;
        if let Some(why) = requirements::missing(&run, &self.kinds) {
            return Ok(requirements::skipped("power-cut", &why));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let mut summary = Summary::new(self);
        for (number, (kind, cuts)) in self.shares().into_iter().enumerate() {
            let seed = self.seed.wrapping_add(1_000_003 * number as u64);
            let mut campaign = Campaign::start(self, &run, &runtime, kind, seed)?;
            campaign.run(cuts, &mut summary)?;
            summary.took(&campaign);
            if summary.is_broken() {
                self.tell_broken(&run, &mut campaign, &mut summary);
                break;
            }
        }
        println!("{summary}");
        let expected = summary.is_broken() == self.program.planted.is_some();
        Ok(if expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The cuts of each file system.
    fn shares(&self) -> Vec<(FsKind, u32)> {
        let kinds = u32::try_from(self.kinds.len()).unwrap_or(1).max(1);
        let share = |number: u32| self.cuts / kinds + u32::from(number < self.cuts % kinds);
        (0..).zip(&self.kinds).map(|(number, kind)| (*kind, share(number))).filter(|(_, cuts)| *cuts > 0).collect()
    }

    fn tell_broken(&self, run: &RunFolder, campaign: &mut Campaign<'_>, summary: &mut Summary) {
        let mut story = format!("{summary}\n\nDo it again: {}\n\n", self.command());
        for violation in campaign.violations() {
            eprintln!("BROKEN {violation}");
            story.push_str(&format!("{violation}\n"));
        }
        if self.program.planted.is_some() {
            return;
        }
        match campaign.keep_evidence(run, &story) {
            Ok(folder) => summary.evidence = Some(folder),
            Err(error) => eprintln!("chaos-tests: the evidence cannot be kept: {error:#}"),
        }
    }

    /// The command line that does the same again.
    fn command(&self) -> String {
        let fs = match self.kinds.as_slice() {
            [one] => one.to_string(),
            _ => "both".to_owned(),
        };
        let victims = match self.victims {
            Victims::All => "all",
            Victims::One => "one",
            Victims::Mixed => "mixed",
        };
        format!(
            "chaos-tests power-cut --cuts {} --fs {fs} --cut {victims} --seed {} --members {} --clients {}",
            self.cuts, self.seed, self.members, self.clients
        )
    }
}
