//! JSON Schema in the subset that every provider takes (PROVIDERS §2.8, §3.7): an object at the root, every
//! property required, `additionalProperties: false` everywhere, `anyOf` for alternatives, definitions inlined, no
//! recursion. What a provider would refuse is moved into the description as words, where the model can still read
//! it; what cannot be said at all is an error at once and not a 400 in the middle of the night.
//!
//! A property that is optional in the original becomes required: the model gives it always, as `null` where the
//! original admits that. Order of keys is kept: providers compile a schema once and cache it by its bytes.

use serde_json::{Map, Value, json};

/// Deeper than this no provider goes.
const DEEPEST: usize = 10;
/// References followed on the way to one place; more means a definition that holds itself.
const LONGEST_CHAIN: usize = 24;

/// What cannot be said in the subset.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the schema cannot be sent: at `{path}`: {why}")]
pub struct SubsetError {
    /// The place, like `properties.variants.items`.
    pub path: String,
    /// What is wrong there.
    pub why: String,
}

/// Rewrites a schema into the subset.
///
/// # Errors
/// [`SubsetError`] for recursion, free-form objects, tuples, references to elsewhere, and a root that is no object.
pub fn subset(schema: &Value) -> Result<Value, SubsetError> {
    let rewriter = Rewriter { root: schema };
    let mut path = Vec::new();
    let rewritten = rewriter.rewrite(schema, &mut path, 0, 0)?;
    if rewritten["type"] == "object" {
        Ok(rewritten)
    } else {
        Err(wrong(&path, "the root must be an object"))
    }
}

fn wrong(path: &[String], why: impl Into<String>) -> SubsetError {
    let path = if path.is_empty() { ".".to_owned() } else { path.join(".") };
    SubsetError { path, why: why.into() }
}

struct Rewriter<'a> {
    root: &'a Value,
}

/// Keywords that say nothing to a model.
const SILENT: [&str; 8] =
    ["$schema", "$id", "$defs", "definitions", "title", "$comment", "writeOnly", "readOnly"];

