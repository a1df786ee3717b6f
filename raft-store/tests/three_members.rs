//! Three members under openraft itself, each on a simulated disk, with direct calls for a network:
//! what the adapters promise shows only when Raft drives them.

mod common;

use common::open;
use futures_util::StreamExt;
use openraft::errors::RPCError;
use openraft::errors::ReplicationClosed;
use openraft::errors::StreamingError;
use openraft::errors::Unreachable;
use openraft::network::RPCOption;
use openraft::network::RaftNetworkFactory;
use openraft::network::RaftNetworkV2;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::SnapshotResponse;
use openraft::raft::VoteRequest;
use openraft::raft::VoteResponse;
use sdm_raft_store::Fatal;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use sdm_raft_store::Raft;
use sdm_raft_store::SimulatedDisk;
use sdm_raft_store::Snapshot;
use sdm_raft_store::SnapshotFile;
use sdm_raft_store::SnapshotFolder;
use sdm_raft_store::SnapshotReceiver;
use sdm_raft_store::TypeConfig;
use sdm_raft_store::ViewHandle;
use sdm_raft_store::Vote;
use sdm_raft_store::disk::Crash;
use sdm_raft_store::raft::RaftTiming;
use sdm_raft_store::raft_config;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

/// Bytes of a snapshot sent at once: so few that even a small one has many pieces.
const PIECE: usize = 64;

/// Longest wait for anything; a condition that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Running {
    node: NodeId,
    raft: Raft,
    fatal: Fatal,
    view: ViewHandle,
    snapshots: SnapshotFolder,
    machine: SimulatedDisk,
}

/// Who is up. A member that is not here is unreachable.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<BTreeMap<NodeId, Running>>>, Arc<Mutex<VecDeque<Cut>>>);

/// A connection that breaks while a snapshot is sent over it.
#[derive(Clone, Copy)]
struct Cut {
    /// After so many pieces.
    pieces: usize,
    /// Whether the receiving machine goes down with it.
    crash: bool,
}

struct Link {
    network: Network,
    target: NodeId,
}

impl Network {
    fn running(&self, node: NodeId) -> Option<Running> {
        self.0.lock().expect("no panic").get(&node).cloned()
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, _node: &MemberNode) -> Link {
        Link { network: self.clone(), target }
    }
}

impl Link {
    fn target(&self) -> Result<Running, Unreachable<TypeConfig>> {
        self.network.running(self.target).ok_or_else(|| Unreachable::from_string("down"))
    }
}

fn unreachable(error: impl std::fmt::Display) -> RPCError<TypeConfig> {
    Unreachable::from_string(error.to_string()).into()
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.target()?.raft.append_entries(rpc).await.map_err(unreachable)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.target()?.raft.vote(rpc).await.map_err(unreachable)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.target()?.raft.pre_vote(rpc).await.map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let failed = |error: String| StreamingError::Unreachable(Unreachable::from_string(error));
        let target = self.target()?;
        let file = snapshot.snapshot;
        let mut receiver =
            SnapshotReceiver::begin(&target.snapshots, file.length()).await.map_err(|e| failed(e.to_string()))?;
        let cut = self.network.1.lock().expect("no panic").pop_front();
        let mut pieces = Box::pin(file.chunks(PIECE));
        let mut sent = 0;
        while let Some(piece) = pieces.next().await {
            if let Some(cut) = cut.filter(|cut| cut.pieces == sent) {
                if cut.crash {
                    target.machine.crash(Crash::KeepUnsynced);
                }
                return Err(failed("the connection broke".to_owned()));
            }
            sent += 1;
            let piece = piece.map_err(|e| failed(e.to_string()))?;
            receiver.append(piece).await.map_err(|e| failed(e.to_string()))?;
        }
        let received = receiver.finish(file.hash()).await.map_err(|e| failed(e.to_string()))?;
        target.raft.install_full_snapshot(vote, received.into_snapshot()).await.map_err(|e| failed(e.to_string()))
    }
}

/// Three machines, of which some run.
struct Cluster {
    network: Network,
    machines: BTreeMap<NodeId, SimulatedDisk>,
}

impl Cluster {
    async fn start(nodes: &[NodeId]) -> Cluster {
        let machines = nodes.iter().map(|node| (*node, SimulatedDisk::new())).collect();
        let cluster = Cluster { network: Network::default(), machines };
        for node in nodes {
            cluster.run(*node).await;
        }
        cluster
    }

