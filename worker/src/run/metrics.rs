//! Metric lines, parsed with bounds. Every byte comes from the program: a bad line is counted and skipped, never
//! a panic, and no line costs more memory than [`LINE_BYTES_MAX`].
//!
//! ```text
//! the metrics stream:  {"t":1234567,"step":10,"v":{"loss":"0.25","val/acc@1":"nan"}}
//! stdout, if asked:    loss: 0.25
//! ```
//!
//! Values are Python's `repr` of a float, so NaN and infinities survive.

use std::{collections::BTreeSet, fmt};

use proto::v1::MetricPoint;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// A longer line is bad.
pub const LINE_BYTES_MAX: usize = 4096;

/// Which kind of lines.
#[derive(Debug, Clone)]
enum Lines {
    /// The metrics stream.
    Json,
    /// `name: value`, for these names.
    Plain(BTreeSet<String>),
    /// `name: value`, for every name.
    PlainAll,
}

/// Cuts a stream into lines and reads points from them.
#[derive(Debug, Clone)]
pub struct MetricReader {
    lines: Lines,
    /// A line whose end has not come yet.
    partial: Vec<u8>,
    /// The line is too long, or its beginning was dropped: wait for the next one.
    skipping: bool,
    /// Lines that were no metrics; in plain text no line is bad.
    bad_lines: u64,
}

impl MetricReader {
    /// For the metrics stream.
    #[must_use]
    pub fn json() -> Self {
        Self { lines: Lines::Json, partial: Vec::new(), skipping: false, bad_lines: 0 }
    }

    /// For stdout; `*` among the names reads them all.
    #[must_use]
    pub fn plain(names: &[String]) -> Self {
        let lines = if names.iter().any(|name| name == "*") {
            Lines::PlainAll
        } else {
            Lines::Plain(names.iter().cloned().collect())
        };
        Self { lines, ..Self::json() }
    }

    /// How many lines were no metrics.
    #[must_use]
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines
    }

    /// Takes the next bytes of the stream; appends the points of the lines that ended in them.
    pub fn feed(&mut self, mut data: &[u8], out: &mut Vec<MetricPoint>) {
        while let Some(newline) = memchr::memchr(b'\n', data) {
            let (line, rest) = data.split_at(newline);
            data = &rest[1..];
            if std::mem::take(&mut self.skipping) {
                self.partial.clear();
            } else if self.partial.is_empty() {
                self.line(line, out);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(&line[..line.len().min(LINE_BYTES_MAX + 1)]);
                self.line(&whole, out);
                whole.clear();
                self.partial = whole;
            }
        }
        if self.skipping {
            return;
        }
        if self.partial.len() + data.len() > LINE_BYTES_MAX {
            self.count_bad();
            self.partial.clear();
            self.skipping = true;
        } else {
            self.partial.extend_from_slice(data);
        }
    }

    /// Bytes are missing here: the line that they cut is not read.
    pub fn gap(&mut self) {
        self.partial.clear();
        self.skipping = true;
    }

    /// The stream is at its end: a last line may lack its newline.
    pub fn finish(&mut self, out: &mut Vec<MetricPoint>) {
        let line = std::mem::take(&mut self.partial);
        if !self.skipping && !line.is_empty() {
            self.line(&line, out);
        }
    }

    fn count_bad(&mut self) {
        if matches!(self.lines, Lines::Json) {
            self.bad_lines += 1;
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<MetricPoint>) {
        if line.len() > LINE_BYTES_MAX {
            return self.count_bad();
        }
        match &self.lines {
            Lines::Json if line.is_empty() => {}
            Lines::Json => match serde_json::from_slice::<JsonLine>(line) {
                Ok(parsed) => out.extend(parsed.values.0.into_iter().map(|(name, value)| MetricPoint {
                    name,
                    value,
                    step: parsed.step,
                    elapsed_ns: parsed.elapsed_ns,
                })),
                Err(_) => self.count_bad(),
            },
            Lines::PlainAll => out.extend(plain(line, |_| true)),
            Lines::Plain(names) => out.extend(plain(line, |name| names.contains(name))),
        }
    }
}

/// `name: value` and nothing else on the line.
fn plain(line: &[u8], wanted: impl Fn(&str) -> bool) -> Option<MetricPoint> {
    let colon = memchr::memchr(b':', line)?;
    let name = std::str::from_utf8(&line[..colon]).ok()?.trim();
    if !wanted(name) || kit::name::check_metric(name).is_err() {
        return None;
    }
    let value = python_float(std::str::from_utf8(&line[colon + 1..]).ok()?.trim())?;
    Some(MetricPoint { name: name.to_owned(), value, step: None, elapsed_ns: 0 })
}

