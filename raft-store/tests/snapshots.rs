//! Snapshots: built, found again, sent, refused when damaged.

mod common;

use bytes::Bytes;
use common::append;
use common::apply;
use common::blank;
use common::blanks;
use common::id;
use common::open;
use common::snapshot;
use common::tick;
use common::vote;
use futures_util::StreamExt;
use openraft::storage::RaftLogStorage;
use openraft::storage::RaftStateMachine;
use sdm_raft_store::OpenError;
use sdm_raft_store::Opened;
use sdm_raft_store::SimulatedDisk;
use sdm_raft_store::SnapshotFile;
use sdm_raft_store::SnapshotReceiver;
use sdm_raft_store::disk::Crash;
use sdm_raft_store::snapshot::SnapshotError;
use std::io;

fn ticks(indexes: std::ops::Range<u64>) -> Vec<sdm_raft_store::LogEntry> {
    indexes.map(|index| tick(1, index)).collect()
}

async fn bytes_of(file: &SnapshotFile, size: usize) -> Vec<Bytes> {
    file.chunks(size).map(|piece| piece.expect("readable")).collect().await
}

#[tokio::test]
async fn a_snapshot_brings_state_and_membership_back_after_a_crash() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    opened.log_store.save_vote(&vote(1)).await.expect("durable");
    let entries = vec![tick(1, 1), common::large(1, 2, 10), tick(1, 3)];
    let file = snapshot(&mut opened.state_machine, entries).await;
    let before = opened.view.load();
    assert_eq!(file.meta().last_log_id, Some(id(1, 3)));
    machine.crash(Crash::LoseUnsynced);
    let opened = open(&machine.start(), 1).await.expect("opens again");
    let after = opened.view.load();
    assert_eq!(after.applied, Some(id(1, 3)));
    assert_eq!(after.state.hash(), before.state.hash());
    assert_eq!(after.membership, before.membership);
    assert_eq!(opened.snapshots.current().map(|file| file.hash()), Some(file.hash()));
}

#[tokio::test]
async fn two_snapshots_stay_and_no_temporary_file() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    for index in [9, 10, 11, 100] {
        snapshot(&mut opened.state_machine, vec![tick(1, index)]).await;
    }
    assert_eq!(machine.snapshot_names(), ["snap-1-1-100", "snap-1-1-11"]);
}

/// Builds a snapshot beside the test.
async fn building(opened: &mut Opened) -> tokio::task::JoinHandle<io::Result<u64>> {
    let mut builder = opened.state_machine.get_snapshot_builder().await;
    tokio::spawn(async move {
        let built = openraft::storage::RaftSnapshotBuilder::build_snapshot(&mut builder).await?;
        Ok(built.meta.last_log_id.map_or(0, |last| last.index))
    })
}

/// Lets every task run until all of them wait.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_crash_while_a_snapshot_is_written_leaves_the_one_before() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    snapshot(&mut opened.state_machine, ticks(1..5)).await;
    apply(&mut opened.state_machine, ticks(5..9)).await;
    machine.fail_files(io::ErrorKind::Other);
    let built = building(&mut opened).await;
    settle().await;
    assert!(!built.is_finished(), "it is tried again");
    machine.crash(Crash::LoseUnsynced);
    machine.heal();
    let opened = open(&machine.start(), 1).await.expect("opens again");
    assert_eq!(opened.view.load().applied, Some(id(1, 4)));
    assert_eq!(machine.snapshot_names(), ["snap-1-1-4"]);
}

#[tokio::test]
async fn a_snapshot_that_fails_is_tried_again_while_the_log_goes_on() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    append(&mut opened.log_store, blanks(1, 0..20)).await;
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        apply(&mut opened.state_machine, ticks(1..9)).await;
        machine.fail_files(kind);
        let built = building(&mut opened).await;
        settle().await;
        assert!(!built.is_finished() && opened.fatal.get().is_none(), "{kind:?} stops nobody");
        let next = opened.log_store.get_log_state().await.expect("state").last_log_id.expect("some").index + 1;
        append(&mut opened.log_store, blanks(1, next..next + 5)).await;
        assert!(machine.snapshot_names().iter().all(|name| !name.ends_with(".tmp")), "nothing half is left");
        apply(&mut opened.state_machine, ticks(9..12)).await;
        machine.heal();
        let last = built.await.expect("no panic").expect("built in the end");
        assert_eq!(last, 11, "of the state as it is by then");
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_snapshot_before_the_log_and_harms_neither() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    append(&mut opened.log_store, blanks(1, 0..3)).await;
    apply(&mut opened.state_machine, ticks(1..3)).await;
    // Room for a batch of the log, not for a snapshot.
    machine.limit_space(300);
    let built = building(&mut opened).await;
    settle().await;
    append(&mut opened.log_store, blanks(1, 3..4)).await;
    assert!(!built.is_finished() && opened.fatal.get().is_none());
    machine.crash(Crash::LoseUnsynced);
    machine.heal();
    let mut opened = open(&machine.start(), 1).await.expect("opens again");
    assert_eq!(common::indexes(&mut opened.log_store).await, [0, 1, 2, 3]);
    assert!(machine.snapshot_names().is_empty());
}

