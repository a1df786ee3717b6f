//! The life of domains: maintenance, names, giving one up and taking one in. What a detached domain
//! carries is read by a worker before the transaction begins; the state decides whether it fits.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::domain::check_path;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::present;
use crate::services::resolve;
use crate::services::worker_call;
use sdm_proto::ids::DomainId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::domain_catalog::DOMAIN_CATALOG_VERSION;
use sdm_state::domain_catalog::DomainCatalog;
use sdm_state::domain_change::AttachDomain;
use sdm_state::domain_change::DomainChange;
use sdm_state::domain_change::MorePieces;
use sdm_state::txns::Spec;

/// What still runs and is named at most.
const RUNNING_NAMED_MAX: usize = 64;

/// Begins a change that needs nothing but the domain.
pub(super) async fn change(
    core: &Core,
    header: Option<v1::MutationHeader>,
    kind: &str,
    domain: &str,
    change: impl FnOnce(DomainId) -> DomainChange,
) -> Result<Begun, Refusal> {
    let mutation = Mutation::parse(header, RequestHash::of(kind).text("domain", domain))?;
    let resolve = |state: &State| Ok(Spec::Domain(change(resolve::domain(state, domain)?.id)));
    mutation.begin(core, resolve).await
}

/// Puts a domain into maintenance and says what still runs there.
pub(super) async fn maintain(
    core: &Core,
    request: v1::MaintainDomainRequest,
) -> Result<v1::MaintainDomainResponse, Refusal> {
    let maintenance = |domain| DomainChange::Maintenance { domain };
    let begun = change(core, request.header, "domain-maintenance", &request.domain, maintenance).await?;
    let view = core.view();
    let state = &view.state;
    let still_running =
        resolve::domain(state, &request.domain).map(|row| running_in(state, row.id)).unwrap_or_default();
    let Begun { transaction, plan } = begun;
    Ok(v1::MaintainDomainResponse { transaction, plan, still_running })
}

/// What holds the domain, and which hosts have disks of it.
fn running_in(state: &State, domain: DomainId) -> Vec<v1::Blocker> {
    let locks = state.domain_holders(domain).take(RUNNING_NAMED_MAX).map(|lock| v1::Blocker {
        kind: "lock".to_owned(),
        id: lock.id.to_string(),
        description: state.owner_words(lock),
    });
    let attached = state.attachments_in(domain).take(RUNNING_NAMED_MAX);
    let attached = attached.map(|at| {
        let shown = present::attachment(state, at);
        let description = format!("disk {} is {}", shown.disk, state.attachment_words(at));
        v1::Blocker { kind: "attachment".to_owned(), id: at.token.to_string(), description }
    });
    locks.chain(attached).collect()
}

/// Another name.
pub(super) async fn rename(core: &Core, request: v1::RenameDomainRequest) -> Result<Begun, Refusal> {
    let name = resolve::new_name(&request.new_name)?;
    let hash = RequestHash::of("domain-rename").text("domain", &request.domain).text("name", name.as_str());
    let mutation = Mutation::parse(request.header, hash)?;
    let begun = mutation.begin(core, |state| {
        let domain = resolve::domain(state, &request.domain)?.id;
        Ok(Spec::Domain(DomainChange::Rename { domain, name }))
    });
    begun.await
}

/// Out of the catalog with a domain whose storage is lost.
pub(super) async fn forget(core: &Core, request: v1::ForgetDomainRequest) -> Result<Begun, Refusal> {
    let reason = request.header.as_ref().map(|header| header.reason.as_str()).unwrap_or_default();
    if reason.is_empty() {
        let message = "whoever misses its disks later wants to know why they are gone";
        return Err(Refusal::new(Class::Invalid, "REASON_MISSING", message)
            .hint(format!("sdm domain forget {0} --reason TEXT --confirm {0}", request.domain)));
    }
    let mutation = Mutation::parse(request.header, RequestHash::of("domain-forget").text("domain", &request.domain))?;
    let begun = mutation.begin(core, |state| {
        let domain = match resolve::domain(state, &request.domain) {
            Ok(known) => known.id,
            // Of one that was deleted only its garbage is left, which only an id names.
            Err(refusal) => {
                let id: DomainId = request.domain.parse().map_err(|_| refusal.clone())?;
                state.garbage_in(id).next().map(|_| id).ok_or(refusal)?
            }
        };
        Ok(Spec::Domain(DomainChange::Forget { domain }))
    });
    begun.await
}

