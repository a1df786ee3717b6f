//! The shortest transaction: begun without a read, and answered with its outcome when the caller waits
//! for that. All of it is for whoever wants to know how fast the cluster is.

use crate::core::Core;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::names::is_lock_name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::Touched;
use sdm_state::txns::Spec;
use std::time::Duration;

/// Longest wait for an outcome in one call: who wants to wait longer watches the transaction.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Names that it may lock.
const PREFIX: &str = "bench/";

pub(super) async fn begin(core: &Core, asked: v1::BeginNoopRequest) -> Result<Begun, Refusal> {
    let resource = name(&asked.resource)?;
    let hash = RequestHash::of("noop").text("resource", &resource);
    let mutation = Mutation::parse(asked.header, hash)?;
    if mutation.is_dry_run() {
        return mutation.begin(core, |_| Ok(Spec::Noop { resource })).await;
    }
    let id = mutation.begin_unread(core, Spec::Noop { resource }).await?;
    let mut changes = core.watch_row(Touched::Txn(id));
    // Watched since before it is loaded: what is applied in between wakes once more.
    let ended = async {
        while core.view().state.txns.get(&id).is_some_and(|txn| !txn.phase.is_final()) {
            changes.changed().await;
        }
    };
    if asked.wait_ms > 0 {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(asked.wait_ms).min(WAIT_MAX)) => {}
            () = ended => {}
            () = core.closing().cancelled() => {}
        }
    }
    let view = core.view();
    let txn = view.state.txns.get(&id).ok_or_else(|| resolve::unknown_txn(&view.state, id))?;
    Ok(Begun { transaction: Some(present::transaction(&view.state, txn)), plan: None })
}

fn name(resource: &str) -> Result<String, Refusal> {
    let name = resource.strip_prefix("user/").unwrap_or(resource);
    if name.len() > PREFIX.len() && name.starts_with(PREFIX) && is_lock_name(name) {
        return Ok(name.to_owned());
    }
    let shown: String = resource.chars().take(64).collect();
    Err(Refusal::new(Class::Invalid, "BAD_RESOURCE", format!("{shown:?} is not a name under user/bench/"))
        .hint("a noop locks user/bench/ and up to 194 letters, digits and ._:@+-/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noop_locks_names_of_the_bench_only() {
        assert_eq!(name("user/bench/7").unwrap(), "bench/7");
        assert_eq!(name("bench/a/b").unwrap(), "bench/a/b");
        for text in ["", "user/bench/", "user/a", "disk/bench/7", "bench/a b"] {
            let refusal = name(text).unwrap_err();
            assert_eq!(refusal.reason, "BAD_RESOURCE", "{text:?}");
        }
    }
}
