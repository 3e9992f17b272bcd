//! Lists, a page at a time. A cursor is the last key of the page before, so that a list that changes
//! meanwhile neither repeats nor skips what stays.

use std::{fmt::Display, str::FromStr};

use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::header;

use super::{extract::Params, problem::ApiError};

/// The page length when none is asked for.
pub(crate) const DEFAULT_LIMIT: usize = 100;
/// The longest page.
pub(crate) const MAX_LIMIT: usize = 1000;

/// Which page of a list is wanted.
#[derive(Debug)]
pub(crate) struct Wanted<K> {
    /// The last key of the page before.
    pub(crate) after: Option<K>,
    /// The most items.
    pub(crate) limit: usize,
}

struct Cursor<K>(K);

impl<K: FromStr> FromStr for Cursor<K> {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok())
            .map(Self)
            .ok_or("not a cursor of this list: give `next` of the page before as it is")
    }
}

/// A key as a cursor.
pub(crate) fn cursor(key: impl Display) -> String {
    URL_SAFE_NO_PAD.encode(key.to_string())
}

impl<K: FromStr> Wanted<K> {
    /// Takes `limit` and `cursor` out of the parameters.
    pub(crate) fn take(params: &mut Params) -> Self {
        let limit = params.take("limit").unwrap_or(DEFAULT_LIMIT);
        let fits = (1..=MAX_LIMIT).contains(&limit);
        params.ensure(fits, "limit", "a page has 1 to 1000 items");
        let after = params.take("cursor").map(|Cursor(key)| key);
        Self { after, limit }
    }
}

/// Writes a page of objects whose JSON is already there, so that a list costs a copy and no encoding.
#[derive(Debug)]
pub(crate) struct PageWriter {
    out: Vec<u8>,
    count: usize,
    limit: usize,
    last: String,
    more: bool,
}

impl PageWriter {
    /// An empty page.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            out: b"{\"items\":[".to_vec(),
            count: 0,
            limit,
            last: String::new(),
            more: false,
        }
    }

    /// Adds an object with its revision; `false` when the page was full before.
    pub(crate) fn versioned(&mut self, key: impl Display, revision: u64, json: &str) -> bool {
        if self.count == self.limit {
            self.more = true;
            return false;
        }
        if self.count > 0 {
            self.out.push(b',');
        }
        write_versioned(&mut self.out, revision, json);
        self.count += 1;
        if self.count == self.limit {
            self.last = key.to_string();
        }
        true
    }

    /// Closes the page.
    pub(crate) fn finish(mut self) -> Response {
        self.out.extend_from_slice(b"],\"next\":");
        if self.more {
            self.out.push(b'"');
            self.out.extend_from_slice(cursor(&self.last).as_bytes());
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(b"null");
        }
        self.out.push(b'}');
        json(self.out)
    }
}

/// Bytes that are JSON already.
pub(crate) fn json(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

/// An object's JSON with its revision as first member: `api::Versioned` without parsing.
pub(crate) fn write_versioned(out: &mut Vec<u8>, revision: u64, json: &str) {
    out.extend_from_slice(b"{\"revision\":");
    out.extend_from_slice(revision.to_string().as_bytes());
    match json.strip_prefix('{') {
        Some("}") | None => out.push(b'}'),
        Some(rest) => {
            out.push(b',');
            out.extend_from_slice(rest.as_bytes());
        }
    }
}

/// A page of values that are not stored objects.
pub(crate) fn values<T: serde::Serialize>(
    items: Vec<T>,
    next: Option<String>,
) -> Result<Response, ApiError> {
    let page = cardea_registry_api::api::Page { items, next };
    serde_json::to_vec(&page)
        .map(json)
        .map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::{
        Cluster, Name,
        api::{Page, Versioned},
    };

    use super::*;

    async fn page(limit: usize, names: &[&str]) -> Page<Versioned<Cluster>> {
        let mut page = PageWriter::new(limit);
        for (i, name) in names.iter().enumerate() {
            let json = format!(r#"{{"name":"{name}","description":""}}"#);
            if !page.versioned(name, i as u64, &json) {
                break;
            }
        }
        let body = page.finish().into_body();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_page_says_where_the_next_begins() {
        let full = page(2, &["a", "b", "c"]).await;
        assert_eq!(full.items.len(), 2);
        assert_eq!(full.items[1].revision, 1);
        let Cursor(after) = full.next.unwrap().parse::<Cursor<Name>>().unwrap();
        assert_eq!(after.as_str(), "b");

        let last = page(2, &["a", "b"]).await;
        assert_eq!((last.items.len(), last.next), (2, None));
        assert_eq!(page(2, &[]).await.items.len(), 0);
    }
}