    async fn run(&self, node: NodeId) {
        let timing = RaftTiming { heartbeat_ms: 50, election_min_ms: 200, election_max_ms: 400 };
        let config = raft_config("test", timing).expect("valid");
        let opened = open(&self.machines[&node].start(), node).await.expect("opens");
        let raft = Raft::new(node, config, self.network.clone(), opened.log_store, opened.state_machine)
            .await
            .expect("Raft starts");
        let machine = self.machines[&node].clone();
        let running =
            Running { node, raft, fatal: opened.fatal, view: opened.view, snapshots: opened.snapshots, machine };
        self.network.0.lock().expect("no panic").insert(node, running);
    }

    async fn crash(&self, node: NodeId) {
        let running = self.network.0.lock().expect("no panic").remove(&node).expect("it runs");
        self.machines[&node].crash(Crash::LoseUnsynced);
        // The dead disk ends it at its next write; the tasks are gone before it runs again.
        let _ = running.raft.shutdown().await;
    }

    fn member(&self, node: NodeId) -> Running {
        self.network.running(node).expect("it runs")
    }

    async fn leader(&self) -> Running {
        let search = async {
            loop {
                let all: Vec<Running> = self.network.0.lock().expect("no panic").values().cloned().collect();
                for running in all {
                    if running.raft.ensure_linearizable(openraft::ReadPolicy::ReadIndex).await.is_ok() {
                        return running;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("a leader is elected")
    }

    async fn tick(&self, count: u64) -> u64 {
        let mut index = 0;
        for stamp in 0..count {
            let command = sdm_state::Command::Tick;
            let entry = sdm_state::Entry { stamp_ms: stamp, entropy: [0; 16], command };
            let leader = self.leader().await;
            let written = leader.raft.client_write(entry).await.expect("written");
            index = written.log_id.index;
            assert!(leader.view.load().applied_index() >= Some(index), "answered before it was published");
        }
        index
    }

    async fn all_have(&self, index: u64) -> Vec<[u8; 32]> {
        let all: Vec<Running> = self.network.0.lock().expect("no panic").values().cloned().collect();
        let mut hashes = Vec::new();
        for running in all {
            let view = tokio::time::timeout(PATIENCE, running.view.wait_applied(index)).await;
            hashes.push(view.expect("every member catches up").state.hash());
        }
        hashes
    }
}

fn node(id: NodeId) -> MemberNode {
    MemberNode { name: format!("m{id}"), address: format!("m{id}:1") }
}

async fn founded(nodes: &[NodeId]) -> Cluster {
    let cluster = Cluster::start(nodes).await;
    let members: BTreeMap<NodeId, MemberNode> = nodes.iter().map(|id| (*id, node(*id))).collect();
    cluster.member(nodes[0]).raft.initialize(members).await.expect("founded");
    cluster
}

/// Takes a snapshot up to an entry at least, and purges the log up to it.
async fn compact(member: &Running, index: u64) {
    member.view.wait_applied(index).await;
    let wait = member.raft.wait(Some(PATIENCE));
    member.raft.trigger().snapshot().await.expect("accepted");
    wait.metrics(|m| m.snapshot.is_some_and(|id| id.index >= index), "taken").await.expect("a snapshot is taken");
    member.raft.trigger().purge_log(index).await.expect("accepted");
    wait.metrics(|m| m.purged.is_some_and(|id| id.index >= index), "purged").await.expect("the log is purged");
}

#[tokio::test]
async fn what_the_leader_acknowledged_is_there_after_every_member_crashed() {
    let cluster = founded(&[1, 2, 3]).await;
    let index = cluster.tick(20).await;
    let before = cluster.all_have(index).await;
    for node in [1, 2, 3] {
        cluster.crash(node).await;
    }
    for node in [1, 2, 3] {
        cluster.run(node).await;
    }
    let index = cluster.tick(1).await;
    let after = cluster.all_have(index).await;
    assert_eq!(before.len(), 3);
    assert!(before.iter().all(|hash| *hash == before[0]) && after.iter().all(|hash| *hash == after[0]));
    assert!(cluster.member(2).view.load().applied_index() >= Some(index));
}

#[tokio::test]
async fn a_member_that_missed_the_log_gets_a_snapshot_and_goes_on() {
    let cluster = founded(&[1, 2, 3]).await;
    cluster.tick(5).await;
    cluster.crash(3).await;
    let index = cluster.tick(30).await;
    for id in [1, 2] {
        compact(&cluster.member(id), index).await;
    }
    cluster.run(3).await;
    let index = cluster.tick(3).await;
    let hashes = cluster.all_have(index).await;
    assert_eq!(hashes.len(), 3);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    assert!(cluster.member(3).snapshots.current().is_some(), "it came as a snapshot");
    // And it starts from that snapshot.
    cluster.crash(3).await;
    cluster.run(3).await;
    let index = cluster.tick(1).await;
    cluster.all_have(index).await;
}

impl Network {
    /// The next transfers of snapshots break like this.
    fn cut(&self, cuts: impl IntoIterator<Item = Cut>) {
        self.1.lock().expect("no panic").extend(cuts);
    }

    fn cuts_left(&self) -> usize {
        self.1.lock().expect("no panic").len()
    }
}

#[tokio::test]
async fn a_member_that_was_away_catches_up_under_load_over_connections_that_break() {
    let cluster = founded(&[1, 2, 3]).await;
    cluster.tick(5).await;
    cluster.crash(3).await;
    let index = cluster.tick(30).await;
    for id in [1, 2] {
        compact(&cluster.member(id), index).await;
    }
    cluster.network.cut([0, 1, 5].map(|pieces| Cut { pieces, crash: false }));
    cluster.run(3).await;
    let mut index = 0;
    while cluster.network.cuts_left() > 0 {
        index = cluster.tick(1).await;
        let names = cluster.machines[&3].snapshot_names();
        // Once no cut is left, a whole one may have come.
        let half = names.iter().any(|name| !name.ends_with(".tmp")) && cluster.network.cuts_left() > 0;
        assert!(!half, "half a snapshot was installed: {names:?}");
    }
    let hashes = cluster.all_have(index).await;
    assert_eq!(hashes.len(), 3);
    assert!(cluster.member(3).snapshots.current().is_some(), "it came as a snapshot");
    let index = cluster.tick(1).await;
    let hashes = cluster.all_have(index).await;
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    assert!(cluster.machines[&3].snapshot_names().iter().all(|name| !name.ends_with(".tmp")));
}

#[tokio::test]
async fn a_member_that_dies_in_the_middle_of_a_snapshot_begins_anew() {
    let cluster = founded(&[1, 2, 3]).await;
    cluster.tick(5).await;
    cluster.crash(3).await;
    let index = cluster.tick(30).await;
    for id in [1, 2] {
        compact(&cluster.member(id), index).await;
    }
    for pieces in [1, 6] {
        cluster.network.cut([Cut { pieces, crash: true }]);
        cluster.run(3).await;
        while cluster.network.cuts_left() > 0 {
            cluster.tick(1).await;
        }
        let dead = cluster.network.0.lock().expect("no panic").remove(&3).expect("it ran");
        let _ = dead.raft.shutdown().await;
        let names = cluster.machines[&3].snapshot_names();
        assert!(names.iter().all(|name| name.ends_with(".tmp")), "half a snapshot was installed: {names:?}");
    }
    cluster.run(3).await;
    let index = cluster.tick(1).await;
    let hashes = cluster.all_have(index).await;
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]));
    assert!(cluster.machines[&3].snapshot_names().iter().all(|name| !name.ends_with(".tmp")));
}

#[tokio::test]
async fn a_new_learner_after_a_full_purge_catches_up_and_becomes_a_voter() {
    let mut cluster = founded(&[1]).await;
    let index = cluster.tick(10).await;
    compact(&cluster.member(1), index).await;
    let raft = cluster.member(1).raft;
    cluster.machines.insert(2, SimulatedDisk::new());
    cluster.run(2).await;
    tokio::time::timeout(PATIENCE, raft.add_learner(2, node(2), true)).await.expect("in time").expect("added");
    raft.change_membership([1, 2], false).await.expect("promoted");
    let index = cluster.tick(1).await;
    let hashes = cluster.all_have(index).await;
    assert_eq!(hashes[0], hashes[1]);
    let voters: Vec<NodeId> = cluster.member(2).view.load().membership.voter_ids().collect();
    assert_eq!(voters, [1, 2]);
}

#[tokio::test]
async fn a_member_whose_disk_fails_stops_and_the_others_go_on() {
    let cluster = founded(&[1, 2, 3]).await;
    cluster.tick(3).await;
    let failed = cluster.leader().await;
    cluster.machines[&failed.node].fail_syncs(std::io::ErrorKind::Other);
    let command = sdm_state::Command::Tick;
    let entry = sdm_state::Entry { stamp_ms: 1, entropy: [0; 16], command };
    // It may still be committed: the other two are a majority. The member stops all the same.
    let _ = failed.raft.client_write(entry).await;
    failed.fatal.wait().await;
    let wait = failed.raft.wait(Some(PATIENCE));
    wait.metrics(|m| m.running_state.is_err(), "stopped").await.expect("Raft has stopped");
    cluster.network.0.lock().expect("no panic").remove(&failed.node);
    let index = cluster.tick(2).await;
    assert_eq!(cluster.all_have(index).await.len(), 2);
}
