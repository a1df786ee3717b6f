//! The leader's side of a change: look, judge, do. One change at a time on this leader, and Raft itself
//! refuses one that was judged by an older membership.

use super::picture::Picture;
use super::quorum::Reach;
use super::quorum::keep_majority;
use super::succession;
use crate::admission;
use crate::core::Core;
use crate::propose::write_here;
use crate::reachability;
use crate::reachability::PING_TIME;
use crate::route::not_leader;
use openraft::ChangeMembers;
use sdm_proto::limits;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1::ChangeMembershipResponse;
use sdm_proto::wire::internal::v1::change_membership_request::Change;
use sdm_proto::wire::internal::v1::change_membership_request::Replace;
use sdm_proto::wire::internal::v1::change_membership_request::TransferLeader;
use sdm_raft_store::LeaderId;
use sdm_raft_store::NodeId;
use sdm_raft_store::StateView;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::members::AnnouncedMember;
use sdm_state::members::Member;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a learner, or a successor, may take to have the last of the log before it is told that it lags.
const CATCH_UP_TIME: Duration = Duration::from_secs(3);

/// How long a new voter may take to be known as one that could lead.
const SUCCESSOR_TIME: Duration = Duration::from_secs(2);

/// Does it, as the leader of this leadership.
///
/// # Errors
/// Why it cannot be; what is Unavailable is worth another try, here or at the leader then.
pub(crate) async fn change_here(
    core: &Core,
    own: LeaderId,
    change: &Change,
) -> Result<ChangeMembershipResponse, Refusal> {
    let _alone = core.inner.membership.lock().await;
    // What is answered without an entry must be as of now.
    let view = core.read(Instant::now() + limits::LEADER_WAIT / 2).await?;
    let picture = Picture::now(core);
    if picture.settle(core).await? {
        return Err(Refusal::new(Class::Unavailable, "MEMBERSHIP_CHANGING", "an earlier change was finished first"));
    }
    let leader = Leading { core, own, view, picture };
    match change {
        Change::Add(add) => leader.announce(&add.name, &add.address, add.learner).await,
        Change::Promote(who) => leader.promote(who).await,
        Change::Remove(who) => leader.remove(who).await,
        Change::Replace(replace) => leader.replace(replace).await,
        Change::TransferLeader(transfer) => leader.transfer(transfer).await,
    }
}

/// What a leader looks at.
struct Leading<'a> {
    core: &'a Core,
    own: LeaderId,
    view: Arc<StateView>,
    picture: Picture,
}

fn names(member: &Member, who: &str) -> bool {
    member.name.as_str() == who || who.parse() == Ok(member.id)
}

fn not_found(who: &str) -> Refusal {
    Refusal::new(Class::NotFound, "MEMBER_NOT_FOUND", format!("there is no member {who}"))
        .hint("`sdm member list` names all")
}

