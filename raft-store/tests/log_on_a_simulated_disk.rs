//! The log's promises, on a disk that forgets what was not synced and fails when told to.

mod common;

use common::append;
use common::blank;
use common::blanks;
use common::id;
use common::indexes;
use common::key;
use common::large;
use common::open;
use common::read;
use common::saved_vote;
use common::settle;
use common::snapshot;
use common::submit;
use common::until;
use common::vote;
use futures_util::TryStreamExt;
use openraft::storage::RaftLogReader;
use openraft::storage::RaftLogStorage;
use sdm_raft_store::OpenError;
use sdm_raft_store::Opened;
use sdm_raft_store::SimulatedDisk;
use sdm_raft_store::disk::Crash;
use sdm_raft_store::log::RecordError;
use sdm_raft_store::log::RecoveryError;
use std::io;
use std::time::Duration;

#[tokio::test]
async fn entries_are_readable_at_once_and_acknowledged_only_after_the_sync() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..1)).await;
    machine.hold_syncs();
    let mut first = submit(&mut log, blanks(1, 1..3)).await;
    let mut second = submit(&mut log, blanks(1, 3..4)).await;
    settle().await;
    assert!(first.try_recv().is_err() && second.try_recv().is_err(), "acknowledged before the sync");
    assert_eq!(indexes(&mut log).await, [0, 1, 2, 3]);
    machine.release_syncs();
    first.await.expect("told").expect("durable");
    second.await.expect("told").expect("durable");
}

#[tokio::test]
async fn acknowledgements_come_in_the_order_of_the_writes() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    let (order, mut told) = tokio::sync::mpsc::unbounded_channel();
    for index in 0..50 {
        let finished = submit(&mut log, vec![blank(1, index)]).await;
        let order = order.clone();
        tokio::spawn(async move {
            finished.await.expect("told").expect("durable");
            order.send(index).expect("the test listens");
        });
    }
    drop(order);
    let mut seen = Vec::new();
    while let Some(index) = told.recv().await {
        seen.push(index);
    }
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn writes_that_wait_share_one_sync() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..1)).await;
    machine.hold_syncs();
    let before = machine.commits();
    let mut last = submit(&mut log, blanks(1, 1..2)).await;
    settle().await;
    for index in 2..200 {
        last = submit(&mut log, vec![blank(1, index)]).await;
    }
    machine.release_syncs();
    last.await.expect("told").expect("durable");
    assert_eq!(machine.commits() - before, 2, "the first one, and all that waited behind it");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash_and_the_rest_may_go() {
    for crash in [Crash::LoseUnsynced, Crash::KeepUnsynced] {
        let machine = SimulatedDisk::new();
        let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
        log.save_vote(&vote(3)).await.expect("durable");
        append(&mut log, blanks(3, 0..10)).await;
        machine.hold_syncs();
        let lost = submit(&mut log, blanks(3, 10..20)).await;
        settle().await;
        machine.crash(crash);
        assert!(lost.await.expect("told").is_err(), "acknowledged although the machine crashed");
        let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
        assert_eq!(saved_vote(&mut log).await, Some(vote(3)));
        let kept = if crash == Crash::KeepUnsynced { 20 } else { 10 };
        assert_eq!(indexes(&mut log).await, (0..kept).collect::<Vec<_>>());
        append(&mut log, blanks(4, kept..kept + 1)).await;
    }
}

#[tokio::test]
async fn a_vote_returns_only_once_it_is_durable() {
    // openraft writes entries of the vote's term only after it returned.
    for kept in 0..3 {
        let machine = SimulatedDisk::new();
        let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
        append(&mut log, blanks(1, 0..1)).await;
        machine.hold_syncs();
        let voter = tokio::spawn(async move {
            let saved = log.save_vote(&vote(7)).await;
            (log, saved)
        });
        settle().await;
        machine.crash(Crash::Tear(kept));
        let (_, saved) = voter.await.expect("no panic");
        assert!(saved.is_err(), "returned before it was durable");
        let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
        let voted = saved_vote(&mut log).await == Some(vote(7));
        assert_eq!(voted, kept >= 1);
    }
}

#[tokio::test]
async fn a_vote_is_never_durable_before_the_entries_that_were_queued_in_front_of_it() {
    for kept in 0..8 {
        let machine = SimulatedDisk::new();
        let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
        append(&mut log, blanks(1, 0..1)).await;
        machine.hold_syncs();
        // The first is being written; the others and the vote wait behind it and share a batch.
        let mut told = vec![submit(&mut log, blanks(1, 1..2)).await];
        settle().await;
        for index in 2..5 {
            told.push(submit(&mut log, vec![blank(1, index)]).await);
        }
        let voter = tokio::spawn(async move { log.save_vote(&vote(7)).await });
        settle().await;
        // The first batch has an entry and the marks, the second three entries and the marks.
        machine.release_one_sync();
        settle().await;
        machine.crash(Crash::Tear(kept));
        assert!(voter.await.expect("no panic").is_err());
        let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
        let found = indexes(&mut log).await;
        let voted = saved_vote(&mut log).await == Some(vote(7));
        assert_eq!(voted, kept >= 4);
        assert_eq!(found.len(), if voted { 5 } else { 2 });
    }
}

