//! Who may ask for what.

use cardea_registry_api::{network::Networks, plugin::Restrict};

use super::{
    Bound,
    decision::Case,
    said::{PASSED, STOPPED},
};
use crate::{
    http1::render::line,
    plugin::asked::Asked,
    refusal::{self, Refusal},
};

/// A restriction, made ready.
#[derive(Debug)]
pub(crate) struct Restriction {
    methods: Box<[Box<[u8]>]>,
    /// The `Allow` field's value.
    allow_methods: Box<[u8]>,
    body: Option<u64>,
    head: Option<usize>,
    target: Option<usize>,
    content_types: Box<[Box<[u8]>]>,
    allow: Option<Networks>,
    deny: Networks,
}

impl From<&Restrict> for Restriction {
    fn from(restrict: &Restrict) -> Self {
        let values = |list: &[String]| list.iter().map(|v| v.as_bytes().into()).collect();
        Self {
            methods: values(&restrict.methods),
            allow_methods: restrict.methods.join(", ").into_bytes().into(),
            body: restrict.body,
            head: restrict.head.map(|n| n as usize),
            target: restrict.target.map(|n| n as usize),
            content_types: values(&restrict.content_types),
            allow: (!restrict.allow.is_empty()).then(|| restrict.allow.iter().copied().collect()),
            deny: restrict.deny.iter().copied().collect(),
        }
    }
}

impl Restriction {
    /// Why a request is refused, if it is.
    fn refuses(&self, asked: &Asked<'_>) -> Option<Refusal> {
        let allowed = self.allow.as_ref().is_none_or(|a| a.contains(asked.client));
        if !allowed || self.deny.contains(asked.client) {
            return Some(refusal::FORBIDDEN);
        }
        if !self.methods.is_empty() && !self.methods.iter().any(|m| **m == *asked.method) {
            return Some(refusal::METHOD_NOT_ALLOWED);
        }
        let target = asked.path.len() + asked.query.len() + usize::from(!asked.query.is_empty());
        if self.target.is_some_and(|most| target > most) {
            return Some(refusal::TARGET_TOO_LONG);
        }
        if self.head.is_some_and(|most| asked.head > most) {
            return Some(refusal::HEAD_TOO_LARGE);
        }
        if self
            .body
            .zip(asked.body)
            .is_some_and(|(most, body)| body > most)
        {
            return Some(refusal::BODY_TOO_LARGE);
        }
        if asked.has_body && !self.content_types.is_empty() {
            let media = asked.header("content-type").unwrap_or_default();
            let media = media.split(|b| *b == b';').next().unwrap_or_default();
            if !self
                .content_types
                .iter()
                .any(|one| takes(one, media.trim_ascii()))
            {
                return Some(refusal::MEDIA_TYPE);
            }
        }
        None
    }
}

impl Bound<Restriction> {
    /// The stage: refuses what is not allowed, and bounds the body that is still to come.
    pub(super) fn ask(&self, case: &mut Case<'_, '_>) {
        let refusal = self.policy.refuses(case.about.asked);
        let verdict = if refusal.is_some() { STOPPED } else { PASSED };
        case.says(&self.head, verdict);
        if self.head.shadow {
            return;
        }
        case.decision.body = self.policy.body;
        if let Some(refusal) = refusal {
            if refusal == refusal::METHOD_NOT_ALLOWED {
                let allow = &self.policy.allow_methods;
                line(&mut case.scratch.reply, b"Allow", allow);
            }
            case.refuse(refusal);
        }
    }
}

/// Whether a media type, perhaps `text/*`, is that of a body.
fn takes(one: &[u8], media: &[u8]) -> bool {
    match one.strip_suffix(b"*") {
        Some(main) => media.len() > main.len() && media[..main.len()].eq_ignore_ascii_case(main),
        None => media.eq_ignore_ascii_case(one),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::plugin::asked::Headers;

    fn restriction(toml: &str) -> Restriction {
        let restrict: Restrict = toml::from_str(toml).unwrap();
        restrict.check().unwrap();
        Restriction::from(&restrict)
    }

    fn status(toml: &str, asked: Asked<'_>) -> u16 {
        restriction(toml).refuses(&asked).map_or(200, |r| r.status)
    }

    #[test]
    fn each_rule_refuses_what_it_names_and_nothing_else() {
        let plain = Asked::default();
        let from = |ip: [u8; 4]| Asked {
            client: IpAddr::from(ip),
            ..Asked::default()
        };
        let networks = "allow = [\"10.0.0.0/8\"]\ndeny = [\"10.1.0.0/16\"]";
        assert_eq!(status(networks, from([10, 0, 0, 1])), 200);
        assert_eq!(status(networks, from([10, 1, 0, 1])), 403);
        assert_eq!(status(networks, from([11, 0, 0, 1])), 403);
        assert_eq!(status("methods = [\"GET\", \"HEAD\"]", plain), 200);
        let post = Asked {
            method: b"POST",
            ..plain
        };
        assert_eq!(status("methods = [\"GET\", \"HEAD\"]", post), 405);
        let long = Asked {
            path: b"/1234",
            query: b"67",
            ..plain
        };
        assert_eq!(status("target = 8", long), 200);
        assert_eq!(status("target = 7", long), 414);
        assert_eq!(status("head = 100", plain), 200);
        assert_eq!(status("head = 99", plain), 431);
        let body = |n| Asked {
            body: n,
            has_body: true,
            ..plain
        };
        assert_eq!(status("body = 10", body(Some(10))), 200);
        assert_eq!(status("body = 10", body(Some(11))), 413);
        assert_eq!(status("body = 10", body(None)), 200);
    }

    #[test]
    fn media_types_count_only_with_a_body() {
        let types = "content_types = [\"application/json\", \"text/*\"]";
        let with = |value: &str, has_body| {
            let list = [("content-type".to_owned(), value.to_owned())];
            status(
                types,
                Asked {
                    headers: Headers::List(&list),
                    has_body,
                    ..Asked::default()
                },
            )
        };
        assert_eq!(with("Application/JSON; charset=utf-8", true), 200);
        assert_eq!(with("text/plain", true), 200);
        assert_eq!(with("text/", true), 415);
        assert_eq!(with("image/png", true), 415);
        assert_eq!(with("image/png", false), 200);
    }
}
