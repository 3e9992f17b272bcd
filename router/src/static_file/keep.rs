//! Certificates that are kept in files of their own change by themselves, one file after the other.
//! While a certificate's files do not fit together, the one before stands in for it, and everything
//! else of the file of objects is taken as it is.

use std::{path::Path, sync::Arc};

use cardea_registry_api::{Certificate, Invalid, manifest};
use serde_json::{Value, json};

/// Puts the certificate of `before` in the place of each whose files cannot be used; says which they
/// are, and why. One that is new, or whose table names no files, is left as it is.
pub(super) fn certificates(
    value: &mut Value,
    dir: &Path,
    before: &[Arc<Certificate>],
) -> Vec<String> {
    let items = value.get_mut("certificate").and_then(Value::as_array_mut);
    let mut kept = Vec::new();
    for item in items.into_iter().flatten().filter(|item| names_files(item)) {
        let name = item.get("name").and_then(Value::as_str);
        let known = before.iter().find(|old| name == Some(old.name.as_str()));
        let (Some(known), Err(invalid)) = (known, alone(item, dir)) else {
            continue;
        };
        if let Ok(old) = serde_json::to_value(&**known) {
            kept.push(format!("certificate `{}`: {invalid}", known.name));
            *item = old;
        }
    }
    kept
}

fn names_files(item: &Value) -> bool {
    let auth = item.get("client_auth").and_then(|auth| auth.get("ca_file"));
    let own = ["cert_file", "key_file"].map(|name| item.get(name));
    auth.is_some() || own.iter().any(Option::is_some)
}

/// Whether a certificate can be used by itself.
fn alone(item: &Value, dir: &Path) -> Result<(), Invalid> {
    let mut value = json!({ "certificate": [item] });
    manifest::files::inline(&mut value, dir)?;
    let read = manifest::Manifest::from_value(value)?;
    read.check_complete()
}
