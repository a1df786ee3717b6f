//! The bytes of a segment: a head and records. Numbers are little-endian.
//!
//! ```text
//! segment := head · record*
//! head    := "sdmlog" · version u16 · number u64 · oldest u64 · first record u64 · made bytes u64 ·
//!            crc32c(all before) u32
//! record  := length of changes u32 · crc32c(segment number, record number, changes) u32 · number u64 · changes
//! change  := 1 · key length u8 · value length u32 · key · value
//!          | 2 · from length u8 · to length u8 · from · to
//! ```

use crate::disk::Batch;
use crate::disk::Change;
use std::io;
use std::ops::Range;

/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = 44;

/// Bytes of a record before its changes.
pub(super) const RECORD_FRONT: usize = 16;

const MAGIC: &[u8; 6] = b"sdmlog";
const VERSION: u16 = 1;

const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;

/// What a segment's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its own number, which its name has, too.
    pub(super) number: u64,
    /// The first segment that was needed when this one was made.
    pub(super) oldest: u64,
    /// The number of its first record.
    pub(super) first_record: u64,
    /// Bytes that it had when it got its name: they were durable, and are never taken for torn.
    pub(super) made_bytes: u64,
}

/// Why bytes are no head or no record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// They are not what was written.
    Damaged,
    /// A newer version of sdm wrote them.
    Version(u16),
}

impl Head {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.oldest.to_le_bytes());
        bytes.extend_from_slice(&self.first_record.to_le_bytes());
        bytes.extend_from_slice(&self.made_bytes.to_le_bytes());
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (head, _) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(Unreadable::Damaged)?;
        let (said, mut sum) = head.split_at(HEAD_BYTES - 4);
        let mut rest = said.strip_prefix(MAGIC).ok_or(Unreadable::Damaged)?;
        if number::<4>(&mut sum) != Some(u64::from(crc32c::crc32c(said))) {
            return Err(Unreadable::Damaged);
        }
        let mut next = |of: fn(&mut &[u8]) -> Option<u64>| of(&mut rest).ok_or(Unreadable::Damaged);
        let version = u16::try_from(next(number::<2>)?).unwrap_or(u16::MAX);
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        Ok(Head {
            number: next(number::<8>)?,
            oldest: next(number::<8>)?,
            first_record: next(number::<8>)?,
            made_bytes: next(number::<8>)?,
        })
    }
}

/// Takes a number of so many bytes off the front.
fn number<const N: usize>(from: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    let mut wide = [0; 8];
    wide.get_mut(..N)?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(wide))
}

fn checksum(segment: u64, record: u64, changes: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), &record.to_le_bytes());
    crc32c::crc32c_append(sum, changes)
}

/// Appends the record of a batch to `to`.
///
/// # Errors
/// A key or a value is too long.
pub(super) fn put_record(to: &mut Vec<u8>, segment: u64, record: u64, batch: &Batch) -> io::Result<()> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "a key or a value is too long for the log");
    let short = |length: usize| u8::try_from(length).map_err(|_| too_long());
    let start = to.len();
    to.resize(start + RECORD_FRONT, 0);
    for change in batch.changes() {
        match change {
            Change::Put { key, value } => {
                to.extend_from_slice(&[PUT, short(key.len())?]);
                to.extend_from_slice(&u32::try_from(value.len()).map_err(|_| too_long())?.to_le_bytes());
                to.extend_from_slice(key);
                to.extend_from_slice(value);
            }
            Change::DeleteRange { from, to: end } => {
                to.extend_from_slice(&[DELETE_RANGE, short(from.len())?, short(end.len())?]);
                to.extend_from_slice(from);
                to.extend_from_slice(end);
            }
        }
    }
    let Some((front, changes)) = to.get_mut(start..).and_then(|bytes| bytes.split_first_chunk_mut::<RECORD_FRONT>())
    else {
        return Err(too_long());
    };
    let length = u32::try_from(changes.len()).map_err(|_| too_long())?;
    let sum = checksum(segment, record, changes);
    let fields = length.to_le_bytes().into_iter().chain(sum.to_le_bytes()).chain(record.to_le_bytes());
    front.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
    Ok(())
}

/// The record of this number at the front of some bytes: where its changes lie in them. None when
/// there is no whole one.
pub(super) fn read_record(bytes: &[u8], segment: u64, record: u64) -> Option<Range<usize>> {
    let mut front = bytes;
    let length = usize::try_from(number::<4>(&mut front)?).ok()?;
    let sum = number::<4>(&mut front)?;
    if number::<8>(&mut front)? != record {
        return None;
    }
    let changes = front.get(..length)?;
    // A record has at least one change; nothing but zeros is none.
    let whole = length > 0 && u64::from(checksum(segment, record, changes)) == sum;
    whole.then_some(RECORD_FRONT..RECORD_FRONT + length)
}

