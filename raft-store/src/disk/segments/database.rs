//! The log database: its writer, its readers, and how segments come and go.

use super::index::Index;
use super::index::Key;
use super::index::Place;
use super::record::Head;
use super::record::RECORD_FRONT;
use super::record::put_record;
use super::segment;
use crate::disk::Batch;
use crate::disk::LogDatabase;
use crate::disk::Visit;
use crate::disk::durable::sync_data;
use crate::disk::real::FolderLock;
use crate::disk::real_files::drop_cached;
use crate::disk::real_files::sync_folder;
use futures_util::future::BoxFuture;
use sdm_proto::failpoint;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// A segment that is larger is followed by another one. Purged entries give their space back a segment
/// at a time; a new one costs three syncs.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Pairs that are written anew so that the segments they lie in can go: the log's own few records,
/// and entries that were almost all purged. Each is a few KiB at most.
const CARRIED_PAIRS: usize = 64;

/// Pairs that a scan looks up at once, and bytes that it reads at once.
const SCAN_PAIRS: usize = 512;
const SCAN_BYTES: usize = 128 << 10;

/// Buffer that is kept between commits; a larger batch gets a larger one for once.
const BUFFER_BYTES: usize = 256 << 10;

/// What the database of builds before the first release left in the folder.
const SLED_FILES: [&str; 2] = ["db", "conf"];

/// Segments in a folder, with one writer.
#[derive(Debug)]
pub(in crate::disk) struct SegmentDatabase {
    folder: PathBuf,
    /// Past it a segment is full.
    segment_bytes: u64,
    /// Pairs that may be written anew for a new segment.
    carried_pairs: usize,
    shared: Mutex<Shared>,
    writer: Mutex<Writer>,
    // After the files: it lets the folder go.
    _lock: Arc<FolderLock>,
}

/// What readers need.
#[derive(Debug)]
struct Shared {
    index: Index,
    files: BTreeMap<u64, Arc<File>>,
}

/// The end of the newest segment.
#[derive(Debug)]
struct Writer {
    file: Arc<File>,
    number: u64,
    end: u64,
    /// Of the next record.
    record: u64,
    buffer: Vec<u8>,
    /// A commit failed: nobody knows what stands at the end.
    failed: bool,
}

impl SegmentDatabase {
    /// Opens or makes the database. Blocks.
    pub(in crate::disk) fn open(folder: &Path, lock: Arc<FolderLock>) -> io::Result<Self> {
        refuse_sled(folder)?;
        let numbers = segment::list(folder)?;
        for number in &numbers {
            drop_cached(&segment::path(folder, *number))?;
        }
        let Some(newest) = numbers.last().copied() else {
            return Self::create(folder, lock);
        };
        let oldest = segment::read_head(folder, newest)?.oldest;
        for number in numbers.iter().filter(|number| **number < oldest) {
            std::fs::remove_file(segment::path(folder, *number))?;
        }
        let needed: Vec<u64> = numbers.into_iter().filter(|number| *number >= oldest).collect();
        if let Some((expected, _)) = (oldest..).zip(&needed).find(|(expected, found)| expected != *found) {
            return Err(segment::missing(expected));
        }
        let (mut index, mut files) = (Index::new(oldest), BTreeMap::new());
        let mut last = None;
        let mut follows = None;
        for number in needed {
            let whole = segment::read(folder, number, follows, number == newest, &mut index)?;
            follows = Some(whole.next_record);
            let file = Arc::new(whole.file);
            files.insert(number, file.clone());
            last = Some((file, number, whole.end, whole.next_record));
        }
        sync_folder(folder)?;
        match last {
            Some(last) => Ok(Self::new(folder, lock, index, files, last)),
            None => Err(segment::missing(newest)),
        }
    }

