//! `sdm volume`: single layers of disks, for experts.

use super::begin::Change;
use super::disk::DiskResult;
use super::disk::Verb;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::parse_reference;
use crate::views::VolumeStory;
use clap::Args;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::volume_service_client::VolumeServiceClient;
use uuid::Uuid;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum VolumeCommand {
    /// Show one volume, who uses it and where it lies
    Show {
        /// Its id
        volume: String,
    },
    /// Take a volume out of use: whatever needs it is refused
    SetIllegal(SetLegality),
    /// Take a volume into use again
    SetLegal(SetLegality),
    /// Write anew what stands on the storage for others (oVirt) to read about a disk's volumes
    Repair(RepairProjection),
}

/// Options of `set-illegal` and `set-legal`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm volume set-illegal VOLUME --reason \"bad blocks on the array\"")]
pub struct SetLegality {
    /// Its id (sdm disk tree DISK)
    volume: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `repair`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm volume repair web-01")]
pub struct RepairProjection {
    /// The disk's name or id
    disk: String,
    #[command(flatten)]
    change: Change,
}

impl VolumeCommand {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Show { volume } => show(context, &parse_volume(&volume)?).await,
            Self::SetIllegal(set) => set.run(context, false).await,
            Self::SetLegal(set) => set.run(context, true).await,
            Self::Repair(repair) => repair.run(context).await,
        }
    }
}

fn parse_volume(text: &str) -> Result<String, Refusal> {
    Uuid::try_parse(text).map(|id| id.hyphenated().to_string()).map_err(|_| {
        Refusal::new(Class::Invalid, "BAD_VOLUME_ID", format!("{text:?} is not the id of a volume: those are UUIDs"))
            .hint("`sdm disk tree DISK` shows those of a disk")
    })
}

impl SetLegality {
    async fn run(self, context: &Context, legal: bool) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        if header.reason.trim().is_empty() {
            let message = "whether a volume may be used is not changed without a reason";
            let refusal = Refusal::new(Class::Invalid, "REASON_MISSING", message);
            return Err(refusal.hint("say why: --reason TEXT").into());
        }
        let volume = parse_volume(&self.volume)?;
        let request = v1::SetVolumeLegalityRequest { header: Some(header.clone()), volume, legal };
        let set = async |link| VolumeServiceClient::new(link).set_volume_legality(request.clone()).await;
        let (label, ask) = (format!("change volume {}", self.volume), context.cluster.call(set));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}

impl RepairProjection {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let disk = parse_reference("DISK", &self.disk)?;
        let request = v1::RepairProjectionRequest { header: Some(header.clone()), disk };
        let repair = async |link| VolumeServiceClient::new(link).repair_projection(request.clone()).await;
        let (label, ask) = (format!("repair {}", self.disk), context.cluster.call(repair));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}

async fn show(context: &Context, volume: &str) -> Result<ExitCode, Failure> {
    let request = v1::GetVolumeRequest { volume: volume.to_owned() };
    let get = async |link| {
        let mut client = VolumeServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        client.get_volume(request.clone()).await
    };
    let answer = context.cluster.call(get).await?;
    let missing = || Failure::new(Class::NotFound, "VOLUME_NOT_FOUND", format!("there is no volume {volume}"));
    let (shown, places) = (answer.volume.ok_or_else(missing)?, answer.places);
    context.printer.print(&VolumeStory::of(shown, places, answer.revision))
}
