//! Lock sets on the catalog: what users call disks and domains becomes ids here, as in every mutation. Users' own
//! names need no look at the state.

use super::request;
use crate::core::Core;
use crate::services::call::Call;
use crate::services::resolve;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::command::SessionRef;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;

/// Prefixes of what the catalog knows.
const PREFIXES: [&str; 3] = ["disk/", "domain/", "name/"];

/// The lock set that is asked for. Empty for a request that the session has made already: its answer is known, and
/// what it named may be called otherwise now.
pub(super) async fn lock_set(
    core: &Core,
    session: SessionRef,
    sequence: u64,
    resources: &[v1::LockedResource],
) -> Result<Vec<(Resource, Mode)>, Refusal> {
    let of_catalog = |wanted: &v1::LockedResource| PREFIXES.iter().any(|prefix| wanted.resource.starts_with(prefix));
    if !resources.iter().any(of_catalog) {
        return request::lock_set(resources);
    }
    request::lock_set_size(resources.len())?;
    let view = Call::begin(core).read().await?;
    let state = &view.state;
    if state.sessions.get(&session.id).is_some_and(|row| row.last_sequence >= sequence) {
        return Ok(Vec::new());
    }
    let locked = |wanted: &v1::LockedResource| Ok((lockable(state, &wanted.resource)?, request::mode(&wanted.mode)?));
    resources.iter().map(locked).collect()
}

/// A resource that a client may lock: of the names that are being given only those of disks and domains.
fn lockable(state: &State, text: &str) -> Result<Resource, Refusal> {
    let given = text.strip_prefix("name/").map(|name| name.split_once('/'));
    match given {
        None => resource(state, text),
        Some(Some(("disk" | "domain", name))) if name.parse::<Name>().is_ok() => resource(state, text),
        Some(_) => {
            let shown: String = text.chars().take(64).collect();
            Err(Refusal::new(
                Class::Invalid,
                "BAD_RESOURCE",
                format!("{shown:?} cannot be locked: it is no name to give"),
            )
            .hint("name/disk/NAME and name/domain/NAME reserve a name"))
        }
    }
}

/// A resource as users name it: a disk or domain by name or id, a name, a name of their own.
pub(in crate::services) fn resource(state: &State, text: &str) -> Result<Resource, Refusal> {
    if let Some(disk) = text.strip_prefix("disk/") {
        return Ok(Resource::Disk(resolve::disk(state, disk)?.id));
    }
    if let Some(domain) = text.strip_prefix("domain/") {
        return Ok(Resource::Domain(resolve::domain(state, domain)?.id));
    }
    match text.strip_prefix("name/") {
        Some(name) => Ok(Resource::Name(name.to_owned())),
        None => request::resource(text),
    }
}
