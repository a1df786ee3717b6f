//! A client that works on disks: creates, moves, renames and deletes them, takes snapshots and deletes those. Each
//! request has an id, is repeated through other members until it is answered, and is followed to its end; what it was
//! told is noted as the transaction's outcome and as what must be in the catalog.

use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::disks;
use crate::client::snapshots;
use crate::client::transactions;
use crate::history::History;
use crate::history::KnownTxn;
use crate::history::Promise;
use rand::RngExt;
use rand::rngs::StdRng;
use sdm_proto::wire::v1;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use tonic::Response;
use tonic::Status;
use tonic::transport::Channel;

/// How long a request is repeated before the client gives it up.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long a transaction is followed.
const FOLLOWED: Duration = Duration::from_secs(60);

/// Between two looks at a transaction.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Disks of one client.
const DISKS_MAX: usize = 6;

/// Size of a disk: small, the bytes are not what is tested.
const DISK_BYTES: u64 = 1 << 20;

/// What a client knows of one of its disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is there, in this domain, with these snapshots.
    There {
        /// By name.
        domain: String,
        /// By name.
        snapshots: Vec<String>,
    },
    /// It is not there.
    Gone,
    /// Whatever is found is right.
    Anything,
}

/// What all clients know of the disks, by name.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<BTreeMap<String, Known>>);

impl Shelf {
    /// The disks, for a moment.
    pub fn disks(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Create { name: String, domain: String, qcow2: bool },
    Delete { disk: String },
    Move { disk: String, to: String },
    Rename { disk: String, name: String },
    Snapshot { disk: String, name: String },
    DeleteSnapshot { disk: String, name: String },
}

impl Op {
    fn word(&self) -> &'static str {
        match self {
            Op::Create { .. } => "create",
            Op::Delete { .. } => "delete",
            Op::Move { .. } => "move",
            Op::Rename { .. } => "rename",
            Op::Snapshot { .. } => "snapshot",
            Op::DeleteSnapshot { .. } => "merge",
        }
    }

    /// What is asked for, for the history.
    fn asked(&self, id: &str) -> serde_json::Value {
        match self {
            Op::Create { domain, .. } => json!({ "id": id, "domain": domain }),
            Op::Delete { .. } => json!({ "id": id }),
            Op::Move { to, .. } => json!({ "id": id, "to": to }),
            Op::Rename { name, .. } => json!({ "id": id, "to": name }),
            Op::Snapshot { name, .. } | Op::DeleteSnapshot { name, .. } => json!({ "id": id, "snapshot": name }),
        }
    }

    fn disk(&self) -> &str {
        match self {
            Op::Create { name, .. } => name,
            Op::Delete { disk }
            | Op::Move { disk, .. }
            | Op::Rename { disk, .. }
            | Op::Snapshot { disk, .. }
            | Op::DeleteSnapshot { disk, .. } => disk,
        }
    }
}

/// How a request ended, as far as it was told.
enum End {
    Committed,
    /// Refused or aborted: nothing changed.
    Not(String),
    Unknown(String),
}

/// One client.
pub struct DiskClient {
    name: String,
    endpoints: Endpoints,
    history: Arc<History>,
    shelf: Arc<Shelf>,
    random: StdRng,
    domains: Vec<String>,
    names: u64,
    /// The last request that came to an end, and that end.
    last: Option<(String, Op, KnownTxn)>,
}

impl DiskClient {
    /// The client of this name, with its own source of randomness.
    pub fn new(name: String, endpoints: Endpoints, history: Arc<History>, shelf: Arc<Shelf>, random: StdRng) -> Self {
        let domains = super::operator::DOMAINS.iter().map(|(name, _)| (*name).to_owned()).collect();
        Self { name, endpoints, history, shelf, random, domains, names: 0, last: None }
    }

    /// Does one thing.
    pub async fn step(&mut self) {
        if self.random.random_range(0..8) == 0
            && let Some((id, op, known)) = self.last.clone()
        {
            return self.repeat(&id, &op, &known).await;
        }
        let op = self.choose();
        let id = uuid::Uuid::from_bytes(self.random.random()).to_string();
        self.history.record().request_ids.insert(id.clone());
        self.history.event("invoke", &self.name, op.word(), op.disk(), op.asked(&id));
        let end = self.carry_out(&id, &op).await;
        let (kind, told) = match &end {
            End::Committed => ("ok", "committed".to_owned()),
            End::Not(why) => ("fail", why.clone()),
            End::Unknown(why) => ("info", why.clone()),
        };
        self.history.event(kind, &self.name, op.word(), op.disk(), json!({ "id": id, "told": told }));
        let counts = &mut self.history.record().counts;
        match end {
            End::Unknown(_) => counts.unknown += 1,
            _ => counts.acknowledged += 1,
        }
        self.learn(op, &end);
    }

