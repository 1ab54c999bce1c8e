//! The researcher never does arithmetic that counts: every number that it writes must match one that the program
//! computed, up to rounding, per cent and points, or a difference or ratio of two of them. What matches none is sent
//! back, and a sentence that still holds one is taken out (DESIGN §7, step 5).

use super::{
    record::{ExperimentRecord, FindingRecord},
    researcher::{ClosedExperiment, Interpretation},
};

/// Whole numbers up to this are counts of things in a text ("two arms", "3 seeds") and need no match.
const COUNT_MAX: f64 = 12.0;

/// Every computed number that may be cited, as they are and in hundredths.
#[derive(Debug, Clone, Default)]
pub struct Computed {
    numbers: Vec<f64>,
    /// Numbers of the same kind, whose differences and ratios may be cited.
    comparable: Vec<f64>,
}

/// Numbers in a text, as written, with their place. A number that belongs to a name (`v1`, `e2`, `f3`, `run-7`) is none.
fn written(text: &str) -> Vec<(usize, String)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let begins = bytes[at].is_ascii_digit();
        if !begins {
            at += 1;
            continue;
        }
        let before = text[..at].chars().next_back();
        let start = at;
        while at < bytes.len() {
            let more = bytes[at].is_ascii_digit()
                || (matches!(bytes[at], b'.' | b',') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit))
                || (matches!(bytes[at], b'e' | b'E')
                    && matches!(bytes.get(at + 1), Some(b'-' | b'+' | b'0'..=b'9'))
                    && bytes[at + 1..].iter().take(2).any(u8::is_ascii_digit));
            let exponent_sign =
                matches!(bytes[at], b'-' | b'+') && at > start && matches!(bytes[at - 1], b'e' | b'E');
            if !(more || exponent_sign) {
                break;
            }
            at += 1;
        }
        let after = text[at..].chars().next();
        let name = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '#')
            || after
                .is_some_and(|c| c.is_alphabetic() && !matches!(c, 's' | 'x' | 'p' | 'm' | 'h' | 'M' | 'G'))
            || (before == Some('-')
                && text[..start - 1].chars().next_back().is_some_and(char::is_alphanumeric));
        if name {
            continue;
        }
        let number = text[start..at].to_owned();
        // The sign is left away: "a drop of 1.2" and "−1.2" are the same number.
        found.push((start, number));
    }
    found
}

/// The numbers of a text, as written.
#[must_use]
pub fn all(text: &str) -> Vec<String> {
    written(text).into_iter().map(|(_, number)| number).collect()
}

fn parse(number: &str) -> Option<(f64, f64)> {
    let plain = number.replace(',', "");
    let value: f64 = plain.parse().ok()?;
    // Half a unit of the last written digit: what rounding may have taken.
    let mantissa = plain.split(['e', 'E']).next().unwrap_or("");
    let exponent: i32 = plain.split(['e', 'E']).nth(1).and_then(|e| e.parse().ok()).unwrap_or(0);
    let decimals = mantissa.split_once('.').map_or(0, |(_, d)| i32::try_from(d.len()).unwrap_or(0));
    Some((value, 0.5 * 10f64.powi(exponent - decimals)))
}

impl Computed {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.numbers.push(value.abs());
        }
    }

    fn add_comparable(&mut self, value: Option<f64>) {
        if let Some(value) = value.filter(|v| v.is_finite()) {
            self.add(value);
            self.comparable.push(value);
        }
    }

    fn add_text(&mut self, text: &str) {
        for (_, number) in written(text) {
            if let Some((value, _)) = parse(&number) {
                self.add(value);
            }
        }
    }

    /// Whether a written number is a computed one.
    fn has(&self, number: &str) -> bool {
        let Some((value, slack)) = parse(number) else { return false };
        let slack = slack * 1.000_001 + 1e-12;
        let near =
            |known: f64| (known.abs() - value).abs() <= slack || (100.0 * known.abs() - value).abs() <= slack;
        if value.fract() == 0.0 && value <= COUNT_MAX && !number.contains('.') {
            return true;
        }
        self.numbers.iter().any(|known| near(*known))
            || self.comparable.iter().enumerate().any(|(index, a)| {
                self.comparable[..index].iter().any(|b| {
                    near(a - b)
                        || (*b != 0.0 && (near(a / b) || near(a / b - 1.0)))
                        || (*a != 0.0 && (near(b / a) || near(b / a - 1.0)))
                })
            })
    }
}

