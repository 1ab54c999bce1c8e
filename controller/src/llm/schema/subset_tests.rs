use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::{Schema, check},
    *,
};

/// One arm.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arm {
    /// Its name.
    name: String,
    /// The rate.
    #[schemars(range(min = 0.0))]
    rate: Option<f64>,
    kind: Kind,
}

/// Of what kind.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// As it is.
    Control,
    /// Changed.
    Treated,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Step {
    Run { seeds: u32 },
    Stop { why: String },
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Plan {
    /// All arms.
    #[schemars(length(min = 1, max = 8))]
    arms: Vec<Arm>,
    best: Option<Arm>,
    /// The arm to beat.
    rival: Arm,
    step: Step,
    #[serde(default)]
    notes: Vec<String>,
}

/// Every keyword that a provider refuses somewhere.
const REFUSED: [&str; 14] = [
    "$ref",
    "$defs",
    "oneOf",
    "allOf",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "default",
    "const",
    "format",
];

fn walk(schema: &Value, visit: &mut impl FnMut(&Map<String, Value>)) {
    let Some(object) = schema.as_object() else { return };
    visit(object);
    let properties =
        object.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(_, one)| one);
    let alternatives = object.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    for below in properties.chain(alternatives).chain(object.get("items")) {
        walk(below, visit);
    }
}

#[test]
fn what_schemars_writes_becomes_what_all_take() {
    let sent = Schema::of::<Plan>("plan").sent().expect("in the subset");
    walk(&sent, &mut |object| {
        for refused in REFUSED {
            assert!(!object.contains_key(refused), "{refused} in {object:?}");
        }
        if object.get("type") == Some(&json!("object")) {
            assert_eq!(object["additionalProperties"], false);
            let names: Vec<&String> = object["properties"].as_object().expect("properties").keys().collect();
            assert_eq!(object["required"], json!(names));
        }
        assert!(object.contains_key("type") || object.contains_key("anyOf"), "{object:?}");
    });
    assert!(sent["properties"]["arms"]["description"].as_str().expect("words").contains("at most 8 items"));
    let arm = &sent["properties"]["arms"]["items"];
    assert_eq!(arm["properties"]["kind"]["enum"], json!(["control", "treated"]));
    assert!(arm["properties"]["kind"]["description"].as_str().expect("words").contains("control: As it is."));
    assert_eq!(sent["properties"]["rival"]["description"], "The arm to beat.");
    let best = sent["properties"]["best"]["anyOf"].as_array().expect("alternatives");
    assert_eq!(best.last().expect("one")["type"], "null");
    assert_eq!(sent["properties"]["step"]["anyOf"][0]["properties"]["type"]["enum"], json!(["run"]));
}

#[test]
fn an_answer_to_the_sent_schema_is_one_to_the_original() {
    let schema = Schema::of::<Plan>("plan");
    let arm = |kind: &str| json!({"name": "a", "rate": null, "kind": kind});
    let plan = json!({"arms": [arm("control")], "best": null, "rival": arm("treated"),
        "step": {"type": "run", "seeds": 3}, "notes": []});
    assert_eq!(check(&schema.json, &plan), Ok(()));
    assert_eq!(check(&schema.sent().expect("sent"), &plan), Ok(()));
    assert!(serde_json::from_value::<Plan>(plan.clone()).is_ok());
    for (at, wrong) in [
        ("/arms", json!([])),
        ("/arms/0/rate", json!(-1)),
        ("/step/seeds", json!(-1)),
        ("/rival/kind", json!("x")),
    ] {
        let mut plan = plan.clone();
        *plan.pointer_mut(at).expect("there") = wrong;
        assert!(check(&schema.json, &plan).is_err(), "{at}");
    }
}

#[test]
fn the_same_type_gives_the_same_bytes() {
    let bytes = || Schema::of::<Plan>("plan").sent().expect("sent").to_string();
    assert_eq!(bytes(), bytes());
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct Node {
    children: Vec<Node>,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct Free {
    params: BTreeMap<String, f64>,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct Anything {
    inner: Vec<Value>,
}

#[test]
fn what_cannot_be_said_is_an_error_with_its_place() {
    let path = |schema: Schema| schema.sent().expect_err("not in the subset").path;
    assert!(path(Schema::of::<Node>("n")).starts_with("children.items.children"));
    assert_eq!(path(Schema::of::<Free>("f")), "params");
    assert_eq!(path(Schema::of::<Anything>("a")), "inner.items");
    assert_eq!(path(Schema::of::<Vec<String>>("v")), ".");
    assert_eq!(path(Schema::of::<Step>("s")), ".");
    let elsewhere = json!({"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}}});
    assert_eq!(subset(&elsewhere).expect_err("elsewhere").path, "a");
}
