//! `cardea completions SHELL`.

use std::io::{self, ErrorKind, Write};

use clap_complete::Shell;

use crate::{args::Cli, exit::Exit};

/// Writes the completions to stdout.
pub(crate) fn run(shell: Shell) -> Result<(), Exit> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::tree(), "cardea", &mut text);
    match io::stdout().write_all(&text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Exit::failed(error)),
        _ => Ok(()),
    }
}
