//! `DomainService`: making, changing, giving up and showing storage domains.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::call::answer;
use crate::services::domain_check::DomainCheck;
use crate::services::domain_life;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::page::Page;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::ids::DomainId;
use sdm_proto::names::DOMAIN_PATH_BYTES_MAX;
use sdm_proto::names::is_domain_path;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::domain_service_server::DomainService;
use sdm_proto::wire::v1::set_domain_request::Retention;
use sdm_state::domain_change::DomainChange;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::txns::Spec;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// Findings of a check that wait for a slow reader.
const FINDINGS_WAITING: usize = 16;

/// The service.
#[derive(Clone)]
pub struct DomainApi {
    core: Core,
}

impl DomainApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn create(&self, request: v1::CreateDomainRequest) -> Result<v1::CreateDomainResponse, Refusal> {
        let name = resolve::new_name(&request.name)?;
        check_path(&request.path)?;
        let (path, local) = (request.path, request.local);
        let hash = RequestHash::of("domain-create")
            .text("name", name.as_str())
            .text("path", &path)
            .number("local", u64::from(local));
        let mutation = Mutation::parse(request.header, hash)?;
        let begun = mutation.begin(&self.core, |_| Ok(Spec::CreateDomain { name, path, local })).await?;
        let Begun { transaction, plan } = begun;
        Ok(v1::CreateDomainResponse { transaction, plan })
    }

    async fn set(&self, request: v1::SetDomainRequest) -> Result<v1::SetDomainResponse, Refusal> {
        let retention_ms = match request.retention {
            Some(Retention::RetentionMs(ms)) => Some(ms),
            Some(Retention::RetentionDefault(true)) => None,
            Some(Retention::RetentionDefault(false)) | None => {
                let refusal = Refusal::new(Class::Invalid, "NOTHING_TO_SET", "nothing is said that is to be set");
                return Err(refusal.hint("sdm domain set NAME --retention 7d"));
            }
        };
        let words = retention_ms.map_or_else(|| "default".to_owned(), |ms| ms.to_string());
        let hash = RequestHash::of("domain-set").text("domain", &request.domain).text("retention", &words);
        let mutation = Mutation::parse(request.header, hash)?;
        let begun = mutation.begin(&self.core, |state| {
            let domain = resolve::domain(state, &request.domain)?.id;
            Ok(Spec::Garbage(GarbageOrder::SetRetention { domain, retention_ms }))
        });
        let Begun { transaction, plan } = begun.await?;
        Ok(v1::SetDomainResponse { transaction, plan })
    }

    async fn get(&self, request: v1::GetDomainRequest) -> Result<v1::GetDomainResponse, Refusal> {
        let view = Call::begin(&self.core).read().await?;
        let domain = resolve::domain(&view.state, &request.domain)?;
        let domain = Some(present::domain(&view.state, domain, self.core.shown_clock_ms(&view.state)));
        Ok(v1::GetDomainResponse { domain, revision: view.state.applied_index() })
    }

    async fn list(&self, request: v1::ListDomainsRequest) -> Result<v1::ListDomainsResponse, Refusal> {
        let page = Page::<DomainId>::parse("domains", request.page.as_ref())?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let rows = state.domains.from_key(&page.first_key()).map(|(id, row)| (*id, row));
        let (rows, next) = page.take(rows, state.applied_index());
        let now_ms = self.core.shown_clock_ms(state);
        let items = rows.into_iter().map(|row| present::domain(state, row, now_ms)).collect();
        Ok(v1::ListDomainsResponse { items, page: Some(next) })
    }
}

/// What can never be right is not even recorded.
pub(super) fn check_path(path: &str) -> Result<(), Refusal> {
    if is_domain_path(path) {
        return Ok(());
    }
    let refusal = |message: String| Refusal::new(Class::Invalid, "BAD_PATH", message);
    if path.len() > DOMAIN_PATH_BYTES_MAX {
        let message = format!("the path has {} bytes, at most {DOMAIN_PATH_BYTES_MAX} are possible", path.len());
        return Err(refusal(message).hint("give a shorter one"));
    }
    Err(refusal(format!("{path:?} is not the absolute path of a folder"))
        .hint("give it without '.', '..', doubled or trailing slashes"))
}

