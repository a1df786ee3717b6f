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
