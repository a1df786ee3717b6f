//! What a member is told when it starts.

use sdm_proto::credentials::ClusterSecret;
use sdm_proto::names::Name;
use sdm_proto::seams::BootClock;
use sdm_proto::seams::Clock;
use sdm_proto::seams::TcpTransport;
use sdm_proto::seams::Transport;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::raft::LogCut;
use sdm_raft_store::raft::RaftTiming;
use std::path::PathBuf;
use std::sync::Arc;

/// How a member begins. On a folder that already holds one, all three mean `Resume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Founds a new cluster.
    Bootstrap,
    /// Joins the cluster that the member at this `host:port` belongs to.
    Join(String),
    /// Goes on as the member that the folder holds.
    Resume,
}

/// What a member is told when it starts.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// Its name, unique in the cluster.
    pub name: Name,
    /// `host:port` to listen at; the only port that is opened.
    pub listen: String,
    /// `host:port` at which others reach it; the bound address when not given.
    pub advertise: Option<String>,
    /// Its folder.
    pub data_dir: PathBuf,
    /// How it begins.
    pub start: Start,
    /// Stays a learner: it never votes.
    pub stay_learner: bool,
    /// The cluster's secret. Without one it listens on loopback only.
    pub secret: ClusterSecret,
    /// How connections are made.
    pub transport: Arc<dyn Transport>,
    /// What leases and deadlines are counted on.
    pub clock: Arc<dyn Clock>,
    /// Raft's timers.
    pub timing: RaftTiming,
    /// When the log is cut. Other figures than the usual ones are for tests, whose logs are short.
    pub log_cut: LogCut,
    /// Takes the place of `data_dir`, for simulations.
    pub disk: Option<MemberDisk>,
}

impl MemberConfig {
    /// A member on the real clock, network and disk, without a secret, that becomes a voter.
    #[must_use]
    pub fn new(name: Name, listen: impl Into<String>, data_dir: impl Into<PathBuf>, start: Start) -> Self {
        Self {
            name,
            listen: listen.into(),
            advertise: None,
            data_dir: data_dir.into(),
            start,
            stay_learner: false,
            secret: ClusterSecret::default(),
            transport: Arc::new(TcpTransport),
            clock: Arc::new(BootClock),
            timing: RaftTiming::default(),
            log_cut: LogCut::default(),
            disk: None,
        }
    }
}
