//! A client that only reads: a disk by its name, or who holds the locks that several clients want, each time from one
//! member that it chose. Whether what it was shown fits what others did is for the checkers of histories.

use super::disk_client::Known;
use super::disk_client::Shelf;
use super::lease_client::lease_resources;
use super::plan::Workload;
use super::shared::Shared;
use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::disks;
use crate::client::locks;
use crate::client::shared_resources;
use rand::RngExt;
use rand::rngs::StdRng;
use sdm_proto::limits::PAGE_SIZE_MAX;
use sdm_proto::wire::v1;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long one member is asked. One that is cut off does not answer at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest pause between two reads: a list of locks is long.
const PAUSE_MS: u64 = 300;

/// Disks that are read at the end from every member.
const LAST_DISKS: usize = 6;

/// Why there is no disk.
const NO_DISK: &str = "DISK_NOT_FOUND";

/// One client.
pub struct ReadClient {
    process: String,
    members: Endpoints,
    shared: Arc<Shared>,
    shelf: Arc<Shelf>,
    random: StdRng,
}

impl ReadClient {
    /// The client of this number, with its own source of randomness.
    pub fn new(number: usize, members: Endpoints, shared: Arc<Shared>, shelf: Arc<Shelf>, random: StdRng) -> Self {
        Self { process: format!("reader-{number}"), members, shared, shelf, random }
    }

    fn event(&self, kind: &str, f: &str, key: &str, value: Value) {
        self.shared.history.event(kind, &self.process, f, key, value);
    }

    /// Reads one thing from one member, and rests.
    pub async fn step(&mut self) {
        let members = self.members.each();
        let Some(member) = members.get(self.random.random_range(0..members.len().max(1))) else { return };
        match self.some_disk() {
            Some(name) if self.random.random_range(0..3) > 0 => self.show(member, &name).await,
            _ => self.locks(member).await,
        }
        tokio::time::sleep(Duration::from_millis(self.random.random_range(0..PAUSE_MS))).await;
    }

    /// When nobody begins anything any more: from every member what is there now.
    pub async fn last_look(&mut self) {
        for member in self.shared.standing(&self.members) {
            self.locks(&member).await;
            for _ in 0..LAST_DISKS {
                if let Some(name) = self.some_disk() {
                    self.show(&member, &name).await;
                }
            }
        }
    }

    /// A disk that somebody made, more often one that should be there.
    fn some_disk(&mut self) -> Option<String> {
        if self.shared.plan.workload == Workload::Locks {
            return None;
        }
        let there_alone = self.random.random_range(0..4) > 0;
        let disks = self.shelf.disks();
        let names: Vec<&String> =
            disks.iter().filter(|(_, known)| !there_alone || **known != Known::Gone).map(|(name, _)| name).collect();
        names.get(self.random.random_range(0..names.len().max(1))).map(|name| (*name).clone())
    }

    async fn show(&self, member: &Endpoints, name: &str) {
        let at = member.address();
        self.event("invoke", "show", name, json!({ "member": at }));
        let call = |channel| {
            let request = v1::GetDiskRequest { disk: name.to_owned() };
            async move { disks(channel).get_disk(request).await }
        };
        match tokio::time::timeout(PATIENCE, member.ask(call)).await {
            Ok(Answer::Done(v1::GetDiskResponse { disk: Some(disk), revision })) => {
                let snapshots: Vec<&str> = disk.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
                let disk = json!({ "id": disk.id, "domain": disk.domain, "snapshots": snapshots });
                self.event("ok", "show", name, json!({ "disk": disk, "revision": revision, "member": at }));
            }
            Ok(Answer::Refused(refusal)) if refusal.reason == NO_DISK => {
                self.event("ok", "show", name, json!({ "disk": null, "member": at }));
            }
            other => self.event("info", "show", name, json!(format!("{other:?}"))),
        }
    }

    async fn locks(&self, member: &Endpoints) {
        let at = member.address();
        self.event("invoke", "locks", "", json!({ "member": at }));
        let call = |channel| {
            let page_size = u32::try_from(PAGE_SIZE_MAX).unwrap_or(1);
            let page = Some(v1::PageRequest { page_size, page_token: String::new() });
            async move { locks(channel).list_locks(v1::ListLocksRequest { page }).await }
        };
        let list = match tokio::time::timeout(PATIENCE, member.ask(call)).await {
            Ok(Answer::Done(list)) => list,
            other => return self.event("info", "locks", "", json!(format!("{other:?}"))),
        };
        let page = list.page.unwrap_or_default();
        if !page.next_page_token.is_empty() {
            return self.event("info", "locks", "", json!("more than a page"));
        }
        let names: Vec<String> = lease_resources().chain(shared_resources()).collect();
        let mut held = serde_json::Map::new();
        for lock in list.items.iter().filter(|lock| !lock.token.is_empty()) {
            for locked in lock.resources.iter().filter(|locked| names.contains(&locked.resource)) {
                let row = json!({ "session": lock.owner_id, "token": lock.token });
                held.insert(locked.resource.clone(), row);
            }
        }
        let told = json!({ "names": names, "held": held, "revision": page.revision, "member": at });
        self.event("ok", "locks", "", told);
    }
}
