//! `sdm domain maintenance`, `activate`, `rename`, `detach`, `delete` and `attach`.

use super::begin::Change;
use super::confirmed::Confirmed;
use super::domain::DomainResult;
use super::domain::domain_of;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::values::parse_absolute_path;
use crate::values::parse_name;
use crate::values::parse_reference;
use crate::views::BlockerView;
use crate::views::TransactionView;
use clap::Args;
use sdm_proto::ids::DomainId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::domain_service_client::DomainServiceClient;
use serde::Serialize;
use std::cell::RefCell;

/// Options of `maintenance`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm domain maintenance nfs1 --reason \"new switch\"")]
pub struct MaintainDomain {
    /// Its name or id
    domain: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `activate`.
#[derive(Args, Debug)]
pub struct ActivateDomain {
    /// Its name or id
    domain: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `rename`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm domain rename nfs1 archive")]
pub struct RenameDomain {
    /// Its name or id
    domain: String,
    /// Its new name
    name: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `detach` and `delete`.
#[derive(Args, Debug)]
pub struct EndDomain {
    /// Its name or id
    domain: String,
    #[command(flatten)]
    confirmed: Confirmed,
    #[command(flatten)]
    change: Change,
}

/// Options of `forget`.
#[derive(Args, Debug)]
pub struct ForgetDomain {
    /// Its name or id
    domain: String,
    /// Its name or id once more: there is no way back
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// Options of `attach`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm domain attach /mnt/nfs1/6f1c2a0e-8f0b-5c53-9d0e-0d6a2d0f7a11 --name archive")]
pub struct AttachDomain {
    /// The domain's own folder, as `detach` has told it: PATH/ID
    folder: String,
    /// The path need not be a mount point
    #[arg(long)]
    local: bool,
    /// Its name here [default: the one that it had]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Put this before the names of all its disks
    #[arg(long, value_name = "TEXT")]
    rename_prefix: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// What `maintenance` prints.
#[derive(Serialize)]
struct MaintenanceResult {
    transaction: TransactionView,
    domain: String,
    /// What runs in the domain and finishes.
    still_running: Vec<BlockerView>,
}

impl Report for MaintenanceResult {
    fn text(&self) -> String {
        let (domain, mark) = (&self.domain, self.transaction.mark());
        let mut text = format!("domain {domain} is in maintenance: nothing new begins in it{mark}\n");
        let next = format!(
            "next: sdm domain detach {domain}, or back: sdm domain activate {domain}; if its storage is lost for good: \
             sdm domain forget {domain} --reason TEXT --confirm {domain}\n"
        );
        if self.still_running.is_empty() {
            return text + "nothing runs in it any more\n" + &next;
        }
        text.push_str("still there, and left alone:\n");
        for at in &self.still_running {
            text.push_str(&format!("  {} {}: {}\n", at.kind, at.id, crate::output::one_line(&at.description)));
        }
        text + &next
    }
}

/// What `detach` and `delete` print.
#[derive(Serialize)]
struct EndResult {
    transaction: TransactionView,
    domain: String,
    /// The domain's own folder.
    folder: String,
    /// The next command.
    hint: String,
}

impl Report for EndResult {
    fn text(&self) -> String {
        let mark = self.transaction.mark();
        format!(
            "domain {} is gone from this cluster; its folder is {}{mark}\n{}\n",
            self.domain, self.folder, self.hint
        )
    }
}

impl MaintainDomain {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let domain = parse_reference("DOMAIN", &self.domain)?;
        let request = v1::MaintainDomainRequest { header: Some(header.clone()), domain };
        let running = RefCell::new(Vec::new());
        let maintain = async |link| DomainServiceClient::new(link).maintain_domain(request.clone()).await;
        let ask = async {
            let answer = context.cluster.call(maintain).await?;
            running.replace(answer.still_running.clone());
            Ok(answer)
        };
        let label = format!("put {} into maintenance", self.domain);
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let still_running = running.take().into_iter().map(BlockerView::from).collect();
        context.printer.print(&MaintenanceResult { transaction: txn.into(), domain: self.domain, still_running })
    }
}

impl ActivateDomain {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let domain = parse_reference("DOMAIN", &self.domain)?;
        let request = v1::ActivateDomainRequest { header: Some(header.clone()), domain: domain.clone() };
        let activate = async |link| DomainServiceClient::new(link).activate_domain(request.clone()).await;
        let (label, ask) = (format!("activate {}", self.domain), context.cluster.call(activate));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let domain = domain_of(context, &domain).await.ok();
        context.printer.print(&DomainResult { transaction: txn.into(), domain })
    }
}

impl RenameDomain {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let new_name: String = parse_name("NAME", &self.name)?.into();
        let request = v1::RenameDomainRequest {
            header: Some(header.clone()),
            domain: parse_reference("DOMAIN", &self.domain)?,
            new_name: new_name.clone(),
        };
        let rename = async |link| DomainServiceClient::new(link).rename_domain(request.clone()).await;
        let (label, ask) = (format!("rename {}", self.domain), context.cluster.call(rename));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let domain = domain_of(context, &new_name).await.ok();
        context.printer.print(&DomainResult { transaction: txn.into(), domain })
    }
}

impl EndDomain {
    pub(super) async fn detach(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, domain, folder, local) = self.begin(context, "is given up by this cluster").await?;
        let request = v1::DetachDomainRequest { header: Some(header.clone()), domain };
        let detach = async |link| DomainServiceClient::new(link).detach_domain(request.clone()).await;
        let (label, ask) = (format!("detach {}", self.domain), context.cluster.call(detach));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let hint = format!("to have it again, here or elsewhere: sdm domain attach {folder}{local}");
        context.printer.print(&EndResult { transaction: txn.into(), domain: self.domain, folder, hint })
    }

