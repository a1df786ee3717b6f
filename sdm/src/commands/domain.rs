//! `sdm domain`: storage domains.

use super::begin::Change;
use super::domain_check::CheckDomain;
use super::domain_life::ActivateDomain;
use super::domain_life::AttachDomain;
use super::domain_life::EndDomain;
use super::domain_life::ForgetDomain;
use super::domain_life::MaintainDomain;
use super::domain_life::RenameDomain;
use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::one_line;
use crate::values::milliseconds;
use crate::values::parse_absolute_path;
use crate::values::parse_duration;
use crate::values::parse_name;
use crate::values::parse_reference;
use crate::views::DomainView;
use crate::views::Shown;
use crate::views::TransactionView;
use clap::Args;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::domain_service_client::DomainServiceClient;
use sdm_proto::wire::v1::set_domain_request::Retention;
use serde::Serialize;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum DomainCommand {
    /// Make a new, empty domain in a folder that a worker reaches
    Create(CreateDomain),
    /// Change how long a domain's deleted disks are kept
    Set(SetDomain),
    /// Let nothing new begin in a domain; what runs finishes
    Maintenance(MaintainDomain),
    /// Use a domain again that is in maintenance
    Activate(ActivateDomain),
    /// Give a domain another name
    Rename(RenameDomain),
    /// Give a domain in maintenance up, with its disks; it can be attached again, here or elsewhere
    Detach(EndDomain),
    /// Take in a domain that was detached, with its disks
    Attach(AttachDomain),
    /// Delete an empty domain in maintenance and its folder (format)
    Delete(EndDomain),
    /// Take a domain out of the catalog whose storage is lost for good; nothing is done on the storage
    ///
    /// Other systems call this destroying a domain. Only the catalog changes, and there is no way back: --dry-run names
    /// the disks, the garbage and the attachments that go.
    Forget(ForgetDomain),
    /// Compare what the catalog says of a domain with what lies there; changes nothing
    Check(CheckDomain),
    /// List the domains
    List,
    /// Show one domain
    Show {
        /// Its name or id
        domain: String,
    },
}

/// Options of `create`.
#[derive(Args, Debug)]
pub struct CreateDomain {
    /// Name of the new domain
    name: String,
    /// Folder in which it is made, as the workers' hosts see it; a mount point, unless --local
    #[arg(long, value_name = "P")]
    path: String,
    /// The folder need not be a mount point
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    change: Change,
}

/// Options of `set`.
#[derive(Args, Debug)]
pub struct SetDomain {
    /// Its name or id
    domain: String,
    /// How long its deleted disks can be restored: 7d, 12h, 0s for not at all, or "default"
    #[arg(long, value_name = "DURATION")]
    retention: String,
    #[command(flatten)]
    change: Change,
}

/// What `create` and `set` print.
#[derive(Serialize)]
pub(super) struct DomainResult {
    pub(super) transaction: TransactionView,
    pub(super) domain: Option<DomainView>,
}

impl Report for DomainResult {
    fn text(&self) -> String {
        match &self.domain {
            Some(domain) => format!(
                "done: {}{}\ndomain {} is {}: {}   id {}\nnext: sdm domain show {2}\n",
                one_line(&self.transaction.summary),
                self.transaction.mark(),
                domain.name,
                domain.state,
                domain.path,
                domain.id
            ),
            None => {
                format!("transaction {} is {}; look: sdm txn show {0}\n", self.transaction.id, self.transaction.phase)
            }
        }
    }
}

impl DomainCommand {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::Set(set) => set.run(context).await,
            Self::Maintenance(maintain) => maintain.run(context).await,
            Self::Activate(activate) => activate.run(context).await,
            Self::Rename(rename) => rename.run(context).await,
            Self::Detach(end) => end.detach(context).await,
            Self::Attach(attach) => attach.run(context).await,
            Self::Delete(end) => end.delete(context).await,
            Self::Forget(forget) => forget.run(context).await,
            Self::Check(check) => check.run(context).await,
            Self::List => list(context).await,
            Self::Show { domain } => {
                let domain = domain_of(context, &parse_reference("DOMAIN", &domain)?).await?;
                context.printer.print(&Shown(domain))
            }
        }
    }
}

impl CreateDomain {
    fn resolve(&self) -> Result<v1::CreateDomainRequest, Failure> {
        Ok(v1::CreateDomainRequest {
            header: Some(self.change.mutation.header()?),
            name: parse_name("NAME", &self.name)?.into(),
            path: parse_absolute_path("--path", &self.path)?,
            local: self.local,
        })
    }

    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let request = self.resolve()?;
        let header = request.header.clone().unwrap_or_default();
        let create = async |link| DomainServiceClient::new(link).create_domain(request.clone()).await;
        let label = format!("create domain {}", self.name);
        let ask = context.cluster.call(create);
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let made = txn.outcome.as_ref().map(|outcome| outcome.domain_id.clone()).filter(|id| !id.is_empty());
        let domain = match made {
            Some(id) => domain_of(context, &id).await.ok(),
            None => None,
        };
        context.printer.print(&DomainResult { transaction: txn.into(), domain })
    }
}

impl SetDomain {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let retention = match self.retention.as_str() {
            "default" => Retention::RetentionDefault(true),
            text => Retention::RetentionMs(milliseconds(parse_duration("--retention", text)?)),
        };
        let request = v1::SetDomainRequest {
            header: Some(header.clone()),
            domain: parse_reference("DOMAIN", &self.domain)?,
            retention: Some(retention),
        };
        let set = async |link| DomainServiceClient::new(link).set_domain(request.clone()).await;
        let (label, ask) = (format!("set domain {}", self.domain), context.cluster.call(set));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let domain = domain_of(context, &request.domain).await.ok();
        context.printer.print(&DomainResult { transaction: txn.into(), domain })
    }
}

async fn list(context: &Context) -> Result<ExitCode, Failure> {
    let list = all_pages::<_, DomainView, _>(async |page| {
        let request = v1::ListDomainsRequest { page: Some(page) };
        let answer = context.cluster.call(async |link| {
            let mut client = DomainServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_domains(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    });
    context.printer.print(&list.await?.sorted_by(|domain| &domain.name))
}

pub(super) async fn domain_of(context: &Context, reference: &str) -> Result<DomainView, Failure> {
    let request = v1::GetDomainRequest { domain: reference.to_owned() };
    let get = async |link| DomainServiceClient::new(link).get_domain(request.clone()).await;
    let answer = context.cluster.call(get).await?;
    let missing = || Failure::new(Class::NotFound, "DOMAIN_NOT_FOUND", format!("there is no domain {reference}"));
    Ok(answer.domain.ok_or_else(missing)?.into())
}
