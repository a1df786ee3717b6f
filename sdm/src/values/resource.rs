//! What a lock is on, as users write it: `KIND/NAME`, in some places with `:MODE` after it. A bare name is one of the
//! user's own. Whatever reads as a slip - a kind that there is not, a mode that there is not - is refused: as part of a
//! name of the user's own it would lock something that nobody else means.

use sdm_proto::names::is_lock_name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// The kinds of resources.
const KINDS: [&str; 4] = ["user", "disk", "domain", "name"];

/// They, as a hint tells them.
const KINDS_IN_WORDS: &str = "the kinds are user/NAME (names of your own; NAME alone is the same), disk/NAME, domain/NAME \
                              and name/disk/NAME";

/// Modes in which a resource is locked.
pub const MODES: [&str; 4] = ["X", "S", "IX", "IS"];

/// Reads a resource, perhaps with its mode.
///
/// # Errors
/// It names nothing that can be locked, or the mode is none; the hint has the right spelling.
pub fn split(text: &str) -> Result<(String, Option<&'static str>), Refusal> {
    let (name, mode) = match text.rsplit_once(':') {
        Some((name, word)) => (name, Some(mode_of(text, name, word)?)),
        None => (text, None),
    };
    Ok((resource_of(text, name)?, mode))
}

fn mode_of(text: &str, name: &str, word: &str) -> Result<&'static str, Refusal> {
    if let Some(mode) = MODES.into_iter().find(|mode| *mode == word) {
        return Ok(mode);
    }
    let meant = MODES.into_iter().find(|mode| mode.eq_ignore_ascii_case(word)).unwrap_or("S");
    Err(bad(format!("{text:?}: {word:?} is no mode of a lock, and no name has a colon in it"))
        .hint(format!("the modes are {}: {name}:{meant}, or for all that is named --mode {meant}", MODES.join(", "))))
}

fn resource_of(text: &str, name: &str) -> Result<String, Refusal> {
    let (kind, rest) = name.split_once('/').unwrap_or(("user", name));
    if rest.is_empty() || name.contains(':') {
        return Err(bad(format!("{text:?} names nothing that can be locked")).hint(KINDS_IN_WORDS));
    }
    if !KINDS.contains(&kind) {
        let own = if is_lock_name(name) { format!("; for a name of your own: user/{name}") } else { String::new() };
        return Err(bad(format!("{text:?}: {kind:?} is no kind of resource")).hint(format!("{KINDS_IN_WORDS}{own}")));
    }
    if kind == "user" && !is_lock_name(rest) {
        return Err(bad(format!("{text:?} cannot be a name of your own"))
            .hint("a name of your own has 1 to 200 letters, digits and ._@+-/"));
    }
    Ok(format!("{kind}/{rest}"))
}

fn bad(message: String) -> Refusal {
    Refusal::new(Class::Invalid, "BAD_RESOURCE", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_has_a_kind_a_name_and_perhaps_a_mode() {
        let read = |text: &str| split(text).unwrap();
        assert_eq!(read("backup"), ("user/backup".to_owned(), None));
        assert_eq!(read("user/backup/db-1:IS"), ("user/backup/db-1".to_owned(), Some("IS")));
        assert_eq!(read("domain/nfs2:IX"), ("domain/nfs2".to_owned(), Some("IX")));
        assert_eq!(read("name/disk/web-01"), ("name/disk/web-01".to_owned(), None));
    }

    #[test]
    fn a_slip_is_told_with_the_right_spelling() {
        let hint = |text: &str| {
            let refusal = split(text).unwrap_err();
            assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Invalid, "BAD_RESOURCE"), "{text}");
            assert!(refusal.message.contains(text), "{refusal}");
            refusal.hint
        };
        assert!(hint("user/z:s").contains("user/z:S, or for all that is named --mode S"), "{}", hint("user/z:s"));
        assert!(hint("vm:7").contains("X, S, IX, IS"));
        assert!(hint("foo/z").contains("user/foo/z") && hint("foo/z").contains("domain/NAME"));
        assert!(hint("disks/web-01:X").contains("disk/NAME"));
        for text in ["", ":X", "disk/", "user/", "a:b:X", "a b", "user/\u{e4}"] {
            assert!(!split(text).unwrap_err().hint.is_empty(), "{text:?}");
        }
    }
}