/// What Python's `repr(float)` can be, and plain integers; narrower than Rust's own parser.
fn python_float(text: &str) -> Option<f64> {
    match text {
        "nan" => return Some(f64::NAN),
        "inf" => return Some(f64::INFINITY),
        "-inf" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let plain = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        return None;
    }
    text.parse().ok()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonLine {
    #[serde(rename = "t")]
    elapsed_ns: u64,
    #[serde(default)]
    step: Option<i64>,
    #[serde(rename = "v")]
    values: Values,
}

/// Names and values in their order; a name that comes twice or is none spoils the line.
struct Values(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Values;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of metric names and Python floats as text")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut values: Vec<(String, f64)> = Vec::new();
                let mut names = BTreeSet::new();
                while let Some((name, text)) = map.next_entry::<String, String>()? {
                    kit::name::check_metric(&name).map_err(de::Error::custom)?;
                    let value = python_float(&text).ok_or_else(|| de::Error::custom("not a float"))?;
                    if !names.insert(name.clone()) {
                        return Err(de::Error::custom("a name comes twice"));
                    }
                    values.push((name, value));
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> (Vec<MetricPoint>, u64) {
        let (mut reader, mut out) = (MetricReader::json(), Vec::new());
        reader.feed(text.as_bytes(), &mut out);
        reader.finish(&mut out);
        (out, reader.bad_lines())
    }

    #[test]
    fn reads_what_the_runner_writes() {
        let (points, bad) = json("{\"t\":5,\"step\":2,\"v\":{\"loss\":\"0.1\",\"val/acc@1\":\"nan\"}}\n");
        assert_eq!((points.len(), bad), (2, 0));
        assert_eq!((points[0].name.as_str(), points[0].value, points[0].step), ("loss", 0.1, Some(2)));
        assert!(points[1].value.is_nan() && points[1].elapsed_ns == 5);
        let (points, bad) = json("{\"t\":5,\"step\":null,\"v\":{\"a\":\"-inf\",\"b\":\"1e-05\"}}");
        assert_eq!(
            (points[0].value, points[1].value, points[1].step, bad),
            (f64::NEG_INFINITY, 1e-5, None, 0)
        );
    }

    #[test]
    fn bad_lines_are_counted_and_passed_over() {
        let wrong = [
            "x",
            "[]",
            "{\"t\":1}",
            "{\"t\":-1,\"v\":{}}",
            "{\"t\":1,\"v\":{\"a b\":\"1\"}}",
            "{\"t\":1,\"v\":{\"a\":1}}",
            "{\"t\":1,\"v\":{\"a\":\"0x1\"}}",
            "{\"t\":1,\"v\":{\"a\":\"1\",\"a\":\"2\"}}",
            "{\"t\":1,\"v\":{\"a\":\"1\"},\"outcome\":\"succeeded\"}",
            "{\"t\":1,\"v\":{\"a\":\"1\"}} x",
            "{\"t\":1,\"v\":{\"a\":\"infinity\"}}",
            "\u{0}",
        ];
        let good = "{\"t\":1,\"v\":{\"a\":\"7\"}}";
        for line in wrong {
            let (points, bad) = json(&format!("{line}\n{good}\n"));
            assert_eq!((points.len(), bad), (1, 1), "{line}");
        }
        let deep = format!("{{\"t\":1,\"v\":{}", "[".repeat(4000));
        assert_eq!(json(&deep), (vec![], 1));
    }

    #[test]
    fn a_line_too_long_costs_itself_only() {
        let long = format!("{{\"t\":1,\"v\":{{\"a\":\"1\"}}}}{}", " ".repeat(LINE_BYTES_MAX));
        let text = format!("{long}\n{{\"t\":1,\"v\":{{\"b\":\"2\"}}}}\n");
        for step in [1, 7, 4095, 4096, 4097, 100_000] {
            let (mut reader, mut out) = (MetricReader::json(), Vec::new());
            for chunk in text.as_bytes().chunks(step) {
                reader.feed(chunk, &mut out);
                assert!(reader.partial.len() <= LINE_BYTES_MAX);
            }
            assert_eq!((out.len(), reader.bad_lines()), (1, 1), "in pieces of {step}");
            assert_eq!(out[0].name, "b");
        }
    }

    #[test]
    fn a_gap_spoils_the_line_it_cuts() {
        let (mut reader, mut out) = (MetricReader::json(), Vec::new());
        reader.feed(b"{\"t\":1,\"v\":{\"a\":", &mut out);
        reader.gap();
        reader.feed(b"\"7\"}}\n{\"t\":1,\"v\":{\"b\":\"8\"}}\n", &mut out);
        assert_eq!((out.len(), out[0].name.as_str(), reader.bad_lines()), (1, "b", 0));
    }

    #[test]
    fn plain_lines_by_name_or_all() {
        let text = b"loss: 0.5\nacc : nan\nnote: hello\nepoch 3\nbad name: 1\nloss: 0.25 %\n 12:30\n";
        let read = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let (mut reader, mut out) = (MetricReader::plain(&names), Vec::new());
            reader.feed(text, &mut out);
            reader.finish(&mut out);
            assert_eq!(reader.bad_lines(), 0);
            out.into_iter().map(|p| p.name).collect::<Vec<_>>()
        };
        assert_eq!(read(&["loss"]), ["loss"]);
        assert_eq!(read(&["*"]), ["loss", "acc", "12"]);
        assert!(read(&["other"]).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..20_000), step in 1_usize..9000
        ) {
            for mut reader in [MetricReader::json(), MetricReader::plain(&["*".to_owned()])] {
                let mut out = Vec::new();
                for chunk in bytes.chunks(step) {
                    reader.feed(chunk, &mut out);
                    prop_assert!(reader.partial.len() <= LINE_BYTES_MAX);
                }
                reader.finish(&mut out);
                prop_assert!(out.iter().all(|p| kit::name::check_metric(&p.name).is_ok()));
            }
        }

        #[test]
        fn the_pieces_do_not_matter(values in proptest::collection::vec(any::<f64>(), 1..40), step in 1_usize..200) {
            let text: String = values.iter().map(|v| {
                let value = if v.is_finite() { format!("{v:?}") } else { format!("{v}").to_lowercase() };
                format!("{{\"t\":1,\"v\":{{\"a\":\"{value}\"}}}}\n")
            }).collect();
            let (mut reader, mut out) = (MetricReader::json(), Vec::new());
            for chunk in text.as_bytes().chunks(step) {
                reader.feed(chunk, &mut out);
            }
            prop_assert_eq!(reader.bad_lines(), 0);
            prop_assert_eq!(out.len(), values.len());
            for (point, value) in out.iter().zip(&values) {
                prop_assert!(point.value == *value || (point.value.is_nan() && value.is_nan()));
            }
        }
    }
}
