//! `DomainService`: making and showing storage domains.

use crate::core::Core;
use crate::services::call::Call;
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
use sdm_state::txns::Spec;
use tonic::Request;
use tonic::Response;
use tonic::Status;

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

    async fn get(&self, request: v1::GetDomainRequest) -> Result<v1::GetDomainResponse, Refusal> {
        let view = Call::begin(&self.core).read().await?;
        let domain = resolve::domain(&view.state, &request.domain)?;
        let domain = Some(present::domain(&view.state, domain));
        Ok(v1::GetDomainResponse { domain, revision: view.state.applied_index() })
    }

    async fn list(&self, request: v1::ListDomainsRequest) -> Result<v1::ListDomainsResponse, Refusal> {
        let page = Page::<DomainId>::parse("domains", request.page.as_ref())?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let rows = state.domains.from_key(&page.first_key()).map(|(id, row)| (*id, row));
        let (rows, next) = page.take(rows, state.applied_index());
        let items = rows.into_iter().map(|row| present::domain(state, row)).collect();
        Ok(v1::ListDomainsResponse { items, page: Some(next) })
    }
}

/// What can never be right is not even recorded.
fn check_path(path: &str) -> Result<(), Refusal> {
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

    async fn get_domain(
        &self,
        request: Request<v1::GetDomainRequest>,
    ) -> Result<Response<v1::GetDomainResponse>, Status> {
        self.get(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
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
