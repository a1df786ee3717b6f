//! Names that users give, references to what exists (a name or an id), and paths on a host.

use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use uuid::Uuid;

/// Reads the name of something to be made; `option` says where it stood.
///
/// # Errors
/// It is no name.
pub fn parse_name(option: &str, text: &str) -> Result<Name, Refusal> {
    text.parse().map_err(|error| {
        Refusal::new(Class::Invalid, "BAD_NAME", format!("{option}: {error}"))
            .hint("names have 1 to 128 letters, digits, '.', '_' or '-', and begin with a letter or digit")
    })
}

/// Reads a reference to something that exists: its name or its id.
///
/// # Errors
/// It can be neither.
pub fn parse_reference(option: &str, text: &str) -> Result<String, Refusal> {
    match Uuid::try_parse(text) {
        Ok(id) => Ok(id.hyphenated().to_string()),
        Err(_) => parse_name(option, text).map(String::from),
    }
}

/// Reads a path on a worker's host.
///
/// # Errors
/// It is not absolute: it is the workers' path, and they share no current folder with this command.
pub fn parse_absolute_path(option: &str, text: &str) -> Result<String, Refusal> {
    if text.starts_with('/') && !text.contains('\0') {
        // One folder has one path: with a slash at its end it would be another text.
        let trimmed = text.trim_end_matches('/');
        return Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned());
    }
    let message = format!("{option}: {text:?} is not an absolute path");
    Err(Refusal::new(Class::Invalid, "BAD_PATH", message)
        .hint("give the path as the workers' hosts see it, from the root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_name_or_an_id_and_a_new_name_is_never_an_id() {
        let id = "0F0F0F0F-1111-4222-8333-444444444444";
        assert_eq!(parse_reference("DISK", id).as_deref(), Ok("0f0f0f0f-1111-4222-8333-444444444444"));
        assert_eq!(parse_reference("DISK", "web-01").as_deref(), Ok("web-01"));
        assert_eq!(parse_name("NAME", id).unwrap_err().reason, "BAD_NAME");
        assert_eq!(parse_reference("DISK", "../x").unwrap_err().reason, "BAD_NAME");
    }

    #[test]
    fn a_relative_path_is_refused() {
        for (text, path) in [("/srv/images", "/srv/images"), ("/srv/images//", "/srv/images"), ("/", "/"), ("//", "/")]
        {
            assert_eq!(parse_absolute_path("--path", text).as_deref(), Ok(path));
        }
        for text in ["", "srv", "./srv", "~/srv"] {
            assert_eq!(parse_absolute_path("--path", text).unwrap_err().reason, "BAD_PATH", "{text:?}");
        }
    }
}
