//! A log whose database brings back less than it was given, or something older, without a word:
//! the member notices and does not start.

mod common;

use common::append;
use common::blank;
use common::blanks;
use common::close;
use common::id;
use common::indexes;
use common::key;
use common::large;
use common::open;
use common::snapshot;
use common::until;
use common::vote;
use openraft::storage::RaftLogStorage;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::OpenError;
use sdm_raft_store::SimulatedDisk;
use sdm_raft_store::disk::Crash;
use sdm_raft_store::log::RecordError;
use sdm_raft_store::log::RecoveryError;

#[tokio::test]
async fn a_database_that_lost_its_newest_batch_is_refused_whatever_was_in_it() {
    for last in ["entries", "a vote", "a truncation", "a purge"] {
        let machine = SimulatedDisk::new();
        let mut opened = open(&machine.start(), 1).await.expect("opens");
        let log = &mut opened.log_store;
        append(log, blanks(1, 0..10)).await;
        snapshot(&mut opened.state_machine, vec![blank(1, 8)]).await;
        let log = &mut opened.log_store;
        match last {
            "entries" => append(log, blanks(1, 10..12)).await,
            "a vote" => log.save_vote(&vote(3)).await.expect("durable"),
            "a truncation" => log.truncate_after(Some(id(1, 8))).await.expect("durable"),
            _ => log.purge(id(1, 5)).await.expect("accepted"),
        }
        close(opened).await;
        assert_eq!(machine.lose_log_end(1), 1);
        let refused = open(&machine.start(), 1).await.expect_err("a log that went back is refused");
        assert!(matches!(refused, OpenError::Log(RecoveryError::RolledBack { .. })), "{last}: {refused}");
        assert!(refused.to_string().contains("witness") && refused.to_string().contains("replace"), "{refused}");
        // And again: nothing was mended on the way.
        assert!(open(&machine.start(), 1).await.is_err());
    }
}

#[tokio::test]
async fn a_vote_is_witnessed_before_it_is_answered() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..3)).await;
    log.save_vote(&vote(2)).await.expect("durable");
    machine.crash(Crash::LoseUnsynced);
    assert_eq!(machine.lose_log_end(1), 1);
    let refused = open(&machine.start(), 1).await.expect_err("the vote is gone");
    assert!(matches!(refused, OpenError::Log(RecoveryError::RolledBack { .. })), "{refused}");
}

#[tokio::test]
async fn entries_are_witnessed_soon_after_and_a_crash_before_that_is_no_damage() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..3)).await;
    append(&mut log, blanks(1, 3..5)).await;
    machine.crash(Crash::LoseUnsynced);
    let mut log = open(&machine.start(), 1).await.expect("a witness that lags is right").log_store;
    assert_eq!(indexes(&mut log).await, [0, 1, 2, 3, 4]);
    let before = machine.durable_file("witness");
    append(&mut log, blanks(1, 5..6)).await;
    until(|| async { machine.durable_file("witness") != before }).await;
    machine.crash(Crash::LoseUnsynced);
    assert_eq!(machine.lose_log_end(1), 1);
    let refused = open(&machine.start(), 1).await.expect_err("by now it was witnessed");
    assert!(matches!(refused, OpenError::Log(RecoveryError::RolledBack { .. })), "{refused}");
}

#[tokio::test]
async fn a_log_without_its_witness_or_with_a_damaged_one_is_refused() {
    for damage in [|bytes: &mut Vec<u8>| bytes.clear(), |bytes: &mut Vec<u8>| bytes.iter_mut().for_each(|b| *b ^= 1)] {
        let machine = SimulatedDisk::new();
        let mut opened = open(&machine.start(), 1).await.expect("opens");
        append(&mut opened.log_store, blanks(1, 0..3)).await;
        close(opened).await;
        assert!(machine.damage_file("witness", damage));
        let refused = open(&machine.start(), 1).await.expect_err("refused");
        assert!(matches!(refused, OpenError::Log(RecoveryError::WitnessDamaged(_))), "{refused}");
        assert!(machine.lose_file("witness"));
        let refused = open(&machine.start(), 1).await.expect_err("refused");
        assert!(matches!(refused, OpenError::Log(RecoveryError::WitnessMissing)), "{refused}");
    }
}

