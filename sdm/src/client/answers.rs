//! What changes are answered with: each a transaction, or the plan of a dry run.

use sdm_proto::wire::v1;

/// The answer to a change, in its parts.
pub trait ChangeAnswer {
    /// The transaction, or what it would do.
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>);
}

impl ChangeAnswer for v1::CreateDomainResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::CreateDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::ImportDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::ExportDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::MoveDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::DeleteDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::RenameDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::DescribeDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::ResizeDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::CopyDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::CloneDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::ConvertDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::FlattenDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::CreateSnapshotResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::DeleteSnapshotResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::RevertSnapshotResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::MakeTemplateResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::DeleteTemplateResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::SetVolumeLegalityResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::RepairProjectionResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::RestoreTrashResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::PurgeTrashResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::HoldGarbageResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::UnholdGarbageResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::PlanCollectionResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::ApplyCollectionPlanResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::SetDomainResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::MaintainDomainResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::ActivateDomainResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::RenameDomainResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::DetachDomainResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::ForgetDomainResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::DeleteDomainResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::AttachDomainResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::AttachDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::DetachDiskResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::DrainWorkerResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::UndrainWorkerResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::RemoveWorkerResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}

impl ChangeAnswer for v1::ConfirmWorkerDownResponse {
    fn parts(self) -> (Option<v1::Transaction>, Option<v1::DryRun>) {
        (self.transaction, self.plan)
    }
}
