//! Whether an answer has the shape, by the keywords that schemars writes. It names the first field at fault, in
//! words that can be sent back to a model. It is not a general validator: a keyword it does not know says nothing.

use serde_json::Value;

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {why}")]
pub struct Violation {
    /// The field, like `variants[2].name`; `.` for the whole.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// References followed in a row without going into the value: more is a definition that is only itself.
const LONGEST_CHAIN: usize = 32;

/// Checks a value against a schema.
///
/// # Errors
/// The first [`Violation`].
pub fn check(schema: &Value, value: &Value) -> Result<(), Violation> {
    Checker { root: schema }.check(schema, value, "", 0)
}

struct Checker<'a> {
    root: &'a Value,
}

fn wrong(path: &str, why: impl Into<String>) -> Violation {
    Violation { path: if path.is_empty() { ".".to_owned() } else { path.to_owned() }, why: why.into() }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|n| n.fract() != 0.0) => {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_kind(value: &Value, wanted: &str) -> bool {
    let kind = kind_of(value);
    kind == wanted || (kind == "integer" && wanted == "number")
}

impl Checker<'_> {
    fn check(&self, schema: &Value, value: &Value, path: &str, chain: usize) -> Result<(), Violation> {
        let Some(schema) = schema.as_object() else {
            return if *schema == Value::Bool(false) {
                Err(wrong(path, "is not allowed here"))
            } else {
                Ok(())
            };
        };
        if chain > LONGEST_CHAIN {
            return Err(wrong(path, "the schema refers to itself"));
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str)
            && let Some(target) = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer))
        {
            self.check(target, value, path, chain + 1)?;
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.check(part, value, path, chain + 1)?;
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(alternatives) = schema.get(keyword).and_then(Value::as_array) {
                self.any(alternatives, value, path, chain)?;
            }
        }
        let kinds: Vec<&str> = match schema.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| is_kind(value, kind)) {
            return Err(wrong(path, format!("must be {}, and is {}", kinds.join(" or "), kind_of(value))));
        }
        if let Some(only) = schema.get("const")
            && only != value
        {
            return Err(wrong(path, format!("must be {only}")));
        }
        if let Some(Value::Array(values)) = schema.get("enum")
            && !values.contains(value)
        {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            return Err(wrong(path, format!("must be one of {}", values.join(", "))));
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => self.array(schema, items, path),
            Value::String(text) => {
                length(schema, text.chars().count(), ["minLength", "maxLength"], path, "characters")
            }
            Value::Number(number) => range(schema, number.as_f64().unwrap_or(f64::NAN), path),
            _ => Ok(()),
        }
    }

    fn any(&self, alternatives: &[Value], value: &Value, path: &str, chain: usize) -> Result<(), Violation> {
        let mut deepest: Option<Violation> = None;
        for alternative in alternatives {
            match self.check(alternative, value, path, chain + 1) {
                Ok(()) => return Ok(()),
                // The alternative that failed furthest in is the one that was meant.
                Err(violation) => {
                    if deepest.as_ref().is_none_or(|old| violation.path.len() > old.path.len()) {
                        deepest = Some(violation);
                    }
                }
            }
        }
        match deepest {
            Some(violation) if alternatives.len() == 1 || violation.path.len() > path.len().max(1) => {
                Err(violation)
            }
            _ => Err(wrong(path, "matches none of the alternatives")),
        }
    }

    fn object(
        &self,
        schema: &serde_json::Map<String, Value>,
        fields: &serde_json::Map<String, Value>,
        path: &str,
    ) -> Result<(), Violation> {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = name.as_str()
                && !fields.contains_key(name)
            {
                return Err(wrong(&below(name), "is missing"));
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, value) in fields {
            let own = properties.and_then(|properties| properties.get(name));
            match (own, schema.get("additionalProperties")) {
                (Some(own), _) => self.check(own, value, &below(name), 0)?,
                (None, Some(Value::Bool(false))) => return Err(wrong(&below(name), "is not a known field")),
                (None, Some(more)) => self.check(more, value, &below(name), 0)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn array(
        &self,
        schema: &serde_json::Map<String, Value>,
        items: &[Value],
        path: &str,
    ) -> Result<(), Violation> {
        length(schema, items.len(), ["minItems", "maxItems"], path, "items")?;
        if let Some(of) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.check(of, item, &format!("{path}[{index}]"), 0)?;
            }
        }
        Ok(())
    }
}

fn length(
    schema: &serde_json::Map<String, Value>,
    length: usize,
    [least, most]: [&str; 2],
    path: &str,
    unit: &str,
) -> Result<(), Violation> {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(least) = bound(least)
        && (length as u64) < least
    {
        return Err(wrong(path, format!("must have at least {least} {unit}, and has {length}")));
    }
    if let Some(most) = bound(most)
        && length as u64 > most
    {
        return Err(wrong(path, format!("must have at most {most} {unit}, and has {length}")));
    }
    Ok(())
}

fn range(schema: &serde_json::Map<String, Value>, number: f64, path: &str) -> Result<(), Violation> {
    type Holds = fn(&f64, &f64) -> bool;
    let rules: [(&str, Holds, &str); 4] = [
        ("minimum", f64::ge, "at least"),
        ("maximum", f64::le, "at most"),
        ("exclusiveMinimum", f64::gt, "more than"),
        ("exclusiveMaximum", f64::lt, "less than"),
    ];
    for (keyword, holds, word) in rules {
        if let Some(bound) = schema.get(keyword).and_then(Value::as_f64)
            && !holds(&number, &bound)
        {
            return Err(wrong(path, format!("must be {word} {bound}, and is {number}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_field_at_fault() {
        let schema = json!({"type": "object", "required": ["variants"], "additionalProperties": false,
            "properties": {"variants": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/V"}}},
            "$defs": {"V": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "maxLength": 3},
                "lr": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
                "kind": {"enum": ["a", "b"]}}}}});
        let path = |value: Value| check(&schema, &value).map_err(|violation| violation.path);
        assert_eq!(path(json!({"variants": [{"name": "x", "lr": null}, {"name": "y", "lr": 1}]})), Ok(()));
        for (value, wanted) in [
            (json!({}), "variants"),
            (json!([]), "."),
            (json!({"variants": []}), "variants"),
            (json!({"variants": [{"name": "x"}, {}]}), "variants[1].name"),
            (json!({"variants": [{"name": "long"}]}), "variants[0].name"),
            (json!({"variants": [{"name": "x", "lr": 0}]}), "variants[0].lr"),
            (json!({"variants": [{"name": "x", "kind": "c"}]}), "variants[0].kind"),
            (json!({"variants": [{"name": "x"}], "more": 1}), "more"),
        ] {
            assert_eq!(path(value), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn whole_numbers_are_integers_however_written() {
        assert!(check(&json!({"type": "integer"}), &json!(3.0)).is_ok());
        assert!(check(&json!({"type": "integer"}), &json!(3.5)).is_err());
        assert!(check(&json!({"type": "number"}), &json!(3)).is_ok());
    }
}