/// What may be cited of an experiment.
#[must_use]
pub fn computed(
    record: &ExperimentRecord,
    result: &ClosedExperiment,
    findings: &[FindingRecord],
) -> Computed {
    let mut out = Computed::default();
    for variant in &result.variants {
        out.add_comparable(variant.mean);
        for value in [variant.deviation, variant.seconds].into_iter().flatten() {
            out.add(value);
        }
        out.add(f64::from(variant.seeds));
        out.add(f64::from(variant.failed));
    }
    for contrast in &result.contrasts {
        for value in [contrast.estimate, contrast.low, contrast.high].into_iter().flatten() {
            out.add(value);
            if record.plan.metric.scale == super::plan::MetricScale::Log {
                out.add(value.exp());
                out.add(value.exp() - 1.0);
            }
        }
    }
    for text in record.rulings.iter().chain(&record.notes) {
        out.add_text(text);
    }
    for finding in findings {
        out.add_text(&finding.finding.text);
    }
    // What was registered may be cited too: levels, steps, Δ, sizes.
    if let Ok(plan) = serde_json::to_value(&record.plan) {
        registered(&plan, &mut out);
    }
    out
}

fn registered(value: &serde_json::Value, out: &mut Computed) {
    match value {
        serde_json::Value::Number(number) => out.add(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => out.add_text(text),
        serde_json::Value::Array(items) => items.iter().for_each(|item| registered(item, out)),
        serde_json::Value::Object(fields) => fields.values().for_each(|field| registered(field, out)),
        serde_json::Value::Null | serde_json::Value::Bool(_) => {}
    }
}

/// The numbers of a reading that match no computed one, as written.
#[must_use]
pub fn unknown(said: &Interpretation, known: &Computed) -> Vec<String> {
    let texts = std::iter::once(&said.text).chain(&said.threats);
    let all = texts.flat_map(|text| written(text)).map(|(_, number)| number);
    let mut wrong: Vec<String> = all.filter(|number| !known.has(number)).collect();
    wrong.dedup();
    wrong
}

/// Sentences of a text, their ends included. A point inside a number ends none.
fn sentences(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    for (index, (at, c)) in chars.iter().enumerate() {
        let next = chars.get(index + 1).map(|(_, c)| *c);
        let ends = *c == '\n' || (matches!(c, '.' | '!' | '?') && next.is_none_or(char::is_whitespace));
        if ends {
            let end = at + c.len_utf8();
            out.push(&text[start..end]);
            start = end;
        }
    }
    if start < text.len() {
        out.push(&text[start..]);
    }
    out
}

/// The text without the sentences whose numbers match no computed one, and those sentences.
#[must_use]
pub fn keep(text: &str, known: &Computed) -> (String, Vec<String>) {
    let (mut kept, mut removed) = (String::new(), Vec::new());
    for sentence in sentences(text) {
        if written(sentence).iter().all(|(_, number)| known.has(number)) {
            kept.push_str(sentence);
        } else {
            removed.push(sentence.trim().to_owned());
        }
    }
    if !removed.is_empty() {
        kept =
            format!("{} [A sentence was left out: a number in it matched no computed one.]", kept.trim_end());
    }
    (kept.trim().to_owned(), removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Computed {
        let mut known = Computed::default();
        known.add_comparable(Some(0.9512));
        known.add_comparable(Some(0.9637));
        known.add(0.0125);
        known.add(1437.0);
        known
    }

    #[test]
    fn rounding_per_cent_differences_and_ratios_match() {
        let known = known();
        for good in ["0.951", "95.1", "95", "96.4", "0.0125", "1.25", "1.2", "1,437", "1.3", "1.013", "3"] {
            assert!(known.has(good), "{good}");
        }
        for wrong in ["0.952", "97", "2.5", "0.5", "1438", "42"] {
            assert!(!known.has(wrong), "{wrong}");
        }
    }

    #[test]
    fn numbers_in_names_are_none() {
        let found: Vec<String> = written("In e2, v1 beat v12 (run-77) by 1.25 points, f3; 1e-3 and 5s.")
            .into_iter()
            .map(|f| f.1)
            .collect();
        assert_eq!(found, ["1.25", "1e-3", "5"]);
    }

    #[test]
    fn a_sentence_with_an_invented_number_goes() {
        let known = known();
        let text = "Batch norm reached 96.4 %. It converged 23 % faster! The gain is 1.25 points.";
        let (kept, removed) = keep(text, &known);
        assert_eq!(removed, ["It converged 23 % faster!"]);
        assert!(
            kept.contains("96.4 %") && kept.contains("1.25 points") && kept.contains("left out"),
            "{kept}"
        );
        let said = Interpretation { text: text.into(), threats: vec!["Only 42 seeds.".into()] };
        assert_eq!(unknown(&said, &known), ["23", "42"]);
    }
}
