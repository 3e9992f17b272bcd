//! What a change does to objects, field by field.

use std::collections::BTreeMap;

use cardea_registry_api::api::{Action, Verb};
use serde_json::Value;

/// Every action with the fields it changes: `-` before, `+` after.
pub(super) fn render(actions: &[Action]) -> String {
    let mut lines = Vec::new();
    for action in actions
        .iter()
        .filter(|action| action.verb != Verb::Unchanged)
    {
        let sign = match action.verb {
            Verb::Create => '+',
            _ => '~',
        };
        lines.push(format!("{sign} {} {}", action.kind, action.key));
        let before = fields(action.before.as_ref());
        let after = fields(action.after.as_ref());
        let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (was, is) = (before.get(name), after.get(name));
            if was == is {
                continue;
            }
            for (sign, value) in [('-', was), ('+', is)] {
                lines.extend(value.map(|value| format!("    {sign} {name} = {value}")));
            }
        }
    }
    lines.push(summary(actions));
    lines.join("\n")
}

/// How many objects are created, updated and left.
pub(super) fn summary(actions: &[Action]) -> String {
    let count = |verb| actions.iter().filter(|action| action.verb == verb).count();
    format!(
        "{} to create, {} to update, {} unchanged",
        count(Verb::Create),
        count(Verb::Update),
        count(Verb::Unchanged)
    )
}

/// Whether anything changes.
pub(super) fn changes(actions: &[Action]) -> bool {
    actions.iter().any(|action| action.verb != Verb::Unchanged)
}

/// An object's fields by path; nothing and empty are left out.
fn fields(value: Option<&Value>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Some(value) = value {
        collect(value, "", &mut found);
    }
    found
}

fn collect(value: &Value, path: &str, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                collect(value, &path, found);
            }
        }
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        other => drop(found.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_before_and_after() {
        let action = |verb, before: Option<Value>, after: Option<Value>| Action {
            kind: "service".to_owned(),
            key: "search".to_owned(),
            verb,
            before,
            after,
        };
        let actions = [
            action(
                Verb::Update,
                Some(json!({"name": "search", "owner": "", "timeouts": {"connect": "1s"}})),
                Some(json!({"name": "search", "owner": "me", "timeouts": {"connect": "2s"}})),
            ),
            action(Verb::Create, None, Some(json!({"name": "search"}))),
            action(
                Verb::Unchanged,
                Some(json!({"a": 1})),
                Some(json!({"a": 1})),
            ),
        ];
        insta::assert_snapshot!(render(&actions));
        assert!(changes(&actions));
        assert!(!changes(&actions[2..]));
    }
}
