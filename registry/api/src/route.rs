//! Routes: host + URI prefix → service.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Name, name::parse_from_str};

/// Where requests for a host and a URI prefix go. Host and prefix together are unique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Route {
    /// Its id, unique: the `route` label of metrics.
    pub id: Name,
    /// The hosts it takes.
    pub host: HostPattern,
    /// The paths it takes.
    #[serde(default)]
    pub prefix: PathPrefix,
    /// Where its requests go.
    pub service: Name,
}

impl Route {
    /// An id made of host and prefix, for routes written without one: readable where it fits, with
    /// a hash where characters had to be left out.
    pub fn derived_id(host: &HostPattern, prefix: &PathPrefix) -> Name {
        let full = format!("{host}{prefix}");
        let host_text = match host {
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Suffix(suffix) => format!("any.{suffix}"),
            HostPattern::Any => "any".to_owned(),
        };
        let path = prefix.as_str().trim_matches('/').to_owned();
        let readable = if path.is_empty() {
            host_text
        } else {
            format!("{host_text}-{path}")
        };
        let slug: String = readable
            .chars()
            .map(|c| match c {
                'a'..='z' | '0'..='9' | '.' | '_' | '-' => c,
                _ => '-',
            })
            .take(46)
            .collect();
        let slug = slug.trim_matches(['-', '.', '_']);
        let lossless = matches!(host, HostPattern::Exact(_)) && !path.contains(['/', '-']);
        let text = if lossless && slug == readable {
            slug.to_owned()
        } else {
            let hash = xxhash_rust::xxh3::xxh3_64(full.as_bytes());
            format!("{slug}-{hash:016x}")
                .trim_start_matches('-')
                .to_owned()
        };
        text.parse()
            .unwrap_or_else(|_| unreachable!("a slug of name characters is a name"))
    }
}

/// Which hosts a route takes; lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This host only.
    Exact(String),
    /// `*.suffix`: every host below the suffix, at any depth, not the suffix itself.
    Suffix(String),
    /// `*`: every host.
    Any,
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if lower == "*" {
            return Ok(Self::Any);
        }
        let (suffix, host) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        let v6 = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
        if (v6 && !suffix) || (host.len() <= 253 && host.split('.').all(label)) {
            Ok(if suffix {
                Self::Suffix(host.to_owned())
            } else {
                Self::Exact(host.to_owned())
            })
        } else {
            Err(format!(
                "`{text}` is no host: write `search.svc.local`, `*.svc.local` or `*`, without a port"
            ))
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_from_str(deserializer)
    }
}

/// A path prefix on segment boundaries: `/api` takes `/api`, `/api/` and `/api/x`, not `/apix`.
/// Kept without a trailing slash; the root is `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "/api/v1"))]
pub struct PathPrefix(String);

impl PathPrefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl FromStr for PathPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let visible = text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
        let dots = text
            .split('/')
            .any(|segment| segment == "." || segment == "..");
        if !text.starts_with('/') || text.len() > 1024 || !visible || dots || text.contains("//") {
            return Err(format!(
                "`{text}` is no prefix: begin with `/`; no spaces, `?`, `#`, `//`, `.` or `..` segments; at most 1024 bytes"
            ));
        }
        let trimmed = text.trim_end_matches('/');
        Ok(Self(if trimmed.is_empty() {
            "/".to_owned()
        } else {
            trimmed.to_owned()
        }))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for PathPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PathPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_from_str(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, want) in [
            ("*", HostPattern::Any),
            ("*.Svc.local", HostPattern::Suffix("svc.local".into())),
            ("a-b.c", HostPattern::Exact("a-b.c".into())),
            ("10.0.0.1", HostPattern::Exact("10.0.0.1".into())),
            ("[::1]", HostPattern::Exact("[::1]".into())),
        ] {
            assert_eq!(text.parse::<HostPattern>().unwrap(), want);
        }
        for bad in [
            "", "a..b", "a:80", "*.", "a*.b", "**", "a b", "*.*.x", "ä.b",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes() {
        for (text, want) in [("/", "/"), ("/api/", "/api"), ("/a/b", "/a/b")] {
            assert_eq!(text.parse::<PathPrefix>().unwrap().as_str(), want);
        }
        for bad in ["", "api", "/a//b", "/a?b", "/a/../b", "/a b", "//"] {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_ids_differ() {
        let id = |host: &str, prefix: &str| {
            Route::derived_id(&host.parse().unwrap(), &prefix.parse().unwrap()).to_string()
        };
        assert_eq!(id("h0.svc.local", "/"), "h0.svc.local");
        assert_eq!(id("h0.svc.local", "/api"), "h0.svc.local-api");
        assert_ne!(id("h0.svc.local", "/a/b"), id("h0.svc.local", "/a-b"));
        assert_ne!(id("*.svc.local", "/"), id("any.svc.local", "/"));
        assert_ne!(id("*", "/"), id("any", "/"));
    }
}
