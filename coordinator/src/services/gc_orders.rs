//! Orders of users about garbage: each becomes a transaction like any other, with a request id, a
//! reason and a plan that can be looked at first.

use crate::core::Core;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::ids::DomainId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::Disk;
use sdm_state::garbage::Kind;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::garbage_order::NAMED_MAX;
use sdm_state::txns::Spec;

/// An id of garbage.
pub(super) fn garbage_id(text: &str) -> Result<Token, Refusal> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Refusal::new(Class::Invalid, "BAD_GARBAGE_ID", format!("{shown:?} is not the id of garbage"))
            .hint("it looks like 1-4711-0; see sdm gc list, sdm gc trash list")
    })
}

/// A kind of garbage; None for all.
pub(super) fn kind_of(text: &str) -> Result<Option<Kind>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let known = Kind::ALL.into_iter().find(|kind| kind.word() == text);
    known.map(Some).ok_or_else(|| {
        let words: Vec<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        let shown: String = text.chars().take(64).collect();
        Refusal::new(Class::Invalid, "BAD_KIND", format!("{shown:?} is no kind of garbage"))
            .hint(format!("there are {}", words.join(", ")))
    })
}

/// The trash that this text names: its id, or the name or id of the disk in it.
pub(super) fn trash_id(state: &State, text: &str) -> Result<Token, Refusal> {
    let id = text.parse::<Token>().ok();
    let of_it = |disk: &Disk| disk.name.as_str() == text || disk.id.to_string() == text;
    let rows = state.garbage.values().filter_map(|row| Some((row, row.trash.as_ref()?)));
    let found: Vec<_> = rows.filter(|(_, trash)| of_it(&trash.disk)).take(SAME_NAME_SHOWN + 1).collect();
    let shown: String = text.chars().take(64).collect();
    // A disk may be called what another row's id is: then neither is guessed.
    match (id, found.as_slice()) {
        (Some(id), []) => return Ok(id),
        (Some(id), [_, ..]) if state.garbage.get(&id).is_some() => {
            let message = format!("{shown} is the id of one row of garbage and the name of a deleted disk");
            return Err(Refusal::new(Class::Invalid, "AMBIGUOUS_NAME", message)
                .hint("name the disk by its id, or its row by the disk's: sdm gc trash list"));
        }
        _ => {}
    }
    match found.as_slice() {
        [(row, _)] => Ok(row.id),
        [] => Err(Refusal::new(Class::NotFound, "TRASH_NOT_FOUND", format!("there is no disk {shown:?} in the trash"))
            .hint("what is there: sdm gc trash list (a disk of a domain without retention never is)")),
        several => {
            let message = format!("several deleted disks were called {shown}: one of them is to be named by its id");
            let refusal = Refusal::new(Class::Invalid, "AMBIGUOUS_NAME", message).hint("sdm gc trash list");
            Err(several.iter().take(SAME_NAME_SHOWN).fold(refusal, |refusal, (row, trash)| {
                let seconds = state.meta.clock_ms.saturating_sub(row.since_ms) / 1000;
                let words = format!("disk {} ({}), deleted {seconds} s ago", trash.disk.name, trash.disk.id);
                refusal.blocker("garbage", row.id.to_string(), words)
            }))
        }
    }
}

/// Deleted disks of one name that a refusal names.
const SAME_NAME_SHOWN: usize = 8;

/// The domain that is meant; None for all.
pub(super) fn domain_of(state: &State, text: &str) -> Result<Option<DomainId>, Refusal> {
    if text.is_empty() { Ok(None) } else { resolve::domain(state, text).map(|domain| Some(domain.id)) }
}

pub(super) async fn restore(core: &Core, request: v1::RestoreTrashRequest) -> Result<Begun, Refusal> {
    let name = Some(request.name.as_str()).filter(|name| !name.is_empty()).map(resolve::new_name).transpose()?;
    let hash = RequestHash::of("trash-restore").text("id", &request.id).text("name", &request.name);
    let mutation = Mutation::parse(request.header, hash)?;
    let restore = |state: &State| {
        let garbage = trash_id(state, &request.id)?;
        Ok(Spec::Garbage(GarbageOrder::RestoreDisk { garbage, name }))
    };
    mutation.begin(core, restore).await
}

