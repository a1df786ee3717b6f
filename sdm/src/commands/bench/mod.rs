//! `sdm bench`: how fast this cluster is, for whoever wonders whether its disks and its network are
//! good enough. The load is of a user's own: it goes through the same services as any client's,
//! touches only names of its own, and leaves nothing behind. What is measured and how
//! is told in docs/performance.md.

mod disks;
mod fill;
mod latencies;
mod load;
mod locks;
mod report;
mod txns;

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use clap::Subcommand;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Take and release locks as fast as the cluster grants them
    ///
    /// One operation is one acquire and one release, of one of 64 names that nobody else uses. Each client has a
    /// session of its own and goes on to its next operation when the one before was answered. Clients are spread over
    /// all endpoints, one connection to each. Sessions are closed at the end, also after Ctrl-C.
    Locks(locks::LocksBench),
    /// Run transactions that do nothing, by way of everything
    ///
    /// One operation is one transaction of kind noop, from the request to its outcome: it locks a name beneath
    /// user/bench/ that nobody else uses, a live worker receives its one step and reports that there was nothing to
    /// do, and the report commits it. Two entries of the log. At least one worker must be live; the transactions stay
    /// in the audit log for its window. What is not finished 10 s after the time is over counts as an error,
    /// UNFINISHED, and the command ends; such transactions end by themselves.
    Txns(txns::TxnsBench),
    /// Make raw sparse disks, and delete them afterwards
    ///
    /// One operation is one disk, from the request to its outcome: a worker makes its folder and its file durable, and two
    /// entries of the log make it part of the catalog. The disks have names of this run alone, which begin with bench-.
    /// When the time is over, or after Ctrl-C, all of them are deleted, their trash is purged, and the command waits until
    /// nothing of them is left on the storage, or says what is (exit 8).
    Disks(disks::DisksBench),
    /// Make the folder of a member with a large, made-up catalog, to measure what its size costs
    ///
    /// For measuring only. The member is alone in a cluster of its own; no storage lies beneath its domains. The folder
    /// must be empty or missing. Start the member on it with `sdm coordinator`, as this command prints.
    Fill(fill::FillBench),
}

impl BenchCommand {
    /// Does it.
    ///
    /// # Errors
    /// No member answers, or not one operation succeeded.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Locks(bench) => bench.run(context).await,
            Self::Txns(bench) => bench.run(context).await,
            Self::Disks(bench) => bench.run(context).await,
            Self::Fill(bench) => bench.run(context).await,
        }
    }
}
