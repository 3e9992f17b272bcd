//! Answers in place of the service's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    edit::{Template, editable},
    when::When,
};
use crate::{Invalid, invalid::Check};

/// The largest fixed body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// Sends callers elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Redirect {
    /// Whom; default: all.
    #[serde(default)]
    pub when: When,
    /// Where to, such as `https://${host}${path}${query}`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub to: Template,
    /// 301, 302, 303, 307 or 308 (the default: permanent, the method stays).
    #[serde(default = "permanent")]
    #[cfg_attr(feature = "openapi", schema(minimum = 301, maximum = 308))]
    pub status: u16,
}

fn permanent() -> u16 {
    308
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Respond {
    /// To whom; default: all.
    #[serde(default)]
    pub when: When,
    /// Default 200.
    #[serde(default = "fine")]
    #[cfg_attr(feature = "openapi", schema(minimum = 200, maximum = 599))]
    pub status: u16,
    /// Default `text/plain; charset=utf-8`.
    #[serde(default = "plain")]
    pub content_type: String,
    /// At most 64 KiB.
    #[serde(default)]
    pub body: String,
    /// Further headers.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub headers: BTreeMap<String, Template>,
}

fn fine() -> u16 {
    200
}

fn plain() -> String {
    "text/plain; charset=utf-8".to_owned()
}

impl Redirect {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.merge("when", self.when.check());
        check.ensure(
            matches!(self.status, 301 | 302 | 303 | 307 | 308),
            "status",
            "301, 302, 303, 307 or 308",
        );
        check.ensure(!self.to.parts().is_empty(), "to", "where to?");
        check.ensure(
            self.to.groups() == 0,
            "to",
            "there is no regular expression here that ${1} could be a group of",
        );
        check.finish()
    }
}

impl Respond {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.merge("when", self.when.check());
        check.ensure(
            (200..=599).contains(&self.status),
            "status",
            "an HTTP status, 200 to 599",
        );
        check.ensure(
            self.body.len() <= MAX_BODY,
            "body",
            format!("at most {MAX_BODY} bytes"),
        );
        check.ensure(
            self.body.is_empty() || !matches!(self.status, 204 | 205 | 304),
            "body",
            format!("an answer with status {} has none", self.status),
        );
        let value =
            |text: &str| text.len() <= 256 && text.bytes().all(|b| (b' '..=b'~').contains(&b));
        check.ensure(value(&self.content_type), "content_type", "a media type");
        check.ensure(self.headers.len() <= 64, "headers", "at most 64");
        for (name, value) in &self.headers {
            let at = format!("headers.{name}");
            check.merge(&at, editable(name));
            check.ensure(
                value.groups() == 0,
                &at,
                "there is no regular expression here",
            );
        }
        check.finish()
    }
}
