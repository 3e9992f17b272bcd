//! The doors' parser: unknown fields are refused with the nearest known name, and every error says
//! at which path it stands.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::invalid::{FieldError, Invalid};

/// Reads a JSON text. The path of a syntax error is empty; its message has line and column.
pub fn from_json<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, Invalid> {
    // What is right is read at once; only what is not is read again, to say where and why.
    let mut unknown = false;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_ignored::deserialize(&mut reader, |_| unknown = true);
    if let (Ok(value), false, Ok(())) = (parsed, unknown, reader.end()) {
        return Ok(value);
    }
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|e| Invalid::field("", format!("the body is not JSON: {e}")))?;
    from_value(value)
}

/// Reads an already parsed value (from JSON, TOML or YAML).
pub fn from_value<T: DeserializeOwned + Serialize>(value: Value) -> Result<T, Invalid> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let parsed: Result<T, _> =
        serde_ignored::deserialize(tracked, |path| unknown.push(path_text(&path)));
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let path = track.path().to_string();
            let field = if path == "." { String::new() } else { path };
            let message = error.to_string();
            return Err(misspelt(&unknown, &message).unwrap_or(Invalid::field(field, message)));
        }
    };
    if unknown.is_empty() {
        return Ok(parsed);
    }
    let shape = serde_json::to_value(&parsed).unwrap_or(Value::Null);
    Err(Invalid {
        errors: unknown
            .into_iter()
            .map(|path| unknown_field(&shape, path))
            .collect(),
    })
}

/// The known name nearest to `given`, if it is near enough to be what was meant.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().max(given.len()) / 4)
        .min()
        .map(|(_, name)| name)
}

/// A field that is missing because it is misspelt: the misspelt one is what to change.
fn misspelt(unknown: &[String], message: &str) -> Option<Invalid> {
    let missing = message.strip_prefix("missing field `")?.split('`').next()?;
    let path = unknown.iter().find(|path| {
        let name = path.rsplit('.').next().unwrap_or(path);
        nearest(name, [missing]).is_some()
    })?;
    let hint = format!("unknown field; did you mean `{missing}`?");
    Some(Invalid::field(path, hint))
}

fn unknown_field(shape: &Value, path: String) -> FieldError {
    let (parent, name) = match path.rfind('.') {
        Some(dot) => (&path[..dot], &path[dot + 1..]),
        None => ("", path.as_str()),
    };
    let mut at = shape;
    for step in parent
        .split(['.', '[', ']'])
        .filter(|step| !step.is_empty())
    {
        at = match at {
            Value::Array(items) => step.parse().ok().and_then(|i: usize| items.get(i)),
            other => other.get(step),
        }
        .unwrap_or(&Value::Null);
    }
    let known: Vec<&str> = at
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    let message = match nearest(name, known.iter().copied()) {
        Some(near) => format!("unknown field; did you mean `{near}`?"),
        None if known.is_empty() => "unknown field; remove it".to_owned(),
        None => format!("unknown field; known here: {}", known.join(", ")),
    };
    FieldError {
        field: path,
        message,
    }
}

fn path_text(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_text(parent)),
        Path::Map { parent, key } => {
            let parent = path_text(parent);
            if parent.is_empty() {
                key.clone()
            } else {
                format!("{parent}.{key}")
            }
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => path_text(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Service, service::tests::search};

    /// The short way for what is right must not read anything else than the long one.
    #[test]
    fn both_ways_of_reading_agree() {
        let right = serde_json::to_string(&search()).unwrap();
        let texts = [
            right.clone(),
            format!(" {right}\n"),
            format!("{right}x"),
            format!("[{right}]"),
            right.replace('{', "{\"x\":1,"),
            right.replacen('{', "{\"owner\":\"a\",\"owner\":\"b\",", 1),
            String::new(),
        ];
        for text in texts {
            let long = serde_json::from_str::<Value>(&text)
                .map_err(|e| Invalid::field("", format!("the body is not JSON: {e}")))
                .and_then(from_value::<Service>);
            assert_eq!(from_json::<Service>(text.as_bytes()), long, "{text}");
        }
    }

    #[test]
    fn names_the_field_and_the_fix() {
        let mut value = serde_json::to_value(search()).unwrap();
        value["timeouts"]["conect"] = "1s".into();
        let invalid = from_value::<Service>(value).unwrap_err();
        assert_eq!(invalid.errors[0].field, "timeouts.conect");
        assert_eq!(
            invalid.errors[0].message,
            "unknown field; did you mean `connect`?"
        );

        let mut value = serde_json::to_value(search()).unwrap();
        value["timeouts"]["connect"] = "soon".into();
        let invalid = from_value::<Service>(value).unwrap_err();
        assert_eq!(invalid.errors[0].field, "timeouts.connect");
        assert!(invalid.errors[0].message.contains("not a length of time"));
    }

    #[test]
    fn a_misspelt_required_field_is_named_as_it_stands() {
        let value = serde_json::json!({"nmae": "search"});
        let invalid = from_value::<Service>(value).unwrap_err();
        assert_eq!(invalid.errors[0].field, "nmae");
        assert_eq!(
            invalid.errors[0].message,
            "unknown field; did you mean `name`?"
        );
        let invalid = from_value::<Service>(serde_json::json!({"owner": "me"})).unwrap_err();
        assert_eq!(invalid.errors[0].message, "missing field `name`");
    }
}