impl Leading<'_> {
    fn member(&self, who: &str) -> Result<&Member, Refusal> {
        self.view.state.members.values().find(|member| names(member, who)).ok_or_else(|| not_found(who))
    }

    /// One that is in Raft's membership.
    fn seated(&self, who: &str) -> Result<&Member, Refusal> {
        let announced = |known: &AnnouncedMember| known.name.as_str() == who;
        if self.view.state.meta.announced_members.iter().any(announced) {
            let message = format!("{who} is expected and has not joined yet");
            return Err(Refusal::new(Class::Precondition, "NOT_JOINED", message).hint(format!(
                "start it: sdm coordinator --name {who} --listen HOST:PORT --data-dir DIR --join MEMBER"
            )));
        }
        let member = self.member(who)?;
        if self.picture.nodes.contains_key(&member.id) {
            return Ok(member);
        }
        let message = format!("{} has an id ({}) and was not admitted yet", member.name, member.id);
        Err(Refusal::new(Class::Precondition, "NOT_JOINED", message)
            .hint(format!("see that its process runs and reaches the members; it was at {}", member.address)))
    }

    /// The note of a member that was removed and has no successor under its name.
    fn removed(&self, who: &str) -> Option<String> {
        let mut removed = self.view.state.meta.removed_members.iter().rev();
        let known = removed.find(|known| known.name.as_str() == who || who.parse() == Ok(known.id))?;
        Some(format!("member {} (id {}) was removed as entry {}", known.name, known.id, known.index))
    }

    fn answer(&self, changed: bool, message: String) -> ChangeMembershipResponse {
        let index = self.core.view().applied_index().unwrap_or_default();
        ChangeMembershipResponse { changed, message, hint: String::new(), index }
    }

    async fn write(&self, command: Command) -> Result<(), Refusal> {
        match write_here(self.core, self.own, command, rand::random()).await?.reply {
            Reply::Refused(refusal) => Err(refusal),
            _ => Ok(()),
        }
    }

    async fn reach(&self) -> Reach {
        let pings = reachability::ping_all(self.core, PING_TIME).await;
        let silent = pings.iter().filter_map(|ping| Some((ping.id, ping.answer.as_ref().err()?.message.clone())));
        let mut reach = Reach { silent: silent.collect(), ..Reach::default() };
        reach.names = self.picture.nodes.iter().map(|(id, node)| (*id, node.name.clone())).collect();
        reach
    }

    async fn announce(&self, name: &str, address: &str, learner: bool) -> Result<ChangeMembershipResponse, Refusal> {
        let name: Name =
            name.parse().map_err(|error| Refusal::new(Class::Invalid, "BAD_NAME", format!("{name:?}: {error}")))?;
        let announced = AnnouncedMember { name, address: address.to_owned(), learner };
        if let Ok(known) = self.member(announced.name.as_str()) {
            // It came: a repetition of the announcement finds it.
            let as_said = (announced.address.is_empty() || announced.address == known.address)
                && learner != self.picture.voters.contains(&known.id);
            if as_said {
                let message = format!("{} (id {}) is a member already", known.name, known.id);
                return Ok(self.answer(false, message));
            }
        }
        let known = self.view.state.meta.announced_members.contains(&announced);
        if !known {
            self.write(Command::AnnounceMember(announced.clone())).await?;
        }
        let role = if learner { "learner" } else { "voter" };
        let place = if address.is_empty() { String::new() } else { format!(" from {address}") };
        let (name, own) = (&announced.name, self.picture.nodes.get(&self.core.node_id()));
        let via = own.map_or("ANY_MEMBER", |node| node.address.as_str());
        let listen = if address.is_empty() { "HOST:PORT" } else { address };
        Ok(ChangeMembershipResponse {
            hint: format!("on its host: sdm coordinator --name {name} --listen {listen} --data-dir DIR --join {via}"),
            ..self.answer(!known, format!("{name} is expected to join{place} as a {role}"))
        })
    }

    async fn promote(&self, who: &str) -> Result<ChangeMembershipResponse, Refusal> {
        let member = self.seated(who)?;
        let (id, name) = (member.id, &member.name);
        if self.picture.voters.contains(&id) {
            return Ok(self.answer(false, format!("{name} votes")));
        }
        self.fit_to_vote(member, &self.reach().await).await?;
        self.picture.change(self.core, ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await?;
        Ok(self.answer(true, format!("{name} votes now")))
    }

    /// A voter that is dead or far behind would hold up every commit that needs it.
    async fn fit_to_vote(&self, member: &Member, reach: &Reach) -> Result<(), Refusal> {
        let (id, name) = (member.id, &member.name);
        if let Some(why) = reach.silent.get(&id) {
            let message = format!("{name} cannot become a voter: it does not answer at {}: {why}", member.address);
            return Err(Refusal::new(Class::Precondition, "MEMBER_UNREACHABLE", message)
                .hint("start it, or mend the network, and repeat this"));
        }
        let mut voters = self.picture.voters.clone();
        voters.insert(id);
        keep_majority(&format!("{name} as a voter"), &voters, reach)?;
        self.caught_up(id, admission::LAG_ENTRIES_MAX).await
    }

    /// Who asks shall hear at once that it lags, instead of waiting on.
    async fn caught_up(&self, id: NodeId, lag_max: u64) -> Result<(), Refusal> {
        admission::caught_up(self.core, id, lag_max, CATCH_UP_TIME).await.map_err(|refusal| match refusal.class {
            Class::Unavailable if refusal.reason == admission::NOT_CAUGHT_UP => {
                Refusal { class: Class::Precondition, ..refusal }
            }
            _ => refusal,
        })
    }

    async fn remove(&self, who: &str) -> Result<ChangeMembershipResponse, Refusal> {
        let announced = self.view.state.meta.announced_members.iter().find(|known| known.name.as_str() == who);
        if let Some(known) = announced {
            self.write(Command::WithdrawMember { name: known.name.clone() }).await?;
            return Ok(self.answer(true, format!("{who} is not expected any more")));
        }
        let member = match self.member(who) {
            Ok(member) => member,
            Err(unknown) => {
                return self.removed(who).map(|message| self.answer(false, message)).ok_or(unknown);
            }
        };
        self.refuse_old_members()?;
        let (id, name) = (member.id, &member.name);
        if self.picture.voters.contains(&id) {
            let mut voters = self.picture.voters.clone();
            voters.remove(&id);
            keep_majority(&format!("removing {name}"), &voters, &self.reach().await)?;
            if id == self.core.node_id() {
                return Err(self.step_aside().await);
            }
            self.picture.change(self.core, ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await?;
        } else if self.picture.nodes.contains_key(&id) {
            self.picture.change(self.core, ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await?;
        }
        self.write(Command::RemoveMember { id }).await?;
        Ok(ChangeMembershipResponse {
            hint: format!(
                "its process stops by itself, also when it is started again; its id {id} is never given again"
            ),
            ..self.answer(true, format!("{name} (id {id}) is removed"))
        })
    }

    /// The row can only be removed where every member understands that: to be known before Raft's
    /// membership is changed.
    fn refuse_old_members(&self) -> Result<(), Refusal> {
        self.view.state.check_feature_level(&Command::RemoveMember { id: 0 })
    }

    async fn replace(&self, replace: &Replace) -> Result<ChangeMembershipResponse, Refusal> {
        let Replace { old, new, only_voter } = replace;
        let arriving = self.seated(new)?;
        let (id, name) = (arriving.id, &arriving.name);
        let votes = self.picture.voters.contains(&id);
        let leaving = match self.member(old) {
            Ok(leaving) => leaving,
            Err(unknown) => {
                let removed = self.removed(old).filter(|_| votes).ok_or(unknown)?;
                return Ok(self.answer(false, format!("{removed}, and {name} votes")));
            }
        };
        if leaving.id == id {
            let message = format!("{old} and {new} are the same member (id {id})");
            return Err(Refusal::new(Class::Invalid, "SAME_MEMBER", message).hint("name the one that shall come"));
        }
        if votes {
            self.refuse_a_mere_removal(leaving, name, id, *only_voter)?;
        }
        self.refuse_old_members()?;
        let reach = self.reach().await;
        if !votes {
            self.fit_to_vote(arriving, &reach).await?;
        }
        let mut voters = self.picture.voters.clone();
        voters.remove(&leaving.id);
        voters.insert(id);
        keep_majority(&format!("replacing {} with {name}", leaving.name), &voters, &reach)?;
        if leaving.id == self.core.node_id() {
            if self.picture.voters.len() == 1 {
                // The only voter: somebody must be there to lead.
                self.picture.change(self.core, ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await?;
            }
            return Err(self.step_aside().await);
        }
        let in_and_out = vec![
            ChangeMembers::AddVoterIds(BTreeSet::from([id])),
            if self.picture.voters.contains(&leaving.id) {
                ChangeMembers::RemoveVoters(BTreeSet::from([leaving.id]))
            } else {
                ChangeMembers::RemoveNodes(BTreeSet::from([leaving.id]))
            },
        ];
        self.picture.change(self.core, ChangeMembers::Batch(in_and_out)).await?;
        self.write(Command::RemoveMember { id: leaving.id }).await?;
        Ok(self.answer(true, format!("{} (id {}) is removed, and {name} votes in its place", leaving.name, leaving.id)))
    }

    /// A replacement by one that votes beside the one that goes would only take a voter away. Let through
    /// where that one was the only voter at the request's begin: it is replaced by way of two.
    fn refuse_a_mere_removal(
        &self,
        leaving: &Member,
        name: &Name,
        id: NodeId,
        was_only_voter: bool,
    ) -> Result<(), Refusal> {
        let voters = &self.picture.voters;
        let goes_on = was_only_voter && *voters == BTreeSet::from([leaving.id, id]);
        if !voters.contains(&leaving.id) || goes_on {
            return Ok(());
        }
        let old = &leaving.name;
        let message = format!(
            "{name} votes already, beside {old} (voters: {}): replacing {old} with it would leave a voter less",
            self.picture.names(voters)
        );
        Err(Refusal::new(Class::Precondition, "ALREADY_VOTES", message).hint(format!(
            "to shrink the cluster: sdm member remove {old}; to replace {old}: start a new one with --learner, and name that"
        )))
    }

    /// This member is to go: another one leads first, and does it. Always to be tried again, there.
    async fn step_aside(&self) -> Refusal {
        let until = Instant::now() + SUCCESSOR_TIME;
        let mut changes = self.core.watch();
        loop {
            if let Some(successor) = succession::successor(self.core) {
                succession::transfer(self.core, successor).await;
                return not_leader(self.core);
            }
            // Heartbeats are not watched; the log moves when a new voter is.
            let waited = tokio::time::timeout(SUCCESSOR_TIME / 20, changes.changed()).await;
            if Instant::now() > until || matches!(waited, Ok(Err(_))) {
                let message = "no other voter could lead: none that answered within a second has nearly all of the log";
                return Refusal::new(Class::Unavailable, "NO_SUCCESSOR", message);
            }
        }
    }

    async fn transfer(&self, transfer: &TransferLeader) -> Result<ChangeMembershipResponse, Refusal> {
        let own = self.picture.name(self.core.node_id());
        // An earlier try of this request may have handed over, and not heard of it: `from` led at its begin.
        let leads = |name: &str| {
            let changed = !transfer.from.is_empty() && transfer.from != name;
            self.answer(changed, format!("{name} leads{}", if changed { " now" } else { "" }))
        };
        let to: NodeId = if transfer.to.is_empty() {
            if !transfer.from.is_empty() && transfer.from != own {
                return Ok(leads(&own));
            }
            succession::successor(self.core).ok_or_else(|| {
                let message =
                    format!("{own} leads, and no other voter that answered within a second has nearly all of the log");
                Refusal::new(Class::Precondition, "NO_SUCCESSOR", message).hint("`sdm member list` shows who votes")
            })?
        } else {
            self.seated(&transfer.to)?.id
        };
        if to == self.core.node_id() {
            return Ok(leads(&own));
        }
        let name = self.picture.name(to);
        if !self.picture.voters.contains(&to) {
            let message = format!("{name} is a learner, and only voters lead");
            return Err(Refusal::new(Class::Precondition, "NOT_A_VOTER", message)
                .hint(format!("`sdm member promote {name}` makes it one")));
        }
        if let Some(why) = self.reach().await.silent.get(&to) {
            let message = format!("{name} does not answer: {why}");
            return Err(Refusal::new(Class::Precondition, "MEMBER_UNREACHABLE", message).hint("name another one"));
        }
        // Writes stop until it has the whole log, and a transfer cannot be taken back.
        self.caught_up(to, succession::LAG_ENTRIES_MAX).await?;
        if succession::transfer(self.core, to).await {
            return Ok(self.answer(true, format!("{name} leads now")));
        }
        let message = format!("{name} did not take the leadership over in time");
        Err(Refusal::new(Class::Unavailable, "NOT_TRANSFERRED", message))
    }
}
