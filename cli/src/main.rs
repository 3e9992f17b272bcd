//! The `cardea` command: it reads the settings, starts the role that was asked for, and stops it.
//!
//! `args` (what may be typed) → `config` (flags over environment over file over defaults) → one of
//! `roles` (registry, router, agent), `dev` (all of them, for a first look), `ctl` (a client of a
//! running registry) or `demo` (the service that `dev` and the tests run).

mod activation;
mod args;
mod check_config;
mod completions;
mod config;
mod ctl;
mod demo;
mod dev;
mod exit;
mod http;
mod large_pages;
mod roles;
mod signals;
mod table;
mod telemetry;

use std::process::ExitCode;

use args::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::read();
    let log = &cli.log;
    let result = match cli.command {
        Command::Dev(args) => dev::run(&args, log),
        Command::Registry(args) => roles::registry::run(&args, log),
        Command::Router(args) => roles::router::run(&args, log),
        Command::Agent(args) => roles::agent::run(args, log),
        Command::Ctl(args) => ctl::run(args, log),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Completions { shell } => completions::run(shell),
        Command::DemoService(args) => demo::run(&args, log),
    };
    exit::code(result)
}
