//! Reading the files of `apply` and `diff`.

use std::{collections::BTreeMap, io::Read, path::Path};

use cardea_registry_api::{
    Name,
    api::ApplyRequest,
    manifest::{self, Manifest},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    args::FileArgs,
    config,
    exit::{Exit, lines},
};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Toml,
    Yaml,
    Json,
}

/// All files as one request.
pub(super) fn read(args: &FileArgs) -> Result<ApplyRequest, Exit> {
    let mut whole = ApplyRequest::default();
    let mut seen = BTreeMap::new();
    for path in &args.files {
        let (name, text) = text(path)?;
        let manifest = parse(&name, &text).map_err(Exit::Config)?;
        add(&mut whole, &mut seen, &name, manifest, &args.cluster).map_err(Exit::Config)?;
    }
    Ok(whole)
}

fn text(path: &Path) -> Result<(String, String), Exit> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|e| Exit::failed(format!("the standard input: {e}")))?;
        return Ok(("-".to_owned(), text));
    }
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(Exit::Config(format!("{name}: {error}"))),
    }
}

fn parse(name: &str, text: &str) -> Result<Manifest, String> {
    let form = form(name, text);
    let mut value = match form {
        Form::Toml => config::toml_value(name, text)?,
        Form::Json => serde_json::from_str(text).map_err(|e| format!("{name}: {e}"))?,
        Form::Yaml => yaml(text).map_err(|e| format!("{name}: {e}"))?,
    };
    let dir = Path::new(name).parent().unwrap_or(Path::new(""));
    let read = manifest::files::inline(&mut value, dir).and_then(|_| Manifest::from_value(value));
    read.map_err(|invalid| match form {
        Form::Toml => config::with_lines(name, text, invalid),
        _ => lines(name, &invalid),
    })
}

/// By the name's end; where that says nothing, by the look of the text.
fn form(name: &str, text: &str) -> Form {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("toml") => return Form::Toml,
        Some("yaml" | "yml") => return Form::Yaml,
        Some("json") => return Form::Json,
        _ => {}
    }
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    match lines.next() {
        Some(line) if line.starts_with('{') => Form::Json,
        Some(line) if line.starts_with('[') || line.contains('=') => Form::Toml,
        Some(_) => Form::Yaml,
        None => Form::Toml,
    }
}

