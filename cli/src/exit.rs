//! How the program ends: 0 ok, 1 failed while running, 2 wrong usage, 78 wrong configuration.

use std::process::ExitCode;

use cardea_registry_api::Invalid;

/// Why the program ends without having done what was asked.
#[derive(Debug)]
pub(crate) enum Exit {
    /// The command line asks for something that cannot be (2).
    Usage(String),
    /// A setting is wrong (78).
    Config(String),
    /// It did not work (1).
    Failed(anyhow::Error),
    /// Everything is said already; end with this status.
    Status(u8),
}

/// What each command gives back.
pub(crate) type Outcome = Result<(), Exit>;

impl From<anyhow::Error> for Exit {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Exit {
    /// Wrong settings, one a line, each with where it stands.
    pub(crate) fn invalid(at: &str, invalid: &Invalid) -> Self {
        Self::Config(lines(at, invalid))
    }

    /// A failure in words.
    pub(crate) fn failed(text: impl std::fmt::Display) -> Self {
        Self::Failed(anyhow::anyhow!("{text}"))
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(text) | Self::Config(text) => f.write_str(text),
            Self::Failed(error) => write!(f, "{error:#}"),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

/// One line for each error, each after `at`.
pub(crate) fn lines(at: &str, invalid: &Invalid) -> String {
    let line = |error: &cardea_registry_api::FieldError| match (at, error.field.as_str()) {
        ("", "") => error.message.clone(),
        (at, "") => format!("{at}: {}", error.message),
        ("", field) => format!("{field}: {}", error.message),
        (at, field) => format!("{at}: {field}: {}", error.message),
    };
    let lines: Vec<String> = invalid.errors.iter().map(line).collect();
    lines.join("\n")
}

/// Says what went wrong on stderr, and gives the status.
pub(crate) fn code(outcome: Outcome) -> ExitCode {
    let Err(exit) = outcome else {
        return ExitCode::SUCCESS;
    };
    let code = match exit {
        Exit::Status(code) => return ExitCode::from(code),
        Exit::Usage(_) => 2,
        Exit::Config(_) => 78,
        Exit::Failed(_) => 1,
    };
    for line in exit.to_string().lines() {
        eprintln!("cardea: {line}");
    }
    ExitCode::from(code)
}
