//! An audit of a domain: its storage is listed, listed again after a grace, and only then compared with
//! the catalog, by a read that is younger than both listings. What was being made meanwhile is thus
//! known to the catalog, or is not in both listings.

use crate::core::Core;
use crate::services::audit_findings::AuditFindings;
use crate::services::audit_findings::Seen;
use crate::services::audit_findings::parse_page;
use crate::services::call::Call;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::resolve;
use crate::services::worker_call;
use crate::services::worker_call::WorkerAddress;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::audit_domain_response::Message;
use sdm_raft_store::StateView;
use sdm_state::catalog::Domain;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::garbage_order::NAMED_MAX;
use sdm_state::garbage_order::Orphan;
use sdm_state::txns::Spec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// Longer than network file systems answer from what they remember (NFS: acdirmax, 60 s).
const GRACE_DEFAULT_MS: u64 = 65_000;

/// Longest grace: nobody waits longer for a command.
const GRACE_MAX_MS: u64 = 3_600_000;

type Outgoing = mpsc::Sender<Result<v1::AuditDomainResponse, Status>>;
type Listing = BTreeMap<String, Seen>;

/// One audit.
pub(super) struct Audit {
    core: Core,
    before: Arc<StateView>,
    domain: Domain,
    grace: Duration,
    apply: bool,
    header: v1::MutationHeader,
}

impl Audit {
    /// After a linearizable read.
    ///
    /// # Errors
    /// There is no such domain, nobody reaches it, or the request makes no sense.
    pub(super) async fn begin(core: Core, request: v1::AuditDomainRequest) -> Result<Self, Refusal> {
        let grace_ms = if request.grace_ms == 0 { GRACE_DEFAULT_MS } else { request.grace_ms };
        if grace_ms > GRACE_MAX_MS {
            let message = format!("a grace of {} s is too long, at most {} s", grace_ms / 1000, GRACE_MAX_MS / 1000);
            return Err(Refusal::new(Class::Invalid, "GRACE_TOO_LONG", message).hint("the default is a good one"));
        }
        let header = request.header.unwrap_or_default();
        // What is wrong with it is said before anybody waits.
        Mutation::parse(Some(header.clone()), RequestHash::of("gc-audit"))?;
        let before = Call::begin(&core).read().await?;
        before.state.refuse_suspended()?;
        let domain = resolve::domain(&before.state, &request.domain)?.clone();
        Ok(Self { core, before, domain, grace: Duration::from_millis(grace_ms), apply: request.apply, header })
    }

    /// Does it all, telling what is found.
    pub(super) async fn run(self, to: Outgoing) {
        let last = match self.all(&to).await {
            Ok(summary) => Ok(v1::AuditDomainResponse { message: Some(Message::Summary(summary)) }),
            Err(refusal) => Err(to_status(&refusal)),
        };
        // Whoever asked may be gone: it begins again.
        let _ = to.send(last).await;
    }

    async fn all(&self, to: &Outgoing) -> Result<v1::AuditSummary, Refusal> {
        let (first, _) = self.list().await?;
        let seconds = self.grace.as_secs_f32();
        tell(to, Message::Progress(format!("{} names listed; again in {seconds} s", first.len()))).await?;
        tokio::time::sleep(self.grace).await;
        let (second, worker) = self.list().await?;
        // Younger than the second listing: whatever was begun before that is known here.
        let view = Call::begin(&self.core).read().await?;
        let found = AuditFindings::compare(&self.before.state, &view.state, self.domain.id, &first, &second);
        let mut summary = found.summary;
        summary.domain = self.domain.name.to_string();
        summary.worker = self.before.state.worker_word(worker);
        summary.grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        for finding in found.findings {
            tell(to, Message::Finding(finding)).await?;
        }
        if self.apply && !self.header.dry_run {
            self.adopt(found.orphans, &mut summary).await?;
        }
        Ok(summary)
    }

    /// Lists the domain, page by page, through the first worker that can.
    async fn list(&self) -> Result<(Listing, sdm_proto::ids::WorkerId), Refusal> {
        let view = self.core.view();
        let workers = worker_call::addresses(view.state.workers_reaching(self.domain.id));
        let mut last = None;
        for worker in workers {
            match self.list_through(&worker).await {
                Ok(listing) => return Ok((listing, worker.0)),
                Err(refusal) => {
                    tracing::warn!(worker = %worker.0, domain = %self.domain.name, %refusal, "a worker could not list it");
                    last = Some(refusal);
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            let message = format!("no live worker reaches domain {}", self.domain.name);
            Refusal::new(Class::Precondition, "DOMAIN_UNREACHABLE", message)
                .hint(format!("sdm domain show {}; start a worker that reaches it", self.domain.name))
        }))
    }

    async fn list_through(&self, (worker, address): &WorkerAddress) -> Result<Listing, Refusal> {
        let state = &self.before.state;
        let mut listing = Listing::new();
        let mut after = String::new();
        loop {
            let request = wire::InspectDomainRequest {
                domain: Some(worker_call::target(&self.domain)),
                pool_id: state.meta.pool_id.to_string(),
                after: after.clone(),
                ..Default::default()
            };
            let page =
                worker_call::ask(&self.core, *worker, address, async |mut client| client.inspect_domain(request).await)
                    .await?;
            if page.cluster_id != state.cluster_id().to_string() {
                let message = format!("domain {} is in the hands of cluster {}", self.domain.name, page.cluster_id);
                return Err(Refusal::new(Class::Denied, "OTHER_CLUSTERS_DOMAIN", message)
                    .hint("what lies there is not this cluster's to judge"));
            }
            // Names rise from page to page, so this ends even with a worker that means harm.
            let next = page.next_after.clone();
            listing.extend(parse_page(state, page));
            if next <= after {
                return Ok(listing);
            }
            after = next;
        }
    }

    /// Makes garbage of orphans, in portions that one entry may do.
    async fn adopt(&self, orphans: Vec<Orphan>, summary: &mut v1::AuditSummary) -> Result<(), Refusal> {
        for (at, orphans) in orphans.chunks(NAMED_MAX).enumerate() {
            let mut header = self.header.clone();
            if at > 0 {
                // Each portion is a request of its own; a repetition finds those that are garbage by then.
                header.request_id = String::new();
            }
            let mut hash = RequestHash::of("gc-audit").text("domain", &self.domain.id.to_string());
            for orphan in orphans {
                hash = hash.text("token", &orphan.token.to_string());
            }
            let (domain, orphans) = (self.domain.id, orphans.to_vec());
            let mutation = Mutation::parse(Some(header), hash)?;
            let order = GarbageOrder::AdoptOrphans { domain, orphans };
            let begun = mutation.begin(&self.core, |_| Ok(Spec::Garbage(order))).await?;
            summary.transaction_ids.extend(begun.transaction.map(|txn| txn.id));
        }
        let view = self.core.view();
        let by_audit = |row: &&sdm_state::garbage::Garbage| {
            summary.transaction_ids.iter().any(|id| row.evidence.contains(id.as_str()))
        };
        summary.adopted = view.state.garbage.values().filter(by_audit).count() as u64;
        Ok(())
    }
}

async fn tell(to: &Outgoing, message: Message) -> Result<(), Refusal> {
    let sent = to.send(Ok(v1::AuditDomainResponse { message: Some(message) })).await;
    sent.map_err(|_| Refusal::new(Class::Aborted, "NOBODY_LISTENS", "whoever asked is gone"))
}
