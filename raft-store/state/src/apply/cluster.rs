//! The cluster itself: its first entry, its members, its feature level.

use crate::command::AddMember;
use crate::command::Found;
use crate::feature_level::FEATURE_LEVEL_FIRST;
use crate::members::Member;
use crate::reply::Reply;
use crate::state::State;
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
                .hint("choose another --name, or start that member on its own folder"));
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
        self.put_member(member(id, add));
        Ok(Reply::Member(id))
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

fn member(id: u64, add: &AddMember) -> Member {
    Member {
        id,
        name: add.name.clone(),
        address: add.address.clone(),
        incarnation: add.incarnation.clone(),
        version: add.version.clone(),
        feature_level_max: add.feature_level_max,
    }
}
