//! Settings: a flag wins over the environment, that over the file, that over the default.
//!
//! A role's settings are one struct of options, read by clap (flags and environment) and by serde
//! (the file). Merging is done on the JSON form: the defaults, with what the file says laid over
//! them, with what flags and environment say laid over that.

/// The settings that a role's own form has under the same names: written once, they are read from
/// its defaults and laid over it.
macro_rules! mirror {
    ($Settings:ident => $Config:ident { $($($part:ident).+),+ $(,)? }) => {
        impl $Settings {
            /// Each of them as it holds when nobody says anything.
            fn mirrored() -> Self {
                let config = $Config::default();
                let mut settings = Self::default();
                $(settings.$($part).+ = Some($crate::config::Said::of(&config.$($part).+));)+
                settings
            }

            /// Takes over what is said.
            fn lay_over(&self, config: &mut $Config) {
                $(if let Some(said) = &self.$($part).+ {
                    $crate::config::Said::lay_over(said, &mut config.$($part).+);
                })+
            }
        }
    };
}
pub(crate) mod agent;
mod lines;
pub(crate) mod registry;
pub(crate) mod router;

use std::{path::Path, time::Duration};

use cardea_registry_api::{Invalid, Span, strict};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    args::{LogArgs, LogFormat},
    exit::{Exit, lines as error_lines},
};

pub(crate) use lines::Lines;

/// A setting as it is said, for a value as a role holds it.
trait Said<T>: Sized {
    fn of(held: &T) -> Self;
    fn lay_over(&self, held: &mut T);
}

impl<T: Clone> Said<T> for T {
    fn of(held: &T) -> Self {
        held.clone()
    }

    fn lay_over(&self, held: &mut T) {
        held.clone_from(self);
    }
}

impl Said<Duration> for Span {
    fn of(held: &Duration) -> Self {
        Self::millis(u64::try_from(held.as_millis()).unwrap_or(u64::MAX))
    }

    fn lay_over(&self, held: &mut Duration) {
        *held = self.duration();
    }
}

/// A role's settings, merged, and where they came from.
#[derive(Debug)]
pub(crate) struct Merged<T> {
    /// Every setting with its value.
    pub(crate) settings: T,
    /// What the file says about the log.
    pub(crate) log: LogSettings,
    file: Option<File>,
}

/// The file's `[log]` table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LogSettings {
    /// As `--log-level`.
    level: Option<String>,
    /// As `--log-format`.
    format: Option<LogFormat>,
}

impl LogSettings {
    /// The file's word, where flags and environment have none.
    pub(crate) fn under(&self, flags: &LogArgs) -> LogArgs {
        LogArgs {
            log_level: flags.log_level.clone().or_else(|| self.level.clone()),
            log_format: flags.log_format.or(self.format),
        }
    }
}

#[derive(Debug)]
struct File {
    name: String,
    text: String,
}

struct Found {
    value: Value,
    log: LogSettings,
}

/// Merges a role's settings.
pub(crate) fn merge<T>(file: Option<&Path>, flags: &T, defaults: &T) -> Result<Merged<T>, Exit>
where
    T: Serialize + DeserializeOwned,
{
    let file = file.map(read).transpose()?;
    let mut value = json(defaults);
    let mut log = LogSettings::default();
    if let Some(file) = &file {
        let found = file.settings::<T>()?;
        overlay(&mut value, found.value);
        log = found.log;
    }
    overlay(&mut value, json(flags));
    let settings = strict::from_value(value).map_err(|e| explain(file.as_ref(), e))?;
    Ok(Merged {
        settings,
        log,
        file,
    })
}

impl<T> Merged<T> {
    /// An error of the checked settings, with the line of the file if the setting stands there.
    pub(crate) fn explain(&self, invalid: Invalid) -> Exit {
        explain(self.file.as_ref(), invalid)
    }
}

fn read(path: &Path) -> Result<File, Exit> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(File { name, text }),
        Err(error) => Err(Exit::Config(format!("{name}: {error}"))),
    }
}

