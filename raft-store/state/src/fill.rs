//! A state of a given size, for measuring: made at once instead of by a million commands. All that
//! it holds is well-formed, and what must hold of every state holds of it, but no storage lies
//! beneath: its domains name folders that nobody made.

use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::DomainState;
use crate::catalog::Format;
use crate::catalog::Placement;
use crate::catalog::Volume;
use crate::command::Entry;
use crate::command::Found;
use crate::locks::Granted;
use crate::locks::LockSet;
use crate::locks::Mode;
use crate::locks::Owner;
use crate::locks::Resource;
use crate::reply::Reply;
use crate::sessions::Holder;
use crate::sessions::Session;
use crate::state::State;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::BadName;
use sdm_proto::names::Name;
use sdm_proto::token::Token;

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Volumes of all disks together.
    pub volumes: u64,
    /// Disks; each has an equal share of the volumes as its chain, the first ones one more.
    pub disks: u64,
    /// Domains; the disks lie in them by turns.
    pub domains: u64,
    /// Lock requests that wait, all for one name: each of a session of its own.
    pub waiting: u64,
}

/// Why a state of such a size is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// A disk without a volume, or without a domain to lie in.
    #[error("{volumes} volumes in {disks} disks in {domains} domains: every disk needs a volume and a domain")]
    Shape {
        /// Asked for.
        volumes: u64,
        /// Asked for.
        disks: u64,
        /// Asked for.
        domains: u64,
    },
    /// More than the state's own settings allow.
    #[error("{asked} {what}: the settings allow {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Asked for.
        asked: u64,
        /// Allowed.
        most: u64,
    },
    /// The first entry was refused.
    #[error("the cluster cannot be founded: {0}")]
    Refused(String),
    /// A number that makes no name.
    #[error(transparent)]
    Name(#[from] BadName),
}

/// Virtual size of each volume, in bytes. Nothing depends on it.
const VOLUME_BYTES: u64 = 10 << 30;

/// Allocated bytes of each volume.
const ALLOCATED_BYTES: u64 = 1 << 30;

/// Name of the disk of this number: `fill-0000042`.
#[must_use]
pub fn disk_name(number: u64) -> String {
    format!("fill-{number:07}")
}

/// What all waiting lock requests wait for.
pub const BUSY: &str = "fill/busy";

impl Fill {
    /// The state of a cluster that `found` begins, with all this in it.
    ///
    /// # Errors
    /// Such a state cannot be.
    pub fn state(self, found: Found) -> Result<State, FillError> {
        self.check(&found)?;
        let mut state = State::default();
        let entry = Entry { stamp_ms: 0, entropy: [0; 16], command: crate::command::Command::Found(found) };
        if let Reply::Refused(refusal) = state.apply(1, &entry) {
            return Err(FillError::Refused(refusal.to_string()));
        }
        let domains = (0..self.domains).map(|number| put_domain(&mut state, number)).collect::<Result<Vec<_>, _>>()?;
        let (each, more) = (self.volumes / self.disks, self.volumes % self.disks);
        for (number, domain) in (0..self.disks).zip(domains.iter().cycle()) {
            state.meta.applied_index += 1;
            put_disk(&mut state, number, *domain, each + u64::from(number < more))?;
        }
        if self.waiting > 0 {
            put_session(&mut state, true);
            (0..self.waiting).for_each(|_| put_session(&mut state, false));
        }
        Ok(state)
    }

    fn check(self, found: &Found) -> Result<(), FillError> {
        let Self { volumes, disks, domains, waiting } = self;
        if disks == 0 || domains == 0 || volumes < disks {
            return Err(FillError::Shape { volumes, disks, domains });
        }
        let settings = &found.settings;
        let bounds = [
            ("disks", disks, settings.disks_max),
            ("domains", domains, settings.domains_max),
            // One more session holds what the others wait for.
            ("waiting lock requests", waiting, settings.sessions_max.min(settings.locks_max).saturating_sub(1)),
        ];
        match bounds.into_iter().find(|(_, asked, most)| asked > most) {
            Some((what, asked, most)) => Err(FillError::TooMany { what, asked, most }),
            None => Ok(()),
        }
    }
}

fn made_by(state: &State, what: &str, number: u64) -> TxnId {
    TxnId::derive("fill", &[state.cluster_id().bytes(), what.as_bytes(), &number.to_be_bytes()])
}

fn put_domain(state: &mut State, number: u64) -> Result<DomainId, FillError> {
    state.meta.applied_index += 1;
    let token = Token { epoch: state.meta.epoch, index: state.meta.applied_index, ordinal: 0 };
    let id = token.domain(state.cluster_id());
    let name: Name = format!("fill-{number}").parse()?;
    let path = format!("/srv/sdm-fill/{number}");
    let created_by = made_by(state, "domain", number);
    let created_ms = state.meta.clock_ms;
    state.put_domain(Domain {
        id,
        name,
        path,
        local: false,
        created_by,
        created_ms,
        adopted_epoch: None,
        state: DomainState::Active,
        describing: None,
        retention_ms: None,
    });
    Ok(id)
}