#[tokio::test]
async fn a_torn_batch_is_cut_off_at_what_was_acknowledged() {
    for kept in 0..7 {
        let machine = SimulatedDisk::new();
        let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
        append(&mut log, blanks(1, 0..5)).await;
        machine.hold_syncs();
        let torn = submit(&mut log, blanks(1, 5..10)).await;
        settle().await;
        machine.crash(Crash::Tear(kept));
        assert!(torn.await.expect("told").is_err());
        let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
        // Five entries, then the mark that makes them count.
        let whole = if kept >= 6 { 10 } else { 5 };
        assert_eq!(indexes(&mut log).await, (0..whole).collect::<Vec<_>>());
        append(&mut log, blanks(2, whole..whole + 1)).await;
        assert!(!machine.log_keys().contains(&key(whole + 2)), "the torn rest is removed");
    }
}

#[tokio::test]
async fn a_flipped_bit_is_found_on_opening_and_named() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..5)).await;
    assert!(machine.flip_log_bit(&key(3)));
    machine.crash(Crash::LoseUnsynced);
    let refused = open(&machine.start(), 1).await.expect_err("a damaged log is refused");
    assert!(matches!(
        refused,
        OpenError::Log(RecoveryError::Record(RecordError::Checksum(ref record))) if record == "3/0"
    ));
    assert!(refused.to_string().contains("under another name"), "{refused}");
}

#[tokio::test]
async fn every_damaged_mark_is_found_on_opening() {
    for mark in [b"mm", b"mo"] {
        let machine = SimulatedDisk::new();
        let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
        log.save_vote(&vote(1)).await.expect("durable");
        append(&mut log, blanks(1, 0..5)).await;
        log.purge(id(1, 1)).await.expect("accepted");
        append(&mut log, blanks(1, 5..6)).await;
        assert!(machine.flip_log_bit(mark));
        machine.crash(Crash::LoseUnsynced);
        let refused = open(&machine.start(), 1).await.expect_err("a damaged log is refused");
        let name = String::from_utf8_lossy(mark).into_owned();
        assert!(refused.to_string().contains(&name), "{refused}");
    }
}

#[tokio::test]
async fn lost_entries_are_found_on_opening_wherever_they_were() {
    for (lost, expected) in [(0, "4"), (2, "2"), (4, "4")] {
        let machine = SimulatedDisk::new();
        let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
        log.purge(id(1, 9)).await.expect("accepted");
        append(&mut log, blanks(1, 10..15)).await;
        assert!(machine.lose_log_key(&key(10 + lost)));
        machine.crash(Crash::LoseUnsynced);
        let refused = open(&machine.start(), 1).await.expect_err("a log with a hole is refused");
        assert!(refused.to_string().contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn a_log_without_its_marks_is_refused() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..5)).await;
    assert!(machine.lose_log_key(b"mm"));
    machine.crash(Crash::LoseUnsynced);
    assert!(open(&machine.start(), 1).await.is_err());
}

#[tokio::test]
async fn the_log_of_another_member_is_refused() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..1)).await;
    machine.crash(Crash::LoseUnsynced);
    let disk = machine.start();
    sdm_raft_store::IdentityFile::of(&disk).write(&common::identity(2)).await.expect("written");
    let refused = sdm_raft_store::open(&disk).await.expect_err("refused");
    assert!(matches!(refused, OpenError::Log(RecoveryError::Owner { .. })), "{refused}");
}

#[tokio::test]
async fn a_disk_without_an_identity_is_refused() {
    let refused = sdm_raft_store::open(&SimulatedDisk::new().start()).await.expect_err("refused");
    assert!(matches!(refused, OpenError::NoIdentity), "{refused}");
}

#[tokio::test]
async fn a_gap_and_an_older_leader_are_refused_and_change_nothing() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    for (entries, next) in [(blanks(1, 1..2), 0), (vec![blank(1, 0), blank(1, 2)], 1)] {
        let refused = log.append(entries, sdm_raft_store::IoFlushed::noop()).await.expect_err("a gap");
        assert!(refused.to_string().contains(&format!("the next one is {next}")), "{refused}");
    }
    append(&mut log, blanks(1, 0..3)).await;
    for index in [2, 4] {
        let entries = vec![blank(1, index)];
        let refused = log.append(entries, sdm_raft_store::IoFlushed::noop()).await.expect_err("a gap");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
    let old_leader = log.append(blanks(0, 3..4), sdm_raft_store::IoFlushed::noop()).await;
    assert_eq!(old_leader.expect_err("out of order").kind(), io::ErrorKind::InvalidInput);
    assert_eq!(indexes(&mut log).await, [0, 1, 2]);
}

