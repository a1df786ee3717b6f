//! The command line: which scenario, on what, how often.

use crate::checkers;
use crate::disk_full::DiskFull;
use crate::flipped_byte::FlippedByte;
use crate::history::Target;
use crate::history::write_event;
use crate::janitor;
use crate::loop_fs::FsKind;
use crate::power_cut::PowerCut;
use crate::power_cut::Victims;
use crate::process::Program;
use crate::requirements;
use crate::run_folder::RunFolder;
use crate::sim;
use crate::sync_race::SyncRace;
use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use std::fs::File;
use std::io::BufReader;
use std::io::BufWriter;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

/// Breaks a cluster of real members, and checks what they promised.
///
/// Needs root, loop devices and the tools that make the file systems. Without them a scenario is
/// skipped, loudly; with CHAOS_REQUIRE=1 in the environment that is a failure. Exit code 0: nothing
/// was broken (or skipped); with a planted bug: it was found.
#[derive(Parser, Debug)]
#[command(name = "chaos-tests")]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand, Debug)]
enum Scenario {
    /// Cut the power of members under load
    PowerCut {
        /// How many cuts
        #[arg(long, default_value_t = 5)]
        cuts: u32,
        /// On which file system
        #[arg(long, value_enum, default_value = "both")]
        fs: Fs,
        /// Whose power
        #[arg(long, value_enum, default_value = "mixed")]
        cut: Victims,
        /// Members of the cluster
        #[arg(long, default_value_t = 3)]
        members: usize,
        /// Clients that take locks
        #[arg(long, default_value_t = 32)]
        clients: usize,
        /// Plant a bug that must be found (only in a build with --features planted)
        #[arg(long, value_enum)]
        planted: Option<Planted>,
        #[command(flatten)]
        common: Common,
    },
    /// Let the disk of one member, then of all, run full under load
    DiskFull {
        /// On which file system
        #[arg(long, value_enum, default_value = "ext4")]
        fs: Fs,
        #[command(flatten)]
        common: Common,
    },
    /// Shut file systems down under writers, and look for what was called durable
    SyncRace {
        /// How many cuts of each kind of file system, of three at once
        #[arg(long, default_value_t = 40)]
        rounds: u32,
        /// On which file system
        #[arg(long, value_enum, default_value = "both")]
        fs: Fs,
        /// Believe fdatasync alone; exit code 0 then means that it was wrong
        #[arg(long)]
        bare: bool,
        /// What the times of the cuts follow from [default: drawn, and told at the end]
        #[arg(long)]
        seed: Option<u64>,
        /// Folder on a real disk for images [default: chaos, beside the folder of this program]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Say whether this host can do any of it
    Probe {
        #[command(flatten)]
        common: Common,
    },
    /// Simulate whole clusters in one thread, each with the faults that its seed draws. Needs no privileges
    Sim {
        /// Seeds A..B, B left out, or one seed
        #[arg(long, value_parser = sim::seeds)]
        seeds: Range<u64>,
        /// What the clients do
        #[arg(long, value_enum, default_value = "disks")]
        workload: sim::Workload,
        /// Plant a defect that must be found
        #[arg(long, value_enum)]
        planted: Option<sim::Planted>,
        /// Simulations at once [default: one a processor]
        #[arg(long)]
        jobs: Option<usize>,
        /// Run each seed twice and compare the traces byte by byte
        #[arg(long)]
        check_determinism: bool,
        /// Keep history and log of every seed, not only of those that fail
        #[arg(long)]
        keep: bool,
        /// What the logs hold, as in RUST_LOG
        #[arg(long, default_value = "info")]
        log: String,
        /// Folder for traces [default: chaos, beside the folder of this program]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// One seed, in this process
    #[command(hide = true)]
    SimSeed {
        seed: u64,
        #[arg(long, value_enum)]
        workload: sim::Workload,
        #[arg(long, value_enum)]
        planted: Option<sim::Planted>,
        #[arg(long)]
        trace: Option<PathBuf>,
        #[arg(long, default_value = "info")]
        log: String,
    },
    /// Judge a history: is there one order that explains every answer? Exit code 0: yes; 1: no; 2: not decided
    Check {
        /// JSON lines, one event each
        file: PathBuf,
        /// Operations that are tried on each lock or disk before it counts as undecided
        #[arg(long, default_value_t = checkers::STEPS_MAX)]
        steps: u64,
    },
    /// Write a history in the form of another checker, to standard output
    Convert {
        /// JSON lines, one event each
        file: PathBuf,
        /// Whose form
        #[arg(long, value_enum)]
        to: Target,
    },
    /// Write a random history of locks as a cluster that keeps its promises would leave it
    #[command(hide = true)]
    SampleHistory {
        #[arg(long, default_value_t = 10_000)]
        operations: usize,
        #[arg(long, default_value_t = 20)]
        processes: usize,
        #[arg(long, default_value_t = 20)]
        keys: usize,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Change single bytes in the files of a stopped member
    FlippedByte {
        /// Flips in each file
        #[arg(long, default_value_t = 8)]
        flips: u32,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Debug)]
struct Common {
    /// What all random choices follow from [default: drawn, and told at the end]
    #[arg(long)]
    seed: Option<u64>,
    /// Folder on a real disk for images and logs [default: chaos, beside the folder of this program]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Run this `sdm` as members instead of the same code in this program
    #[arg(long, value_name = "PATH")]
    sdm: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Fs {
    Ext4,
    Xfs,
    Both,
}

impl Fs {
    fn kinds(self) -> Vec<FsKind> {
        match self {
            Fs::Ext4 => vec![FsKind::Ext4],
            Fs::Xfs => vec![FsKind::Xfs],
            Fs::Both => vec![FsKind::Ext4, FsKind::Xfs],
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Planted {
    /// The log's batches are written, but not made durable; votes are known to the witness alone
    NoFdatasync,
    /// Nor is what the witness says of them: votes and entries are lost without a trace
    NoWitness,
}

impl Planted {
    fn failpoints(self) -> Result<String> {
        if !cfg!(feature = "planted") {
            bail!("this build has no failpoints: cargo run --release -p chaos-tests --features planted -- ...");
        }
        Ok(match self {
            Planted::NoFdatasync => "log.fdatasync=skip".to_owned(),
            Planted::NoWitness => "log.fdatasync=skip;witness.fdatasync=skip".to_owned(),
        })
    }
}

impl Common {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(drawn_seed)
    }

    fn base(&self) -> Result<PathBuf> {
        base_of(self.dir.as_ref())
    }

    fn program(&self, planted: Option<String>) -> Result<Program> {
        if self.sdm.is_some() && planted.is_some() {
            bail!("--sdm and --planted exclude each other: a product has no failpoints");
        }
        Ok(Program { sdm: self.sdm.clone(), planted })
    }
}

fn drawn_seed() -> u64 {
    u64::from(rand::random::<u32>())
}

fn base_of(given: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(folder) = given {
        return Ok(folder.clone());
    }
    let program = std::env::current_exe()?;
    Ok(program.parent().map(|folder| folder.join("../chaos")).unwrap_or_else(|| PathBuf::from("chaos")))
}

/// Parses this process's arguments and does what they say.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let mounts = !matches!(
        cli.scenario,
        Scenario::Sim { .. }
            | Scenario::SimSeed { .. }
            | Scenario::Check { .. }
            | Scenario::Convert { .. }
            | Scenario::SampleHistory { .. }
    );
    if mounts
        && rustix::process::geteuid().is_root()
        && let Err(error) = janitor::own_mounts()
    {
        eprintln!("chaos-tests: mounts are made where all see them: {error:#}");
    }
    match cli.scenario.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chaos-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Scenario {
    fn run(self) -> Result<ExitCode> {
        match self {
            Scenario::PowerCut { cuts, fs, cut, members, clients, planted, common } => {
                let planted = planted.map(Planted::failpoints).transpose()?;
                let program = common.program(planted)?;
                let (seed, base) = (common.seed(), common.base()?);
                PowerCut { cuts, kinds: fs.kinds(), victims: cut, seed, members, clients, program, base }.run()
            }
            Scenario::DiskFull { fs, common } => {
                let (program, seed, base) = (common.program(None)?, common.seed(), common.base()?);
                DiskFull { kinds: fs.kinds(), seed, program, base }.run()
            }
            Scenario::SyncRace { rounds, fs, bare, seed, dir } => {
                let seed = seed.unwrap_or_else(drawn_seed);
                SyncRace { rounds, kinds: fs.kinds(), bare, seed, base: base_of(dir.as_ref())? }.run()
            }
            Scenario::Probe { common } => {
                let run = RunFolder::make(&common.base()?)?;
                Ok(match requirements::missing(&run, &Fs::Both.kinds()) {
                    Some(why) => {
                        println!("probe: not here: {why}");
                        ExitCode::FAILURE
                    }
                    None => {
                        println!("probe: power cuts on ext4 and xfs work here");
                        ExitCode::SUCCESS
                    }
                })
            }
            Scenario::Sim { seeds, workload, planted, jobs, check_determinism, keep, log, dir } => {
                let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
                let base = base_of(dir.as_ref())?;
                sim::Batch { seeds, workload, planted, jobs, check_determinism, keep, log, base }.run()
            }
            Scenario::SimSeed { seed, workload, planted, trace, log } => {
                sim::SeedRun { seed, workload, planted, trace, log }.run()
            }
            Scenario::Check { file, steps } => checkers::check_file(&file, steps),
            Scenario::Convert { file, to } => {
                let from = File::open(&file).with_context(|| format!("opening the history {}", file.display()))?;
                to.convert(BufReader::new(from), &mut BufWriter::new(std::io::stdout().lock()))?;
                Ok(ExitCode::SUCCESS)
            }
            Scenario::SampleHistory { operations, processes, keys, seed } => {
                let mut to = BufWriter::new(std::io::stdout().lock());
                for event in (checkers::Sample { seed, operations, processes, keys }).events() {
                    write_event(&mut to, &event)?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Scenario::FlippedByte { flips, common } => {
                let (program, seed, base) = (common.program(None)?, common.seed(), common.base()?);
                FlippedByte { flips, seed, program, base }.run()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[cfg(not(feature = "planted"))]
    #[test]
    fn a_build_without_the_feature_plants_nothing() {
        assert!(Planted::NoFdatasync.failpoints().is_err());
        assert!(!sdm_proto::failpoint::skips("log.fdatasync"));
    }
}