#[tokio::test]
async fn a_log_that_vanished_is_not_taken_for_a_new_one() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    opened.log_store.save_vote(&vote(5)).await.expect("durable");
    append(&mut opened.log_store, blanks(5, 0..3)).await;
    close(opened).await;
    for key in machine.log_keys() {
        machine.lose_log_key(&key);
    }
    let refused = open(&machine.start(), 1).await.expect_err("refused");
    assert!(matches!(refused, OpenError::Log(RecoveryError::RolledBack { found: 0, .. })), "{refused}");
}

#[tokio::test]
async fn an_entry_that_came_back_from_before_a_truncation_is_found() {
    for back in [6, 7, 8] {
        let machine = SimulatedDisk::new();
        let mut opened = open(&machine.start(), 1).await.expect("opens");
        append(&mut opened.log_store, blanks(1, 0..10)).await;
        let old = machine.log_value(&key(back)).expect("there");
        opened.log_store.truncate_after(Some(id(1, 5))).await.expect("durable");
        append(&mut opened.log_store, blanks(2, 6..12)).await;
        close(opened).await;
        machine.put_log_value(&key(back), &old);
        let refused = open(&machine.start(), 1).await.expect_err("refused");
        let found = matches!(refused, OpenError::Log(RecoveryError::Record(_)));
        assert!(found, "entry {back}: {refused}");
    }
}

#[tokio::test]
async fn a_piece_that_came_back_from_before_a_truncation_is_found() {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    append(&mut opened.log_store, vec![blank(1, 0), large(1, 1, 10_000)]).await;
    let piece = [key(1)[..9].to_vec(), vec![0, 1]].concat();
    let old = machine.log_value(&piece).expect("there");
    opened.log_store.truncate_after(Some(id(1, 0))).await.expect("durable");
    // The same number of pieces, other bytes.
    let mut newer = large(2, 14, 10_000);
    newer.log_id = id(2, 1);
    append(&mut opened.log_store, vec![newer]).await;
    assert_ne!(machine.log_value(&piece), Some(old.clone()));
    close(opened).await;
    machine.put_log_value(&piece, &old);
    let refused = open(&machine.start(), 1).await.expect_err("refused");
    assert!(matches!(refused, OpenError::Log(RecoveryError::Record(RecordError::Checksum(_)))), "{refused}");
}

#[tokio::test]
async fn a_log_that_vanished_with_its_witness_is_not_taken_for_a_new_one_beside_a_snapshot() {
    for whole in [true, false] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = MemberDisk::open(folder.path()).await.expect("the folder opens");
        let mut opened = open(&disk, 1).await.expect("opens");
        opened.log_store.save_vote(&vote(5)).await.expect("durable");
        append(&mut opened.log_store, blanks(5, 0..3)).await;
        snapshot(&mut opened.state_machine, vec![blank(5, 2)]).await;
        drop(disk);
        close(opened).await;
        std::fs::remove_dir_all(folder.path().join("log")).expect("removed");
        std::fs::remove_file(folder.path().join("witness")).expect("removed");
        if !whole {
            std::fs::write(folder.path().join("snapshots/snap-5-1-2"), "not a snapshot").expect("written");
        }
        // And again: nothing was made on the way that a second start would believe.
        for _ in 0..2 {
            let disk = MemberDisk::open(folder.path()).await.expect("the folder opens");
            let refused = open(&disk, 1).await.expect_err("the vote is gone");
            assert!(matches!(refused, OpenError::LogMissing), "{refused}");
            assert!(refused.to_string().contains("sdm member replace"), "{refused}");
            let closed = disk.closed();
            drop(disk);
            closed.wait().await;
        }
    }
}
