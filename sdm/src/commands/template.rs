//! `sdm template`: read-only disks that many linked clones share.

use super::begin::Change;
use super::disk::DiskFormat;
use super::disk::DiskResult;
use super::disk::Verb;
use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::parse_name;
use crate::values::parse_reference;
use crate::views::DiskView;
use clap::Args;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::template_service_client::TemplateServiceClient;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum TemplateCommand {
    /// Make a template from a disk's content; the disk stays as it is
    Make(MakeTemplate),
    /// List the templates
    List {
        /// Only those of this domain (name or id)
        #[arg(long, value_name = "D")]
        domain: Option<String>,
    },
    /// Show one template, and the clones that share it
    Show {
        /// Its name or id
        template: String,
    },
    /// Delete a template that no linked clone uses
    Delete(DeleteTemplate),
}

/// Options of `make`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm template make web-01 web-template\n         sdm disk clone web-template web-07")]
pub struct MakeTemplate {
    /// Name or id of the disk
    disk: String,
    /// Name of the template; disks and templates share their names
    name: String,
    /// Domain of the template (name or id) [default: that of the disk]
    #[arg(long, value_name = "D")]
    to: Option<String>,
    /// How it is stored [default: as the disk]
    #[arg(long, value_enum)]
    format: Option<DiskFormat>,
    /// As the disk was at this snapshot (name or id) [default: as it is now]
    #[arg(long, value_name = "S")]
    snapshot: Option<String>,
    /// What it is for, in a line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `delete`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm template delete web-template")]
pub struct DeleteTemplate {
    /// Its name or id
    template: String,
    #[command(flatten)]
    change: Change,
}

impl TemplateCommand {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Make(make) => make.run(context).await,
            Self::List { domain } => list(context, domain.as_deref()).await,
            Self::Show { template } => show(context, &parse_reference("TEMPLATE", &template)?).await,
            Self::Delete(delete) => delete.run(context).await,
        }
    }
}

impl MakeTemplate {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let some = |option: &str, text: &Option<String>| match text {
            Some(text) => parse_reference(option, text),
            None => Ok(String::new()),
        };
        let request = v1::MakeTemplateRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            name: parse_name("NAME", &self.name)?.into(),
            to_domain: some("--to", &self.to)?,
            snapshot: some("--snapshot", &self.snapshot)?,
            description: self.description.clone(),
            format: self.format.map_or(v1::DiskFormat::Unspecified, v1::DiskFormat::from).into(),
        };
        let make = async |link| TemplateServiceClient::new(link).make_template(request.clone()).await;
        let (label, ask) = (format!("make template {}", self.name), context.cluster.call(make));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}

impl DeleteTemplate {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let template = parse_reference("TEMPLATE", &self.template)?;
        let request = v1::DeleteTemplateRequest { header: Some(header.clone()), template };
        let delete = async |link| TemplateServiceClient::new(link).delete_template(request.clone()).await;
        let (label, ask) = (format!("delete template {}", self.template), context.cluster.call(delete));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Delete, txn).await)
    }
}

async fn list(context: &Context, domain: Option<&str>) -> Result<ExitCode, Failure> {
    let domain = domain.map(|domain| parse_reference("--domain", domain)).transpose()?.unwrap_or_default();
    let list = all_pages::<_, DiskView, _>(async |page| {
        let request = v1::ListTemplatesRequest { page: Some(page), domain: domain.clone() };
        let answer = context.cluster.call(async |link| {
            let mut client = TemplateServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_templates(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    });
    context.printer.print(&list.await?.sorted_by(|disk| &disk.name))
}

async fn show(context: &Context, template: &str) -> Result<ExitCode, Failure> {
    let request = v1::GetTemplateRequest { template: template.to_owned() };
    let get = async |link| {
        let mut client = TemplateServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        client.get_template(request.clone()).await
    };
    let answer = context.cluster.call(get).await?;
    let missing = || Failure::new(Class::NotFound, "DISK_NOT_FOUND", format!("there is no template {template}"));
    context.printer.print(&DiskView::from(answer.template.ok_or_else(missing)?))
}