#[tokio::test]
async fn the_first_failed_sync_ends_the_log_for_good() {
    let machine = SimulatedDisk::new();
    let opened = open(&machine.start(), 1).await.expect("opens");
    let (mut log, fatal) = (opened.log_store, opened.fatal);
    append(&mut log, blanks(1, 0..3)).await;
    machine.fail_syncs(io::ErrorKind::Other);
    let failed = submit(&mut log, blanks(1, 3..4)).await;
    assert!(failed.await.expect("told").is_err());
    assert!(fatal.wait().await.to_string().contains("check the disk"));
    // The disk seems well again; what it did in between is not known.
    machine.heal();
    assert!(log.append(blanks(1, 4..5), sdm_raft_store::IoFlushed::noop()).await.is_err());
    assert!(log.save_vote(&vote(9)).await.is_err());
    assert!(log.truncate_after(Some(id(1, 1))).await.is_err());
    assert!(log.purge(id(1, 1)).await.is_err());
}

#[tokio::test]
async fn a_full_disk_fails_all_who_wait_and_says_what_to_do() {
    let machine = SimulatedDisk::new();
    let opened = open(&machine.start(), 1).await.expect("opens");
    let mut log = opened.log_store;
    append(&mut log, blanks(1, 0..3)).await;
    machine.limit_space(1000);
    let mut waiting = Vec::new();
    for index in 3..10 {
        waiting.push(submit(&mut log, vec![large(1, index, 500)]).await);
    }
    let mut failed = 0;
    for finished in waiting {
        failed += usize::from(finished.await.expect("told").is_err());
    }
    assert!(failed > 0);
    let fatal = opened.fatal.wait().await;
    assert_eq!(fatal.kind(), io::ErrorKind::StorageFull);
    assert!(fatal.to_string().contains("free space"), "{fatal}");
}

#[tokio::test]
async fn the_committed_hint_costs_no_sync_and_rides_with_the_next_write() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..10)).await;
    let before = machine.commits();
    log.save_committed(Some(id(1, 8))).await.expect("accepted");
    assert_eq!(log.read_committed().await.expect("readable"), Some(id(1, 8)));
    settle().await;
    assert_eq!(machine.commits(), before);
    append(&mut log, blanks(1, 10..11)).await;
    machine.crash(Crash::LoseUnsynced);
    let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
    assert_eq!(log.read_committed().await.expect("readable"), Some(id(1, 8)));
}

#[tokio::test]
async fn an_orderly_end_keeps_the_committed_hint() {
    let machine = SimulatedDisk::new();
    let disk = machine.start();
    let mut opened = open(&disk, 1).await.expect("opens");
    append(&mut opened.log_store, blanks(1, 0..10)).await;
    opened.log_store.save_committed(Some(id(1, 9))).await.expect("accepted");
    let closed = opened.closed.clone();
    drop((opened, disk));
    closed.wait().await;
    let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
    assert_eq!(log.read_committed().await.expect("readable"), Some(id(1, 9)));
}

#[tokio::test]
async fn a_truncation_is_durable_when_it_returns_and_new_entries_take_the_place() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..10)).await;
    log.truncate_after(Some(id(1, 5))).await.expect("durable");
    machine.crash(Crash::LoseUnsynced);
    let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
    assert_eq!(indexes(&mut log).await, [0, 1, 2, 3, 4, 5]);
    append(&mut log, blanks(2, 6..8)).await;
    machine.crash(Crash::LoseUnsynced);
    let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
    let found = read(&mut log, 5..8).await;
    assert_eq!(found, [blank(1, 5), blank(2, 6), blank(2, 7)]);
}

#[tokio::test]
async fn a_large_purge_goes_on_behind_and_survives_a_crash_in_its_middle() {
    let machine = SimulatedDisk::new();
    let Opened { mut log_store, mut state_machine, .. } = open(&machine.start(), 1).await.expect("opens");
    let log = &mut log_store;
    append(log, blanks(1, 0..5000)).await;
    snapshot(&mut state_machine, vec![blank(1, 4899)]).await;
    machine.slow_syncs(Duration::from_millis(1));
    log.purge(id(1, 4899)).await.expect("accepted");
    assert_eq!(indexes(log).await.first(), Some(&4900), "gone for readers at once");
    append(log, blanks(1, 5000..5001)).await;
    assert!(machine.log_keys().contains(&key(4899)), "the deletion is cut into pieces");
    machine.crash(Crash::LoseUnsynced);
    machine.heal();
    let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
    assert_eq!(log.get_log_state().await.expect("state").last_purged_log_id, Some(id(1, 4899)));
    assert_eq!(indexes(&mut log).await, (4900..5001).collect::<Vec<_>>());
    until(|| async { !machine.log_keys().contains(&key(4899)) }).await;
    assert!(machine.log_keys().contains(&key(4900)));
}

