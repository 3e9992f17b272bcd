//! The OpenAPI document: what is served is what is written.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::Cardea;

async fn document(cardea: &Cardea) -> Value {
    let answer = cardea.call("", "GET", "/v1/openapi.json").await.ok();
    assert_eq!(answer.header("content-type"), "application/json");
    answer.body
}

fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
        .collect()
}

/// Asks each path for a method that nobody has: `allow` says what it does take.
#[tokio::test]
async fn each_path_takes_exactly_the_documented_methods() {
    let cardea = Cardea::start().await;
    let document = document(&cardea).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        let documented: BTreeSet<String> = item
            .as_object()
            .unwrap()
            .keys()
            .map(|m| m.to_uppercase())
            .collect();
        let concrete: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let answer = cardea.call("admin", "PROPFIND", &concrete).await;
        answer.problem(405, "method_not_allowed");
        let allow = answer
            .header("allow")
            .split(',')
            .map(|m| m.trim().to_owned());
        // axum answers HEAD where there is GET.
        let served: BTreeSet<String> = allow.filter(|m| m != "HEAD").collect();
        assert_eq!(served, documented, "{path}");
    }
    cardea.stop().await;
}

#[tokio::test]
async fn each_operation_says_who_may_and_what_can_go_wrong() {
    let cardea = Cardea::start().await;
    let document = document(&cardea).await;
    assert_eq!(
        document["openapi"].as_str().unwrap().split('.').next(),
        Some("3")
    );
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["security"], json!([{"token": []}]));
    assert_eq!(
        document["components"]["securitySchemes"]["token"]["scheme"],
        "bearer"
    );
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let at = format!("{method} {path}");
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{at}: {id} stands twice");
        assert!(operation["summary"].is_string(), "{at}");
        let responses = operation["responses"].as_object().unwrap();
        if operation["security"] != json!([{}]) {
            for status in ["400", "401", "403", "500"] {
                assert!(responses.contains_key(status), "{at}: {status}");
            }
        }
        for (status, response) in responses.iter().filter(|(s, _)| s.as_str() >= "400") {
            let schema = &response["content"]["application/problem+json"]["schema"];
            assert_eq!(
                schema["$ref"], "#/components/schemas/Problem",
                "{at}: {status}"
            );
        }
        let named: Vec<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let in_path: Vec<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        assert_eq!(named, in_path, "{at}");
    }
    // Every reference leads somewhere.
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 100);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    cardea.stop().await;
}

fn collect_references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(text) if name == "$ref" => out.push(text),
                    _ => collect_references(member, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, out)),
        _ => {}
    }
}

/// The contract, one line an operation: what callers rely on does not change unnoticed.
#[tokio::test]
async fn the_contract_is_kept() {
    let cardea = Cardea::start().await;
    let document = document(&cardea).await;
    let schema = |content: &Value| -> String {
        let schema = content
            .as_object()
            .and_then(|types| types.values().next())
            .map(|media| &media["schema"]);
        let name = |schema: &Value| {
            let reference = schema["$ref"].as_str();
            reference.map(|r| r.rsplit('/').next().unwrap().to_owned())
        };
        match schema {
            None => "-".to_owned(),
            Some(schema) => name(schema)
                .or_else(|| name(&schema["items"]).map(|item| format!("[{item}]")))
                .unwrap_or_else(|| schema["type"].as_str().unwrap_or("?").to_owned()),
        }
    };
    let mut lines = BTreeMap::new();
    for (path, method, operation) in operations(&document) {
        let parameters: Vec<String> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] != "path")
            .map(|parameter| {
                let name = parameter["name"].as_str().unwrap();
                let must = if parameter["required"] == true {
                    "!"
                } else {
                    ""
                };
                format!("{name}{must}")
            })
            .collect();
        let answers: Vec<String> = operation["responses"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(status, response)| {
                if status.as_str() < "400" {
                    format!("{status} {}", schema(&response["content"]))
                } else {
                    status.clone()
                }
            })
            .collect();
        let body = schema(&operation["requestBody"]["content"]);
        lines.insert(
            format!("{path} {}", method.to_uppercase()),
            json!({
                "id": operation["operationId"],
                "parameters": parameters.join(" "),
                "body": body,
                "answers": answers.join(", "),
            }),
        );
    }
    insta::assert_json_snapshot!("paths", lines);
    let schemas: Vec<&String> = document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    insta::assert_json_snapshot!("schemas", schemas);
    cardea.stop().await;
}