    /// The last request again: it must change nothing, and get the recorded answer.
    async fn repeat(&mut self, id: &str, op: &Op, known: &KnownTxn) {
        self.history.event("invoke", &self.name, "repeat", op.disk(), json!({ "id": id }));
        let (answer, _) = self.send(id, op).await;
        let (kind, told) = match &answer {
            Answer::Unknown(why) => ("info", json!(why)),
            Answer::Done(None) => ("info", json!("an answer without a transaction")),
            Answer::Refused(refusal) => ("ok", json!({ "id": id, "told": refusal.reason })),
            Answer::Done(Some(txn)) => {
                let reason = txn.refusal.as_ref().map(|refusal| refusal.reason.as_str()).unwrap_or_default();
                let told = if txn.phase == "committed" { "committed" } else { reason };
                ("ok", json!({ "id": id, "told": told, "revision": txn.revision }))
            }
        };
        self.history.event(kind, &self.name, "repeat", op.disk(), told);
        self.history.record().counts.compared += 1;
        let same = match &answer {
            Answer::Unknown(_) => true,
            Answer::Done(Some(txn)) => txn.phase == known.phase && Some(txn.revision) == known.revision,
            Answer::Refused(refusal) => refusal.reason == known.reason,
            Answer::Done(None) => false,
        };
        if !same {
            let what = format!("{known:?} was repeated and answered with {answer:?}");
            self.history.violated(Promise::Idempotent, what);
        }
    }

    fn own(&self) -> Vec<(String, String, Vec<String>)> {
        let prefix = format!("{}-", self.name);
        let disks = self.shelf.disks();
        let there = disks.iter().filter_map(|(name, known)| match known {
            Known::There { domain, snapshots } if name.starts_with(&prefix) => {
                Some((name.clone(), domain.clone(), snapshots.clone()))
            }
            _ => None,
        });
        there.collect()
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        format!("{}-{}", self.name, self.names)
    }

    fn choose(&mut self) -> Op {
        let own = self.own();
        let dice = self.random.random_range(0..100);
        let chosen = match own.len() {
            0 => None,
            count => own.get(self.random.random_range(0..count)).cloned(),
        };
        let other = self.random.random_range(0..self.domains.len());
        let Some((disk, domain, snapshots)) = chosen.filter(|_| own.len() >= DISKS_MAX || dice >= 35) else {
            let domain = self.domains[other].clone();
            return Op::Create { name: self.new_name(), domain, qcow2: dice % 2 == 0 };
        };
        match dice {
            35..50 => Op::Delete { disk },
            50..65 => {
                let to = self.domains.iter().find(|name| **name != domain).cloned().unwrap_or(domain);
                Op::Move { disk, to }
            }
            65..75 => Op::Rename { disk, name: self.new_name() },
            75..90 if snapshots.len() < 3 => Op::Snapshot { disk, name: format!("s{}", self.random.random::<u16>()) },
            _ => match snapshots.first() {
                Some(name) => Op::DeleteSnapshot { disk, name: name.clone() },
                None => Op::Delete { disk },
            },
        }
    }

    /// What the catalog must show from now on.
    fn learn(&self, op: Op, end: &End) {
        let mut disks = self.shelf.disks();
        let known = disks.get(op.disk()).cloned().unwrap_or(Known::Gone);
        let after = match (end, &op) {
            (End::Not(_), _) => known,
            (End::Unknown(_), Op::Rename { name, .. }) => {
                disks.insert(name.clone(), Known::Anything);
                Known::Anything
            }
            (End::Unknown(_), _) => Known::Anything,
            (End::Committed, Op::Create { domain, .. }) => {
                Known::There { domain: domain.clone(), snapshots: Vec::new() }
            }
            (End::Committed, Op::Delete { .. }) => Known::Gone,
            (End::Committed, Op::Rename { name, .. }) => {
                disks.insert(name.clone(), known);
                Known::Gone
            }
            (End::Committed, changed) => match known {
                Known::There { domain, snapshots } => changed_by(changed, domain, snapshots),
                other => other,
            },
        };
        disks.insert(op.disk().to_owned(), after);
    }

