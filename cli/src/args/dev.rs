//! `cardea dev`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// Registry, router and two demo services on this machine.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  cardea dev                     everything on its usual port, data in ./data
  cardea dev --fresh             forget what was there before
  cardea dev --listen 127.0.0.1:9080 --api 127.0.0.1:0
  cardea dev --postgres postgres://me:secret@localhost/cardea

It goes on until Ctrl-C. While it runs, in another terminal of the same directory:
  cardea ctl get instances
  cardea ctl drain hello-1
  cardea ctl dev stop-registry")]
pub(crate) struct DevArgs {
    /// Forget what was there before: wipe the data directory first (only one that `dev` has made)
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Use Postgres instead of SQLite: postgres://user:password@host/name
    #[arg(long, env = "CARDEA_DEV_POSTGRES", value_name = "URL")]
    pub(crate) postgres: Option<String>,
    /// Where everything is kept
    #[arg(
        long,
        env = "CARDEA_DEV_DATA_DIR",
        value_name = "DIR",
        default_value = "data"
    )]
    pub(crate) data_dir: PathBuf,
    /// Where callers reach the router
    #[arg(
        long,
        env = "CARDEA_DEV_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        value_parser = loopback
    )]
    pub(crate) listen: SocketAddr,
    /// The router's admin address
    #[arg(
        long,
        env = "CARDEA_DEV_ROUTER_ADMIN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8081",
        value_parser = loopback
    )]
    pub(crate) router_admin: SocketAddr,
    /// The registry's API
    #[arg(
        long,
        env = "CARDEA_DEV_API",
        value_name = "ADDR",
        default_value = "127.0.0.1:7400",
        value_parser = loopback
    )]
    pub(crate) api: SocketAddr,
    /// The registry's admin address
    #[arg(
        long,
        env = "CARDEA_DEV_REGISTRY_ADMIN",
        value_name = "ADDR",
        default_value = "127.0.0.1:7401",
        value_parser = loopback
    )]
    pub(crate) registry_admin: SocketAddr,
}

/// `dev` is for one machine: demo services that anybody may reach are nobody's wish.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let full = match text.parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}"),
        Err(_) => text.to_owned(),
    };
    match full.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err("`cardea dev` serves this machine only: use 127.0.0.1".to_owned()),
        Err(_) => {
            Err("write IP:PORT, such as 127.0.0.1:8080, or a port; 0 is any free one".to_owned())
        }
    }
}
