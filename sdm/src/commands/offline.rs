//! `sdm offline`: what a stopped member's folder holds, whether it is whole, and the state after any
//! of its entries. Nothing in the folder is changed.

use super::data_folder::folder_class;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::bytes_text;
use crate::output::plural;
use clap::Args;
use clap::Subcommand;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_raft_store::OpenError;
use sdm_raft_store::offline::ReplayError;
use sdm_raft_store::offline::StoppedError;
use sdm_raft_store::offline::StoppedFolder;
use sdm_raft_store::offline::Survey;
use sdm_raft_store::offline::TABLES;
use sdm_raft_store::offline::rows_of;
use sdm_raft_store::offline::table_counts;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::io::Write;
use std::path::PathBuf;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum OfflineCommand {
    /// Show who the member is and what its log and snapshot hold
    Dump(Dump),
    /// Read and decode everything, and name what is damaged
    Verify(Place),
    /// Build the state after an entry, and print its hash
    Replay(Replay),
}

/// Where.
#[derive(Args, Debug)]
pub struct Place {
    /// The data folder of a stopped member
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where a temporary copy of its log is made
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    scratch: PathBuf,
}

/// Options of `dump`.
#[derive(Args, Debug)]
pub struct Dump {
    #[command(flatten)]
    place: Place,
    /// Print the log's entries from this one on instead, one JSON object a line
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// ... up to this one
    #[arg(long, value_name = "INDEX")]
    to: Option<u64>,
}

/// Options of `replay`.
#[derive(Args, Debug)]
pub struct Replay {
    #[command(flatten)]
    place: Place,
    /// The last entry to apply [default: the last one that the member knew to be committed]
    #[arg(long, value_name = "INDEX")]
    to: Option<u64>,
    /// Print the rows of this table instead, one JSON object a line
    #[arg(long, value_name = "TABLE", value_parser = clap::builder::PossibleValuesParser::new(TABLES))]
    dump: Option<String>,
}

#[derive(Serialize)]
struct DumpView {
    folder: String,
    #[serde(flatten)]
    survey: Survey,
}

impl Report for DumpView {
    fn text(&self) -> String {
        let Survey { identity, log, snapshot, voters, members, .. } = &self.survey;
        let shown = |index: Option<u64>| index.map_or("-".to_owned(), |index| index.to_string());
        let mut text = format!(
            "member {} (id {}) of cluster {}  pool {}  epoch {}\nvote: term {} for {}\nlog: {} to {}  purged up to {}  \
             committed up to {} or more\n",
            identity.name,
            identity.node_id,
            identity.cluster_id,
            identity.pool_id,
            identity.epoch,
            shown(self.survey.vote_term),
            shown(self.survey.vote_node),
            shown(log.first),
            shown(log.last),
            shown(log.purged),
            shown(log.committed),
        );
        match snapshot {
            None => text.push_str("no snapshot\n"),
            Some(snapshot) => text.push_str(&format!(
                "snapshot: entry {} (term {}), {}\nstate {}\n",
                snapshot.index,
                snapshot.term,
                bytes_text(snapshot.bytes),
                self.survey.state_hash
            )),
        }
        for (id, member) in members {
            let role = if voters.contains(id) { "voter" } else { "learner" };
            text.push_str(&format!("  member {id}: {member}, {role}\n"));
        }
        for (table, rows) in self.survey.tables.iter().filter(|_| snapshot.is_some()) {
            text.push_str(&format!("  {table:<14}{rows:>10}\n"));
        }
        text
    }
}

#[derive(Serialize)]
struct VerdictView {
    folder: String,
    whole: bool,
    /// Snapshots that are whole, by their last entry.
    snapshots: Vec<u64>,
    /// Entries that were read.
    entries: u64,
    last: Option<u64>,
    problems: Vec<String>,
}

impl Report for VerdictView {
    fn text(&self) -> String {
        let last = self.last.map_or("-".to_owned(), |last| last.to_string());
        format!(
            "{} is whole: {} snapshots, {} entries read, the last one is {last}\n",
            self.folder,
            self.snapshots.len(),
            self.entries
        )
    }
}

#[derive(Serialize)]
struct ReplayView {
    folder: String,
    index: u64,
    state_hash: String,
    clock_ms: u64,
    cluster_id: String,
    epoch: u64,
    feature_level: u32,
    from_snapshot: Option<u64>,
    entries: u64,
    committed: Option<u64>,
    tables: BTreeMap<&'static str, u64>,
}

impl Report for ReplayView {
    fn text(&self) -> String {
        let base = self.from_snapshot.map_or("the log's beginning".to_owned(), |index| format!("snapshot {index}"));
        let mut text = format!(
            "state after entry {}: {}\nfrom {base} and {} entries; clock {} ms, feature level {}\n",
            self.index, self.state_hash, self.entries, self.clock_ms, self.feature_level
        );
        if self.committed.is_none_or(|committed| committed < self.index) {
            text.push_str("beyond what the member knew to be committed: the last entries may have been taken back\n");
        }
        for (table, rows) in &self.tables {
            text.push_str(&format!("  {table:<14}{rows:>10}\n"));
        }
        text
    }
}

impl OfflineCommand {
    /// Does it.
    ///
    /// # Errors
    /// A member runs on the folder, it holds none, or it is damaged.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Dump(dump) => dump.run(context).await,
            Self::Verify(place) => place.verify(context).await,
            Self::Replay(replay) => replay.run(context).await,
        }
    }
}