#[tokio::test]
async fn a_snapshot_that_keeps_failing_does_not_hold_the_folder_of_a_member_that_ends() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    apply(&mut opened.state_machine, ticks(1..3)).await;
    machine.fail_files(io::ErrorKind::Other);
    let built = building(&mut opened).await;
    settle().await;
    let closed = opened.closed.clone();
    drop(opened);
    assert!(built.await.expect("no panic").is_err());
    closed.wait().await;
}

#[tokio::test]
async fn a_damaged_snapshot_gives_way_to_the_one_before_while_the_log_reaches_back() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    append(&mut opened.log_store, blanks(1, 0..20)).await;
    snapshot(&mut opened.state_machine, vec![tick(1, 5)]).await;
    snapshot(&mut opened.state_machine, vec![tick(1, 10)]).await;
    opened.log_store.purge(id(1, 4)).await.expect("accepted");
    append(&mut opened.log_store, vec![blank(1, 20)]).await;
    assert!(machine.damage_snapshot("snap-1-1-10", |bytes| bytes.truncate(bytes.len() / 2)));
    machine.crash(Crash::LoseUnsynced);
    let mut opened = open(&machine.start(), 1).await.expect("the older one and the log are enough");
    assert_eq!(opened.view.load().applied, Some(id(1, 5)));
    // Now the log no longer reaches back to the older one.
    opened.log_store.purge(id(1, 8)).await.expect("accepted");
    append(&mut opened.log_store, vec![blank(1, 21)]).await;
    machine.crash(Crash::LoseUnsynced);
    let refused = open(&machine.start(), 1).await.expect_err("refused");
    assert!(matches!(refused, OpenError::Gap { purged: 8, .. }), "{refused}");
    assert!(refused.to_string().contains("snapshots/damaged"), "{refused}");
}

#[tokio::test]
async fn every_damaged_byte_of_a_snapshot_is_found() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    let file = snapshot(&mut opened.state_machine, ticks(1..5)).await;
    let good = bytes_of(&file, 1 << 20).await.concat();
    for place in 0..good.len() {
        let mut receiver = SnapshotReceiver::begin(&opened.snapshots, good.len() as u64).await.expect("begun");
        let mut bytes = good.clone();
        bytes[place] ^= 0x40;
        receiver.append(bytes.into()).await.expect("taken");
        let refused = receiver.finish(file.hash()).await;
        assert!(refused.is_err(), "byte {place} of {}", good.len());
    }
    assert_eq!(machine.snapshot_names(), ["snap-1-1-4"], "what was refused is gone");
}

#[tokio::test]
async fn a_snapshot_travels_in_pieces_of_any_size() {
    let machine = SimulatedDisk::new();
    let mut leader = open(&machine.start(), 1).await.expect("opens");
    let file = snapshot(&mut leader.state_machine, ticks(1..50)).await;
    for size in [1, 7, 4096, 1 << 20] {
        let other = SimulatedDisk::new();
        let mut follower = open(&other.start(), 2).await.expect("opens");
        follower.log_store.save_vote(&vote(1)).await.expect("durable");
        let mut receiver = SnapshotReceiver::begin(&follower.snapshots, file.length()).await.expect("begun");
        for piece in bytes_of(&file, size).await {
            assert!(piece.len() <= size);
            receiver.append(piece).await.expect("taken");
        }
        let received = receiver.finish(file.hash()).await.expect("whole");
        assert_eq!(received.meta(), file.meta());
        follower.state_machine.install_snapshot(&received.meta().clone(), received).await.expect("installed");
        assert_eq!(follower.view.load().state.hash(), leader.view.load().state.hash());
        other.crash(Crash::LoseUnsynced);
        let follower = open(&other.start(), 2).await.expect("opens again");
        assert_eq!(follower.view.load().applied, Some(id(1, 49)));
        assert_eq!(other.snapshot_names(), ["snap-1-1-49"]);
    }
}