/// With `all` in the request also whether more is left.
pub(super) async fn purge(core: &Core, request: v1::PurgeTrashRequest) -> Result<(Begun, bool), Refusal> {
    if request.all != request.ids.is_empty() {
        let refusal = Refusal::new(Class::Invalid, "WHAT_TO_PURGE", "either ids are wanted, or all");
        return Err(refusal.hint("sdm gc trash purge ID, or --all"));
    }
    let mut hash = RequestHash::of("trash-purge").number("all", u64::from(request.all)).text("domain", &request.domain);
    for id in &request.ids {
        hash = hash.text("id", id);
    }
    let mutation = Mutation::parse(request.header, hash)?;
    let mut more = false;
    let begun = mutation.begin(core, |state| {
        let mut garbage = Vec::new();
        for id in &request.ids {
            garbage.push(trash_id(state, id)?);
        }
        if request.all {
            let domain = domain_of(state, &request.domain)?;
            garbage = all_trash(state, domain);
            more = garbage.len() > NAMED_MAX;
            garbage.truncate(NAMED_MAX);
            if garbage.is_empty() {
                let refusal = Refusal::new(Class::NotFound, "NO_TRASH", "there is no trash that could be purged");
                return Err(refusal.hint("`sdm gc trash list` shows what is held or being deleted"));
            }
        }
        Ok(Spec::Garbage(GarbageOrder::PurgeTrash { garbage }))
    });
    Ok((begun.await?, more))
}

/// Trash that waits for its time, as far as one more than one order may name.
fn all_trash(state: &State, domain: Option<DomainId>) -> Vec<Token> {
    let now = state.meta.clock_ms;
    let waits = state.garbage.values().filter(|row| {
        let here = domain.is_none_or(|domain| row.place.domain == domain);
        here && row.trash.is_some() && row.held.is_none() && row.work.attempt.is_none() && row.due_ms > now
    });
    waits.map(|row| row.id).take(NAMED_MAX + 1).collect()
}

pub(super) async fn hold(core: &Core, request: v1::HoldGarbageRequest) -> Result<Begun, Refusal> {
    let garbage = garbage_id(&request.id)?;
    let reason = request.header.as_ref().map(|header| header.reason.clone()).unwrap_or_default();
    let hash = RequestHash::of("gc-hold").text("id", &request.id).text("reason", &reason);
    let mutation = Mutation::parse(request.header, hash)?;
    mutation.begin(core, |_| Ok(Spec::Garbage(GarbageOrder::Hold { garbage, reason }))).await
}

pub(super) async fn unhold(core: &Core, request: v1::UnholdGarbageRequest) -> Result<Begun, Refusal> {
    let garbage = garbage_id(&request.id)?;
    let mutation = Mutation::parse(request.header, RequestHash::of("gc-unhold").text("id", &request.id))?;
    mutation.begin(core, |_| Ok(Spec::Garbage(GarbageOrder::Unhold { garbage }))).await
}

pub(super) async fn plan(
    core: &Core,
    request: v1::PlanCollectionRequest,
) -> Result<v1::PlanCollectionResponse, Refusal> {
    let kind = kind_of(&request.kind)?;
    let hash = RequestHash::of("gc-plan")
        .text("domain", &request.domain)
        .text("kind", &request.kind)
        .number("trash", u64::from(request.trash));
    let mutation = Mutation::parse(request.header, hash)?;
    let trash = request.trash;
    let begun = mutation.begin(core, |state| {
        let domain = domain_of(state, &request.domain)?;
        Ok(Spec::Garbage(GarbageOrder::PlanCollection { domain, kind, trash }))
    });
    let Begun { transaction, plan } = begun.await?;
    let view = core.view();
    let id = transaction.as_ref().map(|txn| txn.id.clone()).unwrap_or_default();
    let made = view.state.gc_plans.values().find(|plan| plan.txn.to_string() == id);
    let collection = made.map(|made| present::collection_plan(&view.state, made));
    Ok(v1::PlanCollectionResponse { transaction, plan, collection })
}

pub(super) async fn apply(core: &Core, request: v1::ApplyCollectionPlanRequest) -> Result<Begun, Refusal> {
    let (plan, skip_changed) = (request.id, request.skip_changed);
    let hash = RequestHash::of("gc-apply").number("id", plan).number("skip-changed", u64::from(skip_changed));
    let mutation = Mutation::parse(request.header, hash)?;
    mutation.begin(core, |_| Ok(Spec::Garbage(GarbageOrder::ApplyPlan { plan, skip_changed }))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_ids_are_read_or_refused_with_what_there_is() {
        assert_eq!(kind_of(""), Ok(None));
        assert_eq!(kind_of("orphan"), Ok(Some(Kind::Orphan)));
        assert!(kind_of("junk").unwrap_err().hint.contains("closed-attempt"));
        assert!(garbage_id("1-4711-0").is_ok());
        assert_eq!(garbage_id("web-01").unwrap_err().reason, "BAD_GARBAGE_ID");
    }
}