#[tonic::async_trait]
impl DomainService for DomainApi {
    async fn create_domain(
        &self,
        request: Request<v1::CreateDomainRequest>,
    ) -> Result<Response<v1::CreateDomainResponse>, Status> {
        self.create(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn set_domain(
        &self,
        request: Request<v1::SetDomainRequest>,
    ) -> Result<Response<v1::SetDomainResponse>, Status> {
        self.set(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn get_domain(
        &self,
        request: Request<v1::GetDomainRequest>,
    ) -> Result<Response<v1::GetDomainResponse>, Status> {
        self.get(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn maintain_domain(
        &self,
        request: Request<v1::MaintainDomainRequest>,
    ) -> Result<Response<v1::MaintainDomainResponse>, Status> {
        answer(domain_life::maintain(&self.core, request.into_inner()).await)
    }

    async fn activate_domain(
        &self,
        request: Request<v1::ActivateDomainRequest>,
    ) -> Result<Response<v1::ActivateDomainResponse>, Status> {
        let request = request.into_inner();
        let activate = |domain| DomainChange::Activate { domain };
        let begun = domain_life::change(&self.core, request.header, "domain-activate", &request.domain, activate).await;
        answer(begun.map(|Begun { transaction, plan }| v1::ActivateDomainResponse { transaction, plan }))
    }

    async fn rename_domain(
        &self,
        request: Request<v1::RenameDomainRequest>,
    ) -> Result<Response<v1::RenameDomainResponse>, Status> {
        let begun = domain_life::rename(&self.core, request.into_inner()).await;
        answer(begun.map(|Begun { transaction, plan }| v1::RenameDomainResponse { transaction, plan }))
    }

    async fn detach_domain(
        &self,
        request: Request<v1::DetachDomainRequest>,
    ) -> Result<Response<v1::DetachDomainResponse>, Status> {
        let request = request.into_inner();
        let detach = |domain| DomainChange::Detach { domain };
        let begun = domain_life::change(&self.core, request.header, "domain-detach", &request.domain, detach).await;
        answer(begun.map(|Begun { transaction, plan }| v1::DetachDomainResponse { transaction, plan }))
    }

    async fn delete_domain(
        &self,
        request: Request<v1::DeleteDomainRequest>,
    ) -> Result<Response<v1::DeleteDomainResponse>, Status> {
        let request = request.into_inner();
        let delete = |domain| DomainChange::Delete { domain };
        let begun = domain_life::change(&self.core, request.header, "domain-delete", &request.domain, delete).await;
        answer(begun.map(|Begun { transaction, plan }| v1::DeleteDomainResponse { transaction, plan }))
    }

    async fn forget_domain(
        &self,
        request: Request<v1::ForgetDomainRequest>,
    ) -> Result<Response<v1::ForgetDomainResponse>, Status> {
        let begun = domain_life::forget(&self.core, request.into_inner()).await;
        answer(begun.map(|Begun { transaction, plan }| v1::ForgetDomainResponse { transaction, plan }))
    }

    async fn attach_domain(
        &self,
        request: Request<v1::AttachDomainRequest>,
    ) -> Result<Response<v1::AttachDomainResponse>, Status> {
        let begun = domain_life::attach(&self.core, request.into_inner()).await;
        answer(begun.map(|Begun { transaction, plan }| v1::AttachDomainResponse { transaction, plan }))
    }

    type CheckDomainStream = ReceiverStream<Result<v1::CheckDomainResponse, Status>>;

    async fn check_domain(
        &self,
        request: Request<v1::CheckDomainRequest>,
    ) -> Result<Response<Self::CheckDomainStream>, Status> {
        let check = DomainCheck::begin(self.core.clone(), request.into_inner()).await;
        let check = check.map_err(|refusal| to_status(&refusal))?;
        let (to, stream) = mpsc::channel(FINDINGS_WAITING);
        let closing = self.core.closing().clone();
        tokio::spawn(closing.run_until_cancelled_owned(check.run(to)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_domains(
        &self,
        request: Request<v1::ListDomainsRequest>,
    ) -> Result<Response<v1::ListDomainsResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_path_is_refused_for_what_is_wrong_with_it() {
        assert_eq!(check_path("/srv/a"), Ok(()));
        assert!(check_path("srv/a").unwrap_err().message.contains("absolute"));
        let long = check_path(&"/a".repeat(DOMAIN_PATH_BYTES_MAX)).unwrap_err();
        assert!(long.message.contains("bytes"), "{long}");
    }
}
