//! What services last answered well, by request. Shared by the workers: it is asked on the way of
//! requests only where a fallback remembers, and moka's reads take no lock.

use std::sync::Arc;

use cardea_registry_api::{plugin::LastGood, policy::HashKey};
use moka::sync::Cache;

use crate::{
    balance::key,
    http1::{head::tokens, request::Framing, response::ResponseHead},
    plugin::{asked::Asked, fallback::HEADER},
};

/// An answer this young is not replaced, in nanoseconds: what is asked for a thousand times a second
/// is copied once.
const YOUNG: u64 = 1_000_000_000;
/// What an answer costs beside its bytes.
const OVERHEAD: usize = 256;

/// Answers that are remembered.
#[derive(Debug)]
pub(crate) struct Memory {
    policy: LastGood,
    kept: Cache<Box<[u8]>, Arc<Kept>>,
}

/// A remembered answer. Times are nanoseconds of a clock that only goes forward.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) status: u16,
    /// Its fields, without those that frame it.
    pub(crate) lines: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: u64,
}

impl Memory {
    /// Nothing remembered yet.
    pub(crate) fn new(policy: &LastGood) -> Arc<Self> {
        let kept = Cache::builder()
            .max_capacity(policy.memory)
            .time_to_live(policy.ttl.duration())
            .weigher(weight::<Box<[u8]>>)
            .build();
        Arc::new(Self {
            policy: policy.clone(),
            kept,
        })
    }

    /// Whether what is remembered under another policy is of use under this one.
    pub(crate) fn fits(&self, policy: &LastGood) -> bool {
        self.policy == *policy
    }

    /// The largest body.
    pub(crate) fn size(&self) -> usize {
        self.policy.size as usize
    }

    /// Writes what tells a request from others; `false`: answers to it are for one caller, and are
    /// not remembered. `certificate` is what is known of the client's.
    pub(crate) fn key(&self, asked: &Asked<'_>, certificate: &str, out: &mut Vec<u8>) -> bool {
        let private = asked.header("authorization").is_some() || !certificate.is_empty();
        if private && !self.policy.private {
            return false;
        }
        let mut part = |bytes: Option<&[u8]>| {
            // No two lists of parts are written alike; a part that is missing is none of any length.
            let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(bytes.unwrap_or_default());
        };
        // A HEAD is answered with what a GET was.
        let method: &[u8] = match asked.method {
            b"HEAD" => b"GET",
            other => other,
        };
        part(Some(method));
        part(Some(asked.scheme.as_bytes()));
        part(Some(&asked.host.to_ascii_lowercase()));
        part(Some(asked.path));
        match &self.policy.query {
            None => part(Some(asked.query)),
            Some(names) => names
                .iter()
                .for_each(|name| part(key::query(asked.query, name))),
        }
        for name in &self.policy.headers {
            part(asked.value(&HashKey::Header(name.to_ascii_lowercase())));
        }
        if self.policy.private {
            part(asked.header("authorization"));
            part(asked.header("cookie"));
            part(Some(certificate.as_bytes()));
        }
        true
    }

    /// Whether an answer may be remembered, by its head; the request's is known to fit.
    pub(crate) fn takes(&self, raw: &[u8], head: &ResponseHead) -> bool {
        let size = self.size() as u64;
        let framed = match head.framing {
            Framing::None | Framing::Chunked => true,
            Framing::Length(length) => length <= size,
            // Its end cannot be told from a broken connection.
            Framing::UntilClose => false,
        };
        let good = matches!(head.status, 200..=299) && head.status != 206;
        good && framed
            && head.fields.iter().all(|field| {
                let (name, value) = (field.name.of(raw), field.value.of(raw));
                self.allows(name, value)
            })
    }

    /// Whether one field of an answer lets it be remembered.
    fn allows(&self, name: &[u8], value: &[u8]) -> bool {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let told_apart = |header: &[u8]| {
            let mut headers = self.policy.headers.iter();
            headers.any(|have| header.eq_ignore_ascii_case(have.as_bytes()))
                || (self.policy.private && header.eq_ignore_ascii_case(b"cookie"))
        };
        if is("set-cookie") {
            self.policy.private
        } else if is("cache-control") {
            self.policy.private || !forbids(value)
        } else if is("vary") {
            // A coded answer is told by its own field.
            tokens(value).all(|header| {
                told_apart(header)
                    || header.is_empty()
                    || header.eq_ignore_ascii_case(b"accept-encoding")
            })
        } else if is("content-encoding") {
            value.eq_ignore_ascii_case(b"identity") || told_apart(b"accept-encoding")
        } else {
            !is(HEADER)
        }
    }

    /// Whether an answer under this key is so young that another one would not be better.
    pub(crate) fn is_young(&self, key: &[u8], now: u64) -> bool {
        let kept = self.kept.get(key);
        kept.is_some_and(|kept| now.saturating_sub(kept.at) < YOUNG)
    }

    /// What is remembered under this key and not too old.
    pub(crate) fn get(&self, key: &[u8], now: u64) -> Option<Arc<Kept>> {
        let ttl = self.policy.ttl.as_millis().saturating_mul(1_000_000);
        let kept = self.kept.get(key)?;
        (now.saturating_sub(kept.at) < ttl).then_some(kept)
    }

    /// Remembers an answer.
    pub(crate) fn put(&self, key: Box<[u8]>, kept: Kept) {
        if kept.body.len() <= self.size() {
            self.kept.insert(key, Arc::new(kept));
        }
    }

    /// How many bytes are held, and the most that may be.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (u64, u64) {
        self.kept.run_pending_tasks();
        (self.kept.weighted_size(), self.policy.memory)
    }
}

/// What an answer takes.
fn weight<K: AsRef<[u8]>>(key: &K, kept: &Arc<Kept>) -> u32 {
    let bytes = key.as_ref().len() + kept.lines.capacity() + kept.body.capacity();
    u32::try_from(bytes + OVERHEAD).unwrap_or(u32::MAX)
}

/// Whether a `Cache-Control` says that an answer is not for everybody, or not to be kept.
pub(crate) fn forbids(cache_control: &[u8]) -> bool {
    tokens(cache_control).any(|directive| {
        let name = directive.split(|b| *b == b'=').next().unwrap_or_default();
        let name = name.trim_ascii();
        name.eq_ignore_ascii_case(b"private") || name.eq_ignore_ascii_case(b"no-store")
    })
}