/// Takes a detached domain in.
pub(super) async fn attach(core: &Core, request: v1::AttachDomainRequest) -> Result<Begun, Refusal> {
    check_path(&request.path)?;
    let id: DomainId = request.domain_id.parse().map_err(|_| {
        let shown: String = request.domain_id.chars().take(64).collect();
        Refusal::new(Class::Invalid, "BAD_DOMAIN_ID", format!("{shown:?} is not the id of a domain"))
            .hint("it is the name of the domain's own folder beneath the path")
    })?;
    let name = if request.name.is_empty() { None } else { Some(resolve::new_name(&request.name)?) };
    let hash = RequestHash::of("domain-attach")
        .text("path", &request.path)
        .text("id", &id.to_string())
        .number("local", u64::from(request.local))
        .text("name", &request.name)
        .text("prefix", &request.rename_prefix);
    let mutation = Mutation::parse(request.header.clone(), hash)?;
    let call = Call::begin(core);
    let view = call.read().await?;
    // A repetition gets its answer although the domain is detached no more.
    let known = mutation.id().is_some_and(|id| view.state.txns.contains(&id));
    let catalog = if known { None } else { Some(read_catalog(core, &view.state, &request, id).await?) };
    let begun = mutation.begin(core, |_| {
        let catalog = catalog.ok_or_else(|| {
            Refusal::new(Class::Unavailable, "TRY_AGAIN", "the request was forgotten while it was asked for")
        })?;
        let (catalog, blake3) = catalog;
        let attach = AttachDomain { catalog: blake3, ..attached(&request, id, name, catalog)? };
        Ok(Spec::Domain(DomainChange::Attach(Box::new(attach))))
    });
    begun.await
}

fn attached(
    request: &v1::AttachDomainRequest,
    id: DomainId,
    name: Option<Name>,
    catalog: DomainCatalog,
) -> Result<AttachDomain, Refusal> {
    let DomainCatalog { name: old_name, mut contents, pieces, detached_at, .. } = catalog;
    if !request.rename_prefix.is_empty() {
        for disk in &mut contents.disks {
            disk.name = resolve::new_name(&format!("{}{}", request.rename_prefix, disk.name))?;
        }
    }
    Ok(AttachDomain {
        domain: id,
        name: name.unwrap_or(old_name),
        path: request.path.clone(),
        local: request.local,
        contents,
        renamed: !request.rename_prefix.is_empty(),
        catalog: String::new(),
        more: (pieces > 0).then(|| MorePieces { pieces, detached_at, prefix: request.rename_prefix.clone() }),
    })
}

/// What the domain says about itself, read by a worker whose paths cover it, and the BLAKE3 of these words, by which the
/// worker that takes it knows that they are still said.
async fn read_catalog(
    core: &Core,
    state: &State,
    request: &v1::AttachDomainRequest,
    id: DomainId,
) -> Result<(DomainCatalog, String), Refusal> {
    state.refuse_suspended()?;
    state.refuse_forgotten(id)?;
    if let Some(known) = state.domains.get(&id) {
        let message = format!("domain {id} is attached already, as {}", known.name);
        return Err(
            Refusal::new(Class::Conflict, "DOMAIN_EXISTS", message).hint(format!("sdm domain show {}", known.name))
        );
    }
    let owners = state.workers.values().filter(|worker| worker.takes_work() && worker.owns_path(&request.path));
    let owners = worker_call::addresses(owners);
    let nobody = || {
        Refusal::new(
            Class::Precondition,
            "NO_WORKER_FOR_PATH",
            format!("no live worker owns the path {}", request.path),
        )
        .hint("start a worker whose --reach covers it (sdm worker list)")
    };
    let mut last = nobody();
    for (worker, address) in owners {
        let (domain_id, path, local) = (id.to_string(), request.path.clone(), request.local);
        let inspect = wire::InspectDomainRequest {
            domain: Some(wire::DomainTarget { domain_id, path, local }),
            pool_id: state.meta.pool_id.to_string(),
            free_too: true,
            ..Default::default()
        };
        let asked = worker_call::ask(core, worker, &address, async |mut client| client.inspect_domain(inspect).await);
        match asked.await {
            Ok(page) => {
                let blake3 = blake3::hash(page.catalog.as_bytes()).to_hex().to_string();
                return parse_catalog(state, id, &page).map(|catalog| (catalog, blake3));
            }
            Err(refusal) => last = refusal,
        }
    }
    Err(last)
}

