//! What a consistent hash is taken of.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

/// The hash of a request's key, the same in all routers.
pub fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The hash of a client's address (its port does not count).
pub fn of_client(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => hash(&v4.octets()),
        IpAddr::V6(v6) => hash(&v6.octets()),
    }
}

/// The value of a cookie in one `Cookie` header.
pub fn cookie<'h>(header: &'h [u8], name: &str) -> Option<&'h [u8]> {
    header.split(|b| *b == b';').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=").filter(|value| !value.is_empty())
    })
}

/// The raw value of a parameter in a query (without its `?`).
pub fn query<'q>(query: &'q [u8], name: &str) -> Option<&'q [u8]> {
    query.split(|b| *b == b'&').find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=").filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_values() {
        assert_eq!(cookie(b"a=1; user=x=y;b=2", "user"), Some(&b"x=y"[..]));
        assert_eq!(cookie(b"xuser=1; user=", "user"), None);
        assert_eq!(query(b"a=1&user=7&b", "user"), Some(&b"7"[..]));
        assert_eq!(query(b"users=7&user", "user"), None);
    }
}