impl Rewriter<'_> {
    fn rewrite(
        &self,
        schema: &Value,
        path: &mut Vec<String>,
        depth: usize,
        chain: usize,
    ) -> Result<Value, SubsetError> {
        if depth > DEEPEST || chain > LONGEST_CHAIN {
            return Err(wrong(path, "too deep: it is nested more than 10 levels, or holds itself"));
        }
        let Some(object) = schema.as_object() else {
            return Err(wrong(path, "anything is allowed here; say which type"));
        };
        let object = self.merged(object, path, chain)?;
        if let Some(kinds) = object.get("type").and_then(Value::as_array) {
            return self.split_kinds(&object, kinds, path, depth, chain);
        }
        for (from, to) in [("oneOf", "anyOf"), ("anyOf", "anyOf")] {
            if let Some(alternatives) = object.get(from).and_then(Value::as_array) {
                return self.alternatives(&object, (from, to), alternatives, path, depth, chain);
            }
        }
        let mut out = Map::new();
        let mut notes = Vec::new();
        if let Some(kind) = kind_of(&object) {
            out.insert("type".into(), json!(kind));
        } else {
            return Err(wrong(path, "no type is given; say which"));
        }
        for (keyword, value) in &object {
            match keyword.as_str() {
                "type" | "required" | "description" | "additionalProperties" => {}
                "properties" => {
                    out.insert("properties".into(), self.properties(value, path, depth, chain)?);
                }
                "items" => {
                    path.push("items".into());
                    out.insert("items".into(), self.rewrite(value, path, depth + 1, chain + 1)?);
                    path.pop();
                }
                "enum" => {
                    out.insert("enum".into(), value.clone());
                }
                "const" => {
                    out.insert("enum".into(), json!([value]));
                }
                "prefixItems" | "not" | "if" | "then" | "else" | "patternProperties" | "dependentSchemas" => {
                    return Err(wrong(path, format!("`{keyword}` is taken by no provider")));
                }
                keyword if SILENT.contains(&keyword) => {}
                keyword => notes.extend(words(keyword, value)),
            }
        }
        self.close(&object, &mut out, path)?;
        describe(&object, &notes, &mut out);
        Ok(Value::Object(out))
    }

    /// Makes an object closed and an array typed.
    fn close(
        &self,
        object: &Map<String, Value>,
        out: &mut Map<String, Value>,
        path: &[String],
    ) -> Result<(), SubsetError> {
        if out["type"] == "object" {
            let free = object.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
            let names = out.get("properties").and_then(Value::as_object).map(|properties| {
                properties.keys().map(|name| Value::String(name.clone())).collect::<Vec<_>>()
            });
            match names {
                Some(names) if !free => {
                    out.insert("required".into(), Value::Array(names));
                    out.insert("additionalProperties".into(), Value::Bool(false));
                }
                _ => {
                    let why = "free-form objects are taken by no provider; use a list of name and value";
                    return Err(wrong(path, why));
                }
            }
        }
        if out["type"] == "array" && !out.contains_key("items") {
            return Err(wrong(path, "the items' type is missing"));
        }
        Ok(())
    }

    fn properties(
        &self,
        properties: &Value,
        path: &mut Vec<String>,
        depth: usize,
        chain: usize,
    ) -> Result<Value, SubsetError> {
        let mut out = Map::new();
        for (name, schema) in properties.as_object().into_iter().flatten() {
            path.push(name.clone());
            out.insert(name.clone(), self.rewrite(schema, path, depth + 1, chain + 1)?);
            path.pop();
        }
        Ok(Value::Object(out))
    }

    /// Puts a definition in the place of its reference, and what an `allOf` lists into its holder. What stands
    /// beside the reference wins: a field's own description over its type's.
    fn merged(
        &self,
        object: &Map<String, Value>,
        path: &[String],
        chain: usize,
    ) -> Result<Map<String, Value>, SubsetError> {
        if chain > LONGEST_CHAIN {
            return Err(wrong(path, "a definition that holds itself"));
        }
        let mut out = Map::new();
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let target = reference
                .strip_prefix('#')
                .and_then(|pointer| self.root.pointer(pointer))
                .and_then(Value::as_object)
                .ok_or_else(|| wrong(path, format!("`{reference}` is not in this schema")))?;
            out = self.merged(target, path, chain + 1)?;
        }
        for part in object.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            let Some(part) = part.as_object() else { continue };
            for (keyword, value) in self.merged(part, path, chain + 1)? {
                merge(&mut out, keyword, value);
            }
        }
        for (keyword, value) in object {
            if !matches!(keyword.as_str(), "$ref" | "allOf") {
                merge(&mut out, keyword.clone(), value.clone());
            }
        }
        Ok(out)
    }

    /// `type: [a, b]` as `anyOf`, each keyword going with the type it is about.
    fn split_kinds(
        &self,
        object: &Map<String, Value>,
        kinds: &[Value],
        path: &mut Vec<String>,
        depth: usize,
        chain: usize,
    ) -> Result<Value, SubsetError> {
        let mut rest = object.clone();
        rest.shift_remove("description");
        let alternatives: Vec<Value> = kinds
            .iter()
            .map(|kind| {
                let mut one = if kind == "null" { Map::new() } else { rest.clone() };
                one.insert("type".into(), kind.clone());
                Value::Object(one)
            })
            .collect();
        let mut holder = Map::new();
        if let Some(description) = object.get("description") {
            holder.insert("description".into(), description.clone());
        }
        self.alternatives(&holder, ("anyOf", "anyOf"), &alternatives, path, depth, chain)
    }

    fn alternatives(
        &self,
        object: &Map<String, Value>,
        (from, to): (&str, &str),
        alternatives: &[Value],
        path: &mut Vec<String>,
        depth: usize,
        chain: usize,
    ) -> Result<Value, SubsetError> {
        if path.is_empty() {
            return Err(wrong(path, "the root must be one object and not alternatives"));
        }
        // An enum whose values have docs comes as alternatives of one value each: those are one enum again.
        let mut out = Map::new();
        let mut notes = Vec::new();
        for (keyword, value) in object {
            if keyword != from && keyword != "description" && !SILENT.contains(&keyword.as_str()) {
                if matches!(keyword.as_str(), "properties" | "required" | "items") {
                    return Err(wrong(
                        path,
                        format!("`{keyword}` beside alternatives is taken by no provider"),
                    ));
                }
                notes.extend(words(keyword, value));
            }
        }
        if let Some((values, meanings)) = one_enum(alternatives) {
            out.insert("type".into(), json!("string"));
            out.insert("enum".into(), Value::Array(values));
            notes.extend(meanings);
        } else {
            let mut rewritten = Vec::new();
            for (index, alternative) in alternatives.iter().enumerate() {
                path.push(format!("{to}[{index}]"));
                let one = self.rewrite(alternative, path, depth, chain + 1)?;
                path.pop();
                match one.get("anyOf") {
                    Some(Value::Array(inner)) if one.as_object().is_some_and(|one| one.len() == 1) => {
                        rewritten.extend(inner.iter().cloned());
                    }
                    _ => rewritten.push(one),
                }
            }
            out.insert(to.to_owned(), Value::Array(rewritten));
        }
        describe(object, &notes, &mut out);
        Ok(Value::Object(out))
    }
}