#[tokio::test]
async fn a_transfer_that_is_too_short_too_long_or_of_another_snapshot_is_refused() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    let file = snapshot(&mut opened.state_machine, ticks(1..5)).await;
    let bytes = Bytes::from(bytes_of(&file, 1 << 20).await.concat());
    let length = bytes.len() as u64;

    let mut short = SnapshotReceiver::begin(&opened.snapshots, length).await.expect("begun");
    short.append(bytes.slice(..bytes.len() - 1)).await.expect("taken");
    assert!(matches!(short.finish(file.hash()).await, Err(SnapshotError::Other)));

    let mut long = SnapshotReceiver::begin(&opened.snapshots, length - 1).await.expect("begun");
    assert!(matches!(long.append(bytes.clone()).await, Err(SnapshotError::Other)));

    let mut other = SnapshotReceiver::begin(&opened.snapshots, length).await.expect("begun");
    other.append(bytes.clone()).await.expect("taken");
    assert!(matches!(other.finish([7; 32]).await, Err(SnapshotError::Other)));

    let given_up = SnapshotReceiver::begin(&opened.snapshots, length).await.expect("begun");
    drop((given_up, long));
    assert_eq!(machine.snapshot_names(), ["snap-1-1-4"]);
}

#[tokio::test]
async fn what_cannot_be_installed_is_refused_as_it_arrives_and_nothing_is_left_of_it() {
    let machine = SimulatedDisk::new();
    let mut leader = open(&machine.start(), 1).await.expect("opens");
    let file = snapshot(&mut leader.state_machine, ticks(1..5)).await;
    let bytes = bytes_of(&file, 1 << 20).await.concat();
    let other = SimulatedDisk::new();
    let follower = open(&other.start(), 2).await.expect("opens");
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        let mut receiver = SnapshotReceiver::begin(&follower.snapshots, file.length()).await.expect("begun");
        receiver.append(Bytes::copy_from_slice(&bytes[..cut])).await.expect("taken");
        assert_eq!(other.snapshot_names().len(), 1, "it is arriving under a temporary name");
        // The connection breaks.
        drop(receiver);
        assert!(other.snapshot_names().is_empty());
    }
    let mut receiver = SnapshotReceiver::begin(&follower.snapshots, file.length()).await.expect("begun");
    receiver.append(Bytes::copy_from_slice(&bytes[..100])).await.expect("taken");
    // The member dies in the middle of the transfer, and its process keeps all that was written.
    other.crash(Crash::KeepUnsynced);
    drop(receiver);
    assert_eq!(other.snapshot_names().len(), 1);
    let follower = open(&other.start(), 2).await.expect("opens again");
    assert!(other.snapshot_names().is_empty(), "what was left is removed");
    assert!(follower.view.load().applied.is_none());
}

#[tokio::test]
async fn while_a_snapshot_is_sent_no_newer_one_cuts_the_log_behind_it() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    let file = snapshot(&mut opened.state_machine, ticks(1..5)).await;
    let mut pieces = Box::pin(file.chunks(16));
    pieces.next().await.expect("a piece").expect("readable");
    for index in 0..20 {
        append(&mut opened.log_store, vec![common::large(1, index, 400_000)]).await;
    }
    assert!(!opened.snapshot_trigger.should_snapshot(), "it would pay, but a peer is on its way");
    drop(pieces);
    assert!(!opened.snapshot_trigger.should_snapshot(), "the peer installs it");
}

#[tokio::test]
async fn a_snapshot_that_is_being_sent_stays_readable_after_newer_ones_took_its_place() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    let file = snapshot(&mut opened.state_machine, ticks(1..5)).await;
    let before = bytes_of(&file, 100).await;
    for index in 5..9 {
        snapshot(&mut opened.state_machine, vec![tick(1, index)]).await;
    }
    assert!(!machine.snapshot_names().contains(&"snap-1-1-4".to_owned()));
    assert_eq!(bytes_of(&file, 100).await, before);
}

#[tokio::test]
async fn the_view_is_published_with_every_entry_applied_and_waited_for() {
    let Opened { mut state_machine, view, .. } = open(&SimulatedDisk::new().start(), 1).await.expect("opens");
    let waiting = tokio::spawn({
        let view = view.clone();
        async move { view.wait_applied(300).await.applied_index() }
    });
    apply(&mut state_machine, ticks(1..301)).await;
    assert_eq!(waiting.await.expect("no panic"), Some(300));
    assert_eq!(*view.changes().borrow(), Some(300));
}