    pub(super) async fn delete(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, domain, folder, _) = self.begin(context, "is deleted with its folder").await?;
        let request = v1::DeleteDomainRequest { header: Some(header.clone()), domain };
        let delete = async |link| DomainServiceClient::new(link).delete_domain(request.clone()).await;
        let (label, ask) = (format!("delete {}", self.domain), context.cluster.call(delete));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let hint = "its folder is deleted by the collector; now: sdm gc run".to_owned();
        context.printer.print(&EndResult { transaction: txn.into(), domain: self.domain, folder, hint })
    }

    /// Header, reference, the domain's own folder, and the option that its attach needs; once it is confirmed.
    async fn begin(
        &self,
        context: &Context,
        what: &str,
    ) -> Result<(v1::MutationHeader, String, String, &'static str), Failure> {
        let header = self.change.mutation.header()?;
        let reference = parse_reference("DOMAIN", &self.domain)?;
        // A repetition of what is done already is answered by the recorded result.
        let known = domain_of(context, &reference).await.ok();
        let folder = known.as_ref().map(|row| format!("{}/{}", row.path.trim_end_matches('/'), row.id));
        let local = if known.as_ref().is_some_and(|row| row.local) { " --local" } else { "" };
        if !header.dry_run && !self.change.mutation.is_repetition() {
            self.confirmed.require(&format!("domain {} {what}", self.domain), &self.domain)?;
        }
        Ok((header, reference, folder.unwrap_or_default(), local))
    }
}

impl ForgetDomain {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let domain = parse_reference("DOMAIN", &self.domain)?;
        let name = &self.domain;
        if !header.dry_run && self.confirm.as_ref() != Some(name) {
            let message = match &self.confirm {
                None => format!("domain {name} and the disks in it are forgotten for good: that is to be confirmed"),
                Some(other) => format!("{other} is confirmed, and {name} was to be forgotten: nothing was done"),
            };
            return Err(Refusal::new(Class::Invalid, "CONFIRMATION_NEEDED", message)
                .hint(format!(
                    "see what goes: sdm domain forget {name} --dry-run; then sdm domain forget {name} --reason TEXT \
                     --confirm {name}"
                ))
                .into());
        }
        // A repetition of what is done already is answered by the recorded result.
        let known = domain_of(context, &domain).await.ok();
        let folder = known.map(|row| format!("{}/{}", row.path.trim_end_matches('/'), row.id)).unwrap_or_default();
        let request = v1::ForgetDomainRequest { header: Some(header.clone()), domain };
        let forget = async |link| DomainServiceClient::new(link).forget_domain(request.clone()).await;
        let (label, ask) = (format!("forget {name}"), context.cluster.call(forget));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let hint =
            "nothing was done on its storage; should that come back, it is nobody's here: remove the folder by hand"
                .to_owned();
        context.printer.print(&EndResult { transaction: txn.into(), domain: self.domain, folder, hint })
    }
}

impl AttachDomain {
    fn resolve(&self, header: &v1::MutationHeader) -> Result<v1::AttachDomainRequest, Failure> {
        let folder = parse_absolute_path("FOLDER", &self.folder)?;
        let bad = || {
            let message = format!("{folder:?} is not the own folder of a domain: it does not end in an id");
            Refusal::new(Class::Invalid, "BAD_PATH", message).hint("PATH/ID, as `sdm domain detach` tells it")
        };
        let (path, id) = folder.trim_end_matches('/').rsplit_once('/').ok_or_else(bad)?;
        let id: DomainId = id.parse().map_err(|_| bad())?;
        Ok(v1::AttachDomainRequest {
            header: Some(header.clone()),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            domain_id: id.to_string(),
            local: self.local,
            name: self
                .name
                .as_deref()
                .map(|name| parse_name("--name", name))
                .transpose()?
                .map_or_else(String::new, Into::into),
            rename_prefix: self.rename_prefix.clone().unwrap_or_default(),
        })
    }

    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let request = self.resolve(&header)?;
        let attach = async |link| DomainServiceClient::new(link).attach_domain(request.clone()).await;
        let (label, ask) = (format!("attach {}", self.folder), context.cluster.call(attach));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let domain = domain_of(context, &request.domain_id).await.ok();
        context.printer.print(&DomainResult { transaction: txn.into(), domain })
    }
}
