//! What can never be right in a request about disks, found before anything is read or recorded.

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::catalog::Format;

/// A disk's size is rounded up to this: the largest block of storage in use.
pub(super) const SIZE_STEP: u64 = 4096;

/// Longest description, in bytes: with the longest name it stays a line, and every member keeps it in memory.
const DESCRIPTION_BYTES_MAX: usize = 200;

/// The format that must be said.
pub(super) fn format_of(format: i32) -> Result<Format, Refusal> {
    match v1::DiskFormat::try_from(format) {
        Ok(v1::DiskFormat::Raw) => Ok(Format::Raw),
        Ok(v1::DiskFormat::Qcow2) => Ok(Format::Qcow2),
        Ok(v1::DiskFormat::Unspecified) | Err(_) => {
            let message =
                if format == 0 { "no format is given".to_owned() } else { format!("there is no format {format}") };
            Err(Refusal::new(Class::Invalid, "BAD_FORMAT", message)
                .hint("say raw or qcow2; it is never guessed from the bytes, which a guest may have written"))
        }
    }
}

/// The format that may be said; None keeps the one there is.
pub(in crate::services) fn format_if_any(format: i32) -> Result<Option<Format>, Refusal> {
    if format == 0 { Ok(None) } else { format_of(format).map(Some) }
}

/// As it stands in a request's hash.
pub(super) fn format_word(format: Option<Format>) -> &'static str {
    format.map_or("", Format::word)
}

/// A size that is one.
pub(super) fn check_size(bytes: u64) -> Result<u64, Refusal> {
    if bytes == 0 {
        return Err(Refusal::new(Class::Invalid, "SIZE_ZERO", "a disk of 0 bytes holds nothing")
            .hint("give a size of at least 4 KiB, or a file that is not empty"));
    }
    Ok(bytes)
}

/// A size in whole steps.
pub(super) fn rounded(bytes: u64) -> Result<u64, Refusal> {
    check_size(bytes)?.checked_next_multiple_of(SIZE_STEP).ok_or_else(|| {
        let message = format!("{bytes} bytes are more than a disk may have");
        Refusal::new(Class::Invalid, "SIZE_TOO_LARGE", message).hint("give a smaller size")
    })
}

/// A description: one line of text.
pub(in crate::services) fn description(text: String) -> Result<String, Refusal> {
    let refusal = |message: String| Refusal::new(Class::Invalid, "BAD_DESCRIPTION", message);
    if text.len() > DESCRIPTION_BYTES_MAX {
        let message = format!("the description has {} bytes, at most {DESCRIPTION_BYTES_MAX} are kept", text.len());
        return Err(refusal(message).hint("shorten it"));
    }
    if text.chars().any(char::is_control) {
        return Err(refusal("the description holds control characters".to_owned()).hint("give one line of text"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_said_not_guessed() {
        assert_eq!(format_of(v1::DiskFormat::Raw as i32), Ok(Format::Raw));
        assert_eq!(format_of(v1::DiskFormat::Qcow2 as i32), Ok(Format::Qcow2));
        for unknown in [0, 3, -1] {
            assert_eq!(format_of(unknown).unwrap_err().reason, "BAD_FORMAT");
        }
        assert_eq!(format_if_any(0), Ok(None));
        assert_eq!(format_if_any(7).unwrap_err().reason, "BAD_FORMAT");
    }

    #[test]
    fn a_disk_of_nothing_is_refused_and_sizes_are_whole_steps() {
        assert_eq!(check_size(0).unwrap_err().reason, "SIZE_ZERO");
        assert_eq!(rounded(1), Ok(4096));
        assert_eq!(rounded(8192), Ok(8192));
        assert_eq!(rounded(u64::MAX).unwrap_err().reason, "SIZE_TOO_LARGE");
    }

    #[test]
    fn a_description_is_one_line() {
        assert_eq!(description("web server, rack 7".into()).as_deref(), Ok("web server, rack 7"));
        for bad in ["a\nIMAGE=b".to_owned(), "x".repeat(201)] {
            assert_eq!(description(bad).unwrap_err().reason, "BAD_DESCRIPTION");
        }
    }
}
