//! Numbers as people read them.

/// Seconds as `1d 2h 3m 4s`, without leading zeros.
pub fn duration(seconds: u64) -> String {
    let parts =
        [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let words: Vec<String> = parts[first..].iter().map(|(count, unit)| format!("{count}{unit}")).collect();
    words.join(" ")
}

/// A rate with a decimal prefix, such as `1.50 M`.
pub fn rate(value: f64) -> String {
    let prefixes = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match prefixes.iter().find(|(scale, _)| value >= *scale) {
        Some((scale, prefix)) => format!("{:.2} {prefix}", value / scale),
        None => format!("{value:.0} "),
    }
}

/// Microseconds as the largest unit that keeps them readable; below one minute nothing is cut off.
pub fn span(us: u64) -> String {
    let parts = |unit: u64, digits: usize, name: &str| match us % unit {
        0 => format!("{} {name}", us / unit),
        rest => format!("{}.{rest:0digits$} {name}", us / unit),
    };
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => parts(1_000, 3, "ms"),
        1_000_000..60_000_000 => parts(1_000_000, 6, "s"),
        _ => duration(us / 1_000_000),
    }
}

/// Microseconds since the Unix epoch as date and time, UTC.
pub fn timestamp(unix_us: u64) -> String {
    let (seconds, us) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // Steps of 400 years first, so that no number takes long.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}.{us:06}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_microseconds_below_a_minute() {
        let cases = [
            (0, "0 us"),
            (999, "999 us"),
            (2_000, "2 ms"),
            (27_130, "27.130 ms"),
            (3_000_000, "3 s"),
            (3_000_001, "3.000001 s"),
            (61_999_999, "1m 1s"),
        ];
        for (us, text) in cases {
            assert_eq!(span(us), text);
        }
    }

    #[test]
    fn times_are_dates_in_utc() {
        // As `date -u -d @N` prints them.
        let cases = [
            (0, "1970-01-01 00:00:00.000000"),
            (951_782_399, "2000-02-28 23:59:59.000000"),
            (951_782_400, "2000-02-29 00:00:00.000000"),
            (951_868_800, "2000-03-01 00:00:00.000000"),
            (1_735_689_599, "2024-12-31 23:59:59.000000"),
            (4_107_542_400, "2100-03-01 00:00:00.000000"),
            (13_569_465_600, "2400-01-01 00:00:00.000000"),
        ];
        for (seconds, text) in cases {
            assert_eq!(timestamp(seconds * 1_000_000), text);
        }
        assert!(timestamp(u64::MAX).ends_with(".551615"));
    }

    #[test]
    fn durations_and_rates_are_short() {
        assert_eq!(duration(0), "0s");
        assert_eq!(duration(61), "1m 1s");
        assert_eq!(duration(90_000), "1d 1h 0m 0s");
        assert_eq!(rate(0.0), "0 ");
        assert_eq!(rate(999.0), "999 ");
        assert_eq!(rate(1_500_000.0), "1.50 M");
        assert_eq!(rate(2.5e10), "25.00 G");
    }
}