#[tokio::test]
async fn a_purge_beyond_the_end_moves_the_log_there() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    append(&mut log, blanks(1, 0..10)).await;
    log.purge(id(2, 50)).await.expect("accepted");
    append(&mut log, blanks(2, 51..53)).await;
    machine.crash(Crash::LoseUnsynced);
    // A log that begins after 50 needs a snapshot up to there, and there is none.
    let refused = open(&machine.start(), 1).await.expect_err("refused");
    assert!(matches!(refused, OpenError::Gap { purged: 50, .. }), "{refused}");
}

#[tokio::test]
async fn large_entries_are_cut_into_small_records_and_come_back_whole() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    let entries: Vec<_> = (0..20).map(|index| large(1, index, 256 << 10)).collect();
    append(&mut log, entries.clone()).await;
    assert!(machine.log_keys().len() > 20 * 80);
    machine.crash(Crash::LoseUnsynced);
    let mut log = open(&machine.start(), 1).await.expect("opens again").log_store;
    assert_eq!(read(&mut log, 0..20).await, entries);
    let refused =
        log.append(vec![large(1, 20, 600 << 10)], sdm_raft_store::IoFlushed::noop()).await.expect_err("too large");
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn replication_reads_are_limited_and_never_empty() {
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    let entries: Vec<_> = (0..30).map(|index| large(1, index, 100 << 10)).collect();
    append(&mut log, entries.clone()).await;
    let mut reader = log.get_log_reader().await;
    let mut next = 0;
    while next < 30 {
        let part = reader.limited_get_log_entries(next, 30).await.expect("readable");
        assert!(!part.is_empty() && part.len() <= 10, "{} entries", part.len());
        assert_eq!(part, entries[next as usize..next as usize + part.len()]);
        next += part.len() as u64;
    }
    let all: Vec<_> = reader.entries_stream(0..30).await.try_collect().await.expect("readable");
    assert_eq!(all, entries, "apply gets them all, in pieces");
}

#[tokio::test]
async fn random_writes_and_crashes_never_lose_what_was_acknowledged() {
    for seed in 0..60 {
        run_history(seed).await;
    }
}

/// A small generator, so that a failure names its seed and nothing else is needed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

async fn run_history(seed: u64) {
    let mut random = Random(seed * 2_654_435_761 + 88_172_645_463_325_252);
    let machine = SimulatedDisk::new();
    let mut log = open(&machine.start(), 1).await.expect("opens").log_store;
    // The log as it must be at least, and the newest vote that was acknowledged.
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut term = 1;
    let mut voted = None;
    for _ in 0..30 {
        match random.below(5) {
            0 | 1 => {
                let from = acknowledged.len() as u64;
                let count = 1 + random.below(40);
                append(&mut log, blanks(term, from..from + count)).await;
                acknowledged.extend(std::iter::repeat_n(term, count as usize));
            }
            2 => {
                term += 1;
                log.save_vote(&vote(term)).await.expect("durable");
                voted = Some(vote(term));
            }
            3 if !acknowledged.is_empty() => {
                let keep = random.below(acknowledged.len() as u64);
                let last = id(acknowledged[keep as usize], keep);
                log.truncate_after(Some(last)).await.expect("durable");
                acknowledged.truncate(keep as usize + 1);
            }
            _ => {
                machine.hold_syncs();
                let from = acknowledged.len() as u64;
                let lost = submit(&mut log, blanks(term, from..from + 3)).await;
                settle().await;
                machine.crash(match random.below(3) {
                    0 => Crash::LoseUnsynced,
                    1 => Crash::KeepUnsynced,
                    _ => Crash::Tear(random.below(5) as usize),
                });
                assert!(lost.await.expect("told").is_err(), "seed {seed}");
                log = open(&machine.start(), 1).await.unwrap_or_else(|error| panic!("seed {seed}: {error}")).log_store;
                let found = read(&mut log, 0..u64::MAX).await;
                let terms: Vec<u64> = found.iter().map(|entry| entry.log_id.leader_id.term).collect();
                assert!(terms.starts_with(&acknowledged), "seed {seed}");
                assert_eq!(saved_vote(&mut log).await, voted, "seed {seed}");
                acknowledged = terms;
            }
        }
    }
}
