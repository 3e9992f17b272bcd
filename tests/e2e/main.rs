//! End-to-end suites: real processes, real sockets, a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod access;
mod agent;
mod certificates;
mod clusters;
mod ctl;
mod database_outage;
mod dependencies;
mod dev;
mod divided;
mod figures;
mod gate;
mod handover;
mod harness;
mod http2_services;
mod kill;
mod lanes;
mod latency;
mod misbehave;
mod plugins;
mod redeploy;
mod registry_outage;
mod releases;
mod replicas;
mod rescue;
mod router_restart;
mod sqlite_crash;
mod static_mode;
mod switches;
mod upgrade;
mod websocket;