    fn create(folder: &Path, lock: Arc<FolderLock>) -> io::Result<Self> {
        let head = Head { number: 1, oldest: 1, first_record: 1, made_bytes: 0 };
        let (file, end) = segment::create(folder, head, &Batch::default())?;
        let file = Arc::new(file);
        let files = BTreeMap::from([(1, file.clone())]);
        Ok(Self::new(folder, lock, Index::new(1), files, (file, 1, end, 1)))
    }

    fn new(
        folder: &Path,
        lock: Arc<FolderLock>,
        index: Index,
        files: BTreeMap<u64, Arc<File>>,
        (file, number, end, record): (Arc<File>, u64, u64, u64),
    ) -> Self {
        SegmentDatabase {
            folder: folder.to_owned(),
            segment_bytes: SEGMENT_BYTES,
            carried_pairs: CARRIED_PAIRS,
            shared: Mutex::new(Shared { index, files }),
            writer: Mutex::new(Writer { file, number, end, record, buffer: Vec::new(), failed: false }),
            _lock: lock,
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, batch: &Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut writer.failed, true) {
            return Err(io::Error::other("an earlier write to the log failed"));
        }
        if writer.end >= self.segment_bytes {
            self.begin_segment(&mut writer)?;
        }
        failpoint::hit("log.write.before")?;
        let mut buffer = std::mem::take(&mut writer.buffer);
        buffer.clear();
        put_record(&mut buffer, writer.number, writer.record, batch)?;
        writer.file.write_all_at(&buffer, writer.end)?;
        failpoint::hit("log.write.after")?;
        sync(&writer.file)?;
        let changes = buffer.get(RECORD_FRONT..).unwrap_or_default();
        let taken = self.shared().index.take(writer.number, writer.end + RECORD_FRONT as u64, changes);
        taken.map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a key is too long for the log"))?;
        writer.end += buffer.len() as u64;
        writer.record += 1;
        buffer.shrink_to(BUFFER_BYTES);
        writer.buffer = buffer;
        writer.failed = false;
        Ok(())
    }

    /// Begins a new segment, and removes those that nothing lives in any more.
    fn begin_segment(&self, writer: &mut Writer) -> io::Result<()> {
        let (oldest, pairs) = self.shared().index.carried(self.carried_pairs);
        let mut carried = Batch::default();
        let mut window = Window::default();
        for (key, segment, place) in &pairs {
            let file = self.shared().files.get(segment).cloned().ok_or_else(|| segment::missing(*segment))?;
            carried.put(key.bytes(), window.read(*segment, &file, place)?);
        }
        let number = writer.number + 1;
        let head = Head { number, oldest: oldest.unwrap_or(number), first_record: writer.record, made_bytes: 0 };
        failpoint::hit("log.segment.before")?;
        let (file, end) = segment::create(&self.folder, head, &carried)?;
        failpoint::hit("log.segment.after")?;
        let (file, removed) = {
            let mut shared = self.shared();
            let file = Arc::new(file);
            shared.files.insert(number, file.clone());
            let needed = shared.files.split_off(&head.oldest);
            (file, std::mem::replace(&mut shared.files, needed))
        };
        *writer = Writer {
            file,
            number,
            end,
            record: writer.record,
            buffer: std::mem::take(&mut writer.buffer),
            failed: true,
        };
        if !carried.is_empty() {
            let mut record = Vec::new();
            put_record(&mut record, number, writer.record, &carried)?;
            let changes = record.get(RECORD_FRONT..).unwrap_or_default();
            let at = end - record.len() as u64 + RECORD_FRONT as u64;
            let taken = self.shared().index.take(number, at, changes);
            taken.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a pair could not be carried on"))?;
            writer.record += 1;
        }
        for number in removed.into_keys() {
            std::fs::remove_file(segment::path(&self.folder, number))?;
        }
        Ok(())
    }
}

fn sync(file: &File) -> io::Result<()> {
    failpoint::hit("log.fdatasync.before")?;
    if !failpoint::skips("log.fdatasync") {
        sync_data(file)?;
    }
    failpoint::hit("log.fdatasync.after")
}

