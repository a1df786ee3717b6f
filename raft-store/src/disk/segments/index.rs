//! Where each pair of the log database lies, and how many live in each segment.

use super::record::Unreadable;
use super::record::Written;
use super::record::each_change;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::ops::Range;

/// Longest key. Short enough to lie in the index itself: a log may have a million pairs.
const KEY_BYTES_MAX: usize = 15;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    // Compared first; what lies behind the end is zero, and the length decides between the rest.
    bytes: [u8; KEY_BYTES_MAX],
    length: u8,
}

impl Key {
    /// None: it is too long.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Key { bytes, length: u8::try_from(key.len()).ok()? })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Counted from the first segment that was ever indexed.
    segment: u32,
    /// In its file.
    pub(super) offset: u32,
    /// Its bytes.
    pub(super) length: u32,
}

/// All pairs.
#[derive(Default)]
pub(super) struct Index {
    places: BTreeMap<Key, Place>,
    base: u64,
    /// Pairs in each segment that has any.
    live: BTreeMap<u64, usize>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("pairs", &self.places.len()).field("live", &self.live).finish()
    }
}

impl Index {
    /// For segments from this one on.
    pub(super) fn new(base: u64) -> Self {
        Index { base, ..Index::default() }
    }

    /// The segment that a value lies in.
    pub(super) fn segment(&self, place: &Place) -> u64 {
        self.base + u64::from(place.segment)
    }

    /// Takes the changes of a record that lie at this offset of a segment.
    ///
    /// # Errors
    /// They do not read as changes, or lie where no value may.
    pub(super) fn take(&mut self, segment: u64, offset: u64, changes: &[u8]) -> Result<(), Unreadable> {
        let mut fits = true;
        each_change(changes, |change| match change {
            Written::Put { key, value } => match self.place(segment, offset, &value) {
                Some(place) => fits &= self.put(key, segment, place),
                None => fits = false,
            },
            Written::DeleteRange { from, to } => fits &= self.delete(from, to),
        })?;
        if fits { Ok(()) } else { Err(Unreadable::Damaged) }
    }

    fn place(&self, segment: u64, offset: u64, value: &Range<usize>) -> Option<Place> {
        Some(Place {
            segment: u32::try_from(segment.checked_sub(self.base)?).ok()?,
            offset: u32::try_from(offset + value.start as u64).ok()?,
            length: u32::try_from(value.len()).ok()?,
        })
    }

    fn put(&mut self, key: &[u8], segment: u64, place: Place) -> bool {
        let Some(key) = Key::new(key) else { return false };
        *self.live.entry(segment).or_default() += 1;
        if let Some(before) = self.places.insert(key, place) {
            self.gone(&before);
        }
        true
    }

    fn gone(&mut self, place: &Place) {
        let segment = self.base + u64::from(place.segment);
        if let Some(live) = self.live.get_mut(&segment) {
            *live -= 1;
            if *live == 0 {
                self.live.remove(&segment);
            }
        }
    }

    fn delete(&mut self, from: &[u8], to: &[u8]) -> bool {
        let (Some(from), Some(to)) = (Key::new(from), Key::new(to)) else { return false };
        let keys: Vec<Key> = match from < to {
            true => self.places.range(from..to).map(|(key, _)| *key).collect(),
            false => Vec::new(),
        };
        for key in keys {
            if let Some(place) = self.places.remove(&key) {
                self.gone(&place);
            }
        }
        true
    }

    /// The first pairs of a range, in order, at most so many.
    pub(super) fn range(&self, from: Bound<Key>, to: Key, most: usize) -> Vec<(Key, u64, Place)> {
        if matches!(from, Bound::Included(from) | Bound::Excluded(from) if from >= to) {
            return Vec::new();
        }
        let pairs = self.places.range((from, Bound::Excluded(to))).take(most);
        pairs.map(|(key, place)| (*key, self.segment(place), *place)).collect()
    }

    /// The first segment that must stay if at most `most` pairs of those before it are written anew, and
    /// those pairs.
    pub(super) fn carried(&self, most: usize) -> (Option<u64>, Vec<(Key, u64, Place)>) {
        let (mut pairs, mut oldest) = (0, None);
        for (segment, live) in &self.live {
            if pairs + live > most {
                oldest = Some(*segment);
                break;
            }
            pairs += live;
        }
        let before = |place: &Place| oldest.is_none_or(|oldest| self.segment(place) < oldest);
        // What is oldest lies at one of the ends: old entries at the front, the log's own records at the
        // back. So it is found without a look at all pairs.
        let mut found = Vec::with_capacity(pairs);
        let mut all = self.places.iter();
        while found.len() < pairs {
            let ends = [all.next(), all.next_back()];
            if ends == [None, None] {
                break;
            }
            let old = ends.into_iter().flatten().filter(|(_, place)| before(place));
            found.extend(old.map(|(key, place)| (*key, self.segment(place), *place)));
        }
        (oldest, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text.as_bytes()).expect("short")
    }

    #[test]
    fn keys_order_as_their_bytes_do() {
        let texts = ["", "a", "a\0", "a\0\0", "a\0b", "aa", "b", "\u{7f}"];
        let keys: Vec<Key> = texts.iter().map(|text| key(text)).collect();
        assert!(keys.is_sorted() && keys.iter().zip(texts).all(|(key, text)| key.bytes() == text.as_bytes()));
        assert!(Key::new(&[1; KEY_BYTES_MAX]).is_some() && Key::new(&[1; KEY_BYTES_MAX + 1]).is_none());
    }

    #[test]
    fn a_segment_is_needed_as_long_as_more_than_a_few_pairs_live_in_it() {
        let mut index = Index::new(5);
        let place = |segment: u32| Place { segment, offset: 30, length: 1 };
        index.put(b"owner", 5, place(0));
        for number in 0..10_u8 {
            index.put(&[b'l', number], 5 + u64::from(number / 5), place(u32::from(number / 5)));
        }
        assert_eq!(index.carried(3).0, Some(5), "six pairs live in the first");
        index.delete(&[b'l', 0], &[b'l', 4]);
        let (oldest, carried) = index.carried(3);
        assert_eq!(oldest, Some(6));
        let keys: Vec<&[u8]> = carried.iter().map(|(key, ..)| key.bytes()).collect();
        assert_eq!(keys, [&[b'l', 4][..], b"owner"]);
        let from = Bound::Included(key("l"));
        assert_eq!(index.range(from, key("m"), 2).len(), 2);
        assert_eq!(index.range(from, key("l"), 2), []);
        assert_eq!(index.carried(100).0, None, "everything is written anew");
    }
}
