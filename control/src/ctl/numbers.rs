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

#[cfg(test)]
mod tests {
    use super::*;

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