impl Place {
    async fn open(&self) -> Result<StoppedFolder, Failure> {
        StoppedFolder::open(&self.folder, &self.scratch).await.map_err(|error| not_opened(&error))
    }

    fn shown(&self) -> String {
        self.folder.display().to_string()
    }

    async fn verify(&self, context: &Context) -> Result<ExitCode, Failure> {
        let folder = match self.open().await {
            Ok(folder) => folder,
            // A log that does not even open is the answer.
            Err(failure) if failure.refusal.reason == DAMAGED => {
                return self.told(context, Vec::new(), 0, None, vec![failure.refusal.message]);
            }
            Err(failure) => return Err(failure),
        };
        let verdict = folder.verify().await.map_err(|error| not_opened(&error))?;
        folder.close().await;
        self.told(context, verdict.snapshots, verdict.entries, verdict.last, verdict.problems)
    }

    fn told(
        &self,
        context: &Context,
        snapshots: Vec<u64>,
        entries: u64,
        last: Option<u64>,
        problems: Vec<String>,
    ) -> Result<ExitCode, Failure> {
        if problems.is_empty() {
            let view = VerdictView { folder: self.shown(), whole: true, snapshots, entries, last, problems };
            return context.printer.print(&view);
        }
        let count = plural(problems.len() as u64, "problem");
        let message = format!("{} is damaged: {count}, {entries} entries read", self.shown());
        let failure = damaged(message);
        let refusal = problems.iter().zip(1..).fold(*failure.refusal, |refusal, (problem, number)| {
            refusal.blocker("problem", number.to_string(), problem.as_str())
        });
        Err(refusal.into())
    }
}

impl Dump {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let folder = self.place.open().await?;
        let done = if self.from.is_some() || self.to.is_some() {
            let (from, to) = (self.from.unwrap_or(0), self.to.unwrap_or(u64::MAX));
            let mut out = io::stdout().lock();
            // A reader that went away (`| head`) has seen enough.
            let show = |entry: serde_json::Value| writeln!(out, "{entry}").is_ok();
            folder.entries(from, to, show).await.map(|()| ExitCode::Done).map_err(|error| not_opened(&error))
        } else {
            match folder.survey().await {
                Ok(survey) => context.printer.print(&DumpView { folder: self.place.shown(), survey }),
                Err(error) => Err(not_opened(&error)),
            }
        };
        folder.close().await;
        done
    }
}

impl Replay {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let folder = self.place.open().await?;
        let replayed = folder.replay(self.to).await.map_err(|error| not_replayed(&error));
        folder.close().await;
        let replayed = replayed?;
        let state = &replayed.state;
        if let Some(rows) = self.dump.as_deref().and_then(|table| rows_of(state, table)) {
            let mut out = io::BufWriter::new(io::stdout().lock());
            for row in rows {
                if writeln!(out, "{row}").is_err() {
                    break;
                }
            }
            // Gone readers are no error here either.
            _ = out.flush();
            return Ok(ExitCode::Done);
        }
        let view = ReplayView {
            folder: self.place.shown(),
            index: replayed.index,
            state_hash: blake3::Hash::from_bytes(state.hash()).to_hex().to_string(),
            clock_ms: state.meta.clock_ms,
            cluster_id: state.cluster_id().to_string(),
            epoch: state.meta.epoch,
            feature_level: state.meta.feature_level,
            from_snapshot: replayed.from_snapshot,
            entries: replayed.entries,
            committed: replayed.committed,
            tables: table_counts(state),
        };
        context.printer.print(&view)
    }
}

/// What is damaged ends with this reason, whichever command found it.
const DAMAGED: &str = "FOLDER_DAMAGED";

fn damaged(message: String) -> Failure {
    Refusal::new(Class::Aborted, DAMAGED, message)
        .hint("nothing was changed; keep the folder for analysis, and replace the member: sdm member replace OLD --with NEW")
        .into()
}

fn not_opened(error: &StoppedError) -> Failure {
    let message = error.to_string();
    let (class, reason, hint) = match error {
        StoppedError::NoMember { .. } => (Class::NotFound, "NO_MEMBER", "give the --data-dir of a member"),
        StoppedError::Running { .. } => {
            (Class::Precondition, "MEMBER_RUNNING", "stop the member first; a running one answers `sdm status`")
        }
        StoppedError::Files { source, .. } if is_damage(source) => return damaged(message),
        StoppedError::Files { .. } => {
            (folder_class(error), "FOLDER_UNUSABLE", "check the path, and the room in --scratch")
        }
        StoppedError::Folder { .. } => return damaged(message),
        StoppedError::Content { source: OpenError::NoIdentity, .. } => {
            (Class::NotFound, "NO_MEMBER", "give the --data-dir of a member")
        }
        StoppedError::Content { source, .. } if source.is_newer() => {
            (Class::Unsupported, "NEWER_VERSION", "look into it with the newer version of sdm; nothing was changed")
        }
        StoppedError::Content { .. } => return damaged(message),
    };
    Refusal::new(class, reason, message).hint(hint).into()
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn not_replayed(error: &ReplayError) -> Failure {
    match error {
        ReplayError::Stopped(error) => not_opened(error),
        ReplayError::Snapshot(_) => damaged(error.to_string()),
        ReplayError::OutOfReach { .. } => Refusal::new(Class::NotFound, "OUT_OF_REACH", error.to_string())
            .hint("`sdm offline dump` shows what the folder holds")
            .into(),
    }
}
