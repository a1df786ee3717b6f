//! `TemplateService`: read-only disks that linked clones share.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::call::answer;
use crate::services::disk::Copying;
use crate::services::disk::begin_copy;
use crate::services::disk::begin_deletion;
use crate::services::disk::description;
use crate::services::disk::format_if_any;
use crate::services::disk::list_disks;
use crate::services::mutation::Begun;
use crate::services::mutation::RequestHash;
use crate::services::present;
use crate::services::resolve;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::template_service_server::TemplateService;
use sdm_state::State;
use sdm_state::catalog::Disk;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct TemplateApi {
    core: Core,
}

impl TemplateApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn make(&self, request: v1::MakeTemplateRequest) -> Result<v1::MakeTemplateResponse, Refusal> {
        let copying = Copying {
            kind: "template-make",
            name: resolve::new_name(&request.name)?,
            description: description(request.description)?,
            format: format_if_any(request.format)?,
            disk: request.disk,
            snapshot: request.snapshot,
            to_domain: request.to_domain,
            preallocated: false,
            collapse: true,
            template: true,
        };
        let Begun { transaction, plan } = begin_copy(&self.core, request.header, copying).await?;
        Ok(v1::MakeTemplateResponse { transaction, plan })
    }

    async fn delete(&self, request: v1::DeleteTemplateRequest) -> Result<v1::DeleteTemplateResponse, Refusal> {
        let hash = RequestHash::of("template-delete").text("template", &request.template);
        let resolve = |state: &State| Ok(template(state, &request.template)?.id);
        let Begun { transaction, plan } = begin_deletion(&self.core, request.header, hash, resolve).await?;
        Ok(v1::DeleteTemplateResponse { transaction, plan })
    }

    async fn get(&self, request: v1::GetTemplateRequest) -> Result<v1::GetTemplateResponse, Refusal> {
        let view = Call::begin(&self.core).read().await?;
        let template = present::disk(&view.state, template(&view.state, &request.template)?);
        Ok(v1::GetTemplateResponse { template: Some(template), revision: view.state.applied_index() })
    }

    async fn list(&self, request: v1::ListTemplatesRequest) -> Result<v1::ListTemplatesResponse, Refusal> {
        let wanted = |disk: &Disk| disk.template;
        let (items, page) = list_disks(&self.core, request.page.as_ref(), &request.domain, wanted).await?;
        Ok(v1::ListTemplatesResponse { items, page: Some(page) })
    }
}

fn template<'a>(state: &'a State, text: &str) -> Result<&'a Disk, Refusal> {
    let disk = resolve::disk(state, text)?;
    if disk.template {
        return Ok(disk);
    }
    Err(Refusal::new(Class::Precondition, "NOT_A_TEMPLATE", format!("{} is a disk, and no template", disk.name))
        .hint(format!("see sdm template list; for the disk: sdm disk show {}", disk.name)))
}

#[tonic::async_trait]
impl TemplateService for TemplateApi {
    async fn make_template(
        &self,
        request: Request<v1::MakeTemplateRequest>,
    ) -> Result<Response<v1::MakeTemplateResponse>, Status> {
        answer(self.make(request.into_inner()).await)
    }

    async fn delete_template(
        &self,
        request: Request<v1::DeleteTemplateRequest>,
    ) -> Result<Response<v1::DeleteTemplateResponse>, Status> {
        answer(self.delete(request.into_inner()).await)
    }

    async fn get_template(
        &self,
        request: Request<v1::GetTemplateRequest>,
    ) -> Result<Response<v1::GetTemplateResponse>, Status> {
        answer(self.get(request.into_inner()).await)
    }

    async fn list_templates(
        &self,
        request: Request<v1::ListTemplatesRequest>,
    ) -> Result<Response<v1::ListTemplatesResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_disk_is_no_template() {
        let sample = Sample::with_disk();
        assert_eq!(template(&sample.state, "web-01").unwrap_err().reason, "NOT_A_TEMPLATE");
    }
}