fn merge(out: &mut Map<String, Value>, keyword: String, value: Value) {
    match (out.get_mut(&keyword), value) {
        (Some(Value::Object(old)), Value::Object(new)) if keyword == "properties" => old.extend(new),
        (Some(Value::Array(old)), Value::Array(new)) if keyword == "required" => old.extend(new),
        (Some(old), new) => *old = new,
        (None, new) => {
            out.insert(keyword, new);
        }
    }
}

/// Alternatives that are one string each, with what their docs say of them.
fn one_enum(alternatives: &[Value]) -> Option<(Vec<Value>, Vec<String>)> {
    let (mut values, mut meanings) = (Vec::new(), Vec::new());
    for alternative in alternatives {
        let few = match (alternative.get("const"), alternative.get("enum")) {
            (Some(one), None) => vec![one.clone()],
            (None, Some(Value::Array(several))) => several.clone(),
            _ => return None,
        };
        if !few.iter().all(Value::is_string) {
            return None;
        }
        if let (Some(meaning), [Value::String(name)]) =
            (alternative.get("description").and_then(Value::as_str), few.as_slice())
        {
            meanings.push(format!("{name}: {meaning}"));
        }
        values.extend(few);
    }
    Some((values, meanings))
}

fn kind_of(object: &Map<String, Value>) -> Option<String> {
    if let Some(kind) = object.get("type").and_then(Value::as_str) {
        return Some(kind.to_owned());
    }
    let sample = object.get("const").or_else(|| object.get("enum").and_then(|values| values.get(0)));
    let kind = match sample {
        Some(Value::String(_)) => "string",
        Some(Value::Number(number)) if number.is_f64() => "number",
        Some(Value::Number(_)) => "integer",
        Some(Value::Bool(_)) => "boolean",
        Some(Value::Null) => "null",
        _ if object.contains_key("properties") => "object",
        _ if object.contains_key("items") => "array",
        _ => return None,
    };
    Some(kind.to_owned())
}

/// A keyword as words.
fn words(keyword: &str, value: &Value) -> Option<String> {
    let said = match keyword {
        "minimum" => format!("at least {value}"),
        "maximum" => format!("at most {value}"),
        "exclusiveMinimum" => format!("more than {value}"),
        "exclusiveMaximum" => format!("less than {value}"),
        "multipleOf" => format!("a multiple of {value}"),
        "minLength" => format!("at least {value} characters"),
        "maxLength" => format!("at most {value} characters"),
        "minItems" => format!("at least {value} items"),
        "maxItems" => format!("at most {value} items"),
        "uniqueItems" if *value == Value::Bool(true) => "no item twice".to_owned(),
        "pattern" => format!("matching {value}"),
        "default" => format!("{value} where nothing better is known"),
        "format" => match value.as_str() {
            Some("date-time" | "date" | "time" | "duration" | "email" | "uri" | "uuid") => {
                format!("a {}", value.as_str().unwrap_or_default())
            }
            // uint32, double and their like: the type says it.
            _ => return None,
        },
        "examples" => format!("for example {value}"),
        _ => return None,
    };
    Some(said)
}

fn describe(object: &Map<String, Value>, notes: &[String], out: &mut Map<String, Value>) {
    let own = object.get("description").and_then(Value::as_str).unwrap_or_default();
    let text = match (own.is_empty(), notes.is_empty()) {
        (true, true) => return,
        (false, true) => own.to_owned(),
        (true, false) => notes.join("; "),
        (false, false) => format!("{own} ({})", notes.join("; ")),
    };
    out.insert("description".into(), Value::String(text));
}

#[cfg(test)]
#[path = "subset_tests.rs"]
mod tests;