/// A YAML text of one or several documents; their lists are put together.
fn yaml(text: &str) -> Result<Value, String> {
    let mut whole = serde_json::Map::new();
    for document in serde_norway::Deserializer::from_str(text) {
        match Value::deserialize(document).map_err(|e| e.to_string())? {
            Value::Null => {}
            Value::Object(tables) => {
                for (name, value) in tables {
                    match (whole.get_mut(&name), value) {
                        (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
                        (_, value) => drop(whole.insert(name, value)),
                    }
                }
            }
            _ => {
                return Err(
                    "a document has `cluster`, `service`, `route`, `plugin`, `traffic`, \
                     `fallback` and `certificate` lists"
                        .to_owned(),
                );
            }
        }
    }
    Ok(Value::Object(whole))
}

/// Adds a file's objects; an object in two files is refused.
fn add(
    whole: &mut ApplyRequest,
    seen: &mut BTreeMap<String, String>,
    name: &str,
    manifest: Manifest,
    cluster: &Name,
) -> Result<(), String> {
    let part = manifest.into_request(cluster);
    let named = |kind: &'static str| move |name: &Name| format!("{kind} `{name}`");
    let objects = (part.clusters.iter().map(|one| &one.name))
        .map(named("cluster"))
        .chain(
            part.services
                .iter()
                .map(|one| &one.name)
                .map(named("service")),
        )
        .chain(part.routes.iter().map(|one| &one.id).map(named("route")))
        .chain(
            part.plugins
                .iter()
                .map(|one| &one.name)
                .map(named("plugin")),
        )
        .chain(
            part.fallbacks
                .iter()
                .map(|one| &one.name)
                .map(named("fallback")),
        )
        .chain((part.traffic.iter()).map(|one| format!("traffic `{}`", one.key())))
        .chain((part.certificates.iter().map(|one| &one.name)).map(named("certificate")))
        .chain((part.instances.iter()).map(|keyed| format!("instance `{}`", keyed.key)));
    for object in objects {
        if let Some(other) = seen.insert(object.clone(), name.to_owned()) {
            return Err(format!(
                "{name}: {object} stands in {other} too; keep one of them"
            ));
        }
    }
    whole.clusters.extend(part.clusters);
    whole.services.extend(part.services);
    whole.routes.extend(part.routes);
    whole.certificates.extend(part.certificates);
    whole.fallbacks.extend(part.fallbacks);
    whole.plugins.extend(part.plugins);
    whole.traffic.extend(part.traffic);
    whole.instances.extend(part.instances);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "[[service]]\nname = \"a\"\n[[service.instance]]\naddress = \"127.0.0.1:1\"\n\
                        [[route]]\nhost = \"a.local\"\nservice = \"a\"\n";
    const YAML: &str = "service:\n- name: a\n  instance:\n  - address: 127.0.0.1:1\n---\n\
                        route:\n- host: a.local\n  service: a\n";

    #[test]
    fn the_three_forms_say_the_same() {
        let toml = parse("-", TOML).unwrap();
        assert_eq!(parse("-", YAML).unwrap(), toml);
        let json = r#"{"service":[{"name":"a","instance":[{"address":"127.0.0.1:1"}]}],
                       "route":[{"host":"a.local","service":"a"}]}"#;
        assert_eq!(parse("-", json).unwrap(), toml);
        assert_eq!(parse("x.json", json).unwrap(), toml);
    }

    #[test]
    fn errors_name_file_line_and_fix() {
        let error = parse("x.toml", &TOML.replace("address", "adress")).unwrap_err();
        assert!(
            error.starts_with("x.toml:4: service[0].instance[0].adress: "),
            "{error}"
        );
        let error = parse("x.yaml", &YAML.replace("service: a", "servce: a")).unwrap_err();
        assert!(error.contains("did you mean `service`?"), "{error}");
        let error = parse("x.toml", "[[service]\n").unwrap_err();
        assert!(error.starts_with("x.toml:1: "), "{error}");
    }

    #[test]
    fn plugins_and_stored_bodies_are_part_of_it() {
        let more = "[[plugin]]\nname = \"p\"\n[plugin.respond]\n\
                    [[fallback]]\nname = \"f\"\ntext = \"later\"\n";
        let manifest = || parse("-", &format!("{TOML}{more}")).unwrap();
        let (mut whole, mut seen) = (ApplyRequest::default(), BTreeMap::new());
        let cluster: Name = "default".parse().unwrap();
        add(&mut whole, &mut seen, "a.toml", manifest(), &cluster).unwrap();
        assert_eq!(whole.plugins[0].name.as_str(), "p");
        assert_eq!(whole.fallbacks[0].body.as_bytes(), b"later");
        for table in ["plugin", "fallback"] {
            let (kind, text) = more.split_once("[[fallback]]").unwrap();
            let text = match table {
                "plugin" => kind.to_owned(),
                _ => format!("[[fallback]]{text}"),
            };
            let again = parse("-", &text).unwrap();
            let error = add(&mut whole, &mut seen, "b.toml", again, &cluster).unwrap_err();
            assert!(error.starts_with(&format!("b.toml: {table} `")), "{error}");
        }
    }

    #[test]
    fn an_object_stands_in_one_file() {
        let mut whole = ApplyRequest::default();
        let mut seen = BTreeMap::new();
        let cluster: Name = "default".parse().unwrap();
        let manifest = || parse("-", TOML).unwrap();
        add(&mut whole, &mut seen, "a.toml", manifest(), &cluster).unwrap();
        let error = add(&mut whole, &mut seen, "b.toml", manifest(), &cluster).unwrap_err();
        assert_eq!(
            error,
            "b.toml: service `a` stands in a.toml too; keep one of them"
        );
    }
}