    async fn carry_out(&mut self, id: &str, op: &Op) -> End {
        let (answer, again) = self.send(id, op).await;
        match answer {
            Answer::Done(Some(transaction)) => self.follow(id, op, transaction).await,
            Answer::Done(None) => End::Unknown("an answer without a transaction".to_owned()),
            // An earlier copy may still be on its way.
            Answer::Refused(refusal) if again => End::Unknown(refusal.reason),
            Answer::Refused(refusal) => End::Not(refusal.reason),
            Answer::Unknown(why) => End::Unknown(why),
        }
    }

    async fn follow(&mut self, id: &str, op: &Op, first: v1::Transaction) -> End {
        let begun = tokio::time::Instant::now();
        let mut transaction = first;
        loop {
            match transaction.phase.as_str() {
                "committed" | "aborted" | "refused" => break,
                _ if begun.elapsed() >= FOLLOWED => return End::Unknown(format!("still {}", transaction.phase)),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
            let call = |channel| {
                let request = v1::GetTransactionRequest { id: id.to_owned() };
                async move { transactions(channel).get_transaction(request).await }
            };
            match self.endpoints.insist(PATIENCE, call).await.0 {
                Answer::Done(v1::GetTransactionResponse { transaction: Some(now), .. }) => transaction = now,
                other => return End::Unknown(format!("{other:?}")),
            }
        }
        let reason = transaction.refusal.as_ref().map(|refusal| refusal.reason.clone()).unwrap_or_default();
        let (id, name, phase) = (id.to_owned(), op.disk().to_owned(), transaction.phase.clone());
        let known = KnownTxn { id, name, phase, reason: reason.clone(), revision: Some(transaction.revision) };
        self.last = Some((known.id.clone(), op.clone(), known.clone()));
        self.history.record().change_ended(known);
        if transaction.phase == "committed" { End::Committed } else { End::Not(reason) }
    }

    async fn send(&mut self, id: &str, op: &Op) -> (Answer<Option<v1::Transaction>>, bool) {
        let header = Some(v1::MutationHeader {
            request_id: id.to_owned(),
            lock_wait_ms: 20_000,
            initiator: self.name.clone(),
            ..v1::MutationHeader::default()
        });
        let call = |channel| ask(channel, header.clone(), op.clone());
        self.endpoints.insist(PATIENCE, call).await
    }
}

fn changed_by(op: &Op, domain: String, mut snapshots: Vec<String>) -> Known {
    match op {
        Op::Move { to, .. } => return Known::There { domain: to.clone(), snapshots },
        Op::Snapshot { name, .. } => snapshots.push(name.clone()),
        Op::DeleteSnapshot { name, .. } => snapshots.retain(|known| known != name),
        Op::Create { .. } | Op::Delete { .. } | Op::Rename { .. } => {}
    }
    Known::There { domain, snapshots }
}

async fn ask(
    channel: Channel,
    header: Option<v1::MutationHeader>,
    op: Op,
) -> Result<Response<Option<v1::Transaction>>, Status> {
    let transaction = match op {
        Op::Create { name, domain, qcow2 } => {
            let format = if qcow2 { v1::DiskFormat::Qcow2 } else { v1::DiskFormat::Raw };
            let size = DISK_BYTES;
            let request =
                v1::CreateDiskRequest { header, name, domain, size, format: format.into(), ..Default::default() };
            disks(channel).create_disk(request).await?.into_inner().transaction
        }
        Op::Delete { disk } => {
            disks(channel).delete_disk(v1::DeleteDiskRequest { header, disk }).await?.into_inner().transaction
        }
        Op::Move { disk, to } => {
            let request = v1::MoveDiskRequest { header, disk, to_domain: to };
            disks(channel).move_disk(request).await?.into_inner().transaction
        }
        Op::Rename { disk, name } => {
            disks(channel).rename_disk(v1::RenameDiskRequest { header, disk, name }).await?.into_inner().transaction
        }
        Op::Snapshot { disk, name } => {
            let request = v1::CreateSnapshotRequest { header, disk, name, ..Default::default() };
            snapshots(channel).create_snapshot(request).await?.into_inner().transaction
        }
        Op::DeleteSnapshot { disk, name } => {
            let request = v1::DeleteSnapshotRequest { header, disk, snapshot: name, ..Default::default() };
            snapshots(channel).delete_snapshot(request).await?.into_inner().transaction
        }
    };
    Ok(Response::new(transaction))
}