/// Whether a whole record of a number after `record` begins anywhere in these bytes.
pub(super) fn has_later_record(bytes: &[u8], segment: u64, record: u64) -> bool {
    let later = |at: &[u8]| {
        let number = at.get(8..).and_then(|mut from| number::<8>(&mut from));
        // A segment holds fewer records than bytes; a number far off is none of its own.
        number.filter(|number| *number > record && number - record <= bytes.len() as u64)
    };
    (0..bytes.len()).filter_map(|at| bytes.get(at..)).any(|at| match later(at) {
        Some(number) => read_record(at, segment, number).is_some(),
        None => false,
    })
}

/// One change of a record, as it lies in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written<'a> {
    Put { key: &'a [u8], value: Range<usize> },
    DeleteRange { from: &'a [u8], to: &'a [u8] },
}

/// Shows the changes of a record in order; ranges of values count from the start of `changes`.
///
/// # Errors
/// They do not read as changes.
pub(super) fn each_change(changes: &[u8], mut visit: impl FnMut(Written<'_>)) -> Result<(), Unreadable> {
    let mut rest = changes;
    while !rest.is_empty() {
        visit(next_change(&mut rest, changes.len()).ok_or(Unreadable::Damaged)?);
    }
    Ok(())
}

fn next_change<'a>(rest: &mut &'a [u8], length: usize) -> Option<Written<'a>> {
    let kind = number::<1>(rest)?;
    let first = usize::try_from(number::<1>(rest)?).ok()?;
    let take = |bytes: u64, rest: &mut &'a [u8]| {
        let (taken, left) = rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        *rest = left;
        Some::<&'a [u8]>(taken)
    };
    if u8::try_from(kind).ok()? == PUT {
        let value = number::<4>(rest)?;
        let key = take(first as u64, rest)?;
        let start = length - rest.len();
        let value = take(value, rest)?;
        return Some(Written::Put { key, value: start..start + value.len() });
    }
    if u8::try_from(kind).ok()? == DELETE_RANGE {
        let second = number::<1>(rest)?;
        let from = take(first as u64, rest)?;
        return Some(Written::DeleteRange { from, to: take(second, rest)? });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.put(b"a".as_slice(), b"one".as_slice());
        batch.delete_range(b"b".as_slice(), b"cc".as_slice());
        batch.put(b"d".as_slice(), Vec::new());
        batch
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let mut bytes = vec![9; 3];
        put_record(&mut bytes, 4, 17, &batch()).expect("small");
        let record = &bytes[3..];
        let changes = &record[read_record(record, 4, 17).expect("whole")];
        let mut found = Vec::new();
        each_change(changes, |change| match change {
            Written::Put { key, value } => found.push((key.to_vec(), changes[value].to_vec())),
            Written::DeleteRange { from, to } => found.push((from.to_vec(), to.to_vec())),
        })
        .expect("readable");
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"one"), (b"b", b"cc"), (b"d", b"")];
        assert_eq!(found, expected.map(|(a, b)| (a.to_vec(), b.to_vec())));
    }

    #[test]
    fn a_changed_byte_another_place_or_a_missing_end_is_no_record() {
        let mut bytes = Vec::new();
        put_record(&mut bytes, 4, 17, &batch()).expect("small");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            assert_eq!(read_record(&damaged, 4, 17), None, "byte {at}");
            assert_eq!(read_record(&bytes[..at], 4, 17), None, "cut at {at}");
        }
        assert_eq!(read_record(&bytes, 5, 17), None);
        assert_eq!(read_record(&bytes, 4, 18), None);
        assert_eq!(read_record(&[0; 64], 4, 0), None);
    }

    #[test]
    fn a_later_record_is_found_behind_anything() {
        let mut bytes = vec![7; 33];
        put_record(&mut bytes, 4, 19, &batch()).expect("small");
        assert!(has_later_record(&bytes, 4, 18));
        assert!(!has_later_record(&bytes, 4, 19));
        assert!(!has_later_record(&bytes[..bytes.len() - 1], 4, 18));
    }

    #[test]
    fn a_head_of_a_newer_version_is_told_from_a_damaged_one() {
        let head = Head { number: 8, oldest: 3, first_record: 77, made_bytes: 99 };
        let bytes = head.bytes();
        assert_eq!(bytes.len(), HEAD_BYTES);
        assert_eq!(Head::read(&bytes), Ok(head));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Head::read(&damaged), Err(Unreadable::Damaged), "byte {at}");
        }
        let mut newer = bytes[..HEAD_BYTES - 4].to_vec();
        newer[6] = 9;
        let sum = crc32c::crc32c(&newer);
        newer.extend_from_slice(&sum.to_le_bytes());
        assert_eq!(Head::read(&newer), Err(Unreadable::Version(9)));
    }
}
