//! Asking before something is lost.

use std::io::{IsTerminal, Write, stderr, stdin};

use crate::{args::WriteArgs, exit::Exit};

/// Whether to go on: asked on a terminal, refused elsewhere unless `--yes` was given.
pub(super) fn confirm(write: WriteArgs, what: &str) -> Result<(), Exit> {
    if write.yes {
        return Ok(());
    }
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Exit::Usage(format!(
            "{what}: give --yes to do it without being asked, or --dry-run to see what would happen"
        )));
    }
    eprint!("{what}. Go on? [y/N] ");
    drop(stderr().flush());
    let mut answer = String::new();
    stdin().read_line(&mut answer).map_err(Exit::failed)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Exit::failed("nothing was done"))
    }
}
