//! Which registry, with which token.
//!
//! Where nothing is said, what runs on this machine is used: `cardea dev` leaves its addresses and
//! token in its data directory, a registry its admin token. Such a token is only ever sent to this
//! machine.

use std::{fs, path::Path};

use cardea_registry_api::{
    api::DEFAULT_REGISTRY,
    client::{Client, ClientConfig},
};

use crate::{
    args::Connect,
    config,
    dev::{OPERATOR_TOKEN, Running},
    exit::Exit,
};

/// The token that a registry writes at its first start.
const ADMIN_TOKEN: &str = "admin.token";
/// Where a router's admin port is when nobody says.
const ROUTER: &str = "http://127.0.0.1:8081";

/// The client that the flags, the environment or this machine ask for.
pub(super) fn client(connect: &Connect, admin: bool) -> Result<Client, Exit> {
    let addresses = if connect.registry.is_empty() {
        let dev = Running::read(&connect.data_dir);
        vec![dev.map_or_else(|| DEFAULT_REGISTRY.to_owned(), |dev| dev.api)]
    } else {
        connect.registry.clone()
    };
    let mut token = config::token(connect.token.clone(), connect.token_file.as_deref())
        .map_err(|e| Exit::invalid("", &e))?;
    if token.is_empty() && addresses.iter().all(|address| is_local(address)) {
        token = local_token(&connect.data_dir, admin)?;
    }
    let config = ClientConfig {
        addresses,
        token,
        ca_file: connect.ca.clone(),
        request_timeout: connect.timeout,
        ..ClientConfig::default()
    };
    Client::new(&config).map_err(|e| Exit::Config(as_flags(&e)))
}

/// The admin address of the router on this machine.
pub(super) fn router(data_dir: &Path) -> String {
    Running::read(data_dir).map_or_else(|| ROUTER.to_owned(), |dev| dev.router_admin)
}

/// The token that `cardea dev` or a registry has left on this machine; none is an empty one.
fn local_token(data_dir: &Path, admin: bool) -> Result<String, Exit> {
    let mut names = [OPERATOR_TOKEN, ADMIN_TOKEN];
    if admin {
        names.reverse();
    }
    for name in names {
        let path = data_dir.join(name);
        match fs::read_to_string(&path) {
            Ok(token) => return Ok(token.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Exit::failed(format!("{}: {error}", path.display())));
            }
        }
    }
    Ok(String::new())
}

/// Whether an address is this machine's.
fn is_local(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// The client's names of settings as they are called here.
fn as_flags(invalid: &cardea_registry_api::Invalid) -> String {
    let mut invalid = invalid.clone();
    for error in &mut invalid.errors {
        error.field = error
            .field
            .replace("addresses", "--registry")
            .replace("ca_file", "--ca")
            .replace("request_timeout", "--timeout");
    }
    crate::exit::lines("", &invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_token_stays_here() {
        for local in [
            "http://127.0.0.1:7400",
            "localhost:7400",
            "http://[::1]:7400/x",
            "127.0.0.1",
        ] {
            assert!(is_local(local), "{local}");
        }
        for far in [
            "http://10.0.0.1:7400",
            "http://127.0.0.1.evil.example:7400",
            "http://evil.example/127.0.0.1",
            "http://127.0.0.1@evil.example:1",
            "http://localhost@evil.example",
        ] {
            assert!(!is_local(far), "{far}");
        }
    }

    #[test]
    fn the_operators_token_comes_first_except_for_tokens() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(local_token(dir.path(), false).unwrap(), "");
        fs::write(dir.path().join(ADMIN_TOKEN), "admin\n").unwrap();
        assert_eq!(local_token(dir.path(), false).unwrap(), "admin");
        fs::write(dir.path().join(OPERATOR_TOKEN), "operator\n").unwrap();
        assert_eq!(local_token(dir.path(), false).unwrap(), "operator");
        assert_eq!(local_token(dir.path(), true).unwrap(), "admin");
    }
}
