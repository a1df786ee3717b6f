//! One sync of a folder for all who wait for it: a domain's `images/` is synced by every step that publishes something,
//! and one sync that begins after their renames makes all of them durable.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use super::StorageError;

/// A folder, by its device and inode.
pub(super) type FolderKey = (u64, u64);

/// Folders that are being synced in this process right now.
static GROUPS: Mutex<BTreeMap<FolderKey, Arc<Group>>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct Group {
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

/// Syncs of one folder, one after the other.
#[derive(Debug, Default)]
struct Rounds {
    started: u64,
    ended: u64,
    is_running: bool,
    /// The last one that failed, and how.
    failed: Option<(u64, Option<i32>)>,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns when a sync of the folder that began after this call has ended. `sync` is run by one of those who wait.
pub(super) fn sync(
    key: FolderKey,
    entry: &str,
    sync: impl FnOnce() -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let group = held(&GROUPS).entry(key).or_default().clone();
    let answer = group.join(entry, sync);
    let mut groups = held(&GROUPS);
    // The map's own and ours: nobody else waits.
    if groups.get(&key).is_some_and(|group| Arc::strong_count(group) <= 2) {
        groups.remove(&key);
    }
    answer
}

impl Group {
    fn join(&self, entry: &str, sync: impl FnOnce() -> Result<(), StorageError>) -> Result<(), StorageError> {
        let mut rounds = held(&self.rounds);
        // One that runs already may have begun before the caller's rename.
        let wanted = rounds.started + 1;
        while rounds.is_running && rounds.ended < wanted {
            rounds = self.ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
        }
        if rounds.ended >= wanted {
            return match rounds.failed {
                Some((round, code)) if round >= wanted => {
                    let error = code.map_or_else(|| io::Error::other("a sync failed"), io::Error::from_raw_os_error);
                    Err(StorageError::new("fsync", entry, error))
                }
                _ => Ok(()),
            };
        }
        rounds.started += 1;
        rounds.is_running = true;
        let round = rounds.started;
        drop(rounds);
        let answer = sync();
        let mut rounds = held(&self.rounds);
        rounds.is_running = false;
        rounds.ended = round;
        if let Err(error) = &answer {
            rounds.failed = Some((round, error.source.raw_os_error()));
        }
        self.ended.notify_all();
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc;

    use super::*;

    /// One sync runs while others come; they share the next one.
    #[test]
    fn those_who_come_during_a_sync_share_the_next_one_and_its_failure() {
        for fails in [false, true] {
            let key = (u64::MAX, u64::from(fails));
            let syncs = Arc::new(AtomicU64::new(0));
            let (began, has_begun) = mpsc::channel();
            let (go_on, may_go_on) = mpsc::channel::<()>();
            let first = std::thread::spawn(move || {
                sync(key, "a", || {
                    began.send(()).expect("heard");
                    may_go_on.recv().expect("told");
                    Ok(())
                })
            });
            has_begun.recv().expect("it runs");
            let others: Vec<_> = (0..8)
                .map(|_| {
                    let syncs = syncs.clone();
                    std::thread::spawn(move || {
                        sync(key, "a", || {
                            syncs.fetch_add(1, Ordering::SeqCst);
                            let failure = || StorageError::new("fsync", "a", io::Error::from_raw_os_error(5));
                            if fails { Err(failure()) } else { Ok(()) }
                        })
                    })
                })
                .collect();
            // All of them wait: the map's handle, the first one's, and theirs.
            while held(&GROUPS).get(&key).is_none_or(|group| Arc::strong_count(group) < 10) {
                std::thread::yield_now();
            }
            go_on.send(()).expect("heard");
            assert!(first.join().expect("no panic").is_ok());
            let answers: Vec<_> = others.into_iter().map(|other| other.join().expect("no panic")).collect();
            assert!(answers.iter().all(|answer| answer.is_err() == fails));
            let syncs = syncs.load(Ordering::SeqCst);
            assert!((1..8).contains(&syncs), "{syncs} syncs for 8 who waited");
            assert!(held(&GROUPS).get(&key).is_none(), "nobody waits, nothing is kept");
        }
    }
}
