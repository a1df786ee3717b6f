//! Lists over all their pages.

use crate::output::Failure;
use crate::views::List;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use std::future::Future;

/// Follows pages to the end. `page` asks for one and answers with its items.
///
/// # Errors
/// A page could not be had, or names itself as the next one.
pub async fn all_pages<W, T, F>(page: impl Fn(v1::PageRequest) -> F) -> Result<List<T>, Failure>
where
    T: From<W>,
    F: Future<Output = Result<(Vec<W>, Option<v1::PageResponse>), Failure>>,
{
    let page_size = u32::try_from(limits::PAGE_SIZE_MAX).unwrap_or(u32::MAX);
    let mut list = List { items: Vec::new(), revision: 0 };
    let mut token = String::new();
    loop {
        let (items, next) = page(v1::PageRequest { page_size, page_token: token.clone() }).await?;
        let next = next.unwrap_or_default();
        if token.is_empty() {
            list.revision = next.revision;
        }
        list.items.extend(items.into_iter().map(T::from));
        if next.next_page_token.is_empty() {
            return Ok(list);
        }
        if next.next_page_token == token {
            return Err(Failure::new(
                Class::Internal,
                "ENDLESS_PAGES",
                format!("page {token:?} names itself as the next"),
            ));
        }
        token = next.next_page_token;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(token: &str, revision: u64) -> Option<v1::PageResponse> {
        Some(v1::PageResponse { next_page_token: token.to_owned(), revision })
    }

    #[tokio::test]
    async fn pages_are_followed_to_the_end_and_the_first_names_the_revision() {
        let list: Result<List<u64>, Failure> = all_pages(async |request: v1::PageRequest| {
            Ok(match request.page_token.as_str() {
                "" => (vec![1_u32, 2], response("b", 7)),
                "b" => (vec![3], response("c", 8)),
                _ => (vec![], response("", 9)),
            })
        })
        .await;
        let list = list.unwrap();
        assert_eq!((list.items, list.revision), (vec![1, 2, 3], 7));
    }

    #[tokio::test]
    async fn a_page_that_names_itself_ends_in_an_error_instead_of_never() {
        let list: Result<List<u64>, Failure> = all_pages(async |_| Ok((vec![1_u32], response("same", 7)))).await;
        assert_eq!(list.err().map(|failure| failure.refusal.reason.clone()).as_deref(), Some("ENDLESS_PAGES"));
    }
}
