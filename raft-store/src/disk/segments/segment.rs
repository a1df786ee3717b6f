//! One segment's file: its name, making it, reading it whole.

use super::index::Index;
use super::record::HEAD_BYTES;
use super::record::Head;
use super::record::Unreadable;
use super::record::has_later_record;
use super::record::put_record;
use super::record::read_record;
use crate::disk::Batch;
use crate::disk::durable::sync_all;
use crate::disk::real_files::sync_folder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

/// How a segment's name begins; its number follows.
const PREFIX: &str = "segment-";

/// A segment that is being made.
const TEMPORARY: &str = "segment.tmp";

fn name(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

/// The path of a segment.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(name(number))
}

/// The numbers of all segments in a folder, in order. One that was being made is removed: it held
/// nothing that the others do not.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == TEMPORARY {
            std::fs::remove_file(folder.join(TEMPORARY))?;
        }
        let number = name.strip_prefix(PREFIX).map(str::parse);
        if let Some(Ok(number)) = number {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What stands at some place of a segment cannot be believed.
fn damaged(number: u64, at: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged at byte {at}", name(number)))
}

fn unreadable(number: u64, at: usize, why: &Unreadable) -> io::Error {
    match why {
        Unreadable::Damaged => damaged(number, at),
        Unreadable::Version(version) => io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{} has format {version}: a newer version of sdm wrote it", name(number)),
        ),
    }
}

/// A segment that is missing.
pub(super) fn missing(number: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is missing", name(number)))
}

/// Makes a segment with what it begins with (the head's `made_bytes` follow from it). It has its name, durably, only once it is whole.
pub(super) fn create(folder: &Path, head: Head, carried: &Batch) -> io::Result<(File, u64)> {
    let mut record = Vec::new();
    if !carried.is_empty() {
        put_record(&mut record, head.number, head.first_record, carried)?;
    }
    let made_bytes = (HEAD_BYTES + record.len()) as u64;
    let mut bytes = Head { made_bytes, ..head }.bytes();
    bytes.extend_from_slice(&record);
    let temporary = folder.join(TEMPORARY);
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).to_owned();
    let mut file = options.open(&temporary)?;
    file.write_all(&bytes)?;
    sync_all(&file)?;
    std::fs::rename(&temporary, path(folder, head.number))?;
    sync_folder(folder)?;
    Ok((file, bytes.len() as u64))
}

/// The head of a segment.
pub(super) fn read_head(folder: &Path, number: u64) -> io::Result<Head> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    File::open(path(folder, number))?.take(HEAD_BYTES as u64).read_to_end(&mut bytes)?;
    let head = Head::read(&bytes).map_err(|why| unreadable(number, 0, &why))?;
    if head.number == number && head.oldest <= number { Ok(head) } else { Err(damaged(number, 0)) }
}

/// A segment that was read.
pub(super) struct Whole {
    pub(super) file: File,
    /// Where the next record goes.
    pub(super) end: u64,
    /// The number of that record.
    pub(super) next_record: u64,
}

/// Reads a segment into the index. `follows` is the number that its first record must have, where that
/// is known. Only the newest may end in a record that is not whole: that one is cut off.
pub(super) fn read(
    folder: &Path,
    number: u64,
    follows: Option<u64>,
    newest: bool,
    index: &mut Index,
) -> io::Result<Whole> {
    let head = read_head(folder, number)?;
    if follows.is_some_and(|follows| follows != head.first_record) {
        // The one before ended early, or this one is of another time.
        return Err(damaged(number, 0));
    }
    let mut file = OpenOptions::new().read(true).write(true).open(path(folder, number))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < head.made_bytes {
        return Err(damaged(number, bytes.len()));
    }
    let (mut at, mut record) = (HEAD_BYTES, head.first_record);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(changes) = read_record(rest, number, record) else {
            let durable = (at as u64) < head.made_bytes;
            if !newest || durable || has_later_record(rest, number, record) {
                return Err(damaged(number, at));
            }
            tracing::warn!(segment = number, at, bytes = rest.len(), "removing a record that was not written whole");
            file.set_len(at as u64)?;
            sync_all(&file)?;
            break;
        };
        let start = at + changes.start;
        let changes = rest.get(changes).unwrap_or_default();
        index.take(number, start as u64, changes).map_err(|why| unreadable(number, at, &why))?;
        at = start + changes.len();
        record += 1;
    }
    Ok(Whole { file, end: at as u64, next_record: record })
}
