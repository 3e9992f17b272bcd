//! The router beside nginx, HAProxy and Envoy: the same routes, the same upstreams, the same logging.
//!
//! The proxy has core 0, load and upstreams have core 1. Rounds are interleaved (A B C A B C) after
//! one to warm up; the figure to trust is CPU per request, and its ratio to nginx's in the same run.

mod bodies;
pub(crate) mod bulk;
mod configs;
mod counts;
mod idle;
mod mirror;
pub(crate) mod paced;
mod price;
mod rate;
mod requests;
mod stand;
mod swaps;
pub(crate) mod tls;
mod wrk;

use crate::machine;

/// The parts, which can be run one by one.
pub(crate) const SECTIONS: [&str; 13] = [
    "routes",
    "peers",
    "rate",
    "bodies",
    "idle",
    "price",
    "plugins",
    "traffic",
    "calls",
    "swaps",
    "tls",
    "mirror",
    "mirror-service",
];

/// Prints the tables of these sections; of all, if none is named.
pub(crate) async fn run(sections: &[String]) {
    let envoy = configs::envoy_program();
    println!(
        "## Router\n\nEnvoy: {}.\n",
        machine::version(&envoy.display().to_string(), "--version")
    );
    for section in SECTIONS {
        if !sections.is_empty() && !sections.iter().any(|named| named == section) {
            continue;
        }
        match section {
            "routes" => requests::routes().await,
            "peers" => requests::peers().await,
            "rate" => rate::run().await,
            "bodies" => bodies::run().await,
            "idle" => idle::run().await,
            "price" => price::run().await,
            "plugins" => price::of_plugins().await,
            "traffic" => price::of_traffic().await,
            "calls" => counts::run().await,
            "swaps" => swaps::run().await,
            "mirror" => mirror::run().await,
            "mirror-service" => mirror::behind_a_service().await,
            "tls" => tls::run().await,
            _ => unreachable!("it is one of the sections"),
        }
    }
}
