//! Finding out under which address others reach this machine.

use std::{net::IpAddr, time::Duration};

use cardea_registry_api::Address;
use reqwest::Url;
use tokio::{net::UdpSocket, time::timeout};

/// How long looking up one registry's name may take.
const LOOK_UP: Duration = Duration::from_secs(2);

/// The address this machine uses towards the first registry that can be looked up; else towards the
/// network at large; else loopback. Nothing is sent for that.
pub(crate) async fn detect(registries: &[String]) -> IpAddr {
    let towards = registries.iter().filter_map(|text| host_and_port(text));
    // TEST-NET-1: routed like any address of the world, and nobody's.
    let world = ("192.0.2.1".to_owned(), 9);
    for (host, port) in towards.chain([world]) {
        match timeout(LOOK_UP, source(&host, port)).await {
            Ok(Ok(ip)) if !ip.is_unspecified() => return ip,
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => tracing::debug!(host, %error, "no way towards this host"),
        }
    }
    IpAddr::from([127, 0, 0, 1])
}

/// A port at a host, as an address.
pub(crate) fn at(ip: IpAddr, port: u16) -> Result<Address, String> {
    std::net::SocketAddr::new(ip, port).to_string().parse()
}

fn host_and_port(registry: &str) -> Option<(String, u16)> {
    let url = if registry.contains("://") {
        Url::parse(registry)
    } else {
        Url::parse(&format!("http://{registry}"))
    };
    let url = url.ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port_or_known_default()?))
}

/// Which of this machine's addresses the kernel would send from.
async fn source(host: &str, port: u16) -> std::io::Result<IpAddr> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for remote in tokio::net::lookup_host((host, port)).await? {
        let local: IpAddr = match remote.ip() {
            IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
            IpAddr::V6(_) => IpAddr::from([0_u16; 8]),
        };
        let socket = UdpSocket::bind((local, 0)).await?;
        match socket.connect(remote).await {
            Ok(()) => return Ok(socket.local_addr()?.ip()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_registry_on_this_machine_means_loopback() {
        let registries = ["http://127.0.0.1:7400".to_owned()];
        assert_eq!(detect(&registries).await, IpAddr::from([127, 0, 0, 1]));
        let registries = ["[::1]:7400".to_owned()];
        assert_eq!(detect(&registries).await.to_string(), "::1");
    }

    #[tokio::test]
    async fn a_name_that_is_not_there_is_passed_over() {
        let registries = [
            "http://no.such.host.invalid".to_owned(),
            "127.0.0.1:1".into(),
        ];
        assert_eq!(detect(&registries).await, IpAddr::from([127, 0, 0, 1]));
    }
}
