//! Pages of a list: how many rows, and after which key. A page token is the key of the last row that
//! was shown, so a page costs the same wherever it lies, and rows that come or go between two pages
//! shift nothing. Clients take tokens as opaque.

use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use std::fmt::Display;
use std::str::FromStr;

/// One page that is asked for.
#[derive(Debug)]
pub(crate) struct Page<K> {
    list: &'static str,
    size: usize,
    after: Option<K>,
}

impl<K: Display + FromStr + Ord + Clone + Default> Page<K> {
    /// The page of this list that the request wants.
    ///
    /// # Errors
    /// The token is not one of this list's.
    pub(crate) fn parse(list: &'static str, request: Option<&v1::PageRequest>) -> Result<Self, Refusal> {
        let size = request.map_or(0, |page| usize::try_from(page.page_size).unwrap_or(usize::MAX));
        let size = if size == 0 { limits::PAGE_SIZE_DEFAULT } else { size.min(limits::PAGE_SIZE_MAX) };
        let text = request.map(|page| page.page_token.as_str()).unwrap_or_default();
        let after = if text.is_empty() {
            None
        } else {
            let key = text.strip_prefix(list).and_then(|rest| rest.strip_prefix(':')).and_then(|key| key.parse().ok());
            Some(key.ok_or_else(|| bad_token(list))?)
        };
        Ok(Self { list, size, after })
    }

    /// Where to begin reading rows; a row of this very key was shown already when there is a token.
    /// The lowest key of all without one.
    pub(crate) fn first_key(&self) -> K {
        self.after.clone().unwrap_or_default()
    }

    /// Takes one page from rows in rising order.
    pub(crate) fn take<T>(&self, rows: impl Iterator<Item = (K, T)>, revision: u64) -> (Vec<T>, v1::PageResponse) {
        let mut items = Vec::new();
        let mut last = None;
        let mut next_page_token = String::new();
        for (key, row) in rows.filter(|(key, _)| self.after.as_ref().is_none_or(|after| key > after)) {
            if items.len() == self.size {
                next_page_token = last.map(|last: K| format!("{}:{last}", self.list)).unwrap_or_default();
                break;
            }
            items.push(row);
            last = Some(key);
        }
        (items, v1::PageResponse { next_page_token, revision })
    }
}

fn bad_token(list: &str) -> Refusal {
    Refusal::new(Class::Invalid, "BAD_PAGE_TOKEN", format!("the page token is not one of the list of {list}"))
        .hint("begin again without a page token")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(page_size: u32, page_token: &str) -> v1::PageRequest {
        v1::PageRequest { page_size, page_token: page_token.to_owned() }
    }

    fn rows(keys: &[u64]) -> impl Iterator<Item = (u64, u64)> + '_ {
        keys.iter().map(|key| (*key, *key))
    }

    #[test]
    fn following_the_tokens_shows_every_row_once_even_while_rows_come_and_go() {
        let page = Page::<u64>::parse("locks", Some(&request(2, ""))).unwrap();
        let (items, next) = page.take(rows(&[1, 3, 5, 7, 9]), 12);
        assert_eq!((items, next.revision), (vec![1, 3], 12));
        let page = Page::<u64>::parse("locks", Some(&request(2, &next.next_page_token))).unwrap();
        let (items, next) = page.take(rows(&[2, 5, 7, 9]).filter(|(key, _)| *key >= page.first_key()), 13);
        assert_eq!(items, [5, 7]);
        let page = Page::<u64>::parse("locks", Some(&request(2, &next.next_page_token))).unwrap();
        let (items, next) = page.take(rows(&[5, 7, 9]), 14);
        assert_eq!((items, next.next_page_token.as_str()), (vec![9], ""));
    }

    #[test]
    fn a_full_last_page_has_no_next_one() {
        let page = Page::<u64>::parse("jobs", Some(&request(3, ""))).unwrap();
        assert_eq!(page.take(rows(&[1, 2, 3]), 1).1.next_page_token, "");
    }

    #[test]
    fn no_size_means_the_default_and_a_huge_one_the_limit() {
        let many: Vec<u64> = (1..5000).collect();
        let size = |size| Page::<u64>::parse("jobs", Some(&request(size, ""))).unwrap().take(rows(&many), 1).0.len();
        assert_eq!(size(0), limits::PAGE_SIZE_DEFAULT);
        assert_eq!(size(u32::MAX), limits::PAGE_SIZE_MAX);
    }

    #[test]
    fn a_token_of_another_list_or_of_nobody_is_refused() {
        for token in ["locks:7", "jobs:x", "jobs", "7", "jobs:", "jobs:-1"] {
            let refusal = Page::<u64>::parse("jobs", Some(&request(0, token))).unwrap_err();
            assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Invalid, "BAD_PAGE_TOKEN"), "{token}");
        }
    }
}
