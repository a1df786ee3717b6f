//! The cluster itself: its first entry, its members, its feature level.

use crate::command::AddMember;
use crate::command::Found;
use crate::events::Kind;
use crate::feature_level::FEATURE_LEVEL_FIRST;
use crate::members::AnnouncedMember;
use crate::members::Member;
use crate::members::REMOVED_MEMBERS_KEPT;
use crate::members::RemovedMember;
use crate::reply::Reply;
use crate::state::State;
use sdm_proto::failpoint;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// Id of the member that founded the cluster. All others are log indexes, and those are larger.
pub(crate) const FIRST_MEMBER: u64 = 1;

impl State {
    pub(super) fn found(&mut self, found: &Found) -> Result<Reply, Refusal> {
        if let Some(cluster) = self.meta.cluster_id {
            if cluster == found.cluster_id {
                return Ok(Reply::Member(FIRST_MEMBER));
            }
            let message = format!("this is cluster {cluster} already");
            return Err(Refusal::new(Class::Conflict, "ALREADY_FOUNDED", message));
        }
        self.meta.cluster_id = Some(found.cluster_id);
        self.meta.pool_id = found.pool_id;
        self.meta.epoch = found.epoch;
        // Of the entry alone, not of this build: the same entry founds the same cluster everywhere.
        self.meta.feature_level = found.member.feature_level_max.max(FEATURE_LEVEL_FIRST);
        self.meta.settings = found.settings.clone();
        self.put_member(member(FIRST_MEMBER, &found.member));
        Ok(Reply::Member(FIRST_MEMBER))
    }

    pub(super) fn add_member(&mut self, add: &AddMember) -> Result<Reply, Refusal> {
        if let Some(known) = self.members.values().find(|known| known.incarnation == add.incarnation) {
            return Ok(Reply::Member(known.id));
        }
        if let Some(known) = self.members.values().find(|known| known.name == add.name) {
            let message = format!("there is a member {} already (id {}, at {})", known.name, known.id, known.address);
            return Err(Refusal::new(Class::Conflict, "MEMBER_EXISTS", message)
                .hint(format!(
                    "start that member on its own folder; if the folder is lost, `sdm member remove {0}` frees the name, or join under another --name and `sdm member replace {0} --with NAME`",
                    known.name
                )));
        }
        let announced = self.meta.announced_members.iter().find(|announced| announced.name == add.name).cloned();
        let elsewhere = announced.as_ref().filter(|known| !known.address.is_empty() && known.address != add.address);
        if let Some(known) = elsewhere {
            let message =
                format!("{} was announced at {}, and asks to join from {}", add.name, known.address, add.address);
            return Err(Refusal::new(Class::Conflict, "ANNOUNCED_ELSEWHERE", message).hint(format!(
                "start it with --advertise {}, or `sdm member remove {}` takes the announcement back",
                known.address, known.name
            )));
        }
        if self.members.len() as u64 >= self.meta.settings.members_max {
            let message = format!("there are {} members, more are not allowed", self.members.len());
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_MEMBERS", message));
        }
        if add.feature_level_max < self.meta.feature_level {
            let (own, theirs) = (self.meta.feature_level, add.feature_level_max);
            let message = format!("{} supports feature level {theirs}, the cluster is at {own}", add.name);
            return Err(Refusal::new(Class::Unsupported, "FEATURE_LEVEL", message).hint("run a newer sdm there"));
        }
        let id = self.meta.applied_index;
        self.meta.announced_members.retain(|announced| announced.name != add.name);
        let learner = announced.is_some_and(|announced| announced.learner);
        self.put_member(Member { learner, ..member(id, add) });
        Ok(Reply::Member(id))
    }