fn parse_catalog(state: &State, id: DomainId, page: &wire::InspectDomainResponse) -> Result<DomainCatalog, Refusal> {
    use wire::inspect_domain_response::State as Found;
    let ours = page.state() == Found::Ours;
    let half_taken = ours && page.cluster_id == state.cluster_id().to_string() && !state.domains.contains(&id);
    if ours && !half_taken {
        let message = format!("domain {id} is not detached: it belongs to cluster {}", page.cluster_id);
        let restored = state.meta.restored.as_ref();
        let before = restored.is_some_and(|at| at.ancestors.iter().any(|id| id.to_string() == page.cluster_id));
        let hint = if before {
            "this cluster was restored from a backup of that one, which took the domain after it or never gave it up: \
             where that one is gone, import the files of its disks (sdm disk import FILE --name NAME --domain ANOTHER \
             --format FORMAT)"
        } else {
            "detach it there first: sdm domain maintenance NAME, sdm domain detach NAME"
        };
        return Err(Refusal::new(Class::Precondition, "DOMAIN_NOT_DETACHED", message).hint(hint));
    }
    if page.catalog.is_empty() {
        let message = format!("domain {id} carries no catalog of its disks: it was not detached by sdm");
        return Err(Refusal::new(Class::Unsupported, "NO_DOMAIN_CATALOG", message).hint(
            "import its disks' files instead: sdm disk import FILE --name NAME --domain DOMAIN --format FORMAT",
        ));
    }
    let bad = |why: String| {
        let message = format!("the catalog that domain {id} carries does not read: {why}");
        Refusal::new(Class::Precondition, "BAD_DOMAIN_CATALOG", message).hint("the domain is left as it is")
    };
    let catalog: DomainCatalog = serde_json::from_str(&page.catalog).map_err(|error| bad(error.to_string()))?;
    if catalog.version != DOMAIN_CATALOG_VERSION || catalog.domain != id || catalog.piece != 0 {
        let DomainCatalog { version, domain, piece, .. } = catalog;
        return Err(bad(format!("version {version}, of domain {domain}, piece {piece}")));
    }
    Ok(catalog)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use wire::inspect_domain_response::State as Found;

    fn page(sample: &Sample, found: Found, catalog: &str) -> wire::InspectDomainResponse {
        let cluster_id = sample.state.cluster_id().to_string();
        wire::InspectDomainResponse {
            cluster_id,
            state: found.into(),
            catalog: catalog.to_owned(),
            ..Default::default()
        }
    }

    fn reason(sample: &Sample, id: DomainId, page: &wire::InspectDomainResponse) -> String {
        parse_catalog(&sample.state, id, page).unwrap_err().reason
    }

    #[test]
    fn only_a_domain_that_was_given_up_and_says_what_lies_in_it_is_taken_in() {
        let sample = Sample::with_disk();
        let known = sample.domain("nfs1").id;
        assert_eq!(reason(&sample, known, &page(&sample, Found::Ours, "")), "DOMAIN_NOT_DETACHED");
        let id = DomainId::derive("test", &[]);
        let mut others = page(&sample, Found::Ours, "{}");
        others.cluster_id = "0f0f0f0f-1111-4222-8333-444444444444".to_owned();
        assert_eq!(reason(&sample, id, &others), "DOMAIN_NOT_DETACHED");
        assert_eq!(reason(&sample, id, &page(&sample, Found::Free, "")), "NO_DOMAIN_CATALOG");
        assert_eq!(reason(&sample, id, &page(&sample, Found::Released, "{")), "BAD_DOMAIN_CATALOG");
        let catalog = DomainCatalog {
            version: DOMAIN_CATALOG_VERSION,
            pool: sample.state.meta.pool_id,
            cluster: sample.state.cluster_id(),
            epoch: 1,
            domain: id,
            detached_at: 7,
            name: "nfs9".parse().unwrap(),
            contents: Default::default(),
            piece: 0,
            pieces: 0,
        };
        let text = serde_json::to_string(&catalog).unwrap();
        assert_eq!(parse_catalog(&sample.state, id, &page(&sample, Found::Released, &text)), Ok(catalog.clone()));
        // What an attach had begun here and did not finish.
        assert_eq!(parse_catalog(&sample.state, id, &page(&sample, Found::Ours, &text)), Ok(catalog));
        assert_eq!(reason(&sample, known, &page(&sample, Found::Released, &text)), "BAD_DOMAIN_CATALOG");
    }
}
