//! Names that users give: 1–128 of `[A-Za-z0-9._-]`, first a letter or digit, never parseable as a
//! UUID, so that a name and an id cannot be confused anywhere.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// Longest name, in bytes. It fits oVirt's description field and a resource name in every message.
pub const NAME_BYTES_MAX: usize = 128;

/// Longest path of a domain, in bytes: with a domain's and a placement's folder and a file name it
/// stays far below the kernel's 4096.
pub const DOMAIN_PATH_BYTES_MAX: usize = 1024;

/// Whether a text can be the path of a domain: absolute, in its one plain spelling, not too long.
#[must_use]
pub fn is_domain_path(path: &str) -> bool {
    let parts_ok = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    let plain = path.starts_with('/') && path.len() > 1 && parts_ok && !path.chars().any(char::is_control);
    plain && path.len() <= DOMAIN_PATH_BYTES_MAX
}

/// Longest name of a user's lock beneath `user/`, in bytes: it stands in every refusal and list.
pub const LOCK_NAME_BYTES_MAX: usize = 200;

/// Whether a text can be the name of a user's lock, beneath `user/`: 1 to 200 letters, digits and `._:@+-/`.
#[must_use]
pub fn is_lock_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@+-/".contains(&byte);
    (1..=LOCK_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// A checked name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing there.
    #[error("a name must not be empty")]
    Empty,
    /// Over the limit.
    #[error("a name has at most {NAME_BYTES_MAX} characters, this one has {length}")]
    TooLong {
        /// Its bytes.
        length: usize,
    },
    /// A character that is not allowed.
    #[error(
        "{name:?} is not a name: {character:?} is not allowed at position {position} (letters, digits, '.', '_' and '-' are, and the first must be a letter or digit)"
    )]
    Character {
        /// The whole text.
        name: String,
        /// The first offender.
        character: char,
        /// Its place, from 1.
        position: usize,
    },
    /// Reads as an id.
    #[error("{name:?} is not a name: it reads as a UUID, and those are ids")]
    IsUuid {
        /// The whole text.
        name: String,
    },
}

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if text.is_empty() {
            return Err(BadName::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(BadName::TooLong { length: text.len() });
        }
        let allowed =
            |position: usize, c: char| c.is_ascii_alphanumeric() || (position > 0 && matches!(c, '.' | '_' | '-'));
        if let Some((position, character)) = text.chars().enumerate().find(|(at, c)| !allowed(*at, *c)) {
            return Err(BadName::Character { name: text.to_owned(), character, position: position + 1 });
        }
        if uuid::Uuid::try_parse(text).is_ok() {
            return Err(BadName::IsUuid { name: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}
impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_taken_as_they_are() {
        for text in ["a", "web-01", "9.x_y-z", &"n".repeat(NAME_BYTES_MAX)] {
            assert_eq!(text.parse::<Name>().map(String::from).as_deref(), Ok(text));
        }
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        assert_eq!("".parse::<Name>(), Err(BadName::Empty));
        assert!(matches!("a".repeat(129).parse::<Name>(), Err(BadName::TooLong { length: 129 })));
        for (text, at) in [("-a", 1), (".a", 1), ("a/b", 2), ("a b", 2), ("../x", 1), ("ä", 1), ("a\n", 2)] {
            assert!(
                matches!(text.parse::<Name>(), Err(BadName::Character { position, .. }) if position == at),
                "{text:?}"
            );
        }
        let uuid = "0f0f0f0f-1111-4222-8333-444444444444";
        for text in [uuid, &uuid.replace('-', "")] {
            assert!(matches!(text.parse::<Name>(), Err(BadName::IsUuid { .. })), "{text:?}");
        }
    }

    #[test]
    fn only_plain_absolute_paths_that_are_not_too_long_are_domain_paths() {
        let of_length = |length: usize| format!("/{}", "a".repeat(length - 1));
        for path in ["/srv/a", "/mnt/nfs 2/images", &of_length(DOMAIN_PATH_BYTES_MAX)] {
            assert!(is_domain_path(path), "{path}");
        }
        for path in ["", "/", "srv/a", "/srv//a", "/srv/a/", "/srv/../etc", "/srv/./a", "/srv/a\n"] {
            assert!(!is_domain_path(path), "{path:?}");
        }
        assert!(!is_domain_path(&of_length(DOMAIN_PATH_BYTES_MAX + 1)));
    }
}