/// sled was the log's database before the first release. Its folder must not be taken for an empty one.
fn refuse_sled(folder: &Path) -> io::Result<()> {
    if !SLED_FILES.iter().all(|name| folder.join(name).exists()) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "a build before the first release wrote it, with another database: remove this member from the cluster and \
         add it anew on an empty folder, one member at a time, or restore the cluster from a backup that the earlier \
         build makes",
    ))
}

/// Bytes of one segment that were read ahead.
#[derive(Default)]
struct Window {
    segment: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// A value. Reads on behind it, since the next one most likely lies there.
    fn read(&mut self, segment: u64, file: &File, place: &Place) -> io::Result<&[u8]> {
        let (offset, length) = (u64::from(place.offset), place.length as usize);
        let end = offset + u64::from(place.length);
        if segment != self.segment || offset < self.start || end > self.start + self.bytes.len() as u64 {
            (self.segment, self.start) = (segment, offset);
            self.bytes.resize(length.max(SCAN_BYTES), 0);
            let mut filled = 0;
            while filled < length {
                let rest = self.bytes.get_mut(filled..).unwrap_or_default();
                match file.read_at(rest, offset + filled as u64) {
                    Ok(0) => return Err(io::Error::new(io::ErrorKind::InvalidData, "a segment ends early")),
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.bytes.truncate(filled);
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..from + length).unwrap_or_default())
    }
}

impl LogDatabase for SegmentDatabase {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { self.write(&batch) })
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "a key is too long for the log");
        let mut from = Bound::Included(Key::new(from).ok_or_else(too_long)?);
        let to = Key::new(to).ok_or_else(too_long)?;
        let mut window = Window::default();
        loop {
            let pairs: Vec<_> = {
                let shared = self.shared();
                let found = shared.index.range(from, to, SCAN_PAIRS);
                let with_file = |(key, segment, place)| {
                    let file = shared.files.get(&segment).cloned().ok_or_else(|| segment::missing(segment))?;
                    Ok((key, segment, place, file))
                };
                found.into_iter().map(with_file).collect::<io::Result<_>>()?
            };
            let Some((last, ..)) = pairs.last() else { return Ok(()) };
            from = Bound::Excluded(*last);
            for (key, segment, place, file) in &pairs {
                if visit(key.bytes(), window.read(*segment, file, place)?).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::member_disk::Closed;
    use crate::disk::real::lock_for_test;
    use std::ops::ControlFlow;

    type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

    fn open(folder: &Path) -> io::Result<SegmentDatabase> {
        let (guard, _) = Closed::pair();
        let lock = lock_for_test(folder, guard);
        let log = folder.join("log");
        std::fs::create_dir_all(&log)?;
        let mut database = SegmentDatabase::open(&log, Arc::new(lock))?;
        (database.segment_bytes, database.carried_pairs) = (2_000, 3);
        Ok(database)
    }

    fn entry(index: u64) -> Vec<u8> {
        [b"l".as_slice(), &index.to_be_bytes()].concat()
    }

    fn all(database: &SegmentDatabase) -> Pairs {
        let mut pairs = Pairs::new();
        let show = &mut |key: &[u8], value: &[u8]| {
            pairs.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        };
        database.scan(b"", &[0xff; 4], show).expect("readable");
        pairs
    }

    /// A log as it goes: entries come, the marks change, old entries are purged in pieces.
    fn grow(database: &SegmentDatabase, from: u64, to: u64, expected: &mut Pairs) {
        for index in from..to {
            let mut batch = Batch::default();
            let purged = index.saturating_sub(40) / 10 * 10;
            batch.delete_range(entry(0), entry(purged));
            expected.retain(|key, _| *key >= entry(purged));
            for (key, value) in
                [(entry(index), vec![7; 100 + index as usize % 50]), (b"mm".to_vec(), vec![index as u8; 60])]
            {
                batch.put(key.clone(), value.clone());
                expected.insert(key, value);
            }
            database.write(&batch).expect("written");
        }
    }

    fn segments(folder: &Path) -> Vec<u64> {
        segment::list(&folder.join("log")).expect("listed")
    }

    #[test]
    fn purged_segments_go_and_what_lives_stays_over_any_number_of_starts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut expected = Pairs::from([(b"mo".to_vec(), b"owner".to_vec())]);
        let mut first = Batch::default();
        first.put(b"mo".as_slice(), b"owner".as_slice());
        open(folder.path()).expect("opens").write(&first).expect("written");
        for round in 0..20 {
            let database = open(folder.path()).expect("opens again");
            assert_eq!(all(&database), expected, "round {round}");
            grow(&database, round * 50, round * 50 + 50, &mut expected);
            assert_eq!(all(&database), expected, "round {round}");
        }
        let left = segments(folder.path());
        assert!(left.len() < 10 && left.first() > Some(&50), "{left:?}");
    }

    #[test]
    fn a_record_that_was_not_written_whole_is_removed_and_the_log_goes_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut expected = Pairs::new();
        grow(&open(folder.path()).expect("opens"), 0, 30, &mut expected);
        let newest = segment::path(&folder.path().join("log"), *segments(folder.path()).last().expect("one"));
        let whole = std::fs::read(&newest).expect("readable");
        for torn in [vec![0; 5_000], vec![3; 9], whole[HEAD_TO..HEAD_TO + 20].to_vec()] {
            std::fs::write(&newest, [whole.clone(), torn].concat()).expect("written");
            assert_eq!(all(&open(folder.path()).expect("opens")), expected);
            assert_eq!(std::fs::read(&newest).expect("readable"), whole);
        }
        grow(&open(folder.path()).expect("opens"), 30, 60, &mut expected);
        assert_eq!(all(&open(folder.path()).expect("opens")), expected);
    }

    const HEAD_TO: usize = super::super::record::HEAD_BYTES;

    #[test]
    fn damage_in_front_of_a_whole_record_and_missing_segments_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut expected = Pairs::new();
        grow(&open(folder.path()).expect("opens"), 0, 100, &mut expected);
        let numbers = segments(folder.path());
        assert!(numbers.len() > 2);
        for (at, number) in numbers.iter().enumerate() {
            let path = segment::path(&folder.path().join("log"), *number);
            let whole = std::fs::read(&path).expect("readable");
            let mut damaged = whole.clone();
            damaged[HEAD_TO + 20] ^= 1;
            std::fs::write(&path, damaged).expect("written");
            match open(folder.path()).map(drop) {
                Err(error) => {
                    let refused = error.to_string();
                    assert!(refused.contains(&format!("{number:010} is damaged at byte {HEAD_TO}")), "{refused}");
                }
                // The last record of all may be torn, and the first one of the newest may be the last.
                Ok(()) => assert_eq!(at + 1, numbers.len()),
            }
            std::fs::remove_file(&path).expect("removed");
            let opened = open(folder.path());
            // Without the newest the log is an older one, which its witness knows.
            assert!(at + 1 == numbers.len() || opened.is_err(), "{number}");
            std::fs::write(&path, whole).expect("written");
        }
        assert_eq!(all(&open(folder.path()).expect("opens")), expected);
    }

    #[test]
    fn after_a_write_that_failed_nothing_is_written_any_more() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = open(folder.path()).expect("opens");
        let mut batch = Batch::default();
        batch.put(vec![1; 40], vec![2]);
        assert!(database.write(&batch).is_err(), "its key is too long");
        grow_fails(&database);
    }

    fn grow_fails(database: &SegmentDatabase) {
        let mut batch = Batch::default();
        batch.put(b"mm".as_slice(), vec![2]);
        assert!(database.write(&batch).expect_err("no more").to_string().contains("earlier write"));
    }
}
