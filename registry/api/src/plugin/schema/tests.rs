use serde_json::{Value, json};

use super::*;
use crate::strict;

/// As much of JSON Schema as these documents use; an unknown word is a failure of the test.
fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (word, says) in schema.as_object().unwrap() {
        let fits = match word.as_str() {
            "$ref" => {
                let pointer = says.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(pointer).unwrap(), value, at)?;
                true
            }
            "oneOf" | "anyOf" => {
                let mut all = says.as_array().unwrap().iter();
                all.any(|one| check(root, one, value, at).is_ok())
            }
            "allOf" => {
                let mut all = says.as_array().unwrap().iter();
                all.try_for_each(|one| check(root, one, value, at))?;
                true
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, says, item, &format!("{at}[{i}]"))?;
                }
                true
            }
            "properties" | "additionalProperties" => {
                fields(root, schema, value, at)?;
                true
            }
            "required" => {
                let mut names = says.as_array().unwrap().iter();
                names.all(|name| !value.is_object() || value.get(name.as_str().unwrap()).is_some())
            }
            _ => word_fits(word, says, value),
        };
        if !fits {
            return Err(format!("{at}: {word} is {says}"));
        }
    }
    Ok(())
}

fn fields(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (name, field) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        let known = schema.get("properties").and_then(|known| known.get(name));
        match (known, schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                check(root, schema, field, &at)?;
            }
            (None, Some(Value::Bool(false))) => return Err(format!("{at}: unknown")),
            (None, other) => panic!("{at}: not closed: {other:?}"),
        }
    }
    Ok(())
}

/// The words that look at a value alone.
fn word_fits(word: &str, says: &Value, value: &Value) -> bool {
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    };
    let length = match value {
        Value::Array(items) => Some(items.len() as u64),
        Value::String(text) => Some(text.len() as u64),
        _ => None,
    };
    match word {
        "type" => match says {
            Value::Array(all) => all.iter().any(is),
            one => is(one),
        },
        "enum" => says.as_array().unwrap().contains(value),
        "minimum" => !value.is_number() || value.as_f64() >= says.as_f64(),
        "maximum" => !value.is_number() || value.as_f64() <= says.as_f64(),
        "minItems" | "minLength" => length.is_none_or(|length| length >= says.as_u64().unwrap()),
        "maxItems" | "maxLength" => length.is_none_or(|length| length <= says.as_u64().unwrap()),
        "pattern" => {
            let regex = regex::Regex::new(says.as_str().unwrap()).unwrap();
            value.as_str().is_none_or(|text| regex.is_match(text))
        }
        "$schema" | "$defs" | "title" | "description" | "default" | "examples" | "example"
        | "format" | "propertyNames" => true,
        other => panic!("the word {other} is not known here"),
    }
}

fn said(document: &Value) -> Result<(), String> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| document.get(kind.as_str()).is_some())
        .unwrap();
    let schema = of(kind).schema;
    check(&schema, &schema, document, "")
}

fn door(document: &Value) -> Result<(), String> {
    strict::from_value::<Plugin>(document.clone())
        .and_then(|plugin| plugin.check())
        .map_err(|invalid| invalid.to_string())
}

/// The examples of the pages about each kind: a kind without one fails.
fn examples() -> Vec<(Kind, Value)> {
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let page = format!("../../docs/plugins/{kind}.md");
            let text = std::fs::read_to_string(&page)
                .unwrap_or_else(|error| panic!("{page}: every kind has a page: {error}"));
            let example = text
                .split("```toml\n")
                .skip(1)
                .filter_map(|rest| rest.split("```").next())
                .find(|block| {
                    block.contains(&format!("[plugin.{kind}")) || block.contains("[[plugin.")
                })
                .unwrap_or_else(|| panic!("{page}: no example"));
            let file: Value = toml::from_str(example).unwrap();
            (kind, file["plugin"][0].clone())
        })
        .collect()
}

#[test]
fn every_kind_has_a_document_that_stands_alone() {
    let all = all();
    let kinds: Vec<&str> = all.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, Kind::ALL.map(Kind::as_str));
    for one in &all {
        let text = one.schema.to_string();
        assert!(!text.contains("components/schemas"), "{text}");
        assert!(!one.description.is_empty(), "{}", one.kind);
        let policy = &one.schema["properties"][&one.kind];
        assert!(policy["properties"].is_object(), "{}: {policy}", one.kind);
        for (name, field) in policy["properties"].as_object().unwrap() {
            let described = field.to_string().contains("\"description\"");
            assert!(described, "{}.{name}: {field}", one.kind);
        }
    }
}

#[test]
fn examples_fit_and_the_door_takes_them() {
    for (kind, example) in examples() {
        assert_eq!(said(&example), Ok(()), "{kind}: {example}");
        assert_eq!(door(&example), Ok(()), "{kind}: {example}");
    }
}

#[test]
fn what_is_wrong_fits_neither_the_schema_nor_the_door() {
    for (kind, example) in examples() {
        let word = kind.as_str();
        let mut typo = example.clone();
        typo[word]["no_such_field"] = json!(1);
        let mut outer = example.clone();
        outer["enabeld"] = json!(true);
        let mut none = example.clone();
        none["name"].take();
        let mut text = example.clone();
        text[word] = json!("all");
        for hostile in [typo, outer, none, text] {
            assert!(said(&hostile).is_err(), "{hostile}");
            assert!(door(&hostile).is_err(), "{hostile}");
        }
    }
    let rule =
        |when: Value| json!({"name": "p", "gray": {"rules": [{"group": "g", "when": when}]}});
    let many = vec!["u"; 100_001];
    for hostile in [
        rule(json!({"percent": 101})),
        rule(json!({"percent": -1})),
        rule(json!({"key": "nonsense", "is": ["a"]})),
        rule(json!({"key": "client", "is": many})),
        rule(json!({"any": [{"not": {"modolo": 3}}]})),
        rule(json!({"key": "client", "modulo": 0, "below": 0})),
        json!({"name": "p", "gray": {"rules": []}}),
        json!({"name": "p", "gray": {"rules": [{"group": "g"}], "missing": "perhaps"}}),
        json!({"name": "p", "respond": {"status": 99}}),
        json!({"name": "p", "redirect": {"to": "/", "status": 200}}),
        json!({"name": "P!", "respond": {}}),
        json!({"name": "p", "limit": {"rate": -1}}),
    ] {
        let short: String = hostile.to_string().chars().take(200).collect();
        assert!(said(&hostile).is_err(), "{short}");
        assert!(door(&hostile).is_err(), "{short}");
    }
}
