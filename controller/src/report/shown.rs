//! How numbers are printed: in the unit that people speak of, with no more digits than the spread supports.

/// A metric's unit as people speak of it, and the factor from the metric's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// "points", "nats", …
    pub unit: &'static str,
    factor: f64,
    decimals: usize,
}

/// Of a metric's unit: fractions are shown in points.
#[must_use]
pub fn scale(unit: &str) -> Scale {
    match unit {
        "fraction" => Scale { unit: "points", factor: 100.0, decimals: 2 },
        "nats" => Scale { unit: "nats", factor: 1.0, decimals: 4 },
        "seconds" => Scale { unit: "s", factor: 1.0, decimals: 2 },
        "steps" => Scale { unit: "steps", factor: 1.0, decimals: 0 },
        _ => Scale { unit: "", factor: 1.0, decimals: 4 },
    }
}

impl Scale {
    /// A value without its unit.
    #[must_use]
    pub fn number(&self, value: Option<f64>) -> String {
        match value {
            Some(value) if value.is_finite() => {
                let scaled = value * self.factor;
                // A very small effect must not be printed as nothing.
                let decimals = if scaled != 0.0 && scaled.abs() < 0.5 * 10f64.powi(-(self.decimals as i32)) {
                    return format!("{scaled:.1e}");
                } else {
                    self.decimals
                };
                // No "-0.00".
                let text = format!("{scaled:.decimals$}");
                if text.trim_start_matches(['-', '0', '.']).is_empty() {
                    text.trim_start_matches('-').to_owned()
                } else {
                    text
                }
            }
            _ => "–".to_owned(),
        }
    }

    /// A value with its unit.
    #[must_use]
    pub fn with_unit(&self, value: Option<f64>) -> String {
        let number = self.number(value);
        if self.unit.is_empty() || number == "–" { number } else { format!("{number} {}", self.unit) }
    }

    /// For an axis.
    #[must_use]
    pub fn scaled(&self, value: f64) -> f64 {
        value * self.factor
    }
}

/// Seconds as a person says them.
#[must_use]
pub fn seconds(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(s) if s < 60.0 => format!("{s:.1} s"),
        Some(s) if s < 3600.0 => format!("{} min {:02} s", (s / 60.0) as u64, (s % 60.0) as u64),
        Some(s) => format!("{} h {:02} min", (s / 3600.0) as u64, (s % 3600.0 / 60.0) as u64),
    }
}

/// A share as per cent.
#[must_use]
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(
        || "–".to_owned(),
        |share| {
            let percent = share * 100.0;
            let rounded = format!("{percent:.2}");
            format!("{} %", rounded.trim_end_matches('0').trim_end_matches('.'))
        },
    )
}

/// A limit of a share, in whole per cent: more digits would promise what n does not hold.
#[must_use]
pub fn about_percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A time without the parts of a second.
#[must_use]
pub fn moment(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

/// The first letters of a UUID v7 say when; the last ones tell two apart.
#[must_use]
pub fn short_id(id: &str) -> &str {
    let from = id.len().saturating_sub(8);
    id.get(from..).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_points_and_nothing_is_hidden() {
        let points = scale("fraction");
        assert_eq!(points.with_unit(Some(0.0123)), "1.23 points");
        assert_eq!(points.with_unit(Some(-0.000_000_1)), "-1.0e-5 points");
        assert_eq!(points.number(Some(-0.0)), "0.00");
        assert_eq!(points.with_unit(Some(f64::NAN)), "–");
        assert_eq!(points.with_unit(None), "–");
        assert_eq!(percent(Some(0.98)), "98 %");
        assert_eq!(percent(Some(0.9875)), "98.75 %");
        assert_eq!(seconds(Some(3725.0)), "1 h 02 min");
        assert_eq!(about_percent(0.3085), "31 %");
        assert_eq!(moment("2026-01-01T00:00:01.5Z"), "2026-01-01T00:00:01Z");
    }
}
