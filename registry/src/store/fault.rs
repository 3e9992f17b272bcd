//! What the engines' errors mean to us: the one place that knows SQLSTATEs.

use sqlx::Error;

use crate::core::StoreError;

/// Maps an engine's error.
pub(super) fn map(error: &Error) -> StoreError {
    match error {
        Error::Database(fault) => {
            let code = fault.code().unwrap_or_default().into_owned();
            let text = format!("{} (SQLSTATE {code})", fault.message());
            match code.as_str() {
                // Connection failures, too many connections, shutting down or starting up, a
                // standby that only reads, no such database (yet).
                c if c.starts_with("08") || c.starts_with("57P") || c.starts_with("53") => {
                    StoreError::Away(text)
                }
                // The last six are SQLite's: busy, locked, I/O error, cannot open.
                "25006" | "3D000" | "5" | "6" | "10" | "14" | "261" | "517" => {
                    StoreError::Away(text)
                }
                _ => StoreError::Refused(text),
            }
        }
        Error::Decode(_) | Error::ColumnDecode { .. } | Error::ColumnNotFound(_) => {
            StoreError::Unreadable(error.to_string())
        }
        Error::RowNotFound => StoreError::Refused("its head row is missing".to_owned()),
        Error::Configuration(_) | Error::Migrate(_) => StoreError::Refused(error.to_string()),
        _ => StoreError::Away(error.to_string()),
    }
}
