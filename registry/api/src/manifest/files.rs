//! Files that a file of objects names: certificates and keys are kept beside it rather than in it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{Invalid, invalid::Check};

/// The most bytes of a named file.
const MAX_BYTES: u64 = 256 << 10;

/// Puts the content of named files in the place of their names; gives the files. Names are relative
/// to `dir`, the folder of the file of objects.
///
/// `cert_file` and `key_file` of a certificate stand for `chain` and `key`; `ca_file`, in a
/// certificate's `client_auth` and in a service's `tls`, for `ca`.
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
        let Some(value) = table.remove(name) else {
            return;
        };
        let field = format!("{at}.{name}");
        let Value::String(path) = value else {
            return self.check.ensure(false, &field, "the name of a file");
        };
        if table.contains_key(by) {
            let text = format!("give `{by}` or `{name}`, not both");
            return self.check.ensure(false, &field, text);
        }
        let path = self.dir.join(path);
        match read(&path) {
            Ok(text) => {
                table.insert(by.to_owned(), Value::String(text));
                self.found.push(path);
            }
            Err(why) => {
                let text = format!("{}: {why}", path.display());
                self.check.ensure(false, &field, text);
            }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("larger than {MAX_BYTES} bytes"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}
