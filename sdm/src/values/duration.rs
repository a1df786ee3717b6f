//! Durations: `500ms`, `30s`, `5m`, `2h`, `1d`. A bare number is refused: nobody remembers which unit
//! a tool means.

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::time::Duration;

const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest duration: a year. More is a slip of the finger, and deadlines must not overflow.
const DURATION_MS_MAX: u64 = 366 * 86_400_000;

/// Reads a duration; `option` names it in the refusal.
///
/// # Errors
/// The text is no duration, or longer than a year.
pub fn parse_duration(option: &str, text: &str) -> Result<Duration, Refusal> {
    milliseconds_of(text.trim()).map(Duration::from_millis).ok_or_else(|| {
        let message = format!("{option}: {text:?} is not a duration (examples: 30s, 5m, 500ms)");
        Refusal::new(Class::Invalid, "BAD_DURATION", message)
            .hint("a whole number with its unit: ms, s, m, h or d, at most a year")
    })
}

/// The milliseconds of a duration, as they stand in messages.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn milliseconds_of(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(end)?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let total = digits.parse::<u64>().ok()?.checked_mul(*factor)?;
    (total <= DURATION_MS_MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_in_their_units() {
        for (text, ms) in [("30s", 30_000), ("5m", 300_000), ("500ms", 500), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(parse_duration("--timeout", text), Ok(Duration::from_millis(ms)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "m", "5 m", "1.5s", "-1s", "5min", "99999999d", "99999999999999999999s"] {
            let refusal = parse_duration("--timeout", text).expect_err(text);
            assert_eq!(refusal.reason, "BAD_DURATION", "{text:?}");
            assert!(refusal.message.contains("examples"), "{text:?}");
        }
    }
}
