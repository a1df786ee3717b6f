//! Numbers and texts as people read them. JSON never passes through here.

/// Bytes with a binary unit and one decimal: `4.0 GiB`; below 1 KiB exact.
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: &[&str] = &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    // 1023.95 would round to "1024.0".
    while value >= 1023.95 {
        let Some(next) = units.next() else { break };
        unit = Some(next);
        value /= 1024.0;
    }
    format!("{value:.1} {}", unit.unwrap_or(&"EiB"))
}

/// Byte counts from here on are told in larger units.
const MANY_BYTES: u64 = 1 << 20;

/// A text in which large counts of bytes read as people tell them: `8388608 bytes` becomes `8.0 MiB`, one that no unit
/// tells exactly stays beside it. What stands in parentheses is exact on purpose, and stays.
#[must_use]
pub fn sizes_told(text: &str) -> String {
    text.split_inclusive('\n').map(line_told).collect()
}

fn line_told(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let (mut told, mut at) = (Vec::new(), 0);
    while let Some(rest @ [word, ..]) = words.get(at..) {
        let (text, taken) = count_told(rest).unwrap_or(((*word).to_owned(), 1));
        told.push(text);
        at += taken;
    }
    told.join(" ")
}

/// A count of bytes at the beginning of these words, in units, and how many words it was: "COUNT bytes", or two of them,
/// "COUNT to COUNT bytes".
fn count_told(words: &[&str]) -> Option<(String, usize)> {
    let many = |word: &str| word.parse().ok().filter(|count| *count >= MANY_BYTES).map(size_told);
    let after = |word: &str| {
        let rest = word.strip_prefix("bytes")?;
        (!rest.starts_with(char::is_alphanumeric)).then(|| rest.to_owned())
    };
    match words {
        [from, "to", to, unit, ..] => Some((format!("{} to {}{}", many(from)?, many(to)?, after(unit)?), 4)),
        [count, unit, ..] => Some((format!("{}{}", many(count)?, after(unit)?), 2)),
        _ => None,
    }
}

fn size_told(bytes: u64) -> String {
    let told = bytes_text(bytes);
    let unit = (1..=6).map(|power| 1_u64 << (10 * power)).take_while(|unit| *unit <= bytes).last().unwrap_or(1);
    if u128::from(bytes) * 10 % u128::from(unit) == 0 { told } else { format!("{told} ({bytes} bytes)") }
}

/// A span of milliseconds: `0.4s`, `12s`, `3m05s`, `2h07m`, `6d02h`.
#[must_use]
pub fn age_text(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{}.{}s", seconds, ms % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A time of the cluster's clock against that clock's now: `12s ago`, `in 3m05s`, or `-` for none.
#[must_use]
pub fn clock_text(at_ms: u64, now_ms: u64) -> String {
    match at_ms {
        0 => "-".to_owned(),
        at if at <= now_ms => format!("{} ago", age_text(now_ms - at)),
        at => format!("in {}", age_text(at - now_ms)),
    }
}

/// A wall clock's milliseconds since 1970 in UTC, RFC 3339 to seconds: `2026-01-31T09:05:00Z`.
#[must_use]
pub fn utc_text(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (year, month, day) = date_of(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970. Counted in years that begin in March, so that a leap day
/// is a year's last one, and in eras of 400 years, which are all equally long.
fn date_of(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_ERA: u64 = 146_097;
    /// From the first of March of the year 0 to the beginning of 1970.
    const DAYS_BEFORE_1970: u64 = 719_468;
    let days = days + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// How much of it is done: `61 %`; nothing to do counts as done.
#[must_use]
pub fn percent_text(done: u64, total: u64) -> String {
    format!("{} %", percent(done, total))
}

fn percent(done: u64, total: u64) -> u64 {
    if total == 0 {
        return 100;
    }
    let percent = u128::from(done.min(total)) * 100 / u128::from(total);
    u64::try_from(percent).unwrap_or(100)
}

/// `1 disk`, `2 disks`.
#[must_use]
pub fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The text, or a dash where there is none.
#[must_use]
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// The text without control characters: what others wrote into the cluster must not steer a
/// terminal, nor break a table's line.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_in_the_largest_unit_that_leaves_a_whole_number() {
        let expected = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (4 << 30, "4.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in expected {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn large_counts_of_bytes_are_told_in_units_and_stay_exact() {
        let expected = [
            ("a disk of 8388608 bytes, 2 volumes\n", "a disk of 8.0 MiB, 2 volumes\n"),
            ("resize from 1073741824 to 2147483648 bytes", "resize from 1.0 GiB to 2.0 GiB"),
            ("up to 10000001 bytes are moved", "up to 9.5 MiB (10000001 bytes) are moved"),
            ("size   8.0 MiB (8388608 bytes)", "size   8.0 MiB (8388608 bytes)"),
            ("blocks of 4096 bytes; job 8388608 bytes: x", "blocks of 4096 bytes; job 8.0 MiB: x"),
            ("  two  spaces stay\nand 8388608 byteswise", "  two  spaces stay\nand 8388608 byteswise"),
        ];
        for (text, told) in expected {
            assert_eq!(sizes_told(text), told);
        }
    }

    #[test]
    fn ages_read_in_two_units() {
        let expected = [
            (0, "0.0s"),
            (450, "0.4s"),
            (12_999, "12s"),
            (185_000, "3m05s"),
            (7_620_000, "2h07m"),
            (525_600_000, "6d02h"),
        ];
        for (ms, text) in expected {
            assert_eq!(age_text(ms), text);
        }
    }

    #[test]
    fn times_are_told_against_the_clusters_clock() {
        assert_eq!(clock_text(0, 5000), "-");
        assert_eq!(clock_text(1000, 13_000), "12s ago");
        assert_eq!(clock_text(73_000, 13_000), "in 1m00s");
    }

    #[test]
    fn wall_clocks_read_as_dates_also_around_leap_days() {
        let expected = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_767_225_599_000, "2025-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (ms, text) in expected {
            assert_eq!(utc_text(ms), text);
        }
        // Nonsense from elsewhere is shown, not a panic.
        assert!(utc_text(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn percents_never_leave_their_range() {
        assert_eq!(percent_text(0, 0), "100 %");
        assert_eq!(percent_text(5, 3), "100 %");
        assert_eq!(percent_text(u64::MAX - 1, u64::MAX), "99 %");
    }

    #[test]
    fn escape_sequences_lose_their_force() {
        assert_eq!(one_line("a\x1b[31m\nb"), "a [31m b");
    }
}
