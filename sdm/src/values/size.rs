//! Sizes of disks: `10GiB`, `10G` (the same, as qemu-img reads it), `512M`, plain bytes. Suffixes are
//! binary always, because disks come in powers of two and `G` must not mean two things.

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

const SUFFIXES: &[(&str, u32)] = &[("", 0), ("B", 0), ("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)];

/// What may be written.
const UNITS_HINT: &str = "a whole number of bytes, or with a unit of 1024: K, M, G, T or P (KiB, MiB ... are the same)";

/// Largest size, in bytes: file offsets are signed 64-bit numbers.
const SIZE_BYTES_MAX: u64 = i64::MAX as u64;

/// Reads a size in bytes; `option` names it in the refusal.
///
/// # Errors
/// The text is no size, is zero, or is larger than any file can be.
pub fn parse_size(option: &str, text: &str) -> Result<u64, Refusal> {
    let bytes = bytes_of(text.trim()).ok_or_else(|| {
        let message = format!("{option}: {text:?} is not a size (examples: 40GiB, 40G, 42949672960)");
        Refusal::new(Class::Invalid, "BAD_SIZE", message).hint(UNITS_HINT)
    })?;
    if bytes == 0 {
        let message = format!("{option}: a size of zero makes no disk (examples: 40GiB, 40G, 42949672960)");
        return Err(Refusal::new(Class::Invalid, "BAD_SIZE", message).hint(UNITS_HINT));
    }
    Ok(bytes)
}

fn bytes_of(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(end)?;
    let number: u64 = digits.parse().ok()?;
    let suffix = suffix.to_ascii_uppercase();
    // "GiB" and "Gi" mean "G"; a lone "iB" means nothing.
    let unit = match suffix.strip_suffix("IB").or_else(|| suffix.strip_suffix('I')) {
        Some(unit) if unit.is_empty() || unit == "B" => return None,
        Some(unit) => unit,
        None => &suffix,
    };
    let (_, shift) = SUFFIXES.iter().find(|(name, _)| *name == unit)?;
    let bytes = number.checked_mul(1 << shift)?;
    (bytes <= SIZE_BYTES_MAX).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_ten_gibibytes_means_the_same() {
        for text in ["10GiB", "10G", "10g", "10gib", "10Gi", "10240M", "10737418240", "10737418240B", " 10G "] {
            assert_eq!(parse_size("--size", text), Ok(10 << 30), "{text:?}");
        }
        assert_eq!(parse_size("--size", "512M"), Ok(512 << 20));
        assert_eq!(parse_size("--size", "1K"), Ok(1024));
    }

    #[test]
    fn what_is_no_size_is_refused_with_examples() {
        for text in ["40GG", "", "G", "1.5G", "-1", "+1", "10 G", "0x10", "10iB", "10BiB", "1E", "9999999P", "１G"] {
            let refusal = parse_size("--size", text).expect_err(text);
            assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Invalid, "BAD_SIZE"), "{text:?}");
        }
        assert_eq!(
            parse_size("--size", "40GG").unwrap_err().message,
            "--size: \"40GG\" is not a size (examples: 40GiB, 40G, 42949672960)"
        );
    }

    #[test]
    fn zero_is_refused_and_the_largest_file_is_not() {
        assert!(parse_size("--size", "0").is_err());
        assert!(parse_size("--size", "0G").is_err());
        assert_eq!(parse_size("--size", "9223372036854775807"), Ok(SIZE_BYTES_MAX));
        assert!(parse_size("--size", "9223372036854775808").is_err());
    }
}
