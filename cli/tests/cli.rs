//! The real binary, as people and scripts call it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cli/command.rs"]
mod command;
#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/dev.rs"]
mod dev;
#[path = "cli/settings.rs"]
mod settings;
#[path = "cli/signals.rs"]
mod signals;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/usage.rs"]
mod usage;
