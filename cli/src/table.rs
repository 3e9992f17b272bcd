//! Tables for people: no frames, columns two spaces apart, so that they can be cut and grepped.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Lays rows out under headings; columns named in `right` are aligned to the right.
pub(crate) fn render(headings: &[&str], rows: Vec<Vec<String>>, right: &[&str]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings.iter().map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for (index, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if right.contains(heading) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// How long ago something was, as people say it.
pub(crate) fn ago(now: i64, then: i64) -> String {
    let seconds = (now - then).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Unix time in milliseconds.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A size with its unit.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["search".to_owned(), "7".to_owned(), "up".to_owned()],
            vec!["a".to_owned(), "100".to_owned(), "draining".to_owned()],
        ];
        insta::assert_snapshot!(render(&["service", "weight", "state"], rows, &["weight"]));
    }

    #[test]
    fn times_and_sizes_are_short() {
        let texts = [5_000, 65_000, 7_260_000, 90_000_000].map(|ms| ago(ms, 0));
        assert_eq!(texts, ["5s", "1m5s", "2h1m", "1d1h"]);
        assert_eq!(ago(0, 5_000), "0s");
        assert_eq!(
            [12, 2048, 3_145_728].map(size),
            ["12 B", "2.0 KiB", "3.0 MiB"]
        );
    }
}
