//! Files that a file of objects names: certificates and keys are kept beside it rather than in it.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use crate::{Invalid, fallback::MAX_BODY, invalid::Check};

/// The most bytes of a named file.
const MAX_BYTES: u64 = 256 << 10;

/// Puts the content of named files in the place of their names; gives the files. Names are relative
/// to `dir`, the folder of the file of objects.
///
/// `cert_file` and `key_file` of a certificate stand for `chain` and `key`; `ca_file`, in a
/// certificate's `client_auth` and in a service's `tls`, for `ca`; `file` of a stored body for its
/// `body`, which may also be given as it is, as `text`.
pub fn inline(manifest: &mut Value, dir: &Path) -> Result<Vec<PathBuf>, Invalid> {
    let mut files = Files {
        dir,
        found: Vec::new(),
        check: Check::default(),
    };
    let certificates = manifest
        .get_mut("certificate")
        .and_then(Value::as_array_mut);
    for (i, item) in certificates.into_iter().flatten().enumerate() {
        let at = format!("certificate[{i}]");
        let Some(table) = item.as_object_mut() else {
            continue;
        };
        files.take(table, &at, "cert_file", "chain");
        files.take(table, &at, "key_file", "key");
        if let Some(Value::Object(auth)) = table.get_mut("client_auth") {
            files.take(auth, &format!("{at}.client_auth"), "ca_file", "ca");
        }
    }
    let services = manifest.get_mut("service").and_then(Value::as_array_mut);
    for (i, item) in services.into_iter().flatten().enumerate() {
        if let Some(Value::Object(tls)) = item.get_mut("tls") {
            files.take(tls, &format!("service[{i}].tls"), "ca_file", "ca");
        }
    }
    let fallbacks = manifest.get_mut("fallback").and_then(Value::as_array_mut);
    for (i, item) in fallbacks.into_iter().flatten().enumerate() {
        if let Some(table) = item.as_object_mut() {
            let at = format!("fallback[{i}]");
            if let Some(Value::String(text)) = table.get("text") {
                let encoded = STANDARD.encode(text);
                files.put(table, &at, "text", "body", encoded);
            }
            files.take_bytes(table, &at, "file", "body");
        }
    }
    files.check.finish()?;
    Ok(files.found)
}

struct Files<'a> {
    dir: &'a Path,
    found: Vec<PathBuf>,
    check: Check,
}

impl Files<'_> {
    /// Replaces `name` by `by`.
    fn take(&mut self, table: &mut Map<String, Value>, at: &str, name: &str, by: &str) {
        let text = |bytes| String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned());
        self.replace(table, at, [name, by], MAX_BYTES, text);
    }

    /// Replaces `name` by `by`, in base64.
    fn take_bytes(&mut self, table: &mut Map<String, Value>, at: &str, name: &str, by: &str) {
        self.replace(table, at, [name, by], MAX_BODY as u64, |bytes| {
            Ok(STANDARD.encode(bytes))
        });
    }

    fn replace(
        &mut self,
        table: &mut Map<String, Value>,
        at: &str,
        [name, by]: [&str; 2],
        most: u64,
        write: impl FnOnce(Vec<u8>) -> Result<String, String>,
    ) {
        let Some(value) = table.get(name) else {
            return;
        };
        let Value::String(path) = value else {
            let field = format!("{at}.{name}");
            return self.check.ensure(false, &field, "the name of a file");
        };
        let path = self.dir.join(path);
        match read(&path, most).and_then(write) {
            Ok(text) => {
                self.put(table, at, name, by, text);
                self.found.push(path);
            }
            Err(why) => {
                let text = format!("{}: {why}", path.display());
                self.check.ensure(false, &format!("{at}.{name}"), text);
            }
        }
    }

    /// Puts a text in the place of `name`.
    fn put(
        &mut self,
        table: &mut Map<String, Value>,
        at: &str,
        name: &str,
        by: &str,
        text: String,
    ) {
        table.remove(name);
        if table.insert(by.to_owned(), Value::String(text)).is_some() {
            let why = format!("give `{by}` or `{name}`, not both");
            self.check.ensure(false, &format!("{at}.{name}"), why);
        }
    }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > most {
        return Err(format!("larger than {most} bytes"));
    }
    std::fs::read(path).map_err(|e| e.to_string())
}
