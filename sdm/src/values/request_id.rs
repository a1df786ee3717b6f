//! Request ids as users write them, and the one that a command draws when none is given.

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use uuid::Uuid;

/// Reads a request id.
///
/// # Errors
/// The text is not a UUID.
pub fn parse_request_id(text: &str) -> Result<String, Refusal> {
    Uuid::try_parse(text).map(|id| id.hyphenated().to_string()).map_err(|_| {
        Refusal::new(Class::Invalid, "BAD_REQUEST_ID", format!("--request-id: {text:?} is not a UUID"))
            .hint("`sdm request-id` issues one")
    })
}

/// Draws a plain random one. It lives as long as one command, so it need not carry the cluster's
/// clock, and drawing it asks nobody.
#[must_use]
pub fn draw_request_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().hyphenated().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_ids_differ_and_read_back() {
        let (a, b) = (draw_request_id(), draw_request_id());
        assert_ne!(a, b);
        assert_eq!(parse_request_id(&a), Ok(a));
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(parse_request_id("web-01").unwrap_err().reason, "BAD_REQUEST_ID");
    }
}
