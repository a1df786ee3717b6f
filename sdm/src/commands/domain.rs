//! `sdm domain`: storage domains.

use super::begin::Change;
use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::values::parse_absolute_path;
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
use serde::Serialize;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum DomainCommand {
    /// Make a new, empty domain in a folder that a worker reaches
    Create(CreateDomain),
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

/// What `create` prints.
#[derive(Serialize)]
struct DomainResult {
    transaction: TransactionView,
    domain: Option<DomainView>,
}

impl Report for DomainResult {
    fn text(&self) -> String {
        match &self.domain {
            Some(domain) => format!("domain {} is there: {}   id {}\n", domain.name, domain.path, domain.id),
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

async fn domain_of(context: &Context, reference: &str) -> Result<DomainView, Failure> {
    let request = v1::GetDomainRequest { domain: reference.to_owned() };
    let get = async |link| DomainServiceClient::new(link).get_domain(request.clone()).await;
    let answer = context.cluster.call(get).await?;
    let missing = || Failure::new(Class::NotFound, "DOMAIN_NOT_FOUND", format!("there is no domain {reference}"));
    Ok(answer.domain.ok_or_else(missing)?.into())
}