impl File {
    /// What the file says, checked against the role's settings.
    fn settings<T: Serialize + DeserializeOwned>(&self) -> Result<Found, Exit> {
        let mut value = toml_value(&self.name, &self.text).map_err(Exit::Config)?;
        let log = value.as_object_mut().and_then(|table| table.remove("log"));
        let log = match log {
            None => LogSettings::default(),
            Some(log) => {
                strict::from_value(log).map_err(|e| explain(Some(self), e.under("log")))?
            }
        };
        strict::from_value::<T>(value.clone()).map_err(|e| explain(Some(self), e))?;
        Ok(Found { value, log })
    }
}

/// Reads a TOML text; the error names the line.
pub(crate) fn toml_value(name: &str, text: &str) -> Result<Value, String> {
    toml::from_str(text).map_err(|error| {
        let at = match error.span() {
            Some(span) => format!("{name}:{}", lines::line_at(text, span.start)),
            None => name.to_owned(),
        };
        format!("{at}: {}", error.message().trim())
    })
}

/// Errors, each with the line of the TOML text where the field stands, if it stands there.
pub(crate) fn with_lines(name: &str, text: &str, invalid: Invalid) -> String {
    let lines = Lines::of(text);
    let texts: Vec<String> = invalid
        .errors
        .into_iter()
        .map(|mut error| {
            if error.message.contains("socket address") {
                error.message += ": write IP:PORT, such as 127.0.0.1:8080";
            }
            let at = match lines.line(&error.field) {
                Some(line) => format!("{name}:{line}"),
                None => name.to_owned(),
            };
            let errors = vec![error];
            error_lines(&at, &Invalid { errors })
        })
        .collect();
    texts.join("\n")
}

fn explain(file: Option<&File>, invalid: Invalid) -> Exit {
    match file {
        Some(file) => Exit::Config(with_lines(&file.name, &file.text, invalid)),
        None => Exit::invalid("", &invalid),
    }
}

fn json<T: Serialize>(settings: &T) -> Value {
    serde_json::to_value(settings).unwrap_or(Value::Null)
}

/// Lays what is said in `over` over `under`; what is not said (null, an empty list) changes nothing.
fn overlay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                if let (Some(other), false) = (alternative(&key), value.is_null()) {
                    under.remove(other);
                }
                overlay(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (_, Value::Array(items)) if items.is_empty() => {}
        (under, over) => *under = over,
    }
}

/// What a setting stands instead of: a token on the command line wins over a token file in the file.
fn alternative(key: &str) -> Option<&'static str> {
    match key {
        "token" => Some("token_file"),
        "token_file" => Some("token"),
        _ => None,
    }
}

/// The settings as they are printed: secrets masked, what is not set left out.
pub(crate) fn shown<T: Serialize>(settings: &T) -> Value {
    let mut value = json(settings);
    mask(&mut value);
    value
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match (key.as_str(), &mut *value) {
                    ("token" | "secret", Value::String(text)) if !text.is_empty() => {
                        "***".clone_into(text);
                    }
                    ("database", Value::String(text)) => {
                        *text =
                            cardea_registry::config::DatabaseUrl::new(text.as_str()).to_string();
                    }
                    (_, value) => mask(value),
                }
            }
            map.retain(|_, value| match value {
                Value::Null => false,
                Value::Object(inner) => !inner.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::String(text) => !text.is_empty(),
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

/// A secret from a file of one line.
pub(crate) fn secret_from(file: &Path, field: &str) -> Result<String, Invalid> {
    let wrong = |why: String| Invalid::field(field, format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(wrong(
            "it is empty; one line with the secret is expected".to_owned(),
        ));
    }
    Ok(text.to_owned())
}

/// A token, given or in a file; none is an empty one.
pub(crate) fn token(token: Option<String>, file: Option<&Path>) -> Result<String, Invalid> {
    match (token, file) {
        (Some(token), None) => Ok(token),
        (None, Some(file)) => secret_from(file, "token_file"),
        (None, None) => Ok(String::new()),
        (Some(_), Some(_)) => Err(Invalid::field(
            "token",
            "give `token` or `token_file`, not both",
        )),
    }
}

#[cfg(test)]
mod tests;