fn put_disk(state: &mut State, number: u64, domain: DomainId, volumes: u64) -> Result<(), FillError> {
    let cluster = state.cluster_id();
    let created_by = made_by(state, "disk", number);
    let index = state.meta.applied_index.to_be_bytes();
    let id = DiskId::derive("disk", &[cluster.bytes(), created_by.bytes(), &index]);
    let token = Token { epoch: state.meta.epoch, index: state.meta.applied_index, ordinal: 0 };
    let placement = token.placement(cluster);
    let mut chain: Vec<VolumeId> = Vec::new();
    for layer in 0..volumes {
        let volume = VolumeId::derive("volume", &[id.bytes(), &layer.to_be_bytes()]);
        state.put_volume(Volume {
            id: volume,
            disk: id,
            parent: chain.last().copied(),
            format: if layer == 0 { Format::Raw } else { Format::Qcow2 },
            virtual_size: VOLUME_BYTES,
            file_size: VOLUME_BYTES,
            allocated_bytes: ALLOCATED_BYTES,
            legal: true,
            blake3: Some(*blake3::hash(volume.bytes()).as_bytes()),
            preallocated: false,
            snapshot: None,
        });
        chain.push(volume);
    }
    state.put_placement(Placement { id: placement, domain, disk: id, token, txn: created_by, cluster: None });
    let name = disk_name(number).parse()?;
    state.put_disk(Disk {
        id,
        name,
        placement,
        volumes: chain,
        created_by,
        created_ms: state.meta.clock_ms,
        description: String::new(),
        template: false,
    });
    Ok(())
}

/// A session that holds the busy name, or waits for it.
fn put_session(state: &mut State, holds: bool) {
    state.meta.applied_index += 1;
    let id = state.meta.applied_index;
    let now = state.meta.clock_ms;
    state.put_session(Session {
        id,
        epoch: id,
        holder: Holder::Client("fill".to_owned()),
        ttl_ms: state.meta.settings.session_ttl_max_ms,
        opened_ms: now,
        nonce: format!("fill-{id}"),
        last_sequence: 0,
        last_reply: None,
        broken: Vec::new(),
    });
    state.meta.applied_index += 1;
    let lock = state.meta.applied_index;
    let token = Token { epoch: state.meta.epoch, index: lock, ordinal: 0 };
    state.put_lock(LockSet {
        id: lock,
        owner: Owner::Session(id),
        resources: [(Resource::User(BUSY.to_owned()), Mode::Exclusive)].into(),
        why: "measuring".to_owned(),
        asked_ms: now,
        deadline_ms: now.saturating_add(state.meta.settings.session_ttl_max_ms),
        granted: holds.then_some(Granted { token, at_ms: now }),
        txn: None,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::AddMember;
    use crate::settings::Settings;
    use sdm_proto::ids::ClusterId;
    use sdm_proto::ids::PoolId;

    fn found() -> Found {
        Found {
            cluster_id: ClusterId::derive("fill test", &[]),
            pool_id: PoolId::derive("fill test", &[]),
            epoch: 1,
            member: AddMember {
                name: "m1".parse().expect("a name"),
                address: "m1:7400".to_owned(),
                incarnation: "1".to_owned(),
                version: "0".to_owned(),
                feature_level_max: 1,
            },
            settings: Settings::default(),
        }
    }

    #[test]
    fn a_filled_state_keeps_every_invariant_and_has_what_was_asked_for() {
        let fill = Fill { volumes: 205, disks: 20, domains: 3, waiting: 7 };
        let state = fill.state(found()).expect("a state");
        crate::invariants::check(&state).expect("the invariants");
        assert_eq!((state.volumes.len(), state.disks.len(), state.domains.len()), (205, 20, 3));
        assert_eq!((state.placements.len(), state.locks.len()), (20, 8));
        let named = state.disk_named(&disk_name(4).parse().expect("a name")).expect("the disk");
        assert_eq!(named.volumes.len(), 11);
        let again = fill.state(found()).expect("a state");
        assert_eq!(state.hash(), again.hash(), "the same numbers make the same state");
    }

    #[test]
    fn disks_without_volumes_and_more_than_the_settings_allow_are_refused() {
        let fill = Fill { volumes: 5, disks: 6, domains: 1, waiting: 0 };
        assert!(matches!(fill.state(found()), Err(FillError::Shape { .. })));
        let fill = Fill { volumes: 2_000_000, disks: 1_000_001, domains: 1, waiting: 0 };
        assert!(matches!(fill.state(found()), Err(FillError::TooMany { what: "disks", .. })));
    }
}
