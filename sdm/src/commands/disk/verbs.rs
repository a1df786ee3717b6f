//! The verbs.

use super::attach::AttachDisk;
use super::attach::DetachDisk;
use super::attach::ListAttachments;
use super::changes::DescribeDisk;
use super::changes::RenameDisk;
use super::changes::ResizeDisk;
use super::copies::CloneDisk;
use super::copies::ConvertDisk;
use super::copies::CopyDisk;
use super::copies::FlattenDisk;
use super::create::CreateDisk;
use super::export::ExportDisk;
use super::import::ImportDisk;
use super::moves::DeleteDisk;
use super::moves::MoveDisk;
use super::shown::ListDisks;
use super::shown::show;
use super::shown::tree;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use clap::Subcommand;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum DiskCommand {
    /// Make a new, empty disk
    Create(CreateDisk),
    /// Make a disk from a file of this host, whose bytes are kept as they are
    Import(ImportDisk),
    /// Write a disk to a file of this host
    Export(ExportDisk),
    /// Move a disk to another domain
    Move(MoveDisk),
    /// Make a new disk with this one's content, in another domain or format
    Copy(CopyDisk),
    /// Make a new disk from this one in the same domain, sharing what is frozen where it can
    Clone(CloneDisk),
    /// Store a disk in another format
    Convert(ConvertDisk),
    /// Make a disk whole: it shares nothing any more, and has no layer but its own snapshots
    Flatten(FlattenDisk),
    /// Give a disk another name
    Rename(RenameDisk),
    /// Write something about a disk
    Describe(DescribeDisk),
    /// Make a disk larger
    Resize(ResizeDisk),
    /// Give a host the right to use a disk
    Attach(AttachDisk),
    /// Take that right back
    Detach(DetachDisk),
    /// List which hosts have which disks
    Attachments(ListAttachments),
    /// Delete a disk
    Delete(DeleteDisk),
    /// List the disks
    List(ListDisks),
    /// Show one disk, its volumes and snapshots
    Show {
        /// Its name or id
        disk: String,
    },
    /// Show a disk's chain, layer on layer, and who shares each
    Tree {
        /// Its name or id
        disk: String,
    },
}

impl DiskCommand {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::Import(import) => import.run(context).await,
            Self::Export(export) => export.run(context).await,
            Self::Move(moving) => moving.run(context).await,
            Self::Copy(copy) => copy.run(context).await,
            Self::Clone(clone) => clone.run(context).await,
            Self::Convert(convert) => convert.run(context).await,
            Self::Flatten(flatten) => flatten.run(context).await,
            Self::Rename(rename) => rename.run(context).await,
            Self::Describe(describe) => describe.run(context).await,
            Self::Resize(resize) => resize.run(context).await,
            Self::Attach(attach) => attach.run(context).await,
            Self::Detach(detach) => detach.run(context).await,
            Self::Attachments(list) => list.run(context).await,
            Self::Delete(delete) => delete.run(context).await,
            Self::List(list) => list.run(context).await,
            Self::Show { disk } => show(context, &disk).await,
            Self::Tree { disk } => tree(context, &disk).await,
        }
    }
}
