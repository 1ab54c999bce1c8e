//! From an answer's text to an accepted value. Nothing is repaired: an answer with a bracket too few was cut off,
//! and closing it would make half a plan into a whole one.

use serde_json::Value;

use super::{error::Fault, schema::Schema, wire::Answer};

/// The text and, where a shape was asked for, the value. `untidy` servers leave reasoning and fences in the text.
pub(super) fn accept(
    answer: &mut Answer,
    schema: Option<&Schema>,
    untidy: bool,
) -> Result<(String, Option<Value>), Fault> {
    let tidied = if untidy { tidy(&answer.text) } else { &answer.text };
    let Some(schema) = schema else {
        return if tidied.trim().is_empty() {
            Err(Fault::MidStream("the answer is empty".into()))
        } else {
            Ok((tidied.to_owned(), None))
        };
    };
    if tidied.trim().is_empty()
        && let Some(aside) = answer.aside.take()
    {
        // Some servers put the JSON into the reasoning field. It is taken only where it is the whole of it.
        let value = read(&aside, schema)?;
        tracing::warn!(
            "the answer came in the reasoning field; the server's reasoning parser is set up wrongly"
        );
        return Ok((aside, Some(value)));
    }
    let value = read(tidied, schema)?;
    Ok((tidied.trim().to_owned(), Some(value)))
}

fn read(text: &str, schema: &Schema) -> Result<Value, Fault> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Fault::NotJson { why: "it is empty".into(), text: String::new() });
    }
    // Strict, bounded in depth (128), and an error where anything but white space is left over.
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Fault::NotJson { why: error.to_string(), text: text.to_owned() })?;
    match super::schema::check(&schema.json, &value) {
        Ok(()) => Ok(value),
        Err(wrong) => Err(Fault::WrongShape { path: wrong.path, why: wrong.why, text: text.to_owned() }),
    }
}

/// Cuts off a leading `<think>…</think>`, then unwraps one fence that holds everything. Tags and fences inside a
/// JSON string stay.
fn tidy(text: &str) -> &str {
    let text = text.trim_start_matches('\u{feff}').trim();
    let before_json = text.find('{').unwrap_or(text.len());
    let text = match text.find("</think>") {
        Some(end) if text.starts_with("<think>") || end < before_json => &text[end + "</think>".len()..],
        _ => text.strip_prefix("<think>").unwrap_or(text),
    };
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    match inner.and_then(|inner| inner.split_once('\n')) {
        Some((language, body)) if language.trim().chars().all(|c| c.is_ascii_alphanumeric()) => body.trim(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let json = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}});
        Schema { name: "t".into(), json }
    }

    fn take(text: &str, untidy: bool) -> Result<Value, Fault> {
        let mut answer = Answer { text: text.into(), aside: None, usage: Default::default(), model: None };
        accept(&mut answer, Some(&schema()), untidy).map(|(_, value)| value.unwrap_or_default())
    }

    #[test]
    fn only_a_whole_value_is_taken() {
        assert_eq!(take(" {\"a\":\"x\"}\n", false), Ok(json!({"a": "x"})));
        for wrong in
            ["", "{\"a\":\"x\"} done", "{\"a\":\"x\"}{\"a\":\"y\"}", "{\"a\":\"x", "Sure: {\"a\":\"x\"}"]
        {
            assert!(matches!(take(wrong, true), Err(Fault::NotJson { .. })), "{wrong}");
        }
        assert!(
            matches!(take("{\"thought\":\"x\"}", true), Err(Fault::WrongShape { path, .. }) if path == "a")
        );
        let deep = "[".repeat(10_000);
        assert!(matches!(take(&deep, true), Err(Fault::NotJson { .. })));
        assert!(matches!(take("```json\n{\"a\":\"x\"}\n```", false), Err(Fault::NotJson { .. })));
    }

    #[test]
    fn reasoning_and_fences_are_cut_off_and_nothing_else() {
        for text in [
            "<think>{hm}</think>{\"a\":\"x\"}",
            "hm, so</think>\n{\"a\":\"x\"}",
            "<think>\n{\"a\":\"x\"}",
            "```json\n{\"a\":\"x\"}\n```",
            "```\n{\"a\":\"x\"}\n```",
            "<think>a</think>\n```json\n{\"a\":\"x\"}\n```\n",
        ] {
            assert_eq!(take(text, true), Ok(json!({"a": "x"})), "{text}");
        }
        for inside in ["<think>no</think>", "</think>", "```py\\nx\\n```"] {
            let text = format!("{{\"a\":\"{inside}\"}}");
            let kept = take(&text, true).expect("accepted");
            assert_eq!(kept["a"], inside.replace("\\n", "\n"));
        }
        assert!(take("Here:\n```json\n{\"a\":\"x\"}\n```", true).is_err(), "prose around a fence");
    }

    #[test]
    fn json_in_the_reasoning_field_counts_where_it_is_all_there_is() {
        let aside = Some("{\"a\":\"x\"}".to_owned());
        let mut answer = Answer { text: String::new(), aside, usage: Default::default(), model: None };
        assert!(accept(&mut answer, Some(&schema()), true).is_ok());
        let aside = Some("let me see".to_owned());
        let mut answer = Answer { text: String::new(), aside, usage: Default::default(), model: None };
        assert!(accept(&mut answer, Some(&schema()), true).is_err());
    }
}
