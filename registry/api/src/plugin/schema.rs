//! JSON Schema of plugins, one document a kind, made from the types and their comments: what forms are
//! built from.
//!
//! A document stands alone: what the types refer to is put in its place, save for what refers to
//! itself ([`super::When`]), which is under `$defs`. It is as strict as the door: no other fields.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{Kind, Plugin};
use crate::api::KindSchema;

/// Every kind's, in the order of the stages.
pub fn all() -> Vec<KindSchema> {
    let types = Types::new();
    Kind::ALL
        .into_iter()
        .map(|kind| types.document(kind))
        .collect()
}

/// One kind's.
pub fn of(kind: Kind) -> KindSchema {
    Types::new().document(kind)
}

/// The types that plugins are made of, as `OpenAPI` describes them.
struct Types {
    plugin: Value,
    parts: BTreeMap<String, Value>,
    /// Those that refer to themselves.
    recursive: BTreeSet<String>,
}

impl Types {
    fn new() -> Self {
        let plain = |schema: RefOr<Schema>| serde_json::to_value(schema).unwrap_or_default();
        let mut parts = Vec::new();
        Plugin::schemas(&mut parts);
        let parts: BTreeMap<String, Value> = parts
            .into_iter()
            .map(|(name, schema)| (name, plain(schema)))
            .collect();
        let recursive = parts
            .keys()
            .filter(|name| leads_to(&parts, &parts[*name], name, &mut BTreeSet::new()))
            .cloned()
            .collect();
        Self {
            plugin: plain(Plugin::schema()),
            parts,
            recursive,
        }
    }

    fn document(&self, kind: Kind) -> KindSchema {
        let word = kind.as_str();
        let properties = self.plugin["properties"].as_object();
        let mut kept = Map::new();
        for (name, property) in properties.into_iter().flatten() {
            if name != word && Kind::ALL.iter().any(|other| other.as_str() == name) {
                continue;
            }
            kept.insert(name.clone(), property.clone());
        }
        // The policy may not be left out here, so it is the type itself and not `null` either.
        let policy = kept.get(word).and_then(first_reference);
        let policy = policy.and_then(|name| self.parts.get(name)).cloned();
        let policy = policy.unwrap_or_default();
        let description = policy["description"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        kept.insert(word.to_owned(), policy);
        let mut needed = BTreeSet::new();
        let mut schema = self.inlined(
            &json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": word,
                "description": description,
                "type": "object",
                "required": ["name", word],
                "properties": kept,
            }),
            &mut needed,
        );
        let mut definitions = Map::new();
        while let Some(name) = needed.pop_first() {
            if !definitions.contains_key(&name) {
                let part = self.parts.get(&name).cloned().unwrap_or_default();
                let part = self.inlined(&part, &mut needed);
                definitions.insert(name, part);
            }
        }
        if !definitions.is_empty() {
            schema["$defs"] = Value::Object(definitions);
        }
        KindSchema {
            kind: word.to_owned(),
            description,
            schema,
        }
    }

    /// With every reference replaced by what it refers to, and objects closed.
    fn inlined(&self, schema: &Value, needed: &mut BTreeSet<String>) -> Value {
        match schema {
            Value::Array(items) => items
                .iter()
                .map(|item| self.inlined(item, needed))
                .collect(),
            Value::Object(fields) => {
                if let Some(name) = reference(schema) {
                    return self.in_place(name, fields, needed);
                }
                let mut fields: Map<String, Value> = fields
                    .iter()
                    .map(|(name, field)| (name.clone(), self.inlined(field, needed)))
                    .collect();
                if fields.contains_key("properties") && !fields.contains_key("additionalProperties")
                {
                    fields.insert("additionalProperties".to_owned(), false.into());
                }
                Value::Object(fields)
            }
            other => other.clone(),
        }
    }

    /// What stands for a reference; words beside it win over the type's own.
    fn in_place(
        &self,
        name: &str,
        beside: &Map<String, Value>,
        needed: &mut BTreeSet<String>,
    ) -> Value {
        let mut found = if self.recursive.contains(name) {
            needed.insert(name.to_owned());
            json!({"$ref": format!("#/$defs/{name}")})
        } else {
            let part = self.parts.get(name).cloned().unwrap_or_default();
            self.inlined(&part, needed)
        };
        for (word, value) in beside {
            if word != "$ref" {
                found[word] = value.clone();
            }
        }
        found
    }
}

/// The name that a schema refers to.
fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"]
        .as_str()?
        .strip_prefix("#/components/schemas/")
}

/// The first name that is referred to somewhere in a schema.
fn first_reference(schema: &Value) -> Option<&str> {
    reference(schema).or_else(|| match schema {
        Value::Array(items) => items.iter().find_map(first_reference),
        Value::Object(fields) => fields.values().find_map(first_reference),
        _ => None,
    })
}

/// Whether a schema refers to a name, by whatever way.
fn leads_to(
    parts: &BTreeMap<String, Value>,
    schema: &Value,
    to: &str,
    seen: &mut BTreeSet<String>,
) -> bool {
    if let Some(name) = reference(schema) {
        let new = seen.insert(name.to_owned());
        return name == to
            || new
                && parts
                    .get(name)
                    .is_some_and(|part| leads_to(parts, part, to, seen));
    }
    match schema {
        Value::Array(items) => items.iter().any(|item| leads_to(parts, item, to, seen)),
        Value::Object(fields) => fields.values().any(|item| leads_to(parts, item, to, seen)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
