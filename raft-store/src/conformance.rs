//! openraft's own storage suite on both sides of the disk seam. It lives in the crate because it
//! begins logs where it likes, which the store refuses outside of tests.

use crate::disk::MemberDisk;
use crate::disk::SimulatedDisk;
use crate::identity::Identity;
use crate::identity::IdentityFile;
use crate::log::FirstEntry;
use crate::log::LogStore;
use crate::open::open_with;
use crate::raft::StateMachine;
use crate::types::TypeConfig;
use openraft::StorageError;
use openraft::testing::log::StoreBuilder;
use openraft::testing::log::Suite;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::PoolId;
use uuid::Uuid;

async fn stores(disk: &MemberDisk) -> (LogStore, StateMachine) {
    let identity = Identity {
        cluster_id: ClusterId::from_uuid(Uuid::from_u128(1)),
        pool_id: PoolId::from_uuid(Uuid::from_u128(2)),
        epoch: 0,
        node_id: 0,
        name: "suite".to_owned(),
        incarnation: Uuid::from_u128(3),
    };
    IdentityFile::of(disk).write(&identity).await.expect("the identity can be written");
    let opened = open_with(disk, FirstEntry::Anywhere).await.expect("a new disk opens");
    (opened.log_store, opened.state_machine)
}

struct OnSimulatedDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, SimulatedDisk> for OnSimulatedDisk {
    async fn build(&self) -> Result<(SimulatedDisk, LogStore, StateMachine), StorageError<TypeConfig>> {
        let machine = SimulatedDisk::new();
        let (log, state_machine) = stores(&machine.start()).await;
        Ok((machine, log, state_machine))
    }
}

struct OnRealDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for OnRealDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = MemberDisk::open(folder.path()).await.expect("a new folder opens");
        let (log, state_machine) = stores(&disk).await;
        Ok((folder, log, state_machine))
    }
}

#[tokio::test]
async fn the_store_passes_openrafts_suite_on_the_simulated_disk() {
    Suite::test_all(OnSimulatedDisk).await.expect("the suite passes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_passes_openrafts_suite_on_real_files() {
    Suite::test_all(OnRealDisk).await.expect("the suite passes");
}
