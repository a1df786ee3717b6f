//! Whoever changes the membership while everything else goes on: members come on empty disks under their old names or on
//! spare machines, and go, alive or dead, the leader among them; now and then the leadership is handed over. A change that
//! was begun is followed to its end, whatever faults there are.

use super::hosts::Ended;
use super::network::SimTransport;
use super::plan::pick;
use super::shared::Shared;
use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::cluster;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sdm_proto::wire::v1;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Phase;

/// This client's host.
pub const NAME: &str = "membership";

/// Fewer members are never left: with two, every fault stops everything.
const MEMBERS_MIN: usize = 3;

/// How long one call is repeated before it is looked at anew.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

struct MembershipClient {
    shared: Arc<Shared>,
    members: Endpoints,
    random: StdRng,
}

/// Changes the membership until the clients are to pause.
pub async fn host(shared: Arc<Shared>) -> Ended {
    shared.wait_for(Phase::Working).await;
    let transport = SimTransport::of(NAME, &shared.cuts);
    let members = Endpoints::over(&transport, &shared.plan.addresses(), 0)?;
    let random = StdRng::seed_from_u64(shared.plan.seed ^ 0x006d_656d_6265_7273);
    let mut client = MembershipClient { shared: shared.clone(), members, random };
    while shared.works() {
        let pause = Duration::from_millis(client.random.random_range(1_500..9_000));
        // Whichever comes first.
        let _ = tokio::time::timeout(pause, shared.wait_for(Phase::Healing)).await;
        if shared.works() {
            client.step().await;
        }
    }
    shared.finished.send_modify(|finished| *finished += 1);
    shared.wait_for(Phase::Over).await;
    Ok(())
}

impl MembershipClient {
    fn event(&self, kind: &str, f: &str, key: &str, value: serde_json::Value) {
        self.shared.history.event(kind, NAME, f, key, value);
    }

    async fn step(&mut self) {
        let (members, spare) = {
            let roster = self.shared.roster();
            (roster.members.clone(), roster.spare(&self.shared.plan))
        };
        let dice = self.random.random_range(0..4);
        match spare {
            _ if dice == 0 => self.hand_over().await,
            Some(spare) => self.add(&spare).await,
            None if members.len() > MEMBERS_MIN => self.remove().await,
            None => self.hand_over().await,
        }
    }

    fn some_member(&mut self) -> String {
        let members: Vec<String> = self.shared.roster().members.iter().cloned().collect();
        pick(&mut self.random, &members).clone()
    }

    /// Another one leads, if the cluster sees fit.
    async fn hand_over(&mut self) {
        let to = self.some_member();
        self.event("invoke", "hand-over", &to, json!(null));
        let call = |channel| {
            let request = v1::TransferLeaderRequest { to: to.clone(), from: String::new() };
            async move { cluster(channel).transfer_leader(request).await }
        };
        let answer = self.members.ask(call).await;
        let kind = match &answer {
            Answer::Done(done) => {
                self.shared.coverage().add("leadership-handed-over", u64::from(done.changed));
                "ok"
            }
            Answer::Refused(_) => "fail",
            Answer::Unknown(_) => "info",
        };
        self.event(kind, "hand-over", &to, json!(format!("{answer:?}")));
    }

    /// A member on an empty disk.
    async fn add(&mut self, name: &str) {
        let via = self.some_member();
        if let Some(disk) = self.shared.disks.get(name) {
            disk.replace();
        }
        self.event("invoke", "add", name, json!({ "via": via }));
        {
            let mut roster = self.shared.roster();
            roster.leaving.remove(name);
            roster.running.insert(name.to_owned(), Some(via));
        }
        self.shared.roster_changed();
        while !self.votes(name).await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.shared.roster().members.insert(name.to_owned());
        self.shared.coverage().count("member-added");
        self.event("ok", "add", name, json!(null));
    }

    async fn votes(&mut self, name: &str) -> bool {
        let call = |channel| async move { cluster(channel).get_status(v1::GetStatusRequest {}).await };
        let Answer::Done(status) = self.members.insist(PATIENCE, call).await.0 else { return false };
        if !status.has_quorum {
            self.members.next().await;
            return false;
        }
        let voter = |member: &&v1::Member| matches!(member.role.as_str(), "leader" | "follower");
        status.members.iter().filter(voter).any(|member| member.name == name && member.reachable)
    }

    /// A member goes, dead or alive.
    async fn remove(&mut self) {
        let leader = self.shared.leader().filter(|name| self.shared.roster().members.contains(name));
        let name = match leader {
            Some(leader) if self.random.random_range(0..3) == 0 => leader,
            _ => self.some_member(),
        };
        self.event("invoke", "remove", &name, json!(null));
        self.shared.roster().leaving.insert(name.clone());
        let mut is_open = false;
        loop {
            let call = |channel| {
                let request = v1::RemoveMemberRequest { member: name.clone() };
                async move { cluster(channel).remove_member(request).await }
            };
            let (answer, again) = self.members.insist(PATIENCE, call).await;
            is_open |= again;
            match answer {
                Answer::Done(_) => break,
                // No copy of it is on its way.
                Answer::Refused(refusal) if !is_open => {
                    self.shared.roster().leaving.remove(&name);
                    self.event("fail", "remove", &name, json!(refusal.to_string()));
                    return;
                }
                _ => is_open = true,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.shared.roster().members.remove(&name);
        self.shared.coverage().count("member-removed");
        self.event("ok", "remove", &name, json!(null));
    }
}