    pub(super) fn announce_member(&mut self, announced: &AnnouncedMember) -> Result<Reply, Refusal> {
        if let Some(known) = self.members.values().find(|known| known.name == announced.name) {
            let message = format!("there is a member {} already (id {}, at {})", known.name, known.id, known.address);
            return Err(Refusal::new(Class::Conflict, "MEMBER_EXISTS", message).hint("choose another name"));
        }
        if let Some(known) = self.meta.announced_members.iter().find(|known| known.name == announced.name) {
            if known == announced {
                return Ok(Reply::Done);
            }
            let how = |known: &AnnouncedMember| {
                let role = if known.learner { "a learner" } else { "a voter" };
                let place = if known.address.is_empty() { "anywhere" } else { known.address.as_str() };
                format!("as {role}, {place}")
            };
            let message = format!("{} is announced already, {}, not {}", known.name, how(known), how(announced));
            let hint = format!("`sdm member remove {}` takes that back", known.name);
            return Err(Refusal::new(Class::Conflict, "ANNOUNCED_OTHERWISE", message).hint(hint));
        }
        let members = self.members.len() + self.meta.announced_members.len();
        if members as u64 >= self.meta.settings.members_max {
            let message = format!("there are {members} members, announced ones included: more are not allowed");
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_MEMBERS", message)
                .hint("remove one that is not needed: `sdm member remove NAME`"));
        }
        self.meta.announced_members.push(announced.clone());
        Ok(Reply::Done)
    }

    pub(super) fn withdraw_member(&mut self, name: &Name) -> Result<Reply, Refusal> {
        self.meta.announced_members.retain(|announced| announced.name != *name);
        Ok(Reply::Done)
    }

    pub(super) fn remove_member(&mut self, id: u64) -> Result<Reply, Refusal> {
        if let Some(member) = self.members.get(&id).cloned() {
            self.members.remove(&id);
            self.tell(Kind::MemberRemoved, format!("member/{}", member.name), None, format!("removed, id {id}"));
            let removed = &mut self.meta.removed_members;
            removed.push(RemovedMember { id, name: member.name, index: self.meta.applied_index });
            let excess = removed.len().saturating_sub(REMOVED_MEMBERS_KEPT);
            removed.drain(..excess);
        }
        Ok(Reply::Done)
    }

    pub(super) fn report_start(&mut self, id: u64, starts: u64, address: &str) -> Result<Reply, Refusal> {
        let Some(known) = self.members.get(&id) else {
            let message = format!("there is no member {id}");
            return Err(Refusal::new(Class::NotFound, "MEMBER_NOT_FOUND", message));
        };
        // Of two reports the one of the earlier start came late.
        if starts >= known.starts {
            let member = Member { starts, address: address.to_owned(), ..known.clone() };
            self.put_member(member);
        }
        Ok(Reply::Done)
    }

    pub(super) fn report_member(&mut self, id: u64, version: &str, feature_level_max: u32) -> Result<Reply, Refusal> {
        let unknown = || Refusal::new(Class::NotFound, "MEMBER_NOT_FOUND", format!("there is no member {id}"));
        let mut member = self.members.get(&id).ok_or_else(unknown)?.clone();
        member.version = version.to_owned();
        member.feature_level_max = feature_level_max;
        self.put_member(member);
        Ok(Reply::Done)
    }

    pub(super) fn raise_feature_level(&mut self, level: u32) -> Result<Reply, Refusal> {
        if level <= self.meta.feature_level {
            return Ok(Reply::Done);
        }
        if self.members.values().any(|member| member.feature_level_max < level) {
            let message = format!("not every member supports feature level {level}");
            return Err(self.held_back(level, Refusal::new(Class::Precondition, "FEATURE_LEVEL", message)));
        }
        self.meta.feature_level = level;
        Ok(Reply::Done)
    }
}

pub(super) fn member(id: u64, add: &AddMember) -> Member {
    Member {
        id,
        name: add.name.clone(),
        address: add.address.clone(),
        incarnation: add.incarnation.clone(),
        version: add.version.clone(),
        feature_level_max: add.feature_level_max,
        starts: 0,
        learner: false,
    }
}

impl State {
    /// Whether this id was a member's and is none's any more. Ids are indexes of the entries that gave them, so one
    /// that was applied and has no row was removed.
    #[must_use]
    pub fn was_removed(&self, id: u64) -> bool {
        self.meta.cluster_id.is_some() && id <= self.meta.applied_index && self.members.get(&id).is_none()
    }

    /// What is said to a member that was removed; None to any other.
    #[must_use]
    pub fn refuse_removed(&self, id: u64) -> Option<Refusal> {
        if !self.was_removed(id) || failpoint::skips("plant.removed-stays") {
            return None;
        }
        let known = self.meta.removed_members.iter().find(|removed| removed.id == id);
        let who = known.map_or_else(|| format!("member {id}"), |known| format!("member {} (id {id})", known.name));
        Some(
            Refusal::new(Class::Precondition, "REMOVED_MEMBER", format!("{who} was removed from the cluster"))
                .hint("to have it back, start it with --join on an empty data folder: it gets a new id"),
        )
    }
}
