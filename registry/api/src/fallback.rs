//! Stored bodies that stand in for a service's answer when it has none.
//!
//! A fallback is an object of its own, so that a body is uploaded once, versioned in the change log
//! and named by as many plugins as need it. Every router keeps every one of them in memory: hence the
//! bounds.

use std::{borrow::Cow, fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Invalid, Name, invalid::Check};

/// The largest body, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// What all bodies may hold together, in bytes.
pub const MAX_TOTAL: usize = 16 << 20;

/// A stored body, for the answers that stand in for a service's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fallback {
    /// Its name, unique.
    pub name: Name,
    /// The body's media type. Default `text/plain; charset=utf-8`.
    #[serde(default = "plain")]
    pub content_type: String,
    /// The status that goes with it, 200 to 599; none: as the plugin says.
    #[serde(default)]
    pub status: Option<u16>,
    /// The body in base64, at most 1 MiB once decoded.
    #[serde(default)]
    pub body: Body,
}

/// A fallback as it is listed: without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FallbackInfo {
    /// Its name.
    pub name: Name,
    /// The body's media type.
    pub content_type: String,
    /// The status that goes with it; none: as the plugin says.
    pub status: Option<u16>,
    /// The body's length, in bytes.
    pub size: u64,
}

/// The media type of a body that came without one.
pub fn plain() -> String {
    "text/plain; charset=utf-8".to_owned()
}

impl Fallback {
    /// Without the body.
    pub fn info(&self) -> FallbackInfo {
        FallbackInfo {
            name: self.name.clone(),
            content_type: self.content_type.clone(),
            status: self.status,
            size: self.body.as_bytes().len() as u64,
        }
    }

    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let kind = &self.content_type;
        check.ensure(
            (1..=256).contains(&kind.len()) && kind.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "content_type",
            "a media type, such as text/html; charset=utf-8",
        );
        let status = self.status.unwrap_or(200);
        check.ensure(
            (200..=599).contains(&status) && !matches!(status, 204 | 205 | 304),
            "status",
            "a status that an answer with a body may have: 200 to 599, not 204, 205 or 304",
        );
        let size = self.body.as_bytes().len();
        check.ensure(
            size <= MAX_BODY,
            "body",
            format!("has {size} bytes; at most {MAX_BODY}"),
        );
        check.finish()
    }
}

/// Checks what all of them hold together.
pub fn check_total<'a>(all: impl Iterator<Item = &'a Fallback>) -> Result<(), Invalid> {
    let total: usize = all.map(|one| one.body.as_bytes().len()).sum();
    if total <= MAX_TOTAL {
        return Ok(());
    }
    Err(Invalid::field(
        "body",
        format!(
            "all bodies together have {total} bytes; at most {MAX_TOTAL}: routers keep them all"
        ),
    ))
}

/// The bytes of a [`Fallback`]; base64 where they are written. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = Byte, max_length = 1_398_104))]
pub struct Body(Arc<[u8]>);

impl Body {
    /// As they are sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes, shared.
    pub fn shared(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }
}

impl<T: Into<Arc<[u8]>>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = STANDARD
            .decode(text.as_ref())
            .map_err(|error| serde::de::Error::custom(format!("not base64: {error}")))?;
        Ok(Self(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict;

    fn read(json: serde_json::Value) -> Result<Fallback, String> {
        strict::from_value::<Fallback>(json)
            .and_then(|fallback| fallback.check().map(|()| fallback))
            .map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn any_bytes_come_back_as_they_were() {
        let bytes: Vec<u8> = (0..=255).collect();
        let fallback = Fallback {
            name: "sorry".parse().unwrap(),
            content_type: plain(),
            status: Some(503),
            body: bytes.clone().into(),
        };
        let json = serde_json::to_value(&fallback).unwrap();
        let back = read(json).unwrap();
        assert_eq!(back, fallback);
        assert_eq!(back.body.as_bytes(), bytes);
        assert_eq!(back.info().size, 256);
        assert!(!format!("{back:?}").contains("255"));
    }

    #[test]
    fn names_what_is_wrong() {
        use serde_json::json;
        let most = STANDARD.encode(vec![0; MAX_BODY]);
        read(json!({"name": "a", "body": most})).unwrap();
        let more = STANDARD.encode(vec![0; MAX_BODY + 1]);
        for (json, want) in [
            (json!({"name": "a", "body": "!"}), "body: not base64"),
            (
                json!({"name": "a", "body": more}),
                "body: has 1048577 bytes",
            ),
            (json!({"name": "a", "status": 204}), "status: a status"),
            (json!({"name": "a", "status": 99}), "status: a status"),
            (
                json!({"name": "a", "content_type": "a\r\nb"}),
                "content_type: a media type",
            ),
            (
                json!({"name": "a", "bodi": "QQ=="}),
                "bodi: unknown field; did you mean `body`?",
            ),
        ] {
            let said = read(json).unwrap_err();
            assert!(said.starts_with(want), "{said}");
        }
    }
}
