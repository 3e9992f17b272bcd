//! A request as plugins see it.

use std::net::IpAddr;

use cardea_registry_api::policy::HashKey;

use super::token::Token;
use crate::{balance::key, http1::request::RequestHead};

/// A request as plugins see it. Everything is where it was read to; nothing is copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a [u8],
    /// As written, with the port.
    pub(crate) host: &'a [u8],
    /// As written; never empty.
    pub(crate) path: &'a [u8],
    /// Without its `?`.
    pub(crate) query: &'a [u8],
    pub(crate) headers: Headers<'a>,
    pub(crate) client: IpAddr,
    pub(crate) client_text: &'a [u8],
    /// Who speaks to this router: perhaps not whose request it is.
    pub(crate) caller: IpAddr,
    /// That is a proxy of ours.
    pub(crate) trusted: bool,
    /// Where its bearer token is decoded to; none: nobody asks for claims.
    pub(crate) token: Option<&'a Token>,
    pub(crate) scheme: &'static str,
    pub(crate) request_id: &'a [u8],
    /// Bytes of the head.
    pub(crate) head: usize,
    /// Bytes of the body, as far as they are known before it comes.
    pub(crate) body: Option<u64>,
    /// Whether there is a body.
    pub(crate) has_body: bool,
    /// A random number of this request's own.
    pub(crate) lot: u64,
}

/// Where a request's headers are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Headers<'a> {
    /// In a head that was read.
    Head(&'a RequestHead, &'a [u8]),
    /// In a list, names in lower case: a request that is only asked about.
    List(&'a [(String, String)]),
}

impl<'a> Asked<'a> {
    /// The first header of a name (in lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&'a [u8]> {
        match self.headers {
            Headers::Head(head, raw) => head.field(raw, name),
            Headers::List(list) => list
                .iter()
                .find(|(have, _)| have == name)
                .map(|(_, value)| value.as_bytes()),
        }
    }

    /// Every header of a name (in lower case), in order.
    pub(crate) fn each(&self, name: &str, mut see: impl FnMut(&'a [u8])) {
        match self.headers {
            Headers::Head(head, raw) => head.fields_named(raw, name).for_each(see),
            Headers::List(list) => list
                .iter()
                .filter(|(have, _)| have == name)
                .for_each(|(_, value)| see(value.as_bytes())),
        }
    }

    /// A cookie.
    pub(crate) fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        match self.headers {
            Headers::Head(head, raw) => head
                .fields_named(raw, "cookie")
                .find_map(|cookies| key::cookie(cookies, name)),
            Headers::List(list) => list
                .iter()
                .filter(|(have, _)| have == "cookie")
                .find_map(|(_, value)| key::cookie(value.as_bytes(), name)),
        }
    }

    /// What a key stands for, if the request has it.
    pub(crate) fn value(&self, of: &HashKey) -> Option<&'a [u8]> {
        match of {
            HashKey::Header(name) if name == "host" => Some(self.host),
            HashKey::Header(name) => self.header(name),
            HashKey::Cookie(name) => self.cookie(name),
            HashKey::Query(name) => key::query(self.query, name),
            HashKey::Client => Some(self.client_text),
            HashKey::Path => Some(self.path),
            HashKey::Jwt(claim) => self.token?.claim(self.header("authorization"), claim),
        }
    }

    /// The hash of what a service balances by, if the request has it.
    pub(crate) fn hash(&self, of: &HashKey) -> Option<u64> {
        match of {
            // Not of its text: addresses that are the same are one.
            HashKey::Client => Some(key::of_client(self.client)),
            of => self.value(of).map(key::hash),
        }
    }
}

#[cfg(test)]
impl Default for Asked<'_> {
    fn default() -> Self {
        Self {
            method: b"GET",
            host: b"svc.local",
            path: b"/",
            query: b"",
            headers: Headers::List(&[]),
            client: IpAddr::from([127, 0, 0, 1]),
            client_text: b"127.0.0.1",
            caller: IpAddr::from([127, 0, 0, 1]),
            trusted: false,
            token: None,
            scheme: "http",
            request_id: b"id",
            head: 100,
            body: Some(0),
            has_body: false,
            lot: 0,
        }
    }
}
